"""Writes the backup's state, now or as of a time, into the source or another place. Never changes the backup."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from backup.compare import changed, went_back
from backup.entries import Kept
from backup.errors import BadRequest, NotInitialized, SourceMissing
from backup.models import WHOLE, Action, Chunk, Key, Record, Run, Stamps, Version
from backup.pending import PendingDeletes
from backup.recorded import Session
from backup.stores import Store
from backup.sync import chunks_of

_KEYS_AT_ONCE = 100

LEFT_ALONE = "Newer"
"""What a record is named that is newer than its copy and so was not overwritten."""


@dataclass(frozen=True)
class Wish:
    """What to restore: the state `at` a time or (None) the newest, of these `keys` or (none given) of all."""

    at: datetime | None = None
    keys: tuple[str, ...] = ()
    overwrite_newer: bool = False
    delete_extra: bool = False


def restore(session: Session, place: Store, wish: Wish) -> None:
    """Makes the place hold what the wish says, and makes the place where it is missing. A dry run only counts and
    names.

    A record that is newer in the place than in the backup is named and left alone, unless `overwrite_newer`. One that
    only the place has is left alone, unless `delete_extra`; then deletes come last, after the guard has seen their
    number. What is overwritten or deleted is kept in the bin first. Records that are equal already are skipped, so a
    restore that failed half-way may be repeated. Raises BadRequest for a key that is none, or a time that the bin does
    not reach; SchemaMismatch when the place cannot hold the records; what the stores, the guard or the lock raise.
    """
    if wish.at is not None and not session.policy.kept_since(session.run.started_at) <= wish.at:
        raise BadRequest(
            f"The state as of {wish.at:%Y-%m-%d %H:%M:%S %Z} is not known any more: RecycleDays is "
            f"{session.policy.recycle_days:g}.",
            hint="The platform's own backups may reach further back.",
        )
    if wish.at is not None and wish.at > session.run.started_at:
        raise BadRequest(f"{wish.at:%Y-%m-%d %H:%M:%S %Z} lies ahead.", hint="Leave the time out for the newest state.")
    keys = tuple(dict.fromkeys(map(session.backup.key_from, wish.keys)))
    runs_since = () if wish.at is None else _runs_since(session, wish.at)
    restoring = _Restoring(session, place, _prepare(session, place), wish, keys, runs_since)
    with PendingDeletes() as extra:
        wanted = held = 0
        for piece in restoring.pieces():
            wanted, held = wanted + len(piece.copies), held + len(piece.theirs)
            extra.add(restoring.restore(piece))
        if not keys:
            restoring.gone_since()
        if wish.delete_extra:
            guard, allowed = session.policy.guard, session.run.allow_mass_delete
            guard.check_deletes(len(extra), wanted, held, session.backup.label, allowed=allowed)
            for batch in extra.batches(place.batch_size):
                restoring.delete(batch)
        elif len(extra):
            session.note(f"{len(extra)} records are only in the {place.label}; without delete-extra they stay.")


def exists(place: Store) -> bool:
    """Whether the place's database and table or container are there. Raises StoreUnavailable when nobody can tell."""
    try:
        next(place.chunks())
    except (SourceMissing, NotInitialized):
        return False
    return True


def _prepare(session: Session, place: Store) -> bool:
    """Makes the place if it must, and checks that it can hold the records; returns whether it is there now."""
    there = exists(place)
    if not there and session.run.dry_run:
        session.note(f"The {place.label} does not exist and would be made.")
        return False
    if not there:
        original = session.source if place is not session.source and exists(session.source) else session.backup
        place.make_like(original, copies=original is session.backup)
        session.note(f"The {place.label} did not exist and was made.")
    dropped = session.backup.drift(place, "ignore").removed
    session.note(*(f"Column {name} of the backup has no place in the {place.label}." for name in dropped))
    return True


def _runs_since(session: Session, moment: datetime) -> Sequence[Run]:
    """The runs that ended after the moment. Raises BadRequest when the bin does not know what one of them replaced."""
    runs = [run for run in session.history.since(session.run.service, moment) if run.sync_id != session.run.sync_id]
    for run in runs:
        if run.counts.processed and next(session.recycled.of_run(run.sync_id), None) is None:
            raise BadRequest(
                f"The state as of {moment:%Y-%m-%d %H:%M:%S %Z} is not known: the recycle bin has nothing of the run "
                f"{run.sync_id}, which changed records since.",
                hint="The platform's own backups may reach further back.",
            )
    return runs


class _Piece(NamedTuple):
    """Part of the key space: its stamps in the backup and in the place; `asked` are the keys the wish names there."""

    chunk: Chunk
    asked: Sequence[Key]
    copies: Stamps
    theirs: Stamps


class _Restoring:
    """One restore; holds what each of its steps needs."""

    def __init__(
        self, session: Session, place: Store, there: bool, wish: Wish, keys: tuple[Key, ...], runs_since: Sequence[Run]
    ) -> None:
        self._session = session
        self._backup, self._place, self._recycled = session.backup, place, session.recycled
        self._wish, self._keys, self._runs_since = wish, keys, runs_since
        self._filling = {run.sync_id for run in runs_since if run.added_columns}
        self._there = there  # it need not be, in a dry run
        self._run, self._tally, self._steps = session.run, session.tally, session.steps
        self._keep = session.recycled.keeper(session.run, session.steps.now, "source")
        self._etags = place is session.source  # another place has etags of its own, not those that the copies remember

    def pieces(self) -> Iterator[_Piece]:
        """The whole key space, or the wish's keys."""
        if self._keys:
            for keys in _parts(self._keys):
                theirs = _stamps_of(self._place, keys) if self._there else {}
                yield _Piece(WHOLE, keys, _stamps_of(self._backup, keys), theirs)
            return
        for chunk in chunks_of(self._backup, self._place) if self._there else self._backup.chunks():
            copies, theirs = self._backup.stamps(chunk), self._place.stamps(chunk) if self._there else {}
            if self._wish.at is None:
                yield _Piece(chunk, (), copies, theirs)
                continue
            for keys in _parts(list(copies.keys() | theirs.keys())):  # few, since whole images of them may be held
                yield _Piece(
                    chunk, (), {k: copies[k] for k in keys if k in copies}, {k: theirs[k] for k in keys if k in theirs}
                )

    def restore(self, piece: _Piece) -> list[Key]:
        """Restores the records of one piece; returns the keys that only the place has."""
        chunk, asked, copies, theirs = piece
        changed = self._first_after({*copies, *theirs, *asked})
        filled = {key: kept for key, kept in changed.items() if self._was_only_filled(kept, copies.get(key))}
        then = {key: kept for key, kept in changed.items() if key not in filled}
        known = copies.keys() | (theirs.keys() & then.keys()) | {key for key in asked if key in then}
        for key in asked:
            if key not in known:
                self._session.note(f"The backup has no record {json.dumps(self._backup.key_to_json(key))}.")
        absent = [key for key in known if key in then and then[key].record is None]
        present = [key for key in known if not (key in then and then[key].record is None)]
        inserts, updates, newer, same = [], [], [], 0
        spelled = self._place.matching([k for k in present if k not in theirs]) if self._there else set()
        for key in present:
            if key not in theirs and key not in spelled:
                inserts.append(key)
            elif not self._wish.overwrite_newer and (
                key in spelled or self._is_newer(theirs[key], copies.get(key))  # spelled anew: in doubt it is newer
            ):
                newer.append(key)
            elif key in spelled or self._must_write(theirs[key], copies.get(key), then.get(key)):
                updates.append(key)
            else:
                same += 1
        self._tally.name(newer, LEFT_ALONE)
        self._tally.add(skipped=same + len(newer))
        if self._run.dry_run:
            self._tally.name(inserts, Action.INSERTED)
            self._tally.name(updates, Action.UPDATED)
            self._tally.add(inserted=len(inserts), updated=len(updates))
        else:
            wanted = frozenset(inserts) | frozenset(updates)
            for records in self._backup.read(frozenset(key for key in wanted if key not in then), chunk):
                whole = [_with_image(record, filled.get(self._backup.key_of(record))) for record in records]
                self._write(whole, frozenset(inserts))
            self._write([record for key in wanted if key in then if (record := then[key].record)], frozenset(inserts))
        extra = [key for key in theirs if key not in copies and key not in then]
        known_otherwise = self._backup.matching(extra)  # under another spelling
        return [*(key for key in extra if key not in known_otherwise), *(key for key in absent if key in theirs)]

    def gone_since(self) -> None:
        """Restores what neither the backup nor the place has any more, but the backup had at that time."""
        for run in self._runs_since:
            for entries in self._recycled.of_run(run.sync_id):
                self._restore_gone([kept for kept in entries if kept.side == "backup"])

    def delete(self, keys: list[Key]) -> None:
        """Deletes records that only the place has."""
        self._steps.held()
        if not self._run.dry_run:
            for images in self._place.images(keys, Action.DELETED):
                self._keep(images, None)
            self._place.delete(keys)
        else:
            self._tally.name(keys, Action.DELETED)
        self._tally.add(deleted=len(keys))

    def _restore_gone(self, entries: Sequence[Kept]) -> None:
        first = self._first_after(kept.key for kept in entries)
        own = {kept.entry_id for kept in entries}
        gone = {key: kept for key, kept in first.items() if kept.entry_id in own and kept.record is not None}
        there = self._backup.matching(list(gone)) | (self._place.matching(list(gone)) if self._there else set())
        keys = [key for key in gone if key not in there]
        if self._run.dry_run:
            self._tally.name(keys, Action.INSERTED)
            self._tally.add(inserted=len(keys))
        else:
            self._write([record for key in keys if (record := gone[key].record)], frozenset(keys))

    def _was_only_filled(self, kept: Kept, copy: Version | None) -> bool:
        """Whether the record has the version it had then, and since got but the columns that the change filled.

        Without them it would be another record of the same version, which no sync sees.
        """
        return copy is not None and kept.sync_id in self._filling and kept.version == copy.value

    def _first_after(self, keys: Iterable[Key]) -> dict[Key, Kept]:
        """The first change after the wish's time of each of these records that was changed since."""
        return {} if self._wish.at is None else self._recycled.first_after(keys, self._wish.at)

    def _write(self, records: Sequence[Record], inserts: frozenset[Key]) -> None:
        alike: dict[frozenset[str], list[Record]] = {}  # an image lacks the columns that came after it
        for record in records:
            alike.setdefault(frozenset(record), []).append(record)
        for group in alike.values():
            self._steps.held()
            keys = [self._backup.key_of(record) for record in group]
            for images in self._place.images(keys, Action.UPDATED):
                self._keep(images, None)
            self._place.write([self._backup.as_original(record) for record in group])
            inserted = sum(key in inserts for key in keys)
            self._tally.add(inserted=inserted, updated=len(keys) - inserted)

    def _must_write(self, theirs: Version, copy: Version | None, then: Kept | None) -> bool:
        if then is None:
            return copy is None or self._differs(theirs, copy)
        return theirs.etag is not None or theirs.value[0] is None or theirs.value != then.version

    def _is_newer(self, theirs: Version, copy: Version | None) -> bool:
        """Whether the place's record was written after the backup copied it; in doubt it was."""
        return copy is None or (self._differs(theirs, copy) and not went_back(theirs, copy))

    def _differs(self, theirs: Version, copy: Version) -> bool:
        if self._etags:
            return changed(theirs, copy)
        return theirs.value != copy.value or (theirs.value[0] is None and theirs.etag is not None)


def _with_image(record: Record, kept: Kept | None) -> Record:
    """The record as its image has it, with what columns that came since were filled with. An undo may have emptied
    others, so what the image has counts."""
    if kept is None or kept.record is None:
        return record
    return {**record, **{name: value for name, value in kept.record.items() if value is not None}}


def _parts(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    return (keys[start : start + _KEYS_AT_ONCE] for start in range(0, len(keys), _KEYS_AT_ONCE))


def _stamps_of(store: Store, keys: Sequence[Key]) -> Stamps:
    """The stamps of some keys; without etags, so what has no version of its own is told by its content."""
    found: Stamps = {}
    met: set[Key] = set()
    for images in store.images(keys, Action.UPDATED):
        for image in images:
            # One record may have been asked for under two spellings of its key; it counts once.
            own = image.key if image.record is None else store.key_of(image.record)
            if own in met:
                continue
            met.add(own)
            value = image.version or (None,)
            if value[0] is None and image.record is not None:
                value = (None, repr(sorted(store.content(image.record).items())))
            found[image.key] = Version(value)
    return found
