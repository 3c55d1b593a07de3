"""Runs that found nothing changed in tables of a set: what SyncHistory must say before, and their entries, together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from backup.core.run_values import Run, Status, Verb
from backup.runs.clock import ServerTime, elapsed
from backup.runs.history import is_synced
from backup.runs.history_entries import HISTORY, VERSION, entry_of, run_of
from backup.runs.opening import Opening
from backup.stores import Groups

if TYPE_CHECKING:
    from backup.stores import ManyTables

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
    found: dict[str, Opening] = {}
    unusable = set()
    for group in backup.newest(HISTORY, _RUNS, list(places)):
        if group.by not in places or group.apart not in (None, places[group.by]):
            continue  # of another place
        number, at, version = (group.highest[name] for name in ("RunNumber", "SyncedAt", "SchemaVersion"))
        run = None if group.entry is None else run_of(group.entry)
        is_known = isinstance(number, int) and isinstance(at, datetime) and version == VERSION
        is_alone = group.apart is not None and group.by not in found and not group.counted
        if not (is_known and is_alone and group.highest["Scratch"] is None and run is not None and _may_build_on(run)):
            unusable.add(group.by)
            continue
        server_time = None if group.at is None else ServerTime(group.at, elapsed())
        found[group.by] = Opening([run], False, (), number + 1, False, version, [at], server_time)
    return {name: opening for name, opening in found.items() if name not in unusable}


def _may_build_on(run: Run) -> bool:
    return bool(is_synced(run) and run.verified and not (run.removed_columns or run.counts.failed or run.masks))


def add(backup: ManyTables, runs: Iterable[Run]) -> set[str]:
    """Writes the entries of these ended runs together; returns the ids of those that are there now. It leaves out a run
    if another one of its service has begun since its opening was read. Raises what a store raises."""
    return backup.add_next(HISTORY, _RUNS, [entry_of(run) for run in runs])
