"""Runs that found nothing changed: what SyncHistory must say before, and their entries, of many tables together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from backup.core.errors import Locked
from backup.core.model import CheckLock, Now
from backup.core.run_values import Counts, Run, Status, Verb
from backup.mirror.looked import Looked
from backup.runs.clock import ServerTime, elapsed
from backup.runs.history import is_synced
from backup.runs.history_entries import HISTORY, VERSION, entry_of, run_of
from backup.runs.opening import Opening
from backup.runs.outcome import Outcome, Unchanged, tell_end
from backup.runs.session import RunRequest
from backup.stores import Groups, Store

if TYPE_CHECKING:
    from backup.stores.sql.many_tables import ManyTables

_RUNS = Groups(
    "ServiceName",
    "Place",
    "RunNumber",
    ("Trigger", Verb.VERIFY.value),  # so say a verify and a drill: they change nothing
    ("RunNumber", "SyncedAt", "SchemaVersion", "Scratch"),
    ("Status", Status.IN_PROGRESS.value),
)


def openings(backup: ManyTables, places: Mapping[str, str]) -> dict[str, Opening]:
    """What SyncHistory says of those services that a look may settle, by name. `places` has the place of each.

    Such a service has no open run, no run of an earlier release, and no scratch place. Its newest run, apart from
    verifies, is a sync that has proven everything, without masks, and in which no column was missing. That run alone is
    in its opening. Costs one statement. Raises ColumnMissing for a table of an earlier release, and what a store
    raises.
    """
    opening_of: dict[str, Opening] = {}
    unusable = set()
    for group in backup.newest(HISTORY, _RUNS, list(places)):
        if group.by not in places or group.then_by not in (None, places[group.by]):
            continue  # of another place
        number, at, version = (group.highest[name] for name in ("RunNumber", "SyncedAt", "SchemaVersion"))
        run = None if group.entry is None else run_of(group.entry)
        is_known = isinstance(number, int) and isinstance(at, datetime) and version == VERSION
        is_alone = group.then_by is not None and group.by not in opening_of and not group.counted
        if not (is_known and is_alone and group.highest["Scratch"] is None and run is not None and may_build_on(run)):
            unusable.add(group.by)
            continue
        server_time = None if group.at is None else ServerTime(group.at, elapsed())
        opening_of[group.by] = Opening([run], False, (), number + 1, False, version, [at], server_time)
    return {name: opening for name, opening in opening_of.items() if name not in unusable}


def may_build_on(run: Run) -> bool:
    """Whether this newest run of a service has proven everything, and left nothing for the next one to do."""
    return bool(is_synced(run) and run.verified and not (run.removed_columns or run.counts.failed or run.masks))


def add(backup: ManyTables, runs: Iterable[Run]) -> set[str]:
    """Writes the entries of these ended runs together; returns the ids of those that are there now. It leaves out a run
    if another one of its service has begun since its opening was read. Raises what a store raises."""
    return backup.add_next(HISTORY, _RUNS, [entry_of(run) for run in runs])


def settled_at_once(
    request: RunRequest,
    stores: tuple[Store, Store],
    opening: Opening,
    started_at: datetime,
    now: Now,
    check_lock: CheckLock,
    seconds_left: float,
) -> Outcome | Looked | None:
    """The outcome of a run that has nothing to do, with its entry: it has no other one before. Else what a look at all
    records has shown; None if nobody has looked, and only the run can tell.

    A run that changes no record needs no fence, no heartbeat and no open entry. Raises Locked, without an entry, if
    another run began meanwhile; and what a store raises.
    """
    source, backup = stores
    is_quiet = opening.newest and not (opening.open_runs or opening.has_unplaced)
    if request.find_unchanged is None or backup.relational is None or not is_quiet:
        return None
    unchanged = None if opening.ahead(started_at) else request.find_unchanged(source, backup, opening, seconds_left)
    check_lock()
    if not isinstance(unchanged, Unchanged):
        return unchanged
    run = replace(
        request.run,
        started_at=started_at,
        status=Status.COMPLETED,
        completed_at=now(),
        counts=Counts(skipped=unchanged.proof.source.records),
        place=backup.catalog.qualified_name(),
        number=opening.next_number,
        proof=unchanged.proof,
        notes=unchanged.notes,
        watermark=unchanged.watermark,
    )
    request.observer.progress(run.service, run.counts)
    if not backup.relational.add_next(HISTORY, _RUNS, entry_of(run)):  # only with another kind of lock
        raise Locked(f"Another run of {run.service} began at the same moment. This run changed no record.")
    outcome = Outcome(run, recorded=True)
    tell_end(outcome)
    return outcome
