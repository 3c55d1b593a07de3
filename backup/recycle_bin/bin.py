"""The recycle bin: what runs overwrote or deleted, kept whole beside the backup. Never changes the backup itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from backup.core.model import Action, Counts, Key, Now, Run
from backup.core.timeline import Timeline
from backup.recycle_bin import entries
from backup.recycle_bin.entries import RECYCLE_BIN, Kept
from backup.recycle_bin.recorder import KeptBefore, Recorder
from backup.stores import Keep, Sibling, SideName, Store
from backup.stores.exact_json import key_hash

_AT_ONCE = 500
_BYTES_AT_ONCE = 8 * 1024 * 1024


def as_stamped() -> Timeline:
    """A timeline that knows no runs: every time is taken as it was written."""
    return Timeline((), datetime.max.replace(tzinfo=UTC))


class RecycleBin:
    """The entries of one service about one table or container. There is one for each record that a run changed: its
    first image.

    Entries of an earlier release do not say their place; they are its own if their runs are, which `timeline` knows.
    """

    def __init__(self, backup: Store, service: str, timeline: Callable[[], Timeline] = as_stamped) -> None:
        """`timeline` is asked once, when an entry's time first counts."""
        self._backup, self._service, self._ask = backup, service, timeline
        self._entries: Sibling = backup.sibling(RECYCLE_BIN)

    def create(self) -> None:
        """Makes the table or container when it is missing."""
        self._entries.create()

    def recorder(self, run: Run, now: Now, side: SideName = "backup", *, resumed: bool = False) -> Keep:
        """What a run passes to the store that it changes; `resumed` if it may have kept something before."""
        where, (start, shared, end) = self._of(run.sync_id), entries.bounds(run.sync_id)
        before = None
        if resumed:
            together = self._entries.count(where, "EntryId", shared, end)
            deleted = self._entries.count({**where, "Action": Action.DELETED.value}, "EntryId", start, shared)
            before = KeptBefore(together > 0, deleted > 0)
        # A restore's place may have other names for its columns; there no key is spelled anew by a run.
        exact = side == "source" or self._backup.traits.keys_are_exact
        mine = {**where, "Side": side, "Place": self._backup.catalog.qualified_name()}
        return Recorder(self._entries, mine, now, None if exact else self._backup, before)

    def counted(self, sync_id: str) -> Counts:
        """How many of the backup's records the run has changed so far; none is skipped."""
        where, (start, shared, end) = {**self._of(sync_id), "Side": "backup"}, entries.bounds(sync_id)
        found = {
            action: self._entries.count({**where, "Action": action.value}, "EntryId", start, shared)
            for action in Action
        }
        together = (
            entries.number_of_keys(entry) for page in entries.pages(self._entries, where, shared, end) for entry in page
        )
        return Counts(found[Action.INSERTED] + sum(together), found[Action.UPDATED], found[Action.DELETED])

    def take_back(self, sync_id: str, keys: Collection[Key]) -> None:
        """Deletes what the run has kept of the backup's records with these keys, where the backup has it still: images
        of changes that were refused. A store without transactions keeps them before it knows. Cost: a lookup."""
        hashes, _ = entries.found_by(keys)
        start, shared, _ = entries.bounds(sync_id)
        for page in entries.pages_of_hashes(self._entries, hashes, {**self._of(sync_id), "Side": "backup"}):
            alone = (entry for entry in page if start < entry["EntryId"] < shared)
            found = {kept.key: kept for entry in alone for kept in entries.kept(entry) if kept.key in keys}
            images = (image for some in self._backup.images([*found], Action.UPDATED) for image in some)
            there = {image.key: image.record for image in images}
            self._entries.delete([kept.entry_id for key, kept in found.items() if kept.record == there.get(key)])

    def _of(self, sync_id: str) -> dict[str, str]:
        return {"SyncId": sync_id, "ServiceName": self._service}

    @cached_property
    def _timeline(self) -> Timeline:
        return self._ask()

    def _of_place(self) -> dict[str, Any]:
        return {"ServiceName": self._service, "Place": [self._backup.catalog.qualified_name(), None]}

    def _is_mine(self, entry: Mapping[str, Any]) -> bool:
        return entry["Place"] is not None or self._timeline.knows(entry["SyncId"])

    def newest(self, below: datetime | None = None) -> datetime | None:
        """When the newest entry was made, of those whose time is below that."""
        page = self._entries.find(
            self._of_place(), order_by="RecycledAt", descending=True, below=below, limit=1, fields=("RecycledAt",)
        )
        return page[0]["RecycledAt"] if page else None

    def oldest(self) -> datetime | None:
        """When the oldest entry was made."""
        page = self._entries.find(self._of_place(), order_by="RecycledAt", limit=1, fields=("EntryId", "RecycledAt"))
        return self._moment(page[0]) if page else None

    def of_run(self, sync_id: str, action: Action | None = None, *, records: bool = True) -> Iterator[list[Kept]]:
        """What the run changed, in any way or in this one, in no order that says anything, some at a time: with their
        `records` about as much as a batch holds."""
        start, _, end = entries.bounds(sync_id)
        where = self._of(sync_id) | ({} if action is None else {"Action": action.value})
        for page in entries.pages(self._entries, where, start, end, records=records):
            some, size = list[Kept](), 0
            page.reverse()
            while page:
                for kept in entries.kept(page.pop()):
                    some.append(kept)
                    size += _size(kept)
                    if len(some) == _AT_ONCE or size > _BYTES_AT_ONCE:
                        yield some
                        some, size = [], 0
                    del kept  # or it would be held beside the next
            if some:
                yield some
            del some

    def has_any_of(self, sync_id: str) -> bool:
        """Whether it has an image of what the run changed."""
        start, _, end = entries.bounds(sync_id)
        where = self._of(sync_id)
        return bool(self._entries.find(where, order_by="EntryId", above=start, below=end, limit=1, fields=("EntryId",)))

    def knows_keys_of(self, sync_id: str) -> bool:
        """Whether the keys that the run changed are such as the backup has now. Else their columns have other types
        since, and its entries cannot be told from those of the same records after that."""
        first = next(self.of_run(sync_id, records=False), [])
        return all(self._backup.keys.may_hold(kept.key) for kept in first if kept.side == "backup")

    def of_keys(self, keys: Iterable[Key], after: datetime | None = None, *, records: bool = True) -> list[Kept]:
        """The entries of the backup's records with these keys, later than `after`, oldest first.

        Also those of keys that the server may take for the same; see `exact.key_hash`.
        """
        hashes, asked = entries.found_by(keys)
        found = [
            kept
            for page in entries.pages_of_hashes(self._entries, hashes, self._of_place(), records=records)
            for entry in page
            if self._is_mine(entry) and (after is None or self._moment(entry) > after)
            for kept in entries.kept_of(entry, asked)
        ]
        timed = (
            replace(kept, at=self._timeline.moment(kept.sync_id, kept.at), number=self._timeline.number(kept.sync_id))
            for kept in found
            if kept.side == "backup"
        )
        return sorted(timed, key=lambda kept: (kept.number, kept.at))

    def _moment(self, entry: Mapping[str, Any]) -> datetime:
        # By its id: a part of an entry has not all its fields.
        return self._timeline.moment(str(UUID(entry["EntryId"][:32])), entry["RecycledAt"])

    def with_records(self, some: Iterable[Kept]) -> Iterator[list[Kept]]:
        """The same with their records, in no order that says anything, about as much at a time as a batch holds. One of
        an insert has no record, and is left out."""
        found = {kept.entry_id: kept for kept in some if kept.action is not Action.INSERTED}
        for page in entries.pages(self._entries, {"EntryId": [*found]}) if found else ():
            page.reverse()
            whole, size = list[Kept](), 0
            while page:
                for kept in entries.kept(page.pop()):
                    whole.append(replace(found[kept.entry_id], record=kept.record))
                    size += _size(kept)
                    del kept  # or it would be held beside the next
                if size > _BYTES_AT_ONCE:
                    yield whole
                    whole, size = [], 0
            if whole:
                yield whole
            del whole

    def first_after(self, keys: Iterable[Key], after: datetime, *, records: bool = True) -> dict[Key, Kept]:
        """For each of these keys, and those like them, that was changed after a time: its record's first entry since.

        Its record is the one that the backup held at that time. Where a record's key was spelled anew (A for a, under
        a collation that ignores case), all its spellings lead to the one entry. Holds the images of all changes since,
        or, without `records`, none: `with_records` reads those that are wanted.
        """
        keys = list(keys)
        groups: dict[str, list[Kept]] = {}
        for kept in self.of_keys(keys, after, records=records):
            groups.setdefault(key_hash(kept.key), []).append(kept)
        asked: dict[str, set[Key]] = {}
        for key in keys if not (records or self._backup.traits.keys_are_exact) else ():
            asked.setdefault(key_hash(key), set()).add(key)
        first: dict[Key, Kept] = {}
        for hashed, group in groups.items():
            name: dict[Key, Key] = {}  # one for all spellings of a record: an image's own key tells what it was before
            respelled = len({kept.key for kept in group} | asked.get(hashed, set())) > 1
            for kept in group:
                spellings = {kept.key, self._own_key(kept) if records or respelled else kept.key}
                known = {name[key] for key in spellings if key in name}
                chosen = next(iter(known), kept.key)
                name |= dict.fromkeys(spellings, chosen)
                name |= {key: chosen for key, other in name.items() if other in known}
            oldest: dict[Key, Kept] = {}
            for kept in group:
                oldest.setdefault(name[kept.key], kept)
            first |= {key: oldest[name[key]] for key in name}
        return first

    def _own_key(self, kept: Kept) -> Key:
        """The key as the record itself spells it."""
        if kept.record is None and kept.action is not Action.INSERTED:
            kept = next((one for some in self.with_records([kept]) for one in some), kept)
        return self._backup.keys.of(kept.record) if kept.record else kept.key

    def purge(self, before: datetime, seconds_left: Callable[[], float] = lambda: float("inf")) -> int:
        """Deletes the entries that are older than a time, a batch at a time, oldest first, one at least and while there
        is time; returns how many.

        Those whose time lies ahead are as old as their runs are.
        """
        purged = self._purge(before, seconds_left, below=before)
        if seconds_left() > 0:
            purged += self._purge(before, seconds_left, above=self._timeline.now)
        return purged

    def _purge(
        self,
        before: datetime,
        seconds_left: Callable[[], float],
        above: datetime | None = None,
        below: datetime | None = None,
    ) -> int:
        purged = 0
        fields = ("EntryId", "RecycledAt")
        while True:
            page = self._entries.find(
                self._of_place(), order_by="RecycledAt", above=above, below=below, limit=entries.PAGE, fields=fields
            )
            # Of an entry in parts each has its id.
            old = list(dict.fromkeys(entry["EntryId"] for entry in page if self._moment(entry) < before))
            self._entries.delete(old)
            purged += len(old)
            if len(page) < entries.PAGE or seconds_left() <= 0:
                return purged
            if not old:  # younger than they say; many entries may have one time, and what is left of it comes next time
                above = page[-1]["RecycledAt"]


def _size(kept: Kept) -> int:
    return sum(len(value) for value in (kept.record or {}).values() if isinstance(value, str | bytes))
