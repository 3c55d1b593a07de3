"""Writes and deletes records in a place that others write to as well. Leaves alone what is newer, keeps what it
replaces, and reads again what it wrote. Never changes the backup but for its bin."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backup.core.errors import RecordRefused
from backup.core.model import Image, Key, Record, Version
from backup.runs.session import Session
from backup.stores import Keep, Store, Written
from backup.verbs.effects import Content, Effects

LEFT_ALONE = "Newer"
"""How a run names a record that it did not overwrite, because the record is newer than its copy."""

NOT_INSERTED = "Masked"
"""How a run names a record that it did not insert, because the backup has only masked values of it."""


@dataclass
class _Batch:
    """What the write of one batch learns of its records.

    - `before`: their contents before the write.
    - `same`: the keys of those that are as wanted.
    - `untouched`: the keys of those that were as wanted already when they were read.
    """

    before: dict[Key, Content] = field(default_factory=dict)
    same: set[Key] = field(default_factory=set)
    untouched: set[Key] = field(default_factory=set)


class Overwriting:
    """What one restore does to its place, batch by batch. Counts it, and remembers what had no effect."""

    def __init__(
        self,
        session: Session,
        into: Store,
        is_newer: Callable[[Version, Version | None], bool],
        *,
        overwrite_newer: bool,
    ) -> None:
        """`into` is the store of the place. `is_newer` takes the version of a record of the place, and that of its
        copy; it says whether the record was written after the backup copied it."""
        self._session, self._into, self._backup = session, into, session.backup
        self._is_newer, self._overwrite_newer = is_newer, overwrite_newer
        self.keep = _from_outside(
            session.recycled.recorder(session.run, session.steps.now, "source"),
            into.relational is not None and into.relational.shares_transactions(session.backup),
        )
        """Puts images into the bin before the place's transaction commits."""

        self._effects = Effects(session, into)

    def write(
        self,
        records: Sequence[Record],
        place_stamps: Mapping[Key, Version],
        backup_stamps: Mapping[Key, Version],
        *,
        replace: bool = False,
    ) -> None:
        """Writes records of the backup, which all have the same columns. `place_stamps` are the stamps that were read
        in the place, `backup_stamps` those of the backup. A record that has changed in the place since is compared
        again, under its lock.

        Counts the records that are as wanted afterwards. Raises ConstraintRefused when a constraint forbids a record;
        then nothing is written.
        """
        if not records:
            return
        self._session.steps.check_lock()
        wanted = {self._backup.keys.of(record): record for record in records}
        batch = _Batch()

        def accept(image: Image) -> bool:
            content, copies = self._effects.content(image), self._into.copies
            if not self._effects.unlike(wanted[image.key], content, but=copies.filled | copies.masked):
                batch.same.add(image.key)
                if image.stamp is not None and image.stamp == place_stamps.get(image.key):
                    batch.untouched.add(image.key)
                return False
            batch.before[image.key] = content
            return self._overwrite_newer or self._may_change(image, place_stamps, backup_stamps)

        originals = [self._backup.copies.original(record) for record in records]
        try:
            relational = self._into.relational if replace else None
            write = self._into.write if relational is None else relational.exchange
            written = write(originals, self.keep, accept=accept)
        except RecordRefused as error:  # the store has written the others: this counts them
            accepted = [record for key, record in wanted.items() if key not in error.refused]
            self.write(accepted, place_stamps, backup_stamps)
            raise
        # These are equal already: since they were read, or because an earlier try of this batch wrote them.
        same = written.not_accepted & batch.same
        skipped = same & batch.untouched
        before, written_earlier = place_stamps.keys() | batch.before.keys(), same - skipped
        tried = Written(written.inserted | (written_earlier - before), written.updated | (written_earlier & before))
        without_effect = self._look_up(wanted, tried, batch)
        inserted, updated = tried.inserted - without_effect, tried.updated - without_effect
        self._leave(written.not_accepted - same)
        self._session.tally.add(inserted=len(inserted), updated=len(updated), skipped=len(skipped))

    def look_at(self, records: Sequence[Record]) -> int:
        """Reads again these records of the backup, which were inserted without passing this process. Returns how many
        are there; remembers those that are missing or have other values, for `finish`."""
        wanted = {self._backup.keys.of(record): record for record in records}
        return len(wanted) - len(self._effects.look_for_written(wanted, {}))

    def delete(self, stamps: Mapping[Key, Version]) -> None:
        """Deletes records that only the place has. It leaves alone a record whose stamp is not the one of `stamps`.

        Counts the records that are gone. Raises ConstraintRefused when other rows refer to a record of these; then
        nothing is deleted.
        """
        self._session.steps.check_lock()

        def accept(image: Image) -> bool:
            return image.stamp is not None and (self._overwrite_newer or image.stamp == stamps[image.key])

        try:
            written = self._into.delete([*stamps], self.keep, accept=accept)
        except RecordRefused as error:
            accepted = [key for key in stamps if key not in error.refused]
            self._session.tally.add(deleted=len(accepted) - len(self._effects.existing(accepted)))
            raise
        self._leave(written.not_accepted)
        self._session.tally.add(deleted=len(written.deleted) - len(self._effects.look_for_deleted(written.deleted)))

    def finish(self) -> None:
        """Notes which records are not as they were written. Raises StoreError when writes or deletes had no effect."""
        self._effects.finish()

    def _may_change(
        self, image: Image, place_stamps: Mapping[Key, Version], backup_stamps: Mapping[Key, Version]
    ) -> bool:
        """Whether the record is unchanged since it was compared, or its version is not newer than that of its copy."""
        if image.stamp is None or image.key not in place_stamps:
            return False
        return image.stamp == place_stamps[image.key] or not self._is_newer(image.stamp, backup_stamps.get(image.key))

    def _leave(self, keys: Collection[Key]) -> None:
        self._session.tally.name(keys, LEFT_ALONE)
        self._session.tally.add(skipped=len(keys))

    def _look_up(self, wanted: Mapping[Key, Record], written: Written, batch: _Batch) -> frozenset[Key]:
        """Reads again what was written. Returns the keys of the records that are missing or still as they were before;
        remembers those that have other values than the written ones."""
        return self._effects.look_for_written(
            {key: wanted[key] for key in written.inserted | written.updated}, batch.before
        )


def _from_outside(keep: Keep, shared: bool) -> Keep:
    """Returns a `Keep` that writes images into the bin before the place's transaction commits: in the same transaction
    if bin and place have it `shared`, else in one of its own. It keeps no images of inserts."""

    def keep_first(images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:  # noqa: ARG001
        keep(images, transaction if shared else None)

    return keep_first
