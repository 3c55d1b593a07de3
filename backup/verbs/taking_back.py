"""Takes back what runs did. The server does it by itself where it can; else this process does, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from backup.core.batched import batched
from backup.core.errors import BackupError, ConstraintRefused
from backup.core.key_ranges import KeyRange, is_among, keys_of, split_at
from backup.core.model import Action, Key, Record
from backup.mirror.set_aside import Refusal, bisect
from backup.recycle_bin.entries import KeptImage
from backup.runs.session import Session
from backup.stores import NotRelayed, RangesNotDeleted
from backup.verbs.effects import Effects

_WAITING_AT_MOST = 1_000  # records, which are held in memory
_BATCH, _KEYS_AT_ONCE = 500, 50_000  # records of a transaction; keys that the server may delete alone
_NOT_BY_SERVER = "The backup's server refused to take back many records at once, so the app did it batch by batch."
_OPPOSITES = {
    Action.INSERTED: (Action.DELETED, "deleted"),
    Action.UPDATED: (Action.UPDATED, "updated"),
    Action.DELETED: (Action.INSERTED, "inserted"),
}
"""For each action of a run: the action that takes it back, and how the undo counts that."""


class TakingBack:
    """Takes back what runs did, part by part. What a constraint refuses waits until all else was taken back."""

    def __init__(self, session: Session) -> None:
        self._session, self._backup, self._tally = session, session.backup, session.tally
        self._effects = Effects(session, session.backup, is_shared=False)
        self._waiting: dict[Key, tuple[Record | None, BackupError]] = {}  # None: to delete
        self.older_run: str | None = None
        """The run that is taken back now; None while it is the newest of them."""

    def take_back(self, action: Action, entries: Sequence[KeptImage]) -> None:
        """Takes back this action of a run on the records of these entries."""
        if action is Action.INSERTED:
            self._delete_inserted([kept.key for kept in entries if kept.record is None])
            # What was marked as deleted before gets its mark back, and counts as deleted.
            entries = [kept for kept in entries if kept.record is not None]
        if not entries:
            return
        opposite, counted = _OPPOSITES[action]
        keys = [kept.key for kept in entries]
        if self._session.run.dry_run:
            there = self._there(keys, self._backup.matching(keys)) if action is Action.INSERTED else keys
            self._count(there, opposite, counted)
            return
        self._forget(keys)
        records = {kept.key: kept.record for kept in entries if kept.record is not None}
        self._write(records, dict.fromkeys(records, counted))

    def not_by_server(self, sync_id: str, action: Action) -> Iterator[list[KeptImage]]:
        """Has the server write what a run updated or deleted as it was before. Yields what is left of it, which has to
        be taken back before the next is asked for: in batches, as `RecycleBin.of_run` does."""
        recycled, steps, relational = self._session.recycled, self._session.steps, self._backup.relational
        if self._session.run.dry_run or relational is None:
            yield from recycled.of_run(sync_id, action)
            return
        self._forget_those_of(sync_id, action)
        rest, passed_at_once = recycled.images_to_write(sync_id, action), max(_BATCH, self._backup.traits.batch_size)
        while True:
            steps.check_lock()
            try:
                for part in relational.write_images(rest, steps.keep):
                    self._tally.add(**{_OPPOSITES[action][1]: part.inserted + part.updated})
                    steps.check_lock()
                    yield from recycled.of_entries(sync_id, part.left)
                return
            except NotRelayed as refused:
                rest = refused.rest
                self._note(refused.error)
            passed = 0
            for batch in recycled.of_run(sync_id, action, above=rest.above):
                rest, passed = rest._replace(above=batch[-1].entry_id), passed + len(batch)
                yield batch
                del batch  # else memory holds it beside the next
                if passed >= passed_at_once:
                    break
            else:
                return
            passed_at_once *= 2  # so that many refusals in vain cost little

    def _forget_those_of(self, sync_id: str, action: Action) -> None:
        """Forgets what waits for keys that this action of the run is about."""
        entries = self._session.recycled.of_keys(self._waiting, records=False) if self._waiting else ()
        self._forget([kept.key for kept in entries if (kept.sync_id, kept.action) == (sync_id, action)])

    def _note(self, refusal: BackupError | None) -> None:
        """Notes what the server has refused. A constraint may let it pass later, so that is no news."""
        if refusal is not None and not isinstance(refusal, ConstraintRefused):
            self._tally.note(f"The first refusal: {refusal}", once=_NOT_BY_SERVER)

    def delete_ranges(self, ranges: Sequence[KeyRange]) -> None:
        """Deletes the records with keys in these ascending ranges, which a run has inserted. The server does it alone
        where it can."""
        rest = [*ranges]
        while rest:
            part, rest = split_at(rest, _KEYS_AT_ONCE)
            self._delete_part(part)

    def _delete_part(self, ranges: Sequence[KeyRange]) -> None:
        relational, steps = self._backup.relational, self._session.steps
        if self._session.run.dry_run or relational is None:
            existing_keys = None if relational is None else relational.keys_in(ranges)
            if existing_keys is None:
                self._delete_inserted(keys_of(ranges))
            else:
                there = self._there(keys_of(ranges) if self.older_run else (), existing_keys)
                self._count(there, *_OPPOSITES[Action.INSERTED])
            return
        steps.check_lock()
        try:
            for part, deleted in relational.delete_ranges(ranges, steps.keep):
                self._forget([key for key in self._waiting if is_among(key[0], part)])
                self._tally.add(deleted=deleted - len(self._effects.look_in(part)))
                steps.check_lock()
        except RangesNotDeleted as refused:
            self._note(refused.error)
            self._delete_inserted(keys_of(refused.rest))

    def _delete_inserted(self, keys: Sequence[Key]) -> None:
        """Deletes the records of these keys, which a run has inserted. Another undone run may have deleted some."""
        for part in batched(keys, max(_BATCH, self._backup.traits.batch_size)):
            existing_keys = self._existing(part)
            if self._session.run.dry_run:
                self._count(self._there(part, existing_keys), *_OPPOSITES[Action.INSERTED])
                continue
            self._forget(part)
            self._delete([key for key in part if key in existing_keys])

    def _existing(self, keys: Sequence[Key]) -> set[Key]:
        """Those of these keys that the backup has. A run may itself have marked as deleted what it had inserted."""
        existing_keys = self._backup.matching(keys)
        others = [key for key in keys if key not in existing_keys] if self._backup.kept_deletes is not None else ()
        return existing_keys | self._effects.existing(others) if others else existing_keys

    def _there(self, keys: Sequence[Key], existing_keys: Collection[Key]) -> Collection[Key]:
        """Those of these keys that a dry run would meet: also those that it would have brought back before, because a
        later run has deleted them."""
        missing = {*keys}.difference(existing_keys) if self.older_run else ()
        if not (missing and self.older_run):
            return existing_keys
        had_record = dict[Key, bool]()
        for kept in self._session.recycled.of_keys_since(self.older_run, missing):
            if kept.sync_id != self.older_run:
                had_record.setdefault(kept.key, kept.had_record)
        return [*existing_keys, *(key for key in missing if had_record.get(key))]

    def _count(self, keys: Collection[Key], outcome: Action, counted: str) -> None:
        self._tally.name(keys, outcome)
        self._tally.add(**{counted: len(keys)})

    def _forget(self, keys: Sequence[Key]) -> None:
        """What waits for these keys does so no more: the image of an older run replaces that of a newer one."""
        for key in keys:
            self._waiting.pop(key, None)

    def finish(self) -> None:
        """Tries again what constraints refused, as long as each try leaves less; then writes the rest together. Raises
        RecordsSetAside when constraints still refuse something."""
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
        self._effects.finish()

    def _once_more(self, *, replace: bool = False) -> None:
        waiting, self._waiting = self._waiting, {}
        if replace:
            never = {key: entry for key, entry in waiting.items() if not Refusal([key], entry[1]).may_exchange}
            waiting, self._waiting = {key: waiting[key] for key in waiting if key not in never}, never
        self._delete([key for key, (record, _) in waiting.items() if record is None])
        records = {key: record for key, (record, _) in waiting.items() if record is not None}
        existing_keys = self._backup.matching([*records])
        self._write(records, {key: "updated" if key in existing_keys else "inserted" for key in records}, replace)

    def _delete(self, keys: Sequence[Key]) -> None:
        def work(part: Sequence[Key]) -> None:
            self._session.steps.check_lock()
            self._backup.delete(part, self._session.steps.keep)

        def done(part: Sequence[Key]) -> None:
            self._tally.add(deleted=len(part) - len(self._effects.look_for_deleted(part)))

        for refusal in bisect(keys, lambda key: key, work, done):
            self._wait(refusal, {})

    def _write(self, records: Mapping[Key, Record], counted: Mapping[Key, str], replace: bool = False) -> None:
        """Writes the records. `counted` says what each counts as. With `replace` they may exchange unique values."""
        wanted = dict[Key, Record]()

        def work(part: Sequence[Key]) -> None:
            self._session.steps.check_lock()
            nonlocal wanted
            wanted = {key: self._backup.copies.as_it_was(records[key]) for key in part}
            relational = self._backup.relational if replace else None
            write = self._backup.write if relational is None else relational.exchange
            write([*wanted.values()], self._session.steps.keep)

        def done(part: Sequence[Key]) -> None:
            without_effect = self._effects.look_for_written({key: wanted[key] for key in part}, {})
            self._tally.add(**Counter(counted[key] for key in part if key not in without_effect))

        for refusal in bisect([*records], lambda key: key, work, done):
            self._wait(refusal, records)

    def _wait(self, refusal: Refusal, records: Mapping[Key, Record]) -> None:
        if not refusal.may_pass or len(self._waiting) >= _WAITING_AT_MOST:
            self._tally.set_aside(refusal)
            return
        self._waiting |= {key: (records.get(key), refusal.error) for key in refusal.keys}
