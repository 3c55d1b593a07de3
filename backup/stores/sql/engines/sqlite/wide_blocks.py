"""Fingerprints of neighbouring wide blocks on SQLite, from as few lists of versions as memory has room for.

To compare each number with the end of its block takes a tenth of the time. So one list is asked for of all of them, and
without an end where the table has no more rows; this process cuts it where a block ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from backup.core.key_ranges import EqualRanges
from backup.core.model import Fingerprint
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.column import spelled_column, spelled_table
from backup.stores.sql.engines.prepared import TABLES_KEPT
from backup.stores.sql.engines.sqlite.numbered import GAPS, KEYS_AT_ONCE, numbered_fingerprint
from backup.stores.sql.engines.sqlite.text import in_utf_8
from backup.stores.sql.engines.sqlite.version_lists import VersionList, added, are_numbers, made, number_of_values

_BYTES_AT_ONCE = 4 << 20  # of a list, which memory holds twice; numbers of any length may follow those that were seen
_KEYS_AT_MOST = 1_500_000
_LONGEST = len("-9223372036854775808,")
_STEPPED = 64
_BYTES_OF_A_VERSION = "bytes of a version"  # what a table's info says of the last list
_SPELLING = SQLiteDialect()


def fingerprints_of_wide(cx: sa.Connection, stamps: StampColumns, blocks: EqualRanges) -> dict[int, Fingerprint] | None:
    """The fingerprints of those of the blocks that have rows, by their names: of each the one that
    `numbered_fingerprint` gives. None where it gives none of one."""
    fingerprints: dict[int, Fingerprint] = {}
    info, left = stamps.key[0].table.info, [*blocks.parts(1)]
    while left:
        keys_at_once = min(_KEYS_AT_MOST, int(_BYTES_AT_ONCE / info.get(_BYTES_OF_A_VERSION, _LONGEST)))
        number = max(1, keys_at_once // blocks.width)
        neighbours, left = EqualRanges(left[0].first, left[:number][-1].last, blocks.width), left[number:]
        of_blocks = _of_list(cx, stamps, neighbours) if blocks.width <= KEYS_AT_ONCE else None
        if of_blocks is None:
            of_blocks = _of_each(cx, stamps, neighbours)
        if of_blocks is None:
            return None
        fingerprints |= of_blocks
    return fingerprints


def _of_each(cx: sa.Connection, stamps: StampColumns, blocks: EqualRanges) -> dict[int, Fingerprint] | None:
    fingerprints: dict[int, Fingerprint] = {}
    key: Any = stamps.key[0]
    at_most = None if blocks.width <= KEYS_AT_ONCE else KEYS_AT_ONCE
    for start in range(blocks.first, blocks.last + 1, blocks.width):
        ends = [key >= sa.literal(start, key.type), key < sa.literal(start + blocks.width, key.type)]
        of_block = numbered_fingerprint(cx, stamps, ends, at_most, in_parts=True)
        if of_block is None:
            return None
        if of_block.records:
            fingerprints[start] = of_block
    return fingerprints


def _of_list(cx: sa.Connection, stamps: StampColumns, blocks: EqualRanges) -> dict[int, Fingerprint] | None:
    """As `_of_each`, by one list; None where numbers are missing between the first and the last, or a version is no
    integer."""
    [key], [version] = stamps.key, stamps.version
    info, starts = key.table.info, range(blocks.first, blocks.last + 1, blocks.width)
    if info.get(GAPS):
        return None
    # Behind a last block that is not full, the table has no row, as far as anybody knows. Else the rest is cut off.
    end = starts[-1] + blocks.width
    bounds = (blocks.first, end) if blocks.last + 1 == end else (blocks.first,)
    cursor: Any = cx.exec_driver_sql(_spelled(key, version, len(bounds) > 1), bounds).cursor
    [(first, last, text)] = cursor.fetchall()
    text = in_utf_8(text)
    records = number_of_values(text)
    if records is None or (records and not are_numbers(first, last)):
        return None
    rows = VersionList(first, last, records, text)
    if rows.has_gaps:
        info[GAPS] = True
        return None
    if records:
        info[_BYTES_OF_A_VERSION] = len(text) / records
    of_blocks = zip(starts, _cut(rows, starts, blocks.width), strict=True)
    return {
        start: made(part.records, added(blake2b(digest_size=16), part)) for start, part in of_blocks if part.records
    }


@lru_cache(maxsize=2 * TABLES_KEPT)
def _spelled(key: sa.Column[Any], version: sa.Column[Any], has_end: bool) -> str:
    """The statement that selects the first and the last number and the versions in the order of the numbers, from one
    number on, and up to the one before another."""
    table = spelled_table(_SPELLING, key.table)
    number, value = (spelled_column(_SPELLING, key.table, column.name) for column in (key, version))
    rows = f"FROM {table} NOT INDEXED WHERE {number} >= ?1{f' AND {number} < ?2' if has_end else ''}"
    ends = f"(SELECT min({number}) {rows}), (SELECT max({number}) {rows})"
    return f"SELECT {ends}, CAST(json_group_array({value}) AS BLOB) {rows}"


def _cut(rows: VersionList, starts: range, width: int) -> Iterator[VersionList]:
    """The rows of each block. Rows behind the last one are in none."""
    place, next_number, behind = 1, rows.first or 0, (rows.last or 0) + 1
    for start in starts:
        first, end = max(start, next_number), min(start + width, behind)
        if first >= end or not rows.records:
            yield VersionList(None, None, 0, b"[]")
            continue
        # Of the last row, no comma ends the version.
        upto = len(rows.text) if end == behind else _behind_commas(rows.text, place, end - first)
        yield VersionList(first, end - 1, end - first, b"[%b]" % rows.text[place : upto - 1])
        place, next_number = upto, end


def _behind_commas(text: bytes, place: int, commas: int) -> int:
    """The place behind so many commas from `place` on, where a version begins."""
    # Each comma stands behind a digit. So twice as many bytes as commas have no more of them.
    while commas > _STEPPED:
        upto = place + 2 * (commas - _STEPPED // 2)
        commas, place = commas - text.count(b",", place, upto), upto
    for _ in range(commas):
        place = text.index(b",", place) + 1
    return place
