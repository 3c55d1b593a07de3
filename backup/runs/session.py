"""What a run is asked to do, and what it works with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from backup.core.run_values import KEEPS_DELETED, Run, Verb
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.looked import Looked
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.mirror.verification import Report
from backup.recycle_bin.bin import RecycleBin
from backup.runs.history import History, is_synced
from backup.runs.open_runs import is_left_sync
from backup.runs.opening import Opening
from backup.runs.outcome import NOBODY, WHOLE_TURN, Observer, Turn, Unchanged
from backup.runs.ownership import Ownership
from backup.runs.policy import Policy
from backup.stores import Store

Stores = Callable[[], AbstractContextManager[tuple[Store, Store]]]
"""Opens source and backup."""


@dataclass
class Session:
    """What a run works with. Work that learns something about its run changes `run` through `become`.

    `opening` is what SyncHistory said before the run began. `start` is where the run begins; `resumed` says whether it
    resumes a run that another call left open. Work whose time was up sets `unfinished`; then the run stays open.
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
    observer: Observer = NOBODY
    charged_before: float = 0.0
    unfinished: bool = False
    report: Report = field(default_factory=Report)
    _lost_before: int = field(init=False)

    def __post_init__(self) -> None:
        self._lost_before = losses_of(self.backup)

    def has_lost_backup(self) -> bool:
        """Whether connections to the backup were lost since somebody asked that last. Another server may answer since
        then, which lacks the last commits: docs/decisions/places.md."""
        before, self._lost_before = self._lost_before, losses_of(self.backup)
        return before != self._lost_before

    def become(self, **fields: Any) -> None:
        """Changes these fields of the run, and writes its entry. The work calls it before it acts on them."""
        self.run = self.save(replace(self.run, **fields, request_charge=self.charge()))
        if "percent" in fields:
            self.observer.walked(self.run)

    def save(self, run: Run) -> Run:
        """Writes the run's entry as it stands, and returns the run. Raises LockLost when another process has taken the
        run over."""
        if self.ownership is not None:
            return self.ownership.save(run)
        self.history.save(run)
        return run

    def fence(self, store: Store) -> None:
        """From now on the store commits what the run writes only while its owner still owns the run."""
        if self.ownership is not None:
            store.fence_by(self.ownership)

    def last_synced(self) -> Run | None:
        """The newest sync that completed before this run began."""
        return self.opening.first(is_synced, lambda: self.history.last_synced(self.run.service))

    @property
    def kept_deleted(self) -> bool:
        """Whether the copies of deleted records stayed in the backup up to the last sync, and do so no more."""
        if self.backup.kept_deletes is not None or (last := self.last_synced()) is None:
            return False
        return (last.selection or "").endswith(KEEPS_DELETED)

    def charge(self) -> float | None:
        """What the run has cost in request units, with its earlier calls; None where nothing costs request units."""
        charges = [store.request_charge for store in (self.source, self.backup) if store.request_charge is not None]
        return self.charged_before + sum(charges) if charges else None

    def note(self, *notes: str) -> None:
        """Adds notes to the run, a line each. The next write of its entry records them."""
        self.run = replace(self.run, notes=(*self.run.notes, *notes))


def losses_of(store: Store) -> int:
    """Returns how many connections to the store's server this process has lost so far; 0 where nobody counts them."""
    return 0 if store.relational is None else store.relational.lost_connections


Work = Callable[[Session], None]
"""What a run does. It counts in `tally`, and raises when it fails."""


@dataclass(frozen=True)
class RunRequest:
    """A run that is asked for: its work, and the stores that it works with.

    - `tell_apart`: called before the run has an entry. Raises ConfigError when both sides are one place, by what their
      servers say, or for what else makes the run impossible. None for a run that writes to neither side.
    - `only_resumes`: it resumes the unfinished sync of an earlier call from its checkpoint. If there is none, it does
      nothing, and disturbs nobody.
    - `resumes_run`: the id of the only run that it may resume.
    - `in_parts`: a verify that stays open when its time is up, and that the next call resumes. It takes no lock, so
      syncs need not wait for it.
    - `find_unchanged`: says, before the run has an entry and in so many seconds, what it proves if there is nothing to
      do, or what a look at all records has shown. None where only the run can tell.
    """

    run: Run
    stores: Stores
    work: Work
    turn: Turn = WHOLE_TURN
    observer: Observer = NOBODY
    tell_apart: Callable[[Store, Store], None] | None = None
    only_resumes: bool = False
    in_parts: bool = False
    resumes_run: str | None = None
    find_unchanged: Callable[[Store, Store, Opening, float], Unchanged | Looked | None] | None = None

    def may_resume(self, run: Run) -> bool:
        """Whether a call that only resumes may resume this open run."""
        return is_left_sync(run) and self.resumes_run in (None, run.sync_id)

    @property
    def needs_lock(self) -> bool:
        """Whether the run takes the service's lock: every run that may change records does."""
        return not self.run.only_compares

    @property
    def has_entry_while_it_lasts(self) -> bool:
        """Whether SyncHistory has the run's entry from its start. A verify in one part has it only at its end."""
        return self.needs_lock or self.in_parts or self.run.verb is Verb.DRILL
