"""Blocks of keys on SQLite, where the key is the number of its row: SQLite seeks each block in the table itself.

As of whole tables, versions alone are listed of a block that has all of its numbers, and pairs where some are missing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa

from backup.core.key_ranges import EqualRanges
from backup.core.model import Fingerprint
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.column import ServerType
from backup.stores.sql.engines.sqlite.text import in_utf_8
from backup.stores.sql.engines.sqlite.version_lists import DIGITS, FUNCTIONS, number_of_pairs
from backup.stores.sql.engines.sqlite.wide_blocks import fingerprints_of_wide

_LARGEST = (1 << 63) - 1
_WIDEST_FULL = 128  # a wider block is asked for because its numbers lie far apart
_FEW = 16  # blocks, of which each may take a statement of its own if it is wide
_BLOB = ServerType("BLOB")


class SqliteBlocks:
    """As `ServerBlocks`. This process hashes a short list of each block."""

    def fingerprints(
        self, cx: sa.Connection, stamps: StampColumns, conditions: Sequence[sa.ColumnElement[bool]], blocks: EqualRanges
    ) -> Mapping[int, Fingerprint] | None:
        """None also where a version is not an integer, and where there are conditions."""
        if conditions or blocks.last > _LARGEST - blocks.width:
            return None
        try:
            if blocks.width > _WIDEST_FULL and blocks.last - blocks.first < _FEW * blocks.width:
                return fingerprints_of_wide(cx, stamps, blocks)
            return _fingerprints(cx, stamps, blocks)
        except (sqlite3.Error, sa.exc.DBAPIError) as error:
            if "BLOB" in str(error):
                return None
            raise error if isinstance(error, sa.exc.DBAPIError) else sa.exc.DBAPIError(None, None, error) from None

    def contain(self, key: sa.Column[Any], starts: Sequence[int], width: int) -> sa.ColumnElement[bool]:
        return _within(key, _table_of(key, starts), width)


def _fingerprints(cx: sa.Connection, stamps: StampColumns, blocks: EqualRanges) -> Mapping[int, Fingerprint] | None:
    starts: Sequence[int] = range(blocks.first, blocks.last + 1, blocks.width)
    [key], [version], *_ = stamps
    made: dict[int, Fingerprint] = {}
    if blocks.width <= _WIDEST_FULL:
        listed, starts = starts, []
        full = b"[" + b"," * (blocks.width - 1) + b"]"
        for start, text in _lists(cx, key, listed, blocks.width, sa.func.json_group_array(version)):
            if text == b"[]":  # of width 1 a full block has this text, too, without its digits
                continue
            if text.translate(None, DIGITS) == full:
                made[start] = _fingerprint(start, blocks.width, text)
            else:
                starts.append(start)
    for start, text in _lists(cx, key, starts, blocks.width, sa.func.json_group_object(key, version)):
        records = number_of_pairs(text)
        if records is None:
            return None
        if records:
            made[start] = _fingerprint(start, records, text)
    return made


def _fingerprint(start: int, records: int, text: bytes) -> Fingerprint:
    digest = blake2b(b"%d,%d:%b" % (start, records, text), digest_size=16).digest()
    return Fingerprint(FUNCTIONS, records, (), int.from_bytes(digest))


def _lists(
    cx: sa.Connection, key: sa.Column[Any], starts: Sequence[int], width: int, values: Any
) -> Iterator[tuple[int, bytes]]:
    """Each start with the list of values of its block."""
    if not starts:
        return
    blocks = _table_of(key, starts)
    in_block = sa.select(sa.cast(values, _BLOB)).select_from(key.table).where(_within(key, blocks, width))
    # No index may be used, which would have another order.
    texts = in_block.with_hint(key.table, "NOT INDEXED").correlate(blocks).scalar_subquery()
    cursor: Any = cx.execute(sa.select(blocks.c.value, texts)).cursor  # the driver's own cursor converts nothing
    for start, text in cursor:
        yield start, in_utf_8(text)


def _table_of(key: sa.Column[Any], starts: Sequence[int]) -> Any:
    """The starts as a table beside that of the key, under another name than it has."""
    listed = sa.literal(json.dumps([*starts]), sa.Text)
    return sa.func.json_each(listed).table_valued("value", name=f"{key.table.name} blocks")


def _within(key: sa.Column[Any], blocks: Any, width: int) -> sa.ColumnElement[bool]:
    start = sa.type_coerce(blocks.c.value, sa.BigInteger)
    last = start + sa.literal(width - 1, sa.BigInteger)
    return sa.and_(key >= start, key <= last)
