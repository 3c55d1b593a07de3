"""What the recycle bin's table holds: an entry for each changed record, or one for many keys inserted together."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from itertools import groupby
from typing import Any

from backup.core.model import Action, Image, Key
from backup.stores import Shape, Sibling, SideName
from backup.stores.exact_json import (
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
        "Place": "place",
    },
    indexes=(("KeyHash",), ("RecycledAt",)),
    parts_with=("ServiceName", "Place", "RecycledAt"),  # a purge takes parts too, also those whose entry never came
)
_WITHOUT_RECORD = tuple(name for name in RECYCLE_BIN.fields if name != "Record")
_FIRST_PAGE = 16
PAGE = 500
_PAGE_CHARACTERS = 8 * 1024 * 1024
_HASHES_AT_ONCE = 100
_HASHED_AT_ONCE = 1 << 20  # characters
_BLOCK_BITS = 16
_FEWEST_TOGETHER = 8
_TOGETHER = "g"  # behind all hexadecimal digits
_BEYOND_64_BITS = 1 << 63


@dataclass(frozen=True)
class Kept:
    """The record of a key as it was before `action` of the run `sync_id`; None where there was none.

    `side` is where the record was: in the backup, or in the place that a restore wrote to. Keys that were inserted
    together share the `entry_id`. `number` is that of the run, where it was asked for.
    """

    entry_id: str
    sync_id: str
    side: SideName
    action: Action
    key: Key
    version: tuple[Any, ...] | None
    record: dict[str, Any] | None
    at: datetime
    number: int = 0


# --- making them ------------------------------------------------------------------------------------------------------


def prefix(sync_id: str) -> str:
    """What the ids of a run's entries begin with, so that they lie together; its characters sort alike anywhere."""
    return sync_id.replace("-", "")


def bounds(sync_id: str) -> tuple[str, str, str]:
    """Ids that bound those of a run's entries: of one record each between the first two, of many between the last."""
    start = prefix(sync_id)
    return start, f"{start}{_TOGETHER}", f"{start}h"


def of_one(sync_id: str, side: str, image: Image) -> dict[str, Any]:
    """What the entry of one record has of its own among those of a batch."""
    key = key_to_text(image.key)
    record = None if image.record is None else record_to_text(image.record)
    return {
        # The same for every try of the same change: only the first image of a record in a run is kept. Others write to
        # a source meanwhile, so that there another try may replace another record.
        "EntryId": prefix(sync_id) + (_place(side, image.key, key) if side == "backup" else _digest(side, key, record)),
        "Action": image.action.value,
        "KeyHash": key_hash(image.key),
        "RecordKey": key,
        "Version": None if image.version is None else key_to_text(image.version),
        "Record": record,
    }


def together(sync_id: str, side: str, keys: Sequence[Key]) -> tuple[list[dict[str, Any]], Sequence[Key]]:
    """Entries for inserted integer keys that are near each other, many in each, and the keys that need one each.

    Keys are near if they share all but their last 16 bits: that is their block, by which they are found.
    """
    if not keys or len(keys[0]) != 1 or {type(key[0]) for key in keys} != {int}:
        return [], keys
    numbers = sorted({key[0] for key in keys})
    if not (is_one_integer((numbers[0],)) and is_one_integer((numbers[-1],))):
        return [], keys
    made: list[dict[str, Any]] = []
    alone: list[Key] = []
    start = 0
    while start < len(numbers):
        block = _block_number(numbers[start])
        end = bisect_left(numbers, (block + 1) << _BLOCK_BITS, start)
        found = numbers[start:end]
        if len(found) < _FEWEST_TOGETHER:
            alone += ((key,) for key in found)
        else:
            made.append(_of_many(sync_id, side, block, found))
        start = end
    return made, alone


def _of_many(sync_id: str, side: str, block: int, keys: Sequence[int]) -> dict[str, Any]:
    text = _ranges_to_text(keys)
    digest = sha256(f"{side} {text}".encode()).hexdigest()[:32]
    return {
        "EntryId": f"{prefix(sync_id)}{_TOGETHER}{digest}",
        "Action": Action.INSERTED.value,
        "KeyHash": _block(block),
        "RecordKey": text,
        "Version": None,
        "Record": None,
    }


def _place(side: str, key: Key, text: str) -> str:
    """What is one's own of an entry's id among those of its run; its characters sort alike anywhere.

    Integers keep their order: entries of neighbours are written to the same pages of the id's index.
    """
    if is_one_integer(key):
        return f"{'b' if side == 'backup' else 'a'}{key[0] + _BEYOND_64_BITS:016x}"
    return _digest(side, text)


def _digest(side: str, key: str, record: str | None = None) -> str:
    digest = sha256(f"{side} {key}".encode())
    for start in range(0, len(record or ""), _HASHED_AT_ONCE):
        digest.update((record or "")[start : start + _HASHED_AT_ONCE].encode())
    return digest.hexdigest()[:32]


def _block_number(key: int) -> int:
    return key >> _BLOCK_BITS


def _block(number: int) -> str:
    return f"block {number}"


def _block_of(key: Key) -> str | None:
    """The block of an asked key, however its number is written."""
    if len(key) != 1 or not isinstance(key[0], int | Decimal | float):
        return None
    try:
        whole = int(key[0])
    except (ValueError, OverflowError):  # infinite, or no number
        return None
    return _block(_block_number(whole)) if whole == key[0] else None


def _ranges_to_text(keys: Sequence[int]) -> str:
    """`[[1,5],[8,8]]` for 1 to 5 and 8, of ascending keys."""
    if keys[-1] - keys[0] + 1 == len(keys):  # most batches, at a tenth of the cost
        return f"[[{keys[0]},{keys[-1]}]]"
    # From key to key within a range, key less place stays the same.
    ranges = [[key for _, key in one] for _, one in groupby(enumerate(keys), key=lambda pair: pair[1] - pair[0])]
    return json.dumps([[found[0], found[-1]] for found in ranges], separators=(",", ":"))


# --- reading them -----------------------------------------------------------------------------------------------------


def kept(entry: Mapping[str, Any]) -> Iterator[Kept]:
    """What the entry says of each of its keys. Does not hold the entry of one key, whose record may be large."""
    if _is_of_many(entry):
        return (_kept(entry, key) for key in _keys(entry))
    return iter([_kept(entry, key) for key in _keys(entry)])


def number_of_keys(entry: Mapping[str, Any]) -> int:
    """How many keys the entry is of."""
    text = entry["RecordKey"]
    return sum(last - first + 1 for first, last in json.loads(text)) if text.startswith("[[") else 1


def kept_of(entry: Mapping[str, Any], asked: Mapping[str, set[Key]]) -> Iterator[Kept]:
    """The same, but of an entry of several keys only for those asked, by block."""
    wanted = asked.get(entry["KeyHash"])
    return (_kept(entry, key) for key in _keys(entry) if wanted is None or key in wanted)


def found_by(keys: Iterable[Key]) -> tuple[list[str], dict[str, set[Key]]]:
    """The hashes under which entries may have any of these keys; and those keys that entries of several may have, by
    block."""
    hashes: set[str] = set()
    blocks: dict[str, set[Key]] = {}
    for key in keys:
        hashes.add(key_hash(key))
        if (block := _block_of(key)) is not None:
            blocks.setdefault(block, set()).add(key)
    return sorted(hashes | blocks.keys()), blocks


def pages(
    entries: Sibling,
    where: Mapping[str, Any],
    above: str | None = None,
    below: str | None = None,
    transaction: Any = None,
    *,
    records: bool = True,
) -> Iterator[list[dict[str, Any]]]:
    """Entries in the order of their ids, as many at once as they are small; without their `records` if so asked."""
    last, size = above, _FIRST_PAGE if records else PAGE
    fields = () if records else _WITHOUT_RECORD
    while page := entries.find(
        where,
        order_by="EntryId",
        above=last,
        below=below,
        limit=size,
        fields=fields,
        transaction=transaction,
        max_bytes=_PAGE_CHARACTERS if records else None,
    ):
        last, sizes = page[-1]["EntryId"], [len(one.get("Record") or "") + len(one["RecordKey"]) for one in page]
        is_last = len(page) < size and sum(sizes) <= _PAGE_CHARACTERS
        yield page
        del page  # or it would be held beside the next
        if is_last:
            return
        size = max(1, min(PAGE, size * 4, _PAGE_CHARACTERS // max(sizes)))


def pages_of_hashes(
    entries: Sibling, hashes: Sequence[str], where: Mapping[str, Any], transaction: Any = None, *, records: bool = True
) -> Iterator[list[dict[str, Any]]]:
    """Entries that have one of these hashes."""
    for start in range(0, len(hashes), _HASHES_AT_ONCE):
        some = {"KeyHash": list(hashes[start : start + _HASHES_AT_ONCE])}
        yield from pages(entries, {**some, **where}, transaction=transaction, records=records)


def _is_of_many(entry: Mapping[str, Any]) -> bool:
    return bool(entry["RecordKey"].startswith("[["))  # no key has a list in it


def _keys(entry: Mapping[str, Any]) -> Iterator[Key]:
    text = entry["RecordKey"]
    if not _is_of_many(entry):
        return iter([key_from_text(text)])
    return ((key,) for first, last in json.loads(text) for key in range(first, last + 1))


def _kept(entry: Mapping[str, Any], key: Key) -> Kept:
    return Kept(
        entry["EntryId"],
        entry["SyncId"],
        entry["Side"],
        Action(entry["Action"]),
        key,
        key_from_text(entry["Version"]) if entry["Version"] else None,
        record_from_text(text) if (text := entry.get("Record")) else None,
        entry["RecycledAt"],
    )
