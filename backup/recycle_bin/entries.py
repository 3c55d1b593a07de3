"""The entries of the recycle bin: one for each changed record, or one for many keys that were inserted together."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from itertools import chain, groupby
from typing import Any

from backup.core.errors import StoreError
from backup.core.key_ranges import KeyRange, NumberedKeys
from backup.core.model import Action, Image, Key
from backup.stores import EntriesToMake, LongText, Shape, Sibling, SideName
from backup.stores.exact_json import (
    is_one_integer,
    key_from_text,
    key_to_text,
    record_from_text,
    record_to_text,
)
from backup.stores.key_hash import digest_of, key_hash, key_hashes, ordered_digits

RECYCLE_BIN = Shape(
    name="RecycleBin",
    container="recycle-bin",
    key="EntryId",
    partition="EntryId",  # a partition for each entry: those of a run may be too many for one partition
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
    parts_with=(
        "ServiceName",
        "Place",
        "RecycledAt",
    ),  # a purge also finds parts, even if their entry was never written
)
_BLOCK_BITS = 16  # docs/decisions/keys-together.md
_FEWEST_TOGETHER = 8  # keys: fewer have an entry each, which is found by one hash
_TOGETHER = "g"  # sorts after all hexadecimal digits
_OF_BACKUP, _OF_SOURCE = "b", "a"


@dataclass(frozen=True)
class KeptImage:
    """What an entry says about one key: its record before `action` of the run `sync_id`.

    - `record`, `version`: None if there was no record before. `record` is also None if it was not read. `version` alone
      is None for a copy that was marked as deleted.
    - `side`: where the record was: in the backup, or in the place that a restore wrote to.
    - `entry_id`: keys that were inserted together have the same.
    - `number`: the number of the run; 0 if it was not looked up.
    - `came_back`: whether the record is known to have been inserted again since.
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
    came_back: bool = False

    @property
    def had_record(self) -> bool:
        """Whether the service had a record of this key before the change."""
        return self.version is not None


# --- making them ------------------------------------------------------------------------------------------------------


def prefix(sync_id: str) -> str:
    """Returns the first characters of the ids of a run's entries. Every server sorts these characters alike."""
    return sync_id.replace("-", "")


def bounds(sync_id: str) -> tuple[str, str, str]:
    """Returns three bounds of the ids of a run's entries: start, middle and end.

    Ids of entries with one key lie between start and middle, those of entries with many keys between middle and end.
    """
    start = prefix(sync_id)
    return start, f"{start}{_TOGETHER}", f"{start}h"


def to_make(table: Sibling, sync_id: str, fields: Mapping[str, Any]) -> EntriesToMake:
    """Returns how a server makes entries of a run about the backup's records, with these shared fields."""
    return EntriesToMake(table, f"{prefix(sync_id)}{_OF_BACKUP}", prefix(sync_id), _digested("backup"), fields)


def of_one(sync_id: str, side: str, image: Image) -> dict[str, Any]:
    """Returns the fields of the entry of one image, without the fields that all entries of a batch share."""
    key = key_to_text(image.key)
    record = None if image.record is None else record_to_text(image.record)
    return {
        # The id is the same for every try of a change, so that only the first image of a record in a run is kept. In a
        # source others write at the same time, so a later try may replace another record: there the record counts too.
        "EntryId": prefix(sync_id)
        + (_id_in_run(side, image.key, key) if side == "backup" else _digest(side, key, record)),
        "Action": image.action.value,
        "KeyHash": key_hash(image.key),
        "RecordKey": key,
        "Version": None if image.version is None else key_to_text(image.version),
        "Record": record,
    }


def together(sync_id: str, side: str, keys: Sequence[Key]) -> tuple[list[dict[str, Any]], Sequence[Key]]:
    """Makes entries of many keys each, for inserted integer keys. Returns them, and the keys that need their own entry.

    Keys of one entry have all bits but the last 16 in common. These bits are their block, by which the entry is found.
    """
    numbers: Sequence[int]
    if isinstance(keys, NumberedKeys):
        numbers = keys.numbers
    elif not keys or len(keys[0]) != 1 or {type(key[0]) for key in keys} != {int}:
        return [], keys
    else:
        numbers = sorted({key[0] for key in keys})
    if not (is_one_integer((numbers[0],)) and is_one_integer((numbers[-1],))):
        return [], keys
    entries_of_many: list[dict[str, Any]] = []
    alone: list[Key] = []
    start = 0
    while start < len(numbers):
        block = _block_number(numbers[start])
        end = bisect_left(numbers, (block + 1) << _BLOCK_BITS, start)
        in_block = numbers[start:end]
        if len(in_block) < _FEWEST_TOGETHER:
            alone += ((number,) for number in in_block)
        else:
            entries_of_many.append(_of_many(sync_id, side, block, in_block))
        start = end
    return entries_of_many, alone


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


def _id_in_run(side: str, key: Key, text: str) -> str:
    """The part of an entry's id behind the run's prefix. Every server sorts its characters alike.

    Integer keys keep their order, so that the entries of neighbours fall on the same pages of the index. A server makes
    the same (`EntriesToMake`).
    """
    if is_one_integer(key):
        return f"{_OF_BACKUP if side == 'backup' else _OF_SOURCE}{ordered_digits(key[0])}"
    return digest_of(f"{_digested(side)}{text}")


def _digested(side: str) -> str:
    """What stands before a key where both are digested."""
    return f"{side} "


def _digest(side: str, key: str, record: str | LongText | None = None) -> str:
    digest = sha256(f"{_digested(side)}{key}".encode())
    for piece in [record] if isinstance(record, str) else record or ():
        digest.update(piece.encode())
    return digest.hexdigest()[:32]


def _block_number(key: int) -> int:
    return key >> _BLOCK_BITS


def _block(number: int) -> str:
    return f"block {number}"


def _block_of(key: Key) -> str | None:
    """The block of a key, whatever type its number has. None if it is not a single whole number."""
    if len(key) != 1 or not isinstance(key[0], int | Decimal | float):
        return None
    try:
        whole = int(key[0])
    except (ValueError, OverflowError):  # an infinity or a NaN
        return None
    return _block(_block_number(whole)) if whole == key[0] else None


def _ranges_to_text(keys: Sequence[int]) -> str:
    """`[[1,5],[8,8]]` for 1 to 5 and 8, of ascending keys."""
    if keys[-1] - keys[0] + 1 == len(keys):  # true for most batches, and ten times faster
        return f"[[{keys[0]},{keys[-1]}]]"
    # Within a range the difference of key and position stays the same.
    groups = groupby(enumerate(keys), key=lambda pair: pair[1] - pair[0])
    ranges = [[key for _, key in group] for _, group in groups]
    return json.dumps([[numbers[0], numbers[-1]] for numbers in ranges], separators=(",", ":"))


# --- reading them -----------------------------------------------------------------------------------------------------


def kept(entry: Mapping[str, Any]) -> Iterator[KeptImage]:
    """Yields what the entry says about each of its keys. Keeps no reference to an entry of one key: it may be large."""
    kept_of_keys = kept_of(entry, {})
    with _named(entry):
        return kept_of_keys if _is_of_many(entry) else iter([*kept_of_keys])


def ranges_of(entry: Mapping[str, Any]) -> list[KeyRange] | None:
    """Returns the keys of an entry of inserted records as ascending ranges, if they are integers of the backup and
    there was no record before; else None."""
    with _named(entry):
        if entry["Side"] != "backup" or entry["Record"] is not None:
            return None
        if _is_of_many(entry):
            return [(first, last) for first, last in json.loads(entry["RecordKey"])]
        key = key_from_text(entry["RecordKey"])
        return [(key[0], key[0])] if is_one_integer(key) else None


def every_key_of(entry: Mapping[str, Any]) -> Iterator[Key]:
    """Yields the keys of the entry."""
    with _named(entry):
        yield from _keys(entry)


def number_of_keys(entry: Mapping[str, Any]) -> int:
    """Returns how many keys the entry has."""
    with _named(entry):
        text = entry["RecordKey"]
        return sum(last - first + 1 for first, last in json.loads(text)) if text.startswith("[[") else 1


def kept_of(entry: Mapping[str, Any], keys_by_block: Mapping[str, set[Key]]) -> Iterator[KeptImage]:
    """Yields what the entry says about its keys. Of an entry of many keys, only those in `keys_by_block` count."""
    with _named(entry):
        in_block = keys_by_block.get(entry["KeyHash"])
        yield from (_kept(entry, key) for key in _keys(entry) if in_block is None or key in in_block)


def hashes_of(keys: Iterable[Key]) -> tuple[list[str], dict[str, set[Key]]]:
    """Returns the values of KeyHash that entries of these keys may have, and by block the keys that may be together."""
    keys = [*keys]
    blocks = blocks_of(keys)
    return sorted({*chain.from_iterable(map(key_hashes, keys)), *blocks}), blocks


def blocks_of(keys: Iterable[Key]) -> dict[str, set[Key]]:
    """Returns by block the keys that may be together: the values of KeyHash of entries of many keys."""
    blocks: dict[str, set[Key]] = {}
    for key in keys:
        if (block := _block_of(key)) is not None:
            blocks.setdefault(block, set()).add(key)
    return blocks


@contextmanager
def _named(entry: Mapping[str, Any]) -> Iterator[None]:
    """Raises a StoreError that names the entry if it cannot be read: whoever would go on without it would undo or
    restore less than was asked for."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(
            f"The entry {entry.get('EntryId')} of the recycle bin cannot be read ({type(error).__name__}). What was "
            "written before stays.",
            hint="Restore other records by their keys. Or give up the images of this entry: delete it from "
            f"{RECYCLE_BIN.name}, and run it again.",
        ) from None


def _is_of_many(entry: Mapping[str, Any]) -> bool:
    return bool(entry["RecordKey"].startswith("[["))  # a key contains no list, so its text never begins so


def _keys(entry: Mapping[str, Any]) -> Iterator[Key]:
    text = entry["RecordKey"]
    if not _is_of_many(entry):
        return iter([key_from_text(text)])
    return ((key,) for first, last in json.loads(text) for key in range(first, last + 1))


def _kept(entry: Mapping[str, Any], key: Key) -> KeptImage:
    if not isinstance(entry["RecycledAt"], datetime):
        raise TypeError("RecycledAt")
    return KeptImage(
        entry["EntryId"],
        entry["SyncId"],
        entry["Side"],
        Action(entry["Action"]),
        key,
        key_from_text(entry["Version"]) if entry["Version"] else None,
        record_from_text(text) if (text := entry.get("Record")) else None,
        entry["RecycledAt"],
    )
