"""The recycle bin: what runs overwrote or deleted, kept whole beside the backup. Never changes the backup itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

from backup.models import Action, Counts, Image, Key, Now, Run
from backup.stores import Keep, Shape, Sibling, Store
from backup.stores.exact import (
    is_one_integer,
    key_from_text,
    key_hash,
    key_to_text,
    record_from_text,
    record_to_text,
)

RECYCLE_BIN = Shape(
    name="RecycleBin",
    container="recycle-bin",
    key="EntryId",
    partition="EntryId",  # each entry its own partition: a run may keep more than one partition may hold
    fields={
        "EntryId": "name",
        "ServiceName": "name",
        "SyncId": "name",
        "Side": "name",
        "Action": "name",
        "KeyHash": "name",
        "RecordKey": "text",
        "Version": "text",
        "Record": "text",
        "RecycledAt": "time",
    },
    indexes=(("KeyHash",), ("RecycledAt",)),
)
_FIRST_PAGE = 16
_PAGE = 500
_PAGE_CHARACTERS = 8 * 1024 * 1024
_HASHES_AT_ONCE = 100

Held = Literal["backup", "source"]
"""Where the kept record was: in the backup, or in the place that a restore wrote to."""


@dataclass(frozen=True)
class Kept:
    """One entry: the record as it was before `action` of the run `sync_id`; None where there was none."""

    entry_id: str
    sync_id: str
    side: Held
    action: Action
    key: Key
    key_hash: str
    version: tuple[Any, ...] | None
    record: dict[str, Any] | None
    at: datetime


class RecycleBin:
    """The entries of one service in one backup. There is one for each record that a run changed: its first image."""

    def __init__(self, backup: Store, service: str) -> None:
        self._backup, self._service = backup, service
        self._entries: Sibling = backup.sibling(RECYCLE_BIN)

    def create(self) -> None:
        """Makes the table or container when it is missing."""
        self._entries.create()

    def keeper(self, run: Run, now: Now, side: Held = "backup") -> Keep:
        """What a run passes to the store that it changes."""

        def keep(images: Sequence[Image], transaction: Any) -> None:
            same = {"ServiceName": self._service, "SyncId": run.sync_id, "Side": side, "RecycledAt": now()}
            self._entries.add([same | _entry(prefix, side, image) for image in images], transaction)

        prefix = _prefix(run.sync_id)
        return keep

    def counted(self, sync_id: str) -> Counts:
        """How many of the backup's records the run has changed so far; none is skipped."""
        where = {"SyncId": sync_id, "ServiceName": self._service, "Side": "backup"}
        start = _prefix(sync_id)
        found = {
            action: self._entries.count({**where, "Action": action.value}, "EntryId", start, f"{start}g")
            for action in Action
        }
        return Counts(found[Action.INSERTED], found[Action.UPDATED], found[Action.DELETED])

    def newest(self) -> datetime | None:
        """When the newest entry was made."""
        page = self._entries.find(
            {"ServiceName": self._service}, order_by="RecycledAt", descending=True, limit=1, fields=("RecycledAt",)
        )
        return page[0]["RecycledAt"] if page else None

    def of_run(self, sync_id: str) -> Iterator[list[Kept]]:
        """The run's entries, in no order that says anything, a page at a time."""
        start = _prefix(sync_id)
        for page in self._pages({"SyncId": sync_id, "ServiceName": self._service}, start, f"{start}g"):
            yield list(map(_kept, page))

    def of_keys(self, hashes: Iterable[str], after: datetime | None = None) -> list[Kept]:
        """The entries of the backup's records whose keys have these hashes, later than `after`, oldest first.

        Two keys that a server tells apart may share a hash; see `exact.key_hash`.
        """
        asked = sorted(set(hashes))
        found = [
            _kept(entry)
            for start in range(0, len(asked), _HASHES_AT_ONCE)
            for page in self._pages({"KeyHash": asked[start : start + _HASHES_AT_ONCE], "ServiceName": self._service})
            for entry in page
            if after is None or entry["RecycledAt"] > after
        ]
        return sorted((kept for kept in found if kept.side == "backup"), key=lambda kept: kept.at)

    def _pages(
        self, where: Mapping[str, Any], above: str | None = None, below: str | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """Entries in the order of their ids, as many at once as their records are small."""
        last, size = above, _FIRST_PAGE
        while page := self._entries.find(where, order_by="EntryId", above=last, below=below, limit=size):
            yield page
            if len(page) < size:
                return
            last = page[-1]["EntryId"]
            largest = max(len(entry["Record"] or "") for entry in page) or 1
            size = max(1, min(_PAGE, size * 4, _PAGE_CHARACTERS // largest))

    def first_after(self, hashes: Iterable[str], after: datetime) -> dict[Key, Kept]:
        """For each key with one of these hashes that was changed after a time: the first entry of its record since.

        Its record is the one that the backup held at that time. Where a record's key was spelled anew (A for a, under
        a collation that ignores case), all its spellings lead to the one entry.
        """
        groups: dict[str, list[Kept]] = {}
        for kept in self.of_keys(hashes, after):
            groups.setdefault(kept.key_hash, []).append(kept)
        first: dict[Key, Kept] = {}
        for group in groups.values():
            name: dict[Key, Key] = {}  # one for all spellings of a record: an image's own key tells what it was before
            for kept in group:
                spellings = {kept.key, self._backup.key_of(kept.record) if kept.record else kept.key}
                known = {name[key] for key in spellings if key in name}
                chosen = next(iter(known), kept.key)
                name |= dict.fromkeys(spellings, chosen)
                name |= {key: chosen for key, other in name.items() if other in known}
            oldest: dict[Key, Kept] = {}
            for kept in group:
                oldest.setdefault(name[kept.key], kept)
            first |= {key: oldest[name[key]] for key in name}
        return first

    def purge(self, before: datetime) -> int:
        """Deletes the entries older than a time, a batch at a time, oldest first; returns how many."""
        purged = 0
        while True:
            page = self._entries.find(
                {"ServiceName": self._service}, order_by="RecycledAt", below=before, limit=_PAGE, fields=("EntryId",)
            )
            self._entries.delete([entry["EntryId"] for entry in page])
            purged += len(page)
            if len(page) < _PAGE:
                return purged


def _entry(prefix: str, side: Held, image: Image) -> dict[str, Any]:
    """What the entry has of its own among those of a batch."""
    key = key_to_text(image.key)
    return {
        # The same for every try of the same change: only the first image of a record in a run is kept.
        "EntryId": prefix + _place(side, image.key, key),
        "Action": image.action.value,
        "KeyHash": key_hash(image.key),
        "RecordKey": key,
        "Version": None if image.version is None else key_to_text(image.version),
        "Record": None if image.record is None else record_to_text(image.record),
    }


def _prefix(sync_id: str) -> str:
    """What the ids of a run's entries begin with, so that they lie together; its characters sort alike anywhere."""
    return sync_id.replace("-", "")


def _place(side: Held, key: Key, text: str) -> str:
    """What is one's own of an entry's id among those of its run; its characters sort alike anywhere.

    Integers keep their order: entries of neighbours are written to the same pages of the id's index.
    """
    if is_one_integer(key):
        return f"{'b' if side == 'backup' else 'a'}{key[0] + (1 << 63):016x}"
    return sha256(f"{side} {text}".encode()).hexdigest()[:32]


def _kept(entry: dict[str, Any]) -> Kept:
    return Kept(
        entry["EntryId"],
        entry["SyncId"],
        entry["Side"],
        Action(entry["Action"]),
        key_from_text(entry["RecordKey"]),
        entry["KeyHash"],
        key_from_text(entry["Version"]) if entry["Version"] else None,
        record_from_text(entry["Record"]) if entry["Record"] else None,
        entry["RecycledAt"],
    )
