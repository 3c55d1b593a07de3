"""What a run has done so far: its counts, its proof, and the records that it set aside."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from backup.core.errors import BackupError, RecordsSetAside
from backup.core.log import event, redact
from backup.core.model import Counts, Key, Proof
from backup.mirror.set_aside import Refusal

CHANGES_NAMED = 1_000
FAILURES_NAMED = 100


@dataclass
class Tally:
    """What a run has done so far; stays right when it fails half-way. `tell` is called after every step.

    `proof` is what was seen to be equal so far, of a run that proves its result. `changes` are the first keys that a
    dry run would change. `failures` are the first hundred records set aside, by their keys as JSON, with the
    reason; those of the run's earlier calls are in it from the start, and are not counted again. More than
    `max_failed` stop the run. Several threads may add at once.
    """

    tell: Callable[[Counts], None]
    max_failed: int = 100
    key_to_json: Callable[[Key], list[Any]] = list
    counts: Counts = field(default_factory=Counts)
    proof: Proof | None = None
    changes: list[tuple[Key, str]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    aside: set[Key] = field(default_factory=set)  # the keys of those that this call set aside
    withheld: int = 0  # deletes that were not made, for a key that cannot be read may be one of theirs
    _lock: Lock = field(default_factory=Lock)

    def add(self, **more: int) -> None:
        with self._lock:
            self.counts = self.counts.plus(**more)
            self.tell(self.counts)

    def name(self, keys: Collection[Key], what: str) -> None:
        """Names keys as what would become of them, up to the first thousand in all."""
        with self._lock:
            self.changes += [
                (tuple(self.key_to_json(key)), what)
                for key in sorted(keys, key=str)[: CHANGES_NAMED - len(self.changes)]
            ]

    def set_aside(self, refused: Refusal) -> None:
        """Counts and names records that could not be read or written. Raises RecordsSetAside once they are too many."""
        reason = redact(str(refused.error))
        with self._lock:
            for key in refused.keys:
                text = json.dumps(self.key_to_json(key), ensure_ascii=False)
                known = key in self.aside or text in self.failures
                self.aside.add(key)
                if known:
                    continue
                if len(self.failures) < FAILURES_NAMED:
                    self.failures[text] = reason
                    event("record.set_aside", level=logging.WARNING, key=text, reason=reason)
                self.counts = self.counts.plus(failed=1)
            self.tell(self.counts)
        if self.counts.failed > self.max_failed:
            raise RecordsSetAside(
                f"More than {self.max_failed} records could not be read or written, so the run stopped. "
                f"{self._first()} What was written before stays."
            )

    def failure(self) -> BackupError | None:
        """The error of a run that set records aside and did all else."""
        failed = self.counts.failed
        if not failed:
            return None
        subject = "1 record" if failed == 1 else f"{failed} records"
        rest = "everything else was done"
        if self.withheld:
            rest += (
                f", but for the deletes of {self.withheld} records that only the backup has: they may be those whose "
                "keys cannot be read"
            )
        return RecordsSetAside(f"{subject} could not be read or written; {rest}. {self._first()}")

    def _first(self) -> str:
        key, reason = next(iter(self.failures.items()), ("unknown", "unknown"))
        return f"The first is {key}: {reason}"
