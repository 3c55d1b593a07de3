"""What runs did to the backup's records over some time, counted by the recycle bin. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from backup.core.model import Counts, Run, Status
from backup.recycle_bin.bin import RecycleBin
from backup.runs.history import EVERY_RUN, History
from backup.runs.listing import listed
from backup.runs.policy import Policy


@dataclass(frozen=True)
class RunChanges:
    """How many records a run inserted, updated and deleted; with the id of the undo that took it back, if one did, and
    for such an undo `takes_back`: what the two did together is nothing."""

    run: Run
    counts: Counts
    undone_by: str | None = None
    takes_back: bool = False

    @property
    def stands(self) -> bool:
        """Whether what it did is still so, as far as undos tell."""
        return self.undone_by is None and not self.takes_back


def changes_since(
    history: History, recycled: RecycleBin, service: str, policy: Policy, since: datetime, now: datetime
) -> list[RunChanges]:
    """What each run did that began since then and changed the backup, newest first.

    Counted are the records of which the bin has an image, each once in a run; for runs that are older than it keeps
    images, what their entries say. An undo counts as a change, unless everything that it took back has begun since
    then, too: then neither counts, for nothing is left of them. Costs a few lookups in the bin for each run.
    """
    runs = [run for run in listed(history, service, EVERY_RUN, since=since) if run.may_change_backup]
    own = {run.sync_id for run in runs}
    undone: dict[str, str] = {}
    taking_back: set[str] = set()
    for run in runs:  # newest first: an undo that was itself undone takes nothing back
        if run.undone and run.status is Status.COMPLETED and run.sync_id not in undone and own >= {*run.undone}:
            undone |= dict.fromkeys(run.undone, run.sync_id)
            taking_back.add(run.sync_id)
    kept_since = policy.kept_since(now)
    made = [
        RunChanges(run, _counts(run, recycled, kept_since), undone.get(run.sync_id), run.sync_id in taking_back)
        for run in runs
    ]
    return [changes for changes in made if changes.counts.processed]


def counts_of(changes: Sequence[RunChanges]) -> Counts:
    """What these runs did, without those of which nothing is left."""
    counts = Counts()
    for one in changes:
        if one.stands:
            counts = counts.plus(inserted=one.counts.inserted, updated=one.counts.updated, deleted=one.counts.deleted)
    return counts


def _counts(run: Run, recycled: RecycleBin, kept_since: datetime) -> Counts:
    if run.started_at < kept_since or (run.status is Status.COMPLETED and run.counts.processed == 0):
        return replace(run.counts, skipped=0, failed=0)
    return recycled.counted(run.sync_id)
