"""Blocks of keys on PostgreSQL. They are rows beside the table, so that the server seeks each in the key's index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from backup.core.key_ranges import EqualRanges
from backup.core.model import Fingerprint
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.column import ServerType
from backup.stores.sql.engines.postgresql.fingerprint import fingerprint_of_sums, fingerprint_query

_LARGEST = (1 << 63) - 1


class PostgresqlBlocks:
    """As `ServerBlocks`."""

    def fingerprints(
        self, cx: sa.Connection, stamps: StampColumns, conditions: Sequence[sa.ColumnElement[bool]], blocks: EqualRanges
    ) -> Mapping[int, Fingerprint] | None:
        """Reads a range of the index for each block: to group the rows by an expression, a server may sort all of
        them."""
        [key] = stamps.key
        if blocks.last > _LARGEST - blocks.width:
            return None
        numbers = (sa.cast(sa.literal(number), sa.BigInteger) for number in blocks)
        starts = sa.func.generate_series(*numbers).table_valued("start", name="starts").render_derived()
        start: Any = starts.c.start
        within = [key >= start, key <= start + sa.cast(sa.literal(blocks.width - 1), sa.BigInteger)]
        sums = fingerprint_query(stamps, [*within, *conditions], None, None).lateral("sums")
        _, records, *values = sums.c
        rows = cx.execute(sa.select(start, records, *values).select_from(starts, sums).where(records > 0))
        return {number: fingerprint_of_sums(cx, *row) for number, *row in rows}

    def contain(self, key: sa.Column[Any], starts: Sequence[int], width: int) -> sa.ColumnElement[bool]:
        array = sa.cast(sa.literal(f"{{{','.join(map(str, starts))}}}", sa.Text), ServerType("bigint[]"))
        start: Any = sa.func.unnest(array).column_valued("start")
        return sa.and_(key >= start, key <= start + sa.cast(sa.literal(width - 1), sa.BigInteger))
