"""Fingerprints of neighbouring wide blocks on SQLite, from as few lists of versions as memory has room for.

To compare each number with the end of its block takes a tenth of the time. So one list is asked for of all of them, and
without an end where the table has no more rows; this process cuts it where a block ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import sqlalchemy as sa

from backup.core.model import Fingerprint
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.sqlite.numbered import KEYS_AT_ONCE, listed_versions, numbered_fingerprint
from backup.stores.sql.engines.sqlite.version_lists import VersionList, added, made

_BYTES_AT_ONCE = 4 << 20  # of a list, which memory holds twice; numbers of any length may follow those that were seen
_KEYS_AT_MOST = 1_500_000
_LONGEST = len("-9223372036854775808,")
_BYTES_OF_A_VERSION = "bytes of a version"
_STEPPED = 64


def fingerprints_of_wide(
    cx: sa.Connection, stamps: StampColumns, starts: Sequence[int], width: int
) -> dict[int, Fingerprint] | None:
    """The fingerprints of those of these blocks that have rows, by their first numbers: of each the one that
    `numbered_fingerprint` gives. None where it gives none of one."""
    fingerprints: dict[int, Fingerprint] = {}
    while starts:
        number = _blocks_at_once(stamps, width)
        blocks, starts = starts[:number], starts[number:]
        of_blocks = (len(blocks) > 1 and _of_dense(cx, stamps, blocks, width)) or _of_each(cx, stamps, blocks, width)
        if of_blocks is None:
            return None
        fingerprints |= of_blocks
    return fingerprints


def _blocks_at_once(stamps: StampColumns, width: int) -> int:
    bytes_of_version = stamps.key[0].table.info.get(_BYTES_OF_A_VERSION, _LONGEST)
    return max(1, min(_KEYS_AT_MOST, int(_BYTES_AT_ONCE / bytes_of_version)) // width)


def _of_each(
    cx: sa.Connection, stamps: StampColumns, starts: Sequence[int], width: int
) -> dict[int, Fingerprint] | None:
    fingerprints: dict[int, Fingerprint] = {}
    key = stamps.key[0]
    at_most = None if width <= KEYS_AT_ONCE else KEYS_AT_ONCE
    for start in starts:
        ends = [key >= sa.literal(start, key.type), key < sa.literal(start + width, key.type)]
        of_block = numbered_fingerprint(cx, stamps, ends, at_most, in_parts=True)
        if of_block is None:
            return None
        if of_block.records:
            fingerprints[start] = of_block
    return fingerprints


def _of_dense(
    cx: sa.Connection, stamps: StampColumns, starts: Sequence[int], width: int
) -> dict[int, Fingerprint] | None:
    """As `_of_each`, by one list; None where numbers are missing between the first and the last, and where a version is
    no integer."""
    if width > KEYS_AT_ONCE:
        return None
    rows = listed_versions(cx, stamps, starts[0], starts[-1] + width)
    if rows is None:
        return None
    if rows.records:
        stamps.key[0].table.info[_BYTES_OF_A_VERSION] = len(rows.text) / rows.records
    cut = zip(starts, _cut(rows, starts, width), strict=True)
    return {start: made(part.records, added(blake2b(digest_size=16), part)) for start, part in cut if part.records}


def _cut(rows: VersionList, starts: Sequence[int], width: int) -> Iterator[VersionList]:
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
