"""What the runs of some time did to the backup's records, as the recycle bin counts it. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from backup.core.run_values import Counts, Run, Status
from backup.recycle_bin.bin import RecycleBin
from backup.runs.history import EVERY_RUN, History
from backup.runs.listing import listed
from backup.runs.policy import Policy


@dataclass(frozen=True)
class RunChanges:
    """How many records a run inserted, updated and deleted.

    `undone_by` is the id of the undo that took the run back, if one did; for such an undo `takes_back` is True. A run
    and its undo together changed nothing.
    """

    run: Run
    counts: Counts
    undone_by: str | None = None
    takes_back: bool = False

    @property
    def stands(self) -> bool:
        """Whether no undo has taken the run's changes back; False also for an undo that only takes back."""
        return self.undone_by is None and not self.takes_back


def changes_since(
    history: History, recycled: RecycleBin, service: str, policy: Policy, since: datetime, now: datetime
) -> list[RunChanges]:
    """The changes of each run that began since then and changed the backup, newest first.

    Counts the records that have an image in the bin, each once a run. For runs that are older than the bin's images it
    takes the counts of their entries. An undo counts as a change, unless all runs that it took back began since then,
    too. Then neither the undo nor these runs stand. Costs a few lookups in the bin for each run.
    """
    runs = [run for run in listed(history, service, EVERY_RUN, since=since) if run.may_change_backup]
    ids = {run.sync_id for run in runs}
    undone: dict[str, str] = {}
    taking_back: set[str] = set()
    for run in runs:  # newest first: an undo that was undone itself takes nothing back
        if run.undone and run.status is Status.COMPLETED and run.sync_id not in undone and ids >= {*run.undone}:
            undone |= dict.fromkeys(run.undone, run.sync_id)
            taking_back.add(run.sync_id)
    kept_since = policy.kept_since(now)
    all_changes = [
        RunChanges(run, _counts(run, recycled, kept_since), undone.get(run.sync_id), run.sync_id in taking_back)
        for run in runs
    ]
    return [changes for changes in all_changes if changes.counts.processed]


def counts_of(changes: Sequence[RunChanges]) -> Counts:
    """What these runs did in all, without those that no longer stand."""
    total = Counts()
    for counts in (of_run.counts for of_run in changes if of_run.stands):
        total = total.plus(inserted=counts.inserted, updated=counts.updated, deleted=counts.deleted)
    return total


def by_service(changes: Sequence[RunChanges]) -> dict[str, list[RunChanges]]:
    """The changes of each service, by its name, in the order of the names."""
    groups: dict[str, list[RunChanges]] = {}
    for change in sorted(changes, key=lambda change: change.run.service):
        groups.setdefault(change.run.service, []).append(change)
    return groups


def _counts(run: Run, recycled: RecycleBin, kept_since: datetime) -> Counts:
    if run.started_at < kept_since or (run.status is Status.COMPLETED and run.counts.processed == 0):
        return replace(run.counts, skipped=0, failed=0)
    return recycled.counted(run.sync_id)
