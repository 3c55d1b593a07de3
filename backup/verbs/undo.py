"""Takes runs back: makes the backup what it was before them, from the recycle bin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from backup.core.errors import BackupError, BadRequest, Conflict, UnknownRun
from backup.core.model import Action, Key, Record, Run, Status
from backup.mirror.set_aside import Refusal, apart
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import Kept
from backup.runs.runner import Session
from backup.stores import Written

_NAMED_AT_MOST = 10
_WAITING_AT_MOST = 1_000  # records, which are held in memory
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
    the same records later; RecordsSetAside when something was refused, after all else was taken back. If it fails
    half-way, undo the same runs again.
    """
    runs = _runs(session, sync_id, through)
    for one in runs:
        refuse_other_keys(session, one)
        refuse_purged(session, one)
    _refuse_conflicts(session, runs)
    ids = tuple(one.sync_id for one in runs)
    # The records lose what these runs filled new columns with, under versions that stay: the next sync must fill them.
    added = tuple(sorted({name for one in runs for name in one.added_columns}))
    session.become(undone=ids, added_columns=added, notes=(f"Undoes {', '.join(ids)}.",))
    taking_back = _TakingBack(session)
    lost: Counter[str] = Counter()
    relational = session.backup.relational
    for one in runs:
        # What it inserted goes first, all of it, so that a key spelled anew does not meet its old self.
        for action in _OPPOSITES:
            for entries in session.recycled.of_run(one.sync_id, action):
                mine = [kept for kept in entries if kept.side == "backup"]
                if relational is not None:
                    lost.update(name for kept in mine if kept.record for name in relational.left_out(kept.record))
                taking_back.take_back(action, mine)
                del entries, mine  # or they would be held beside the next
    session.note(
        *(
            f"Column {name} is no longer in the backup: its values of {records} records could not be brought back."
            for name, records in lost.items()
        )
    )
    taking_back.finish()


def _runs(session: Session, sync_id: str, through: bool) -> list[Run]:
    """What is to be undone, newest first."""
    first = find_run(session, sync_id)
    return [*session.history.later(first), first] if through else [first]


def find_run(session: Session, sync_id: str) -> Run:
    """The run with this id, whose changes of the backup may be taken back.

    Raises UnknownRun; Conflict for one that does not say what it is about; BadRequest for one that changed nothing.
    """
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
    return first


def refuse_other_keys(session: Session, undone: Run) -> None:
    """Raises Conflict when the key's columns had other types when the run changed its records."""
    if not session.recycled.knows_keys_of(undone.sync_id):
        raise Conflict(
            f"The key of the {session.backup.place.label} has another type than when the run {undone.sync_id} changed "
            "its records. Nothing was changed.",
            hint="The recycle bin still has what that run replaced; it names the records by their old keys. Give the "
            "key its old type again to undo the run.",
        )


def refuse_purged(session: Session, undone: Run) -> None:
    """Raises Conflict when the bin does not have an image of everything that the run changed."""
    kept = sum(map(len, session.recycled.of_run(undone.sync_id, records=False)))
    changed = undone.counts.processed
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
    for entries in recycled.of_run(run.sync_id, records=False):
        own = [kept.key for kept in entries if kept.side == "backup"]
        yield from (other for other in recycled.of_keys(own, records=False) if other.number > (run.number or 0))


class _TakingBack:
    """Writes and deletes what was there before; what a constraint refuses waits until all else was taken back."""

    def __init__(self, session: Session) -> None:
        self._session, self._backup, self._tally = session, session.backup, session.tally
        self._waiting: dict[Key, tuple[Record | None, BackupError]] = {}  # None: to be deleted

    def take_back(self, action: Action, entries: Sequence[Kept]) -> None:
        """Takes back what a run did so to these records."""
        keys = [kept.key for kept in entries]
        if action is Action.INSERTED:
            there = self._backup.matching(keys)
            keys = [key for key in keys if key in there]  # another of the undone runs may have deleted it again
        opposite, counted = _OPPOSITES[action]
        if self._session.run.dry_run:
            self._tally.name(keys, opposite)
            self._tally.add(**{counted: len(keys)})
            return
        for kept in entries:  # an older run says what it was before
            self._waiting.pop(kept.key, None)
        if action is Action.INSERTED:
            self._delete(keys)
        else:
            self._write([(kept.key, kept.record) for kept in entries if kept.record is not None], counted)

    def finish(self) -> None:
        """Tries again what was refused, while it becomes less each time, then together. Raises RecordsSetAside when
        constraints refuse it still."""
        before = len(self._waiting) + 1
        while 0 < len(self._waiting) < before:
            before = len(self._waiting)
            self._once_more()
        if any(Refusal([key], error).may_exchange for key, (_, error) in self._waiting.items()):
            self._once_more(replace=True)
        for key, (_, error) in self._waiting.items():
            self._tally.set_aside(Refusal([key], error))
        if failure := self._tally.failure():
            self._session.recycled.take_back(self._session.run.sync_id, self._tally.aside)
            raise failure

    def _once_more(self, *, replace: bool = False) -> None:
        waiting, self._waiting = self._waiting, {}
        if replace:
            other = {key: one for key, one in waiting.items() if not Refusal([key], one[1]).may_exchange}
            waiting, self._waiting = {key: one for key, one in waiting.items() if key not in other}, other
        self._delete([key for key, (record, _) in waiting.items() if record is None])
        records = {key: record for key, (record, _) in waiting.items() if record is not None}
        there = self._backup.matching([*records])
        for counted, some in (("updated", there), ("inserted", records.keys() - there)):
            if not replace:
                self._write([(key, records[key]) for key in some], counted)
        if replace:
            self._write([*records.items()], "updated", replace=True)

    def _delete(self, keys: Sequence[Key]) -> None:
        def work(some: Sequence[Key]) -> None:
            self._session.steps.check_lock()
            self._backup.delete(some, self._session.steps.keep)

        for refused in apart(keys, lambda key: key, work, lambda some: self._tally.add(deleted=len(some))):
            self._wait(refused, {})

    def _write(self, records: Sequence[tuple[Key, Record]], counted: str, *, replace: bool = False) -> None:
        written = Written()

        def work(some: Sequence[tuple[Key, Record]]) -> None:
            self._session.steps.check_lock()
            whole = [self._backup.copies.as_it_was(record) for _, record in some]
            nonlocal written
            relational = self._backup.relational if replace else None
            write = self._backup.write if relational is None else relational.exchange
            written = write(whole, self._session.steps.keep)

        def done(some: Sequence[tuple[Key, Record]]) -> None:
            if replace:
                self._tally.add(inserted=len(written.inserted), updated=len(written.updated))
            else:
                self._tally.add(**{counted: len(some)})

        for refused in apart(records, lambda one: one[0], work, done):
            self._wait(refused, dict(records))

    def _wait(self, refused: Refusal, records: Mapping[Key, Record]) -> None:
        if not refused.may_pass or len(self._waiting) >= _WAITING_AT_MOST:
            self._tally.set_aside(refused)
            return
        self._waiting |= {key: (records.get(key), refused.error) for key in refused.keys}
