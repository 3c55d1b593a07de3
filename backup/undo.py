"""Takes runs back: makes the backup what it was before them, from the recycle bin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backup.entries import Kept
from backup.errors import BadRequest, Conflict, UnknownRun
from backup.models import Action, Run, Status
from backup.recorded import Session
from backup.recycle import RecycleBin

_NAMED_AT_MOST = 10
_OPPOSITES = {
    Action.INSERTED: (Action.DELETED, "deleted"),
    Action.UPDATED: (Action.UPDATED, "updated"),
    Action.DELETED: (Action.INSERTED, "inserted"),
}
"""What an undo does to what a run did, and how it is counted; in the order in which it does it."""


def undo(session: Session, sync_id: str, *, through: bool) -> None:
    """Makes the backup what it was before that run, as a run that may be undone itself. A dry run only counts and
    names.

    A record that the run inserted is deleted; one it updated or deleted is written as it was. `through` takes back all
    runs since as well, newest first. Cost: a read of the bin and a write for every record those runs changed. Raises
    UnknownRun; Conflict, before anything is changed, when images were purged or a run that is not taken back changed
    the same records later. If it fails half-way, undo the same runs again.
    """
    runs = _runs(session, sync_id, through)
    for one in runs:
        _refuse_purged(session, one)
    _refuse_conflicts(session, runs)
    ids = tuple(one.sync_id for one in runs)
    # The records lose what these runs filled new columns with, under versions that stay: the next sync must fill them.
    added = tuple(sorted({name for one in runs for name in one.added_columns}))
    session.become(undone=ids, added_columns=added, notes=(f"Undoes {', '.join(ids)}.",))
    for one in runs:
        # What it inserted goes first, all of it, so that a key spelled anew does not meet its old self.
        for action in _OPPOSITES:
            for entries in session.recycled.of_run(one.sync_id, action):
                _take_back(session, action, [kept for kept in entries if kept.side == "backup"])


def _runs(session: Session, sync_id: str, through: bool) -> list[Run]:
    """What is to be undone, newest first."""
    service = session.run.service
    first = session.history.get(service, sync_id)
    if first is None and session.history.unplaced(service, SyncId=sync_id):
        raise Conflict(
            f"The run {sync_id} was made by an earlier release and does not say which table or container it is about, "
            "and there are copies of several. Nothing was changed.",
            hint="Where you know it, write it into Place of the run's entry in SyncHistory, and a RunNumber below those"
            " of later runs.",
        )
    if first is None or first.sync_id == session.run.sync_id:
        raise UnknownRun(f"The service {service} has no run {sync_id}.")
    if not first.may_change_backup:
        raise BadRequest(
            f"The run {sync_id} changed nothing in the backup: it is a dry run, a restore or a verify.",
            hint="What a restore overwrote in the source is in the recycle bin, with the side `source`.",
        )
    if not through:
        return [first]
    return [*session.history.later(first), first]


def _refuse_purged(session: Session, undone: Run) -> None:
    kept, changed = sum(map(len, session.recycled.of_run(undone.sync_id))), undone.counts.processed
    old = undone.started_at < session.policy.kept_since(session.run.started_at)
    # A record that changed twice in a run has one image. An interrupted run has not told what it changed.
    if kept == 0 < changed or (old and (kept < changed or undone.status is Status.FAILED)):
        raise Conflict(
            f"The recycle bin has images of {kept} of the {changed} records that the run {undone.sync_id} changed; "
            "older ones than RecycleDays are purged. Nothing was changed.",
            hint="The platform's own backups may reach further back.",
        )


def _refuse_conflicts(session: Session, runs: Sequence[Run]) -> None:
    own = {one.sync_id for one in runs}
    # An undo of the same runs, perhaps one that failed half-way, left what this one would leave.
    same = {run.sync_id for run in session.history.later(runs[-1]) if own & {*run.undone}}
    later = sorted({kept.sync_id for one in runs for kept in _later(session.recycled, one)} - own - same)
    if later:
        named = ", ".join(later[:_NAMED_AT_MOST]) + (" …" if len(later) > _NAMED_AT_MOST else "")
        raise Conflict(
            f"{len(later)} later runs changed the same records: {named}. Nothing was changed.",
            hint='Take those back as well, newest first: --through on the command line, {"through": true} over HTTP.',
        )


def _later(recycled: RecycleBin, run: Run) -> Iterator[Kept]:
    for entries in recycled.of_run(run.sync_id):
        own = [kept.key for kept in entries if kept.side == "backup"]
        yield from (other for other in recycled.of_keys(own) if other.number > (run.number or 0))


def _take_back(session: Session, action: Action, entries: Sequence[Kept]) -> None:
    backup, tally, steps = session.backup, session.tally, session.steps
    keys = [kept.key for kept in entries]
    if action is Action.INSERTED:
        there = backup.matching(keys)
        keys = [key for key in keys if key in there]  # another of the undone runs may have deleted it again
    opposite, counted = _OPPOSITES[action]
    if session.run.dry_run:
        tally.name(keys, opposite)
    elif action is Action.INSERTED:
        steps.held()
        backup.delete(keys, steps.keep)
    else:
        steps.held()
        backup.write([backup.as_it_was(kept.record) for kept in entries if kept.record is not None], steps.keep)
    tally.add(**{counted: len(keys)})
