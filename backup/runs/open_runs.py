"""Runs that other calls left open: which of them a run may resume, and what becomes of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from backup.core.errors import ColumnMissing, Locked, NotInitialized, StoreError
from backup.core.log import event
from backup.core.model import Now
from backup.core.run_values import Run, Status, Verb
from backup.recycle_bin.bin import RecycleBin
from backup.runs.clock import clock_of
from backup.runs.history import History
from backup.runs.opening import Opening
from backup.runs.outcome import NOBODY
from backup.runs.ownership import is_alive, refuse_alive
from backup.runs.scratch import drop_left
from backup.stores import Store

_INSERTS_ARE_UNKNOWN = (
    "The restore may have inserted more records than its counts say, and may have replaced or deleted one fewer: its "
    "process ended before it could say so. What it wrote stays; to repeat the restore is safe."
)


def is_left_sync(run: Run) -> bool:
    """Whether the open run is a sync that another call may resume. The lock says whether it is alive."""
    return run.checkpoint is not None and run.verb is Verb.SYNC


def is_left_verify(run: Run) -> bool:
    """Whether the open run is a verify that another call may resume. No lock says whether it is alive."""
    return run.checkpoint is not None and run.verb is Verb.VERIFY


def has_left_sync(
    backup: Store, history: History, service: str, now: Now, may_resume: Callable[[Run], bool] = is_left_sync
) -> bool:
    """Whether a sync that the caller `may_resume` was left open, and none is alive. If SyncHistory cannot be read it is
    False: no run has begun that could fail."""
    try:
        left_runs = list(filter(is_left_sync, history.open_runs(service)))
        moment = clock_of(backup, now)() if left_runs else None
        if moment is None or any(is_alive(run, moment) for run in left_runs):
            return False
        return any(map(may_resume, left_runs))
    except ColumnMissing:  # a table of an earlier release: the run adds the columns under the lock
        return True
    except (StoreError, NotInitialized) as error:
        event("sync.not_looked_for", level=logging.WARNING, service=service, error=error)
        return False


def take_over(
    history: History,
    open_runs: Sequence[Run],
    now: datetime,
    moment: datetime,
    may_resume: Callable[[Run], bool],
    tell_closed: Callable[[Run], None],
) -> Run | None:
    """Returns the newest open run that the caller `may_resume`, or None; closes the others, and tells of each. Raises
    Locked while an open run is alive.

    It leaves a verify alone that is alive, or that another call may resume: a verify needs no lock. `now` is the time
    of the run that begins, `moment` that of the clock that writes heartbeats.
    """
    runs = [run for run in open_runs if not is_left_verify(run) and not (run.only_compares and is_alive(run, moment))]
    for run in runs:
        refuse_alive(run, moment)
    resumed_run = next(filter(may_resume, runs), None)
    for run in runs:
        if run is resumed_run:
            continue
        closed = history.close_interrupted(_as_it_died(run, history), now)
        if closed is None:
            raise Locked(f"Another process has just taken over a run of {run.service}.")
        tell_closed(closed)
    return resumed_run


def _as_it_died(run: Run, history: History) -> Run:
    """The dead run, with the counts of what it changed: the bin knows, and the run's last checkpoint may not. The guard
    counts its deletes. What a restore inserted has no image, so its entry has a note."""
    if run.dry_run or run.only_compares:
        return run
    recycled = RecycleBin(history.backup, run.service, lambda: history.timeline(run.service, run.started_at))
    is_restore = run.verb is Verb.RESTORE
    changed = recycled.counted(run.sync_id, "source" if is_restore else "backup")
    inserted = run.counts.inserted if is_restore else changed.inserted
    counts = replace(run.counts, inserted=inserted, updated=changed.updated, deleted=changed.deleted)
    return replace(run, counts=counts, notes=(*run.notes, *([_INSERTS_ARE_UNKNOWN] if is_restore else [])))


def drop_scratches(
    backup: Store,
    history: History,
    service: str,
    opening: Opening,
    moment: datetime,
    tell_closed: Callable[[Run], None],
) -> Opening:
    """Drops the scratch places that dead drills of the opening left, and writes that into their entries. Tells of each
    that it closes. Returns the opening as it is after that."""
    if not _drop(backup, history, opening.with_scratch, moment, tell_closed):
        return opening
    return history.opening(service)


def drop_all_scratches(backup: Store, history: History, service: str, moment: datetime) -> None:
    """Drops the scratch places of all dead drills of the history, and writes that into their entries."""
    _drop(backup, history, history.with_scratch(service), moment, NOBODY.closed)


def _drop(
    backup: Store, history: History, runs: Iterable[Run], moment: datetime, tell_closed: Callable[[Run], None]
) -> int:
    """Drops these runs' scratch places. Returns how many entries it changed."""
    dropped = 0
    for run in runs:
        if run.scratch is None or is_alive(run, moment) or not drop_left(backup, run):
            continue
        dropped += 1
        if run.status is Status.IN_PROGRESS:
            closed = history.close_interrupted(replace(run, scratch=None), moment)
            if closed is not None:
                tell_closed(closed)
        else:
            history.save(replace(run, scratch=None))
    return dropped
