"""Blocks of keys on SQL Server: grouped in one pass over their part of the key's index, and named by one parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from backup.core.key_ranges import EqualRanges
from backup.core.model import Fingerprint
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.mssql.fingerprint import fingerprints_of
from backup.stores.sql.engines.mssql.types import MssqlType

_BIGINT = MssqlType("bigint", "bigint")
_LARGEST = (1 << 63) - 1
_DIVISION = 8  # binds closer than a minus, for SQLAlchemy


class SqlServerBlocks:
    """As `ServerBlocks`. Needs OPENJSON."""

    def fingerprints(
        self, cx: sa.Connection, stamps: StampColumns, conditions: Sequence[sa.ColumnElement[bool]], blocks: EqualRanges
    ) -> Mapping[int, Fingerprint] | None:
        """None where a number on the way would not fit into 64 bits."""
        if max(blocks.last - blocks.first, blocks.width, blocks.last + blocks.width) > _LARGEST:
            return None
        key: Any = stamps.key[0]
        first, last, width = (sa.literal(number, _BIGINT) for number in (blocks.first, blocks.last, blocks.width))
        number = (sa.cast(key, _BIGINT) - first).op("/", precedence=_DIVISION)(width)
        by_number = fingerprints_of(cx, stamps, [key >= first, key <= last, *conditions], number)
        return {blocks.first + number * blocks.width: fingerprint for number, fingerprint in by_number.items()}

    def contain(self, key: sa.Column[Any], starts: Sequence[int], width: int) -> sa.ColumnElement[bool]:
        listed = sa.bindparam("starts", f"{[*starts]}", type_=MssqlType("nvarchar(max)", "nvarchar"))
        rows = sa.text("SELECT start FROM OPENJSON(:starts) WITH (start bigint '$')").bindparams(listed)
        start = rows.columns(sa.column("start", _BIGINT)).subquery("blocks").c.start
        return sa.and_(key >= start, key <= start + sa.literal(width - 1, _BIGINT))
