"""One restore, from the stamps of both sides to what is written and deleted in the place. Never changes the backup."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from backup.core.batched import batched
from backup.core.model import Action, Chunk, Key, Record, Stamps, Version, typed_key
from backup.core.run_values import Run
from backup.core.suggestions import quantity
from backup.core.workers import Workers
from backup.mirror.diff import has_changed, only_touched, went_back
from backup.mirror.pair import StorePair
from backup.recycle_bin.changed_keys import ChangedKeys
from backup.recycle_bin.entries import KeptImage
from backup.runs.session import Session
from backup.stores import Store
from backup.verbs.overwrite import LEFT_ALONE, NOT_INSERTED, Overwriting
from backup.verbs.past_run import PastRun
from backup.verbs.pieces import FEWEST_AT_ONCE, LEFT_OUT_AT_MOST, Piece, Pieces, only_of
from backup.verbs.relaying import Relaying
from backup.verbs.restore_spec import RestoreSpec
from backup.verbs.wanted import wanted_records
from backup.verbs.writing_back import WritingBack


class Restored(NamedTuple):
    """The result of one piece: how many records the place should have, and the stamps that only the place has."""

    wanted: int
    extra: Stamps


class _Plan(NamedTuple):
    """What to do with the records of a piece that the place should have; `equal` counts those that are right."""

    inserts: list[Key]
    updates: list[Key]
    newer: list[Key]
    equal: int


class Restoring:
    """One restore; holds what each of its steps needs."""

    def __init__(
        self,
        session: Session,
        into: Store,
        into_exists: bool,
        spec: RestoreSpec,
        keys: tuple[Key, ...],
        runs_since: Sequence[Run],
        *,
        past: PastRun | None = None,
        elsewhere: bool,
    ) -> None:
        """`into` is the store that the restore writes to; it need not exist in a dry run. `elsewhere`: it is not the
        source."""
        self._session, self._past = session, past
        self._backup, self._into, self._recycled = session.backup, into, session.recycled
        self._spec, self._keys, self._runs_since = spec, keys, runs_since
        runs = runs_since if past is None else [past.run]
        self._filling = {run.sync_id for run in runs if run.added_columns}
        session.note(
            *(
                f"The run {run.sync_id} added or widened the column {name}. A record that has changed since gets what "
                "the column held before: nothing, if the run added it."
                for run in runs
                for name in run.added_columns
            )
        )
        self._into_exists = into_exists
        self._run, self._tally, self._steps = session.run, session.tally, session.steps
        self._overwriting = Overwriting(session, into, self._is_newer, overwrite_newer=spec.overwrite_newer)
        self._writing = WritingBack(session, into, self._overwriting)
        self._changed = self._changed_keys()
        self._relaying = Relaying(session, into, self._overwriting) if into_exists else None
        keys_at_once = FEWEST_AT_ONCE if self._relaying is None else self._relaying.keys_at_once
        self._pieces = Pieces(session, into, keys_at_once, into_exists=into_exists)
        self._not_inserted = 0
        self._has_etags = not elsewhere  # another place has etags of its own, which no copy remembers

    def pieces(self) -> Iterator[Piece]:
        """The pieces of the spec's keys, of the records that its run changed, or of the whole key space."""
        if self._keys:
            return self._pieces.of_many_keys(self._keys)
        if self._past is not None:
            return self._pieces.of_run(self._past)
        # Where nobody knows what has changed, images may have what is wanted of any record.
        relaying = None if self._changed is None else self._relaying
        return self._pieces.of_all(self._changed, None if relaying is None else relaying.rest_of)

    @property
    def relayed(self) -> int:
        """How many records were restored by the servers alone. No piece has them."""
        return 0 if self._relaying is None else self._relaying.restored

    @property
    def equal(self) -> int:
        """How many records lie in parts that were equal already by their fingerprints. No piece has them."""
        return 0 if self._relaying is None else self._relaying.equal

    def _changed_keys(self) -> ChangedKeys | None:
        """The keys of the records that have changed since the spec's time: all others are as their copies. None where
        that is not known exactly, or is asked about some keys alone."""
        if self._spec.at is None:
            return ChangedKeys()
        if self._keys:
            return None
        place = self._into.relational
        if place is None or not self._into_exists or not place.may_leave_out(self._backup, ()):
            return None
        changed = self._recycled.changed_by([run.sync_id for run in self._runs_since], self._spec.at)
        batches = () if changed is None else changed.batches(LEFT_OUT_AT_MOST)
        return changed if all(place.may_leave_out(self._backup, keys) for keys in batches) else None

    def restore(self, piece: Piece, *, again: bool = False) -> Restored:
        """Restores the records of one piece; `again` after a constraint has refused some."""
        chunk, named_keys, backup_stamps, place_stamps, is_as_now, are_all_changed = piece
        first_images = {} if is_as_now else self._first_images({*backup_stamps, *place_stamps, *named_keys})
        if self._past is not None:  # it restores nothing but what the run changed
            if self._keys:
                self._note_untouched([key for key in named_keys if key not in first_images])
            named_keys = [key for key in named_keys if key in first_images]
            backup_stamps, place_stamps = only_of(backup_stamps, first_images), only_of(place_stamps, first_images)
        filled = {key: image for key, image in first_images.items() if self._only_filled(image, backup_stamps.get(key))}
        images = {key: image for key, image in first_images.items() if key not in filled}
        if are_all_changed:
            named_keys = self._gone_since(images, backup_stamps.keys() | place_stamps.keys())
        keys = backup_stamps.keys() | (images.keys() & {*place_stamps, *named_keys})
        for key in named_keys:
            if key not in keys:
                self._session.note(f"The backup has no record {typed_key(self._backup.keys.to_json(key))}.")
        absent = [key for key in keys if key in images and not images[key].had_record]
        present = [key for key in keys if not (key in images and not images[key].had_record)]
        touched = self._only_touched(chunk, only_of(place_stamps, keys), backup_stamps)
        plan = self._plan(present, images, touched, place_stamps, backup_stamps)
        if self._into.copies.masked:
            plan = self._without_inserts(plan)
        newer = plan.newer
        gone = {key: place_stamps[key] for key in absent if key in place_stamps}
        if not self._spec.overwrite_newer:  # a record that the backup lacks is not newer than a copy
            newer += [
                key
                for key, version in gone.items()
                if key in backup_stamps and key not in touched and self._is_newer(version, backup_stamps[key])
            ]
            gone = {key: version for key, version in gone.items() if key not in newer}
        self._tally.name(newer, LEFT_ALONE)
        self._tally.add(skipped=plan.equal + len(newer))
        if self._run.dry_run:
            self._preview(plan.inserts, plan.updates)
        else:
            inserts: Sequence[Key] = plan.inserts
            updates: Sequence[Key] = plan.updates
            if self._relaying is not None and not again:
                inserts = self._relaying.insert(inserts, images, filled)
                updates = self._relaying.overwrite(updates, place_stamps, images, filled)
            wanted_keys = frozenset(inserts).union(updates)
            together: list[Record] = []
            for records in wanted_records(self._session, wanted_keys, images, filled, chunk):
                if self._writing.exchanges:
                    together += records
                else:
                    self._writing.write(records, place_stamps, backup_stamps)
                del records  # else memory holds them beside the next
            self._writing.write(together, place_stamps, backup_stamps)
        extra = [key for key in place_stamps if key not in backup_stamps and key not in images]
        spelled_otherwise = self._backup.matching(extra)
        return Restored(len(present), {key: place_stamps[key] for key in extra if key not in spelled_otherwise} | gone)

    def gone_since(self) -> int:
        """Restores the records that the backup had at the spec's time, and that neither it nor the place has now, where
        no piece has them. Returns how many they are."""
        restored = 0
        for run in self._runs_since if self._changed is None else ():
            for entries in self._recycled.of_run(run.sync_id):
                restored += self._restore_gone([kept for kept in entries if kept.side == "backup"])
        return restored

    def delete(self, extra: Stamps) -> None:
        """Deletes records that only the place has. It leaves alone those that have changed since they were read."""
        if not self._run.dry_run:
            self._writing.delete([*extra.items()])
            return
        self._steps.check_lock()
        self._tally.name(extra, Action.DELETED)
        self._tally.add(deleted=len(extra))

    def try_again(self) -> None:
        """Writes and deletes again what constraints refused."""
        self._writing.try_again(self._restore_keys)

    def finish(self) -> None:
        """Notes how many records were not inserted. Raises StoreError or RecordsSetAside when something was not written
        or not deleted."""
        if self._not_inserted:
            label = self._into.place.label
            missing = quantity(
                self._not_inserted, f"record is not in the {label} and was", f"records are not in the {label} and were"
            )
            self._session.note(f"{missing} not inserted: the backup has only masked values of some of their columns.")
        self._writing.set_aside_refused()
        self._overwriting.finish()
        if failure := self._tally.failure():
            raise failure

    def _plan(
        self,
        present: Sequence[Key],
        images: Mapping[Key, KeptImage],
        touched: set[Key],
        place_stamps: Stamps,
        backup_stamps: Stamps,
    ) -> _Plan:
        plan, equal = _Plan([], [], [], 0), 0
        missing_keys = [key for key in present if key not in place_stamps]
        spelled_otherwise = self._into.matching(missing_keys) if self._into_exists else set()
        for key in present:
            copy, image = backup_stamps.get(key), images.get(key)
            if key not in place_stamps and key not in spelled_otherwise:
                plan.inserts.append(key)
            elif key in place_stamps and copy is None and not self._must_write(place_stamps[key], None, image):
                equal += 1  # an earlier restore has written it
            elif not self._spec.overwrite_newer and (
                key in spelled_otherwise  # in doubt it is newer
                or (key not in touched and self._is_newer(place_stamps[key], copy))
            ):
                plan.newer.append(key)
            elif key in spelled_otherwise or self._must_write(place_stamps[key], copy, image):
                plan.updates.append(key)
            else:
                equal += 1
        return plan._replace(equal=equal)

    def _without_inserts(self, plan: _Plan) -> _Plan:
        """The plan without the records that the place lacks: nobody has the values that its masks hide."""
        self._tally.name(plan.inserts, NOT_INSERTED)
        self._tally.add(skipped=len(plan.inserts))
        self._not_inserted += len(plan.inserts)
        return plan._replace(inserts=[])

    def _only_touched(self, chunk: Chunk, place_stamps: Stamps, backup_stamps: Stamps) -> set[Key]:
        """The keys of records that have another etag than their copies, as after another restore, and the same
        values."""
        if self._spec.overwrite_newer or not self._has_etags:
            return set()
        keys = frozenset(
            key
            for key, version in place_stamps.items()
            if key in backup_stamps and only_touched(version, backup_stamps[key])
        )
        with Workers(1) as workers:
            return StorePair(self._into, self._backup, workers).same_content(keys, chunk)

    def _only_filled(self, image: KeptImage, copy: Version | None) -> bool:
        """Whether the run that kept this image filled new columns, and the copy still has the image's version.

        Then the record keeps its new columns. Without them it would differ from the copy under the same version, and no
        sync would see that.
        """
        return copy is not None and image.sync_id in self._filling and image.version == copy.value

    def _first_images(self, keys: Iterable[Key]) -> Mapping[Key, KeptImage]:
        """The images of the first change of each of these records after the spec's time, or by its run."""
        first_images: dict[Key, KeptImage] = {}
        for part in batched([*keys], FEWEST_AT_ONCE):  # each of them may have many entries in the bin
            if self._past is not None:
                first_images |= self._past.before(part)
            elif self._spec.at is not None:
                first_images |= self._recycled.first_after(part, self._spec.at, records=False)
        return first_images

    def _must_write(self, version: Version, copy: Version | None, image: KeptImage | None) -> bool:
        """Whether the place's record, of this version, is another than the wanted one."""
        if image is None:
            return copy is None or self._differs(version, copy)
        if version.etag is not None or version.is_missing or version.value != image.version:
            return True
        # A record that was deleted and came back may have a version that it had before, and other values.
        came_back = image.came_back or image.action is Action.DELETED
        return came_back and (copy is not None or self._spec.overwrite_newer)

    def _is_newer(self, version: Version, copy: Version | None) -> bool:
        """Whether the place's record, of this version, was written after the backup copied it. In doubt it was."""
        return copy is None or (self._differs(version, copy) and not went_back(version, copy))

    def _differs(self, version: Version, copy: Version) -> bool:
        if self._has_etags:
            return has_changed(version, copy)
        return version.value != copy.value or (version.is_missing and version.etag is not None)

    def _restore_keys(self, keys: Sequence[Key]) -> None:
        self.restore(self._pieces.of_keys(keys), again=True)

    def _restore_gone(self, entries: Sequence[KeptImage]) -> int:
        """Restores those of these entries whose records are on neither side. Returns how many they are."""
        first_images = self._first_images(kept.key for kept in entries)
        by_entry = {kept.entry_id: kept for kept in entries}
        gone = {key: by_entry[image.entry_id] for key, image in first_images.items() if image.entry_id in by_entry}
        keys = self._gone_since(gone, ())
        if self._into.copies.masked:
            keys = self._without_inserts(_Plan(keys, [], [], 0)).inserts
        if self._run.dry_run:
            self._preview(keys, ())
        else:
            self._writing.write([record for key in keys if (record := gone[key].record)], {}, {})
        return len(keys)

    def _gone_since(self, images: Mapping[Key, KeptImage], there: Collection[Key]) -> list[Key]:
        """The keys of those of these images whose records neither side has now. Those of `there` are known to exist."""
        gone = [key for key, image in images.items() if image.had_record and key not in there]
        existing_keys = self._backup.matching(gone)
        if self._into_exists:
            existing_keys = existing_keys | self._into.matching(gone)
        return [key for key in gone if key not in existing_keys]

    def _preview(self, inserts: Sequence[Key], updates: Sequence[Key]) -> None:
        """Names and counts what a restore would write. The place may have a record under the key of an insert that does
        not belong to the service. A restore overwrites it if it overwrites newer records."""
        foreign_keys = (
            {image.key for images in self._into.images(inserts, Action.UPDATED) for image in images}
            if self._into_exists
            else set()
        )
        new_keys = [key for key in inserts if key not in foreign_keys]
        self._tally.name(new_keys, Action.INSERTED)
        self._tally.name(updates, Action.UPDATED)
        self._tally.name(foreign_keys, Action.UPDATED if self._spec.overwrite_newer else LEFT_ALONE)
        overwritten = len(updates) + (len(foreign_keys) if self._spec.overwrite_newer else 0)
        skipped = 0 if self._spec.overwrite_newer else len(foreign_keys)
        self._tally.add(inserted=len(new_keys), updated=overwritten, skipped=skipped)

    def _note_untouched(self, keys: Sequence[Key]) -> None:
        for key in keys:
            self._session.note(f"The run did no such thing to {typed_key(self._backup.keys.to_json(key))}.")
