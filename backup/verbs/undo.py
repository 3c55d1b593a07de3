"""Takes runs back: makes the backup what it was before them, from the recycle bin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from backup.core.errors import BadRequest, Conflict, UnknownRun
from backup.core.key_ranges import KeyRange
from backup.core.model import Action
from backup.core.run_values import Run, Status
from backup.core.suggestions import quantity
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import KeptImage
from backup.runs.emptied import found_empty
from backup.runs.session import Session
from backup.verbs.taking_back import TakingBack

_NAMED_AT_MOST = 10
_ASKED_AT_MOST = 50  # runs, a question each


def undo(session: Session, sync_id: str, *, through: bool) -> None:
    """Makes the backup what it was before that run. An undo may be undone itself. A dry run only counts and names.

    The undo deletes the records that the run inserted, and writes those that it updated or deleted as they were.
    `through` takes back all later runs as well, newest first. Cost: a read of the bin, a write and a read for every
    record that these runs changed; the server does all three by itself where it can.

    It reads again what it wrote, so the counts are of what is there.

    Raises UnknownRun. Raises Conflict, before anything is changed, when images were purged, when a run that stays has
    changed the same records later, or when somebody else emptied the backup between the runs. Raises RecordsSetAside
    when something was refused, and StoreError when something had another effect or none, after all else was taken back.
    If it fails half-way, undo the same runs again.
    """
    runs = _runs(session, sync_id, through)
    _refuse_emptied(session, runs)
    in_bin = 0
    for run in runs:
        refuse_other_keys(session, run)
        in_bin += refuse_purged(session, run)
    _refuse_conflicts(session, runs)
    ids = tuple(run.sync_id for run in runs)
    # The records lose the values of the columns that these runs filled, but keep their versions. So the next sync must
    # fill these columns.
    added = tuple(sorted({name for run in runs for name in run.added_columns}))
    session.become(undone=ids, added_columns=added, notes=(f"Undoes {', '.join(ids)}.",))
    taking_back = TakingBack(session)
    lost: Counter[str] = Counter()
    relational = session.backup.relational
    for run in runs:
        taking_back.older_run = None if run is runs[0] else run.sync_id
        for action, ranges, entries in _changes(session.recycled, taking_back, run.sync_id):
            of_backup = [kept for kept in entries if kept.side == "backup"]
            if relational is not None:
                images = (kept.record for kept in of_backup if kept.record)
                lost.update(name for image in images for name in relational.without_column(image))
            taking_back.delete_ranges(ranges)
            taking_back.take_back(action, of_backup)
            del entries, of_backup  # else memory holds them beside the next
    session.note(
        *(
            f"Column {name} is no longer in the backup: its values of {quantity(records, 'record')} could not be "
            "brought back."
            for name, records in lost.items()
        )
    )
    taking_back.finish()
    refuse_lost(sum(session.recycled.number_changed(run.sync_id) for run in runs), in_bin)


def _changes(
    recycled: RecycleBin, taking_back: TakingBack, sync_id: str
) -> Iterator[tuple[Action, Sequence[KeyRange], Sequence[KeptImage]]]:
    """What the run changed, some at a time, but for what the server has taken back by itself on the way; ranges are of
    keys that it inserted. All that it inserted comes first, for the server may see the new spelling of a key as equal
    to the old one."""
    for ranges, entries in recycled.inserted(sync_id):
        yield Action.INSERTED, ranges, entries
    for action in (Action.UPDATED, Action.DELETED):
        for entries in taking_back.not_by_server(sync_id, action):
            yield action, (), entries
            del entries


def _runs(session: Session, sync_id: str, through: bool) -> list[Run]:
    """The runs to undo, newest first."""
    first = find_run(session, sync_id)
    return [*session.history.later(first), first] if through else [first]


def _refuse_emptied(session: Session, runs: Sequence[Run]) -> None:
    """Raises Conflict if somebody else has emptied the backup between two of these runs."""
    if (emptied := found_empty(runs)) is not None:
        raise Conflict(
            f"The run {emptied.sync_id} found no record in the {session.backup.place.label}, where the sync before it "
            "had left some: somebody else has emptied it since then, or made it anew. What was there before is not "
            "known, so nothing was changed.",
            hint="Undo the runs from that one on. What single runs changed can still be seen, and restored with --run.",
        )


def find_run(session: Session, sync_id: str) -> Run:
    """The run with this id, which may have changed the backup.

    Raises UnknownRun; Conflict for a run whose entry does not say its place; BadRequest for a run that changed nothing.
    """
    service = session.run.service
    first = session.history.get(service, sync_id)
    if first is None and session.history.unplaced(service, SyncId=sync_id):
        raise Conflict(
            f"The run {sync_id} was made by an earlier release. Its entry does not say which table or container it is "
            "about, and the backup's database has copies of several. Nothing was changed.",
            hint="If you know its table or container, write that into Place of the run's entry in SyncHistory, and a "
            "RunNumber below those of later runs.",
        )
    if first is None or first.sync_id == session.run.sync_id:
        raise UnknownRun(f"The service {service} has no run {sync_id}. Nothing was changed.")
    if not first.may_change_backup:
        raise BadRequest(
            f"The run {sync_id} did not change the backup: it is a dry run, a restore or a verify. Nothing was undone.",
            hint="The recycle bin has what a restore overwrote in the source, with the side `source`.",
        )
    return first


def refuse_other_keys(session: Session, undone: Run) -> None:
    """Raises Conflict when the key's columns have other types now than when the run changed its records."""
    if not session.recycled.knows_keys_of(undone.sync_id):
        raise Conflict(
            f"The key of the {session.backup.place.label} has another type than when the run {undone.sync_id} changed "
            "its records. Nothing was changed.",
            hint="The recycle bin still has what that run replaced, under the old keys. To undo the run, give the key "
            "its old type again.",
        )


def refuse_purged(session: Session, undone: Run) -> int:
    """Returns how many images the bin has of what the run changed. Raises Conflict when it lacks some."""
    kept = session.recycled.number_changed(undone.sync_id)
    changed = undone.counts.processed
    old = undone.started_at < session.policy.kept_since(session.run.started_at)
    # A record that changed twice in a run has one image. An interrupted run did not record what it changed.
    if kept == 0 < changed or (old and (kept < changed or undone.status is Status.FAILED)):
        raise Conflict(
            f"The recycle bin has images of {kept} of the {quantity(changed, 'record')} that the run {undone.sync_id} "
            "changed; images older than RecycleDays are purged. Nothing was changed.",
            hint="The platform's own backups may reach further back.",
        )
    return kept


def refuse_lost(images: int, before: int) -> None:
    """Raises Conflict when the bin has fewer images than before the first of them was read. A purge by an instance with
    another kind of lock may have deleted some before they were read."""
    if images < before:
        raise Conflict(
            f"{quantity(before - images, 'image was', 'images were')} deleted from the recycle bin meanwhile, so "
            "records may be missing or as they were. What was written stays.",
            hint="Run it again: it says what the bin still knows. The platform's own backups may reach further back.",
        )


def _refuse_conflicts(session: Session, runs: Sequence[Run]) -> None:
    """Raises Conflict when a run that stays has changed the same records later."""
    undone = {run.sync_id for run in runs}
    # An earlier undo of the same runs, which may have failed half-way, is not a conflict: it wrote what this one does.
    undos = {run.sync_id for run in session.history.later(runs[-1]) if undone & {*run.undone}}
    later_runs = {later for run in runs for later in session.recycled.later_runs(run.sync_id)}
    others = later_runs - undone - undos - {session.run.sync_id}
    # A few questions instead of one for every hundred records: most undos are of the last run.
    if len(others) <= _ASKED_AT_MOST and not any(map(session.recycled.has_any_of, others)):
        return
    later = sorted({kept.sync_id for run in runs for kept in _later(session.recycled, run)} - undone - undos)
    if later:
        named = ", ".join(later[:_NAMED_AT_MOST]) + (" …" if len(later) > _NAMED_AT_MOST else "")
        raise Conflict(
            f"{quantity(len(later), 'later run')} changed the same records: {named}. Nothing was changed.",
            hint='Undo those as well, newest first: --through on the command line, {"through": true} over HTTP.',
        )


def _later(recycled: RecycleBin, run: Run) -> Iterator[KeptImage]:
    """What later runs kept of the records that the run changed."""
    for entries in recycled.of_run(run.sync_id, records=False):
        keys = [kept.key for kept in entries if kept.side == "backup"]
        yield from (kept for kept in recycled.of_keys(keys, records=False) if kept.number > (run.number or 0))
