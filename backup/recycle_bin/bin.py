"""The recycle bin: images of what runs overwrote or deleted, kept whole beside the backup.

It never changes the backup itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any
from uuid import UUID

from backup.core.batched import batched
from backup.core.key_ranges import KeyRange, count_keys, joined
from backup.core.model import Action, Key, Now
from backup.core.run_values import Counts, Run
from backup.core.timeline import Timeline
from backup.recycle_bin import entries
from backup.recycle_bin.changed_keys import ChangedKeys, TooManyKeys
from backup.recycle_bin.entries import RECYCLE_BIN, KeptImage
from backup.recycle_bin.entry_pages import PAGE, pages_of, pages_of_hashes
from backup.recycle_bin.kept_batches import batches
from backup.recycle_bin.purging import delete_older
from backup.recycle_bin.recorder import KeptBefore, Recorder
from backup.recycle_bin.spellings import first_by_spelling
from backup.stores import ImagesOfKeys, ImagesToWrite, Keep, Sibling, SideName, Store
from backup.stores.key_hash import key_hash

_KEYS_AT_ONCE = 50_000  # as many as are taken back at once
_NEVER = datetime.max.replace(tzinfo=UTC)
_RUNS_AT_FIRST, _RUNS_AT_ONCE = 16, 256  # few at first: the next image of a key is mostly in one of the next runs


def as_stamped() -> Timeline:
    """Returns a timeline without runs: it takes every time as it was written."""
    return Timeline((), datetime.max.replace(tzinfo=UTC))


class RecycleBin:
    """The entries of one service and place. A run has one entry for each record that it changed: its first image.

    Entries of an earlier release do not name their place. They belong to this bin if `timeline` knows their run.
    Methods raise what the stores raise.
    """

    def __init__(self, backup: Store, service: str, timeline: Callable[[], Timeline] = as_stamped) -> None:
        """`timeline` is called at most once, when a method needs the true time of an entry."""
        self._backup, self._service, self._read_timeline = backup, service, timeline
        self._entries: Sibling = backup.sibling(RECYCLE_BIN)

    def create(self) -> None:
        """Creates the bin's table or container if it is missing."""
        self._entries.create()

    def recorder(self, run: Run, now: Now, side: SideName = "backup", *, resumed: bool = False) -> Keep:
        """Returns what the run passes to the store that it changes, to keep images of its changes.

        `side` is where the changed records are. `resumed` says that earlier calls of the run may have kept images.
        """
        where, (start, middle, end) = self._of_run(run.sync_id), entries.bounds(run.sync_id)
        before = None
        if resumed:
            together = self._entries.count(where, "EntryId", middle, end)
            deleted = self._entries.count({**where, "Action": Action.DELETED.value}, "EntryId", start, middle)
            before = KeptBefore(together > 0, deleted > 0)
        # The place that a restore writes to may have other column names. There a run never respells a key.
        exact = side == "source" or self._backup.traits.keys_are_exact
        fields = {**where, "Side": side, "Place": self._backup.catalog.qualified_name()}
        return Recorder(self._entries, fields, now, None if exact else self._backup, before)

    def counted(self, sync_id: str, side: str = "backup") -> Counts:
        """Returns how many records of the side the run has changed so far, by the bin. `skipped` is always 0; so is
        `inserted` of the source, of which no images of inserts are kept."""
        where, (start, middle, end) = {**self._of_run(sync_id), "Side": side}, entries.bounds(sync_id)
        counts = {
            action: self._entries.count({**where, "Action": action.value}, "EntryId", start, middle)
            for action in Action
        }
        inserted = counts[Action.INSERTED] + self._number_together(where, middle, end)
        return Counts(inserted, counts[Action.UPDATED], counts[Action.DELETED])

    def number_changed(self, sync_id: str) -> int:
        """Returns how many records of the backup the run has changed so far, by the bin. Costs a third of `counted`."""
        where, (start, middle, end) = {**self._of_run(sync_id), "Side": "backup"}, entries.bounds(sync_id)
        return self._entries.count(where, "EntryId", start, middle) + self._number_together(where, middle, end)

    def _number_together(self, where: Mapping[str, Any], middle: str, end: str) -> int:
        pages = pages_of(self._entries, where, middle, end)
        return sum(entries.number_of_keys(entry) for page in pages for entry in page)

    def take_back(self, sync_id: str, keys: Collection[Key]) -> None:
        """Deletes the run's images of these keys if the backup's records are still as in the image.

        These are images of changes that the backup refused. A store without transactions keeps an image before it knows
        that. Reads the entries and the backup's records of these keys.
        """
        hashes, _ = entries.hashes_of(keys)
        start, middle, _ = entries.bounds(sync_id)
        for page in pages_of_hashes(self._entries, hashes, {**self._of_run(sync_id), "Side": "backup"}):
            of_one_key = (entry for entry in page if start < entry["EntryId"] < middle)
            kept_by_key = {kept.key: kept for entry in of_one_key for kept in entries.kept(entry) if kept.key in keys}
            images = (image for batch in self._backup.images([*kept_by_key], Action.UPDATED) for image in batch)
            records = {image.key: image.record for image in images}
            unchanged = [kept.entry_id for key, kept in kept_by_key.items() if kept.record == records.get(key)]
            self._entries.delete(unchanged)

    def _of_run(self, sync_id: str) -> dict[str, str]:
        return {"SyncId": sync_id, "ServiceName": self._service}

    @cached_property
    def _timeline(self) -> Timeline:
        return self._read_timeline()

    def _of_place(self) -> dict[str, Any]:
        return {"ServiceName": self._service, "Place": [self._backup.catalog.qualified_name(), None]}

    def _belongs_here(self, entry: Mapping[str, Any]) -> bool:
        return entry["Place"] is not None or self._timeline.knows(entry["SyncId"])

    def newest(self, below: datetime | None = None) -> datetime | None:
        """Returns when the newest entry was made, of those before `below`; None if there is none."""
        page = self._entries.find(
            self._of_place(), order_by="RecycledAt", descending=True, below=below, limit=1, fields=("RecycledAt",)
        )
        return next((entry["RecycledAt"] for entry in page if isinstance(entry["RecycledAt"], datetime)), None)

    def oldest(self) -> datetime | None:
        """Returns when the oldest entry was made; None if there is none."""
        page = self._entries.find(self._of_place(), order_by="RecycledAt", limit=1, fields=("EntryId", "RecycledAt"))
        return self._moment(page[0]) if page else None

    def images_to_write(self, sync_id: str, action: Action) -> ImagesToWrite:
        """Returns the images that the run has kept of the backup's records before this action of it."""
        start, middle, _ = entries.bounds(sync_id)
        where = {**self._of_run(sync_id), "Side": "backup", "Action": action.value}
        return ImagesToWrite(self._entries, where, start, middle)

    def images_of(self, kept: Mapping[Key, KeptImage]) -> ImagesOfKeys:
        """Returns these images, as those of their keys."""
        return ImagesOfKeys(self._entries, {key: image.entry_id for key, image in kept.items()})

    def of_run(
        self, sync_id: str, action: Action | None = None, *, above: str | None = None, records: bool = True
    ) -> Iterator[list[KeptImage]]:
        """Yields what the run changed, in any way or by this `action`, in batches and in the order of the entries' ids;
        with `above`, only entries with greater ids.

        A batch is at most 500 keys and, with `records`, about 8 MiB; as many as the backup writes at once, if
        their records have no texts or are left out. Without `records` the records are None.
        """
        start, _, end = entries.bounds(sync_id)
        where = self._of_run(sync_id) | ({} if action is None else {"Action": action.value})
        for page in pages_of(self._entries, where, above or start, end, records=records):
            yield from batches(page, self._backup.traits.batch_size)
            del page

    def of_entries(self, sync_id: str, entry_ids: Sequence[str]) -> Iterator[list[KeptImage]]:
        """Yields what these entries of the run say, as `of_run` does."""
        for ids in batched(entry_ids, PAGE):
            for page in pages_of(self._entries, {**self._of_run(sync_id), "EntryId": ids}):
                yield from batches(page, self._backup.traits.batch_size)
                del page

    def changed_by(self, sync_ids: Iterable[str], after: datetime) -> ChangedKeys | None:
        """Returns the keys of the backup's records that these runs have changed. No other run has changed one after
        this time: where the bin has such an entry, it returns None; and where the keys are too many for memory.

        Cost: reads the entries of these runs without their records, and counts all later entries.
        """
        seen = 0

        def keys() -> Iterator[Key]:
            nonlocal seen
            for sync_id in sync_ids:
                start, _, end = entries.bounds(sync_id)
                where = {**self._of_run(sync_id), "Side": "backup"}
                for page in pages_of(self._entries, where, start, end, records=False):
                    for entry in page:
                        at = entry["RecycledAt"]
                        seen += isinstance(at, datetime) and at > after
                        yield from entries.every_key_of(entry)

        try:
            changed = ChangedKeys(keys())
        except TooManyKeys:
            return None
        return changed if self.count_later(after) == seen else None

    def count_later(self, after: datetime) -> int:
        """Returns how many entries of the backup's records have a later time."""
        return self._entries.count({**self._of_place(), "Side": "backup"}, "RecycledAt", after, _NEVER)

    def inserted(self, sync_id: str) -> Iterator[tuple[list[KeyRange], list[KeptImage]]]:
        """Yields what the run inserted, some at a time: integer keys of the backup that had no record before, as
        ascending ranges; and what the other entries say, as `of_run` does."""
        start, _, end = entries.bounds(sync_id)
        ranges, size = list[KeyRange](), 0
        for page in pages_of(self._entries, self._of_run(sync_id) | {"Action": Action.INSERTED.value}, start, end):
            others = []
            for entry in page:
                of_entry = entries.ranges_of(entry)
                ranges += of_entry or ()
                size += count_keys(of_entry or ())
                others += [entry] if of_entry is None else []
            page.clear()
            del entry  # else memory holds the last one
            for batch in batches(others, self._backup.traits.batch_size):
                yield [], batch
                del batch  # else memory holds it beside the next one
            if size > _KEYS_AT_ONCE:
                yield joined(ranges), []
                ranges, size = [], 0
        if ranges:
            yield joined(ranges), []

    def later_runs(self, sync_id: str) -> list[str]:
        """Returns the runs after this one that history knows. Only their entries are later ones."""
        return self._timeline.since(sync_id)[1:]

    def has_any_of(self, sync_id: str) -> bool:
        """Returns whether the bin has an entry of the run."""
        start, _, end = entries.bounds(sync_id)
        where = self._of_run(sync_id)
        return bool(self._entries.find(where, order_by="EntryId", above=start, below=end, limit=1, fields=("EntryId",)))

    def knows_keys_of(self, sync_id: str) -> bool:
        """Returns whether the run's keys have the types of the backup's key columns now.

        False means that the columns have changed their types since. Then the run's entries cannot be matched with later
        entries of the same records. Looks at the first batch of the run's entries only.
        """
        first_batch = next(self.of_run(sync_id, records=False), [])
        return all(self._backup.keys.may_hold(kept.key) for kept in first_batch if kept.side == "backup")

    def of_keys(self, keys: Iterable[Key], after: datetime | None = None, *, records: bool = True) -> list[KeptImage]:
        """Returns the entries of the backup's records with these keys, oldest first; with `after`, only later ones.

        It includes entries of keys that the server may take for the same; see `key_hash.key_hash`. All of them are in
        memory at once. Without `records` the records are None.
        """
        hashes, keys_by_block = entries.hashes_of(keys)
        all_kept = [
            kept
            for page in pages_of_hashes(self._entries, hashes, self._of_place(), records=records)
            for entry in page
            if self._belongs_here(entry) and (after is None or self._moment(entry) > after)
            for kept in entries.kept_of(entry, keys_by_block)
        ]
        timed = (
            replace(kept, at=self._timeline.moment(kept.sync_id, kept.at), number=self._timeline.number(kept.sync_id))
            for kept in all_kept
            if kept.side == "backup"
        )
        return sorted(timed, key=lambda kept: (kept.number, kept.at))

    def of_keys_since(self, sync_id: str, keys: Iterable[Key], runs_at_most: int | None = None) -> Iterator[KeptImage]:
        """Yields what `of_keys` returns without records, of this run and of later ones; oldest first. With
        `runs_at_most`, of so many of these runs.

        Asks for the entries of some runs at a time, and only while the caller wants more: who needs the next image of
        each key does not pay for all that came after.
        """
        hashes, keys_by_block = entries.hashes_of(keys)
        runs, size = self._timeline.since(sync_id)[:runs_at_most], _RUNS_AT_FIRST
        while runs:
            asked, runs, size = runs[:size], runs[size:], min(4 * size, _RUNS_AT_ONCE)
            number_of = {run: number for number, run in enumerate(asked)}
            following = [
                entry
                for page in pages_of_hashes(self._entries, hashes, {**self._of_place(), "SyncId": asked}, records=False)
                for entry in page
                if self._belongs_here(entry)
            ]
            for entry in sorted(following, key=lambda entry: (number_of[entry["SyncId"]], entry["RecycledAt"])):
                at, number = self._moment(entry), self._timeline.number(entry["SyncId"])
                yield from (
                    replace(kept, at=at, number=number)
                    for kept in entries.kept_of(entry, keys_by_block)
                    if kept.side == "backup"
                )

    def of_key_in_source(self, sync_id: str, key: Key) -> KeptImage | None:
        """Returns the first image that a restore kept of this record of the place that it wrote to, without the record;
        None without one."""
        hashes, _ = entries.hashes_of([key])
        where = {**self._of_run(sync_id), "Side": "source"}
        pages = pages_of_hashes(self._entries, hashes, where, records=False)
        images = [kept for page in pages for entry in page for kept in entries.kept(entry) if kept.key == key]
        return min(images, key=lambda kept: kept.at, default=None)

    def _moment(self, entry: Mapping[str, Any]) -> datetime:
        """When the entry was made. One whose time cannot be read counts as the youngest that its run may have made."""
        # The id names the run. The SyncId may be missing: a part of an entry lacks some fields.
        try:
            run = str(UUID(entry["EntryId"][:32]))
        except ValueError:  # no run has written it
            run = ""
        at = entry["RecycledAt"]
        return self._timeline.moment(run, at if isinstance(at, datetime) else _NEVER)

    def with_records(self, without_records: Iterable[KeptImage]) -> Iterator[list[KeptImage]]:
        """Yields the same entries with their records, in batches as those of `of_run` and in no particular order.

        Entries of inserts have no record and are left out.
        """
        by_id = {kept.entry_id: kept for kept in without_records if kept.action is not Action.INSERTED}
        for page in pages_of(self._entries, {"EntryId": [*by_id]}) if by_id else ():
            for batch in batches(page, self._backup.traits.batch_size):
                yield [replace(by_id[kept.entry_id], record=kept.record) for kept in batch]
                del batch  # else memory holds it beside the next one
            del page

    def first_after(self, keys: Iterable[Key], after: datetime, *, records: bool = True) -> dict[Key, KeptImage]:
        """Returns, for each of these keys that was changed after a time, its first entry since then.

        The entry's record is the one that the backup had at that time. It includes keys that the server may take for
        the same. If a key was respelled (`A` for `a`, under a collation that ignores case), all its spellings lead to
        the same entry. Holds the images of all changes since `after` in memory. Without `records` it holds none:
        `with_records` then reads the images that the caller needs.
        """
        keys = list(keys)
        groups: dict[str, list[KeptImage]] = {}
        for kept in self.of_keys(keys, after, records=records):
            groups.setdefault(key_hash(kept.key), []).append(kept)
        keys_by_hash: dict[str, set[Key]] = {}
        for key in keys if not (records or self._backup.traits.keys_are_exact) else ():
            keys_by_hash.setdefault(key_hash(key), set()).add(key)
        first: dict[Key, KeptImage] = {}
        respelled: list[tuple[list[KeptImage], list[Key]]] = []
        for hashed, group in groups.items():
            is_respelled = len({kept.key for kept in group} | keys_by_hash.get(hashed, set())) > 1
            own_keys = [self._own_key(kept) if records or is_respelled else kept.key for kept in group]
            if len({kept.key for kept in group}) > 1 and not self._backup.traits.keys_are_exact:
                respelled.append((group, own_keys))
            else:
                first |= first_by_spelling(group, own_keys, {})
        row_keys = self._row_keys({kept.key for group, _ in respelled for kept in group})
        for group, own_keys in respelled:
            in_group = {kept.key: row_keys[kept.key] for kept in group if kept.key in row_keys}
            first |= first_by_spelling(group, own_keys, in_group)
        return first

    def _row_keys(self, keys: Collection[Key]) -> dict[Key, Key]:
        """Returns those of these keys under which the backup finds a row, each with the key as the row spells it."""
        return {
            image.key: self._backup.keys.of(image.record)
            for images in (self._backup.images([*keys], Action.UPDATED) if keys else ())
            for image in images
            if image.record is not None
        }

    def _own_key(self, kept: KeptImage) -> Key:
        """Returns the key as the entry's record spells it. Reads the record if it was left out."""
        if kept.record is None and kept.action is not Action.INSERTED:
            kept = next((whole for batch in self.with_records([kept]) for whole in batch), kept)
        return self._backup.keys.of(kept.record) if kept.record else kept.key

    def purge(self, before: datetime, seconds_left: Callable[[], float] = lambda: float("inf")) -> int:
        """Deletes the entries older than `before`, oldest first, in batches. Returns how many it deleted.

        It deletes at least one batch, and stops when no time is left. An entry with a time in the future is as old as
        its run.
        """
        purge = partial(delete_older, self._entries, self._of_place(), before, self._moment, seconds_left)
        purged = purge(below=before)
        if seconds_left() > 0:
            purged += purge(above=self._timeline.now)
        return purged
