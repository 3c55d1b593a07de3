"""One restore, from the stamps of both sides to what is written and deleted in the place. Never changes the backup."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import NamedTuple

from backup.core.errors import BackupError, StoreError
from backup.core.model import WHOLE, Action, Chunk, Key, Record, Run, Stamps, Version, unread_in
from backup.core.workers import Workers
from backup.mirror.diff import has_changed, only_touched, went_back
from backup.mirror.pair import Sides
from backup.mirror.proof import without
from backup.mirror.set_aside import Refusal, apart
from backup.mirror.walk import chunks_of
from backup.recycle_bin.entries import Kept
from backup.runs.runner import Session
from backup.stores import Store, stamps_in
from backup.verbs.overwrite import LEFT_ALONE, Overwriting
from backup.verbs.past_run import PastRun

_KEYS_AT_ONCE = 100
_REFUSED_AT_MOST = 100_000  # keys, which are held in memory
_PARTS_WAITING = 16
_PAIRED_AT_MOST = 50
_TOGETHER = 2_000  # keys, at least


@dataclass(frozen=True)
class Wish:
    """What to restore: the state `at` a time or (None) the newest, of these `keys` or (none given) of all.

    With the id of a `run` the state before that, of just those records that it changed, or that it `only` inserted,
    updated or deleted.
    """

    at: datetime | None = None
    keys: tuple[str, ...] = ()
    overwrite_newer: bool = False
    delete_extra: bool = False
    run: str | None = None
    only: Action | None = None


class Piece(NamedTuple):
    """Part of the key space: its stamps in the backup and in the place; `asked` are the keys the wish names there."""

    chunk: Chunk
    asked: Sequence[Key]
    copies: Stamps
    theirs: Stamps


class Restored(NamedTuple):
    """What a piece came to: how many records are to be there, and those that only the place has, as they were met."""

    wanted: int
    extra: Stamps


class Restoring:
    """One restore; holds what each of its steps needs."""

    def __init__(
        self,
        session: Session,
        place: Store,
        there: bool,
        wish: Wish,
        keys: tuple[Key, ...],
        runs_since: Sequence[Run],
        *,
        past: PastRun | None = None,
        elsewhere: bool,
    ) -> None:
        self._session, self._past = session, past
        self._backup, self._place, self._recycled = session.backup, place, session.recycled
        self._wish, self._keys, self._runs_since = wish, keys, runs_since
        self._told_lost: set[str] = set()
        runs = runs_since if past is None else [past.run]
        self._filling = {run.sync_id for run in runs if run.added_columns}
        self._there = there  # it need not be, in a dry run
        self._run, self._tally, self._steps = session.run, session.tally, session.steps
        self._overwriting = Overwriting(session, place, self._is_newer, overwrite_newer=wish.overwrite_newer)
        self._refused: dict[Key, BackupError] = {}  # what constraints kept from being written
        self._staying: dict[Key, tuple[Version, BackupError]] = {}  # … and from being deleted, as it was met
        self._replace, self._smallest = False, 0
        self._etags = not elsewhere  # another place has etags of its own, not those that the copies remember

    def pieces(self) -> Iterator[Piece]:
        """The whole key space, the wish's keys, or those that the wish's run changed."""
        if self._keys:
            for keys in _parts(self._keys):
                theirs = _stamps_of(self._place, keys) if self._there else {}
                yield Piece(WHOLE, keys, _stamps_of(self._backup, keys), theirs)
            return
        if self._past is not None:
            for keys in (part for some in self._past.changed_keys() for part in _parts(some)):
                theirs = _stamps_of(self._place, keys) if self._there else {}
                yield Piece(WHOLE, keys, _stamps_of(self._backup, keys), theirs)
            return
        for chunk in chunks_of(self._backup, self._place) if self._there else self._backup.chunks():
            copies = self._readable(stamps_in(self._backup, chunk))
            theirs = self._readable(stamps_in(self._place, chunk)) if self._there else {}
            if self._wish.at is None:
                yield Piece(chunk, (), copies, theirs)
                continue
            for keys in _parts(list(copies.keys() | theirs.keys())):  # few, for each may have many entries
                yield Piece(
                    chunk, (), {k: copies[k] for k in keys if k in copies}, {k: theirs[k] for k in keys if k in theirs}
                )

    def _readable(self, stamps: Stamps) -> Stamps:
        """The stamps but those whose keys could not be read: these are set aside. One of whose record the key alone
        could be read stays, and is in doubt newer."""
        odd = {key: unread for key, unread in unread_in(stamps).items() if unread.of_key}
        for key, unread in odd.items():
            self._tally.set_aside(Refusal([key], StoreError(unread.reason)))
        return without(stamps, odd)

    def restore(self, piece: Piece) -> Restored:
        """Restores the records of one piece."""
        chunk, asked, copies, theirs = piece
        changed = self._first_after({*copies, *theirs, *asked})
        if self._past is not None:  # nothing else is asked for
            for key in asked if self._keys else ():
                if key not in changed:
                    self._session.note(f"The run did no such thing to {json.dumps(self._backup.keys.to_json(key))}.")
            asked = [key for key in asked if key in changed]
            copies, theirs = _some(copies, changed), _some(theirs, changed)
        filled = {key: kept for key, kept in changed.items() if self._was_only_filled(kept, copies.get(key))}
        then = {key: kept for key, kept in changed.items() if key not in filled}
        known = copies.keys() | (theirs.keys() & then.keys()) | {key for key in asked if key in then}
        for key in asked:
            if key not in known:
                self._session.note(f"The backup has no record {json.dumps(self._backup.keys.to_json(key))}.")
        absent = [key for key in known if key in then and then[key].action is Action.INSERTED]
        present = [key for key in known if not (key in then and then[key].action is Action.INSERTED)]
        equal = self._only_touched(chunk, {key: theirs[key] for key in known if key in theirs}, copies)
        inserts, updates, newer, same = [], [], [], 0
        spelled = self._place.matching([k for k in present if k not in theirs]) if self._there else set()
        for key in present:
            if key not in theirs and key not in spelled:
                inserts.append(key)
            elif key in theirs and key not in copies and not self._must_write(theirs[key], None, then.get(key)):
                same += 1  # it is there again, as an earlier restore has left it
            elif not self._wish.overwrite_newer and (
                key in spelled  # spelled anew: in doubt it is newer
                or (key not in equal and self._is_newer(theirs[key], copies.get(key)))
            ):
                newer.append(key)
            elif key in spelled or self._must_write(theirs[key], copies.get(key), then.get(key)):
                updates.append(key)
            else:
                same += 1
        gone = {key: theirs[key] for key in absent if key in theirs}
        if not self._wish.overwrite_newer:  # what the backup has not is no older than anything
            newer += [k for k in gone if k in copies and k not in equal and self._is_newer(gone[k], copies[k])]
            gone = {key: version for key, version in gone.items() if key not in newer}
        self._tally.name(newer, LEFT_ALONE)
        self._tally.add(skipped=same + len(newer))
        if self._run.dry_run:
            self._preview(inserts, updates)
        else:
            wanted = frozenset(inserts) | frozenset(updates)
            together: list[Record] = []
            for some in self._records_of(wanted, then, filled, chunk):
                if self._replace:  # those that are in each other's way are written together
                    together += some
                else:
                    self._write(some, theirs, copies)
                del some  # or they would be held beside the next
            self._write(together, theirs, copies)
        extra = [key for key in theirs if key not in copies and key not in then]
        known_otherwise = self._backup.matching(extra)  # under another spelling
        return Restored(len(present), {key: theirs[key] for key in extra if key not in known_otherwise} | gone)

    def _records_of(
        self, wanted: frozenset[Key], then: Mapping[Key, Kept], filled: Mapping[Key, Kept], chunk: Chunk
    ) -> Iterator[list[Record]]:
        """The records of these keys as they are to be, some at a time."""
        for some in self._recycled.with_records(then[key] for key in wanted if key in then):
            yield [kept.record for kept in some if kept.record is not None]
            del some  # or they would be held beside the next
        for records in self._backup.read(frozenset(key for key in wanted if key not in then), chunk):
            own = {key: filled[key] for record in records if (key := self._backup.keys.of(record)) in filled}
            images = {kept.entry_id: kept for some in self._recycled.with_records(own.values()) for kept in some}
            image_of = {key: images.get(kept.entry_id) for key, kept in own.items()}
            yield [_with_image(record, image_of.get(self._backup.keys.of(record))) for record in records]
            del records, images, image_of

    def _only_touched(self, chunk: Chunk, theirs: Stamps, copies: Stamps) -> set[Key]:
        """The records of which the etag alone says that they are newer, as after another restore, and which are the
        same as their copies, value for value."""
        if self._wish.overwrite_newer or not self._etags:
            return set()
        touched = frozenset(
            key for key, version in theirs.items() if key in copies and only_touched(version, copies[key])
        )
        with Workers(1) as workers:
            return Sides(self._place, self._backup, workers).same_content(touched, chunk)

    def gone_since(self) -> int:
        """Restores what neither the backup nor the place has any more, but the backup had at that time; returns how
        many records that are."""
        restored = 0
        for run in self._runs_since:
            for entries in self._recycled.of_run(run.sync_id):
                restored += self._restore_gone([kept for kept in entries if kept.side == "backup"])
        return restored

    def delete(self, extra: Stamps) -> None:
        """Deletes records that only the place has, unless they are no more as they were met."""
        if not self._run.dry_run:
            self._delete([*extra.items()])
            return
        self._steps.check_lock()
        self._tally.name(extra, Action.DELETED)
        self._tally.add(deleted=len(extra))

    def again(self) -> None:
        """Writes and deletes once more what constraints refused, while it becomes less each time; then together what is
        in each other's way."""
        self._smallest = 1
        before = len(self._refused) + len(self._staying) + 1
        while 0 < (left := len(self._refused) + len(self._staying)) < before:
            before = left
            self._once_more()
        other = {key: error for key, error in self._refused.items() if not Refusal([key], error).may_exchange}
        self._refused = {key: error for key, error in self._refused.items() if key not in other}
        if self._refused:
            self._replace = True
            self._once_more()
            self._in_pairs()
        self._refused |= other

    def finish(self) -> None:
        """Says what did not come to be. Raises StoreError or RecordsSetAside when something did not."""
        for key, error in [*self._refused.items(), *((key, error) for key, (_, error) in self._staying.items())]:
            self._tally.set_aside(Refusal([key], error))
        self._overwriting.finish()
        if failure := self._tally.failure():
            raise failure

    def _in_pairs(self) -> None:
        """Writes two records at a time that have each other's values, where some other record refused them all."""
        self._smallest = 2
        for pair in combinations([*self._refused] if len(self._refused) <= _PAIRED_AT_MOST else (), 2):
            if self._refused.keys() >= {*pair}:
                for key in pair:
                    del self._refused[key]
                self._write_keys(pair)

    def _once_more(self) -> None:
        keys, staying = [*self._refused], [(key, met) for key, (met, _) in self._staying.items()]
        self._refused, self._staying = {}, {}
        self._delete(staying)
        size = self._place.traits.batch_size
        if self._replace:  # those that are in each other's way have to be in one part
            size = max(size, _TOGETHER)
        for part in (keys[start : start + size] for start in range(0, len(keys), size)):
            self._write_keys(part)

    def _write_keys(self, keys: Sequence[Key]) -> None:
        self.restore(Piece(WHOLE, keys, _stamps_of(self._backup, keys), _stamps_of(self._place, keys)))

    def _constrained(self, items: Sequence[object]) -> int:
        """How few of a batch need not be looked at one by one, if a constraint refuses them."""
        return self._smallest or max(1, len(items) // _PARTS_WAITING)

    def _delete(self, extra: Sequence[tuple[Key, Version]]) -> None:
        def work(some: Sequence[tuple[Key, Version]]) -> None:
            self._overwriting.delete(dict(some))

        met = dict(extra)
        for refused in apart(extra, lambda one: one[0], work, _done, self._constrained(extra)):
            if refused.may_pass:
                self._staying |= {key: (met[key], refused.error) for key in refused.keys}
            else:
                self._tally.set_aside(refused)

    def _preview(self, inserts: Sequence[Key], updates: Sequence[Key]) -> None:
        """Names what would be written. Under the key of an insert there may be a record that is none of the service's:
        it would be overwritten if newer ones are."""
        others = (
            {image.key for images in self._place.images(inserts, Action.UPDATED) for image in images}
            if self._there
            else set()
        )
        new = [key for key in inserts if key not in others]
        self._tally.name(new, Action.INSERTED)
        self._tally.name(updates, Action.UPDATED)
        self._tally.name(others, Action.UPDATED if self._wish.overwrite_newer else LEFT_ALONE)
        overwritten = len(updates) + (len(others) if self._wish.overwrite_newer else 0)
        left = 0 if self._wish.overwrite_newer else len(others)
        self._tally.add(inserted=len(new), updated=overwritten, skipped=left)

    def _restore_gone(self, entries: Sequence[Kept]) -> int:
        first = self._first_after(kept.key for kept in entries)
        own = {kept.entry_id: kept for kept in entries}
        gone = {key: own[kept.entry_id] for key, kept in first.items() if kept.entry_id in own}
        gone = {key: kept for key, kept in gone.items() if kept.record is not None}
        there = self._backup.matching(list(gone)) | (self._place.matching(list(gone)) if self._there else set())
        keys = [key for key in gone if key not in there]
        if self._run.dry_run:
            self._preview(keys, ())
        else:
            self._write([record for key in keys if (record := gone[key].record)], {}, {})
        return len(keys)

    def _was_only_filled(self, kept: Kept, copy: Version | None) -> bool:
        """Whether the record has the version it had then, and since got but the columns that the change filled.

        Without them it would be another record of the same version, which no sync sees.
        """
        return copy is not None and kept.sync_id in self._filling and kept.version == copy.value

    def _first_after(self, keys: Iterable[Key]) -> Mapping[Key, Kept]:
        """The first change after the wish's time, or by its run, of each of these records that was changed so."""
        if self._past is not None:
            return self._past.before([*keys])
        return {} if self._wish.at is None else self._recycled.first_after(keys, self._wish.at, records=False)

    def _write(self, records: Sequence[Record], theirs: Stamps, copies: Stamps) -> None:
        alike: dict[frozenset[str], list[Record]] = {}  # an image lacks the columns that came after it
        for record in records:
            lost = _left_out(self._place, record) & _left_out(self._backup, record) - self._told_lost
            self._told_lost |= lost  # what the backup alone has is told before
            self._session.note(
                *(f"Column {name} is gone on both sides; what it held stays in the bin." for name in lost)
            )
            alike.setdefault(frozenset(record), []).append(record)

        def work(some: Sequence[Record]) -> None:
            self._overwriting.write(some, theirs, copies, replace=self._replace)

        for group in alike.values():
            for refused in apart(group, self._backup.keys.of, work, _done, self._constrained(group)):
                if refused.may_pass:
                    self._refused |= dict.fromkeys(refused.keys, refused.error)
                else:
                    self._tally.set_aside(refused)
        if len(self._refused) > _REFUSED_AT_MOST:
            raise next(iter(self._refused.values()))

    def _must_write(self, theirs: Version, copy: Version | None, then: Kept | None) -> bool:
        if then is None:
            return copy is None or self._differs(theirs, copy)
        return theirs.etag is not None or theirs.is_missing or theirs.value != then.version

    def _is_newer(self, theirs: Version, copy: Version | None) -> bool:
        """Whether the place's record was written after the backup copied it; in doubt it was."""
        return copy is None or (self._differs(theirs, copy) and not went_back(theirs, copy))

    def _differs(self, theirs: Version, copy: Version) -> bool:
        if self._etags:
            return has_changed(theirs, copy)
        return theirs.value != copy.value or (theirs.is_missing and theirs.etag is not None)


def _done(some: Sequence[object]) -> None:
    """`Overwriting` has counted it."""


def _with_image(record: Record, kept: Kept | None) -> Record:
    """The record as its image has it, with what columns that came since were filled with. An undo may have emptied
    others, so what the image has counts."""
    if kept is None or kept.record is None:
        return record
    return {**record, **{name: value for name, value in kept.record.items() if value is not None}}


def _some(stamps: Stamps, keys: Mapping[Key, Kept]) -> Stamps:
    return {key: version for key, version in stamps.items() if key in keys}


def _parts(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    return (keys[start : start + _KEYS_AT_ONCE] for start in range(0, len(keys), _KEYS_AT_ONCE))


def _stamps_of(store: Store, keys: Sequence[Key]) -> Stamps:
    """The stamps of those of these keys that the service has, by their own spelling."""
    return store.keys.stamps(store.stamp_rows_of(keys))


def _left_out(store: Store, record: Record) -> set[str]:
    """What of the record the store has no column for."""
    return set() if store.relational is None else {*store.relational.left_out(record)}
