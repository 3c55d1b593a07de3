"""Stops the first sync of a service of a set where the backup holds records of others. Changes nothing."""

from __future__ import annotations

from backup.core.errors import GuardTripped
from backup.core.model import WHOLE
from backup.core.run_values import Run, Status
from backup.recycle_bin.bin import RecycleBin
from backup.runs.history import EVERY_RUN, History
from backup.runs.opening import Opening
from backup.stores import Store

_HINT = (
    "Is it the right database? If these records may be overwritten and deleted, run once with "
    '{"allowMassDelete": true} or --allow-mass-delete; a dry run with the same names them. The recycle bin keeps each. '
    "Else give the backup another database, or move this one out of the way."
)


def refuse_records_of_others(source: Store, backup: Store, service: str, opening: Opening) -> None:
    """Raises GuardTripped if the backup has records, no run of the service has ever written there, and no mark of this
    app is on them. What was written once is known by SyncHistory, or by the bin.

    Costs nothing where one of the newest runs has written, or completed.
    """
    if opening.has_unplaced or any(map(_has_written, opening.newest)):
        return
    if backup.catalog.is_marked(source) or (backup.relational is not None and backup.relational.has_none(WHOLE)):
        return
    recycled = RecycleBin(backup, service)
    runs = opening.newest if opening.is_whole else History(backup).runs(service, EVERY_RUN)
    # A run that died has counted up to its last checkpoint only.
    if any(_has_written(run) or recycled.has_any_of(run.sync_id) for run in runs if run.may_change_backup):
        return
    raise GuardTripped(
        f"The {backup.place.label} holds records, and no run of {service} has written there yet. Nothing was changed.",
        hint=_HINT,
    )


def _has_written(run: Run) -> bool:
    return run.may_change_backup and (run.status is Status.COMPLETED or run.counts.processed > 0)
