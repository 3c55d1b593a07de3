"""What a run works with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from backup.core.model import Run
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.comparison import Report
from backup.mirror.tally import Tally
from backup.mirror.writing import Steps
from backup.recycle_bin.bin import RecycleBin
from backup.runs.history import History, is_synced
from backup.runs.opening import Opening
from backup.runs.ownership import Ownership
from backup.runs.policy import Policy
from backup.stores import Store

Stores = Callable[[], AbstractContextManager[tuple[Store, Store]]]
"""Opens source and backup."""


@dataclass
class Session:
    """What a run works with. Work that learns more of its run replaces `run` through `become`.

    `opening` is what SyncHistory said before it began. `start` is where it begins, `resumed` whether it goes on as a
    run that another call left open. `unfinished` is set by work whose time was up; then the run stays open.
    """

    source: Store
    backup: Store
    history: History
    opening: Opening
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

    def last_synced(self) -> Run | None:
        """The newest sync that completed before this run began."""
        return self.opening.first(is_synced, lambda: self.history.last_synced(self.run.service))

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
