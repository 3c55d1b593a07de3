"""What a run works with, how long it may take, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from backup.core.errors import BackupError
from backup.core.model import Counts, Key, Run
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.comparison import Report
from backup.mirror.tally import Tally
from backup.mirror.writing import Steps
from backup.recycle_bin.bin import RecycleBin
from backup.runs.history import History
from backup.runs.ownership import Ownership
from backup.runs.policy import Policy
from backup.stores import Store

Progress = Callable[[str, Counts], None]
"""Told a service's name and its counts so far, after every batch."""

Stores = Callable[[], AbstractContextManager[tuple[Store, Store]]]
"""Opens source and backup."""


def no_progress(service: str, counts: Counts) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and the error if it failed: for the answer's status and hint.

    `changes` are the first thousand keys that a dry run would change, or a restore left alone, and how; `report` is
    what a verify found; `key_to_json` shows their keys. `recorded` is whether the run has an entry in SyncHistory.
    """

    run: Run
    error: BackupError | None = None
    changes: Sequence[tuple[Key, str]] = ()
    report: Report | None = None
    key_to_json: Callable[[Key], list[Any]] = list
    recorded: bool = False

    @property
    def in_progress(self) -> bool:
        """Whether the run has not ended: it goes on in the background, or another call goes on with it."""
        return self.run.completed_at is None


def tell_nobody(run: Run) -> None:
    """Ignores the run."""


@dataclass(frozen=True)
class Turn:
    """How long a call of a run may take, in seconds (None: as long as it takes), how long of them it waits for a lock
    that is held, and what hears of the run once it is in SyncHistory."""

    seconds: float | None = None
    started: Callable[[Run], None] = tell_nobody
    wait_seconds: float = 0


WHOLE_TURN = Turn()


@dataclass
class Session:
    """What a run works with. Work that learns more of its run replaces `run` through `become`.

    `start` is where it begins, `resumed` whether it goes on as a run that another call left open. `unfinished` is set
    by work whose time was up; then the run stays open.
    """

    source: Store
    backup: Store
    history: History
    recycled: RecycleBin
    run: Run
    tally: Tally
    steps: Steps
    policy: Policy
    start: Checkpoint
    resumed: bool
    ownership: Ownership | None = None
    charged_before: float = 0.0
    unfinished: bool = False
    report: Report = field(default_factory=Report)

    def become(self, **more: Any) -> None:
        """Records what the run has become, before it acts on it."""
        self.run = self.save(replace(self.run, **more, request_charge=self.charge()))

    def save(self, run: Run) -> Run:
        """Writes the run's entry as it stands, and returns it. Raises LockLost when the run is another's by now."""
        if self.ownership is not None:
            return self.ownership.save(run)
        self.history.save(run)
        return run

    def fence(self, place: Store) -> None:
        """Has what the run writes into the place from here on written only while the run is its own."""
        if self.ownership is not None:
            place.fence_by(self.ownership)

    def charge(self) -> float | None:
        """What the run has cost in request units, with what other calls of it did; None where nothing costs any."""
        costs = [store.request_charge for store in (self.source, self.backup)]
        known = [self.charged_before, *(cost for cost in costs if cost is not None)]
        return sum(known) if len(known) > 1 else None

    def note(self, *notes: str) -> None:
        """Adds lines to what the run wants known; they are recorded at its end."""
        self.run = replace(self.run, notes=(*self.run.notes, *notes))


Work = Callable[[Session], None]
"""What a run does; it counts in `tally`, and fails by raising."""
