"""What a run has done so far: its counts, its proof, and the records that it set aside."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from backup.core.batched import first_of_each
from backup.core.errors import BackupError, RecordsSetAside
from backup.core.log import event, redact
from backup.core.model import Key
from backup.core.run_values import Counts, Proof
from backup.core.suggestions import quantity
from backup.mirror.set_aside import Refusal

CHANGES_NAMED = 1_000
"""How many keys of each outcome a run names. The deletes of a dry run come last: updates must not crowd them out."""
FAILURES_NAMED = 100


@dataclass
class Tally:
    """What a run has done so far. It stays right when the run fails half-way. Several threads may add at once.

    - `tell`: called with the counts after every step.
    - `max_failed`: the run stops once it has set aside more records than this.
    - `proof`: what is proven so far; None for a run that proves nothing.
    - `changes`: of each outcome the first thousand keys that `name` was called with.
    - `failures`: the first hundred records set aside: the key as JSON, and the reason. Those of earlier calls of the
      same run are in it from the start, and are not counted again.
    - `aside`: the keys of the records that this call has set aside.
    - `notes`: sentences for the run's entry.
    - `withheld`: deletes that the run did not make, because a key that cannot be read may belong to such a record.
    """

    tell: Callable[[Counts], None]
    max_failed: int = 100
    key_to_json: Callable[[Key], list[Any]] = list
    counts: Counts = field(default_factory=Counts)
    proof: Proof | None = None
    changes: list[tuple[Key, str]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    aside: set[Key] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    withheld: int = 0
    _named: Counter[str] = field(default_factory=Counter)
    _named_before: set[Key] = field(default_factory=set)  # by an earlier walk of the same run
    _lock: Lock = field(default_factory=Lock)

    def add(self, **counts: int) -> None:
        """Adds to the counts of these names, and tells the result."""
        with self._lock:
            self.counts = self.counts.plus(**counts)
            self.tell(self.counts)

    def name(self, keys: Collection[Key], outcome: str) -> None:
        """Names keys for the result, up to the first thousand of the outcome, which says what becomes of their
        records. Of these keys the least come first. What an earlier walk has named keeps its outcome."""
        with self._lock:
            if room := CHANGES_NAMED - self._named[outcome]:
                if self._named_before:
                    keys = [key for key in keys if tuple(self.key_to_json(key)) not in self._named_before]
                named = sorted(keys, key=_for_reader)[:room]
                self._named[outcome] += len(named)
                self.changes += [(tuple(self.key_to_json(key)), outcome) for key in named]

    def walk_again(self) -> None:
        """Forgets what was set aside and withheld: the run tries it once more."""
        with self._lock:
            self._named_before = {key for key, _ in self.changes}
            self.counts = replace(self.counts, failed=0)
            self.failures, self.aside, self.withheld = {}, set(), 0

    def note(self, text: str, once: str) -> None:
        """Adds a sentence for the run's entry, unless there is one that begins with `once`."""
        with self._lock:
            if not any(noted.startswith(once) for noted in self.notes):
                self.notes.append(f"{once} {text}")

    def set_aside(self, refusal: Refusal) -> None:
        """Counts and names records that could not be read or written. Raises RecordsSetAside once they are too many."""
        reason = redact(str(refusal.error))
        with self._lock:
            for key in refusal.keys:
                text = json.dumps(self.key_to_json(key), ensure_ascii=False)
                is_counted = key in self.aside or text in self.failures
                self.aside.add(key)
                if is_counted:
                    continue
                if len(self.failures) < FAILURES_NAMED:
                    self.failures[text] = reason
                    event("record.set_aside", level=logging.WARNING, key=text, reason=reason)
                self.counts = self.counts.plus(failed=1)
            self.tell(self.counts)
        if self.counts.failed > self.max_failed:
            raise RecordsSetAside(
                f"More than {quantity(self.max_failed, 'record')} could not be read or written, so the run stopped. "
                f"{self._first()} What was written before stays."
            )

    def failure(self) -> BackupError | None:
        """Returns the error of a run that set records aside and did everything else. None if it set nothing aside."""
        failed = self.counts.failed
        if not failed:
            return None
        rest = "everything else was done"
        if self.withheld:
            rest += (
                f", except {quantity(self.withheld, 'delete')}. The source has keys that cannot be read; they may be "
                "the keys of what seems to be gone from it"
            )
        return RecordsSetAside(f"{quantity(failed, 'record')} could not be read or written; {rest}. {self._first()}")

    def _first(self) -> str:
        key, reason = next(iter(self.failures.items()), ("unknown", "unknown"))
        return f"The first is {key}: {reason}"


def _for_reader(key: Key) -> list[tuple[int, int, str]]:
    """What sorts keys as a reader expects it: whole numbers by their value, before all else by its text."""
    return [(0, part, "") if isinstance(part, int) else (1, 0, str(part)) for part in key]


def first_of_each_outcome(changes: Iterable[tuple[Key, str]]) -> list[tuple[Key, str]]:
    """Returns of each outcome the first thousand changes, in their order."""
    return first_of_each(changes, lambda change: change[1], CHANGES_NAMED)
