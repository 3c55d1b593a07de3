"""Fingerprints and hashes of content in T-SQL: arithmetic for what is an integer, HASHBYTES for all else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import sqlalchemy as sa

from backup.stores.dialects.base import StampColumns
from backup.stores.dialects.mixing import LOW_BITS, MIXES, NULL_AS
from backup.stores.dialects.mssql_types import MssqlType, as_type, big

_BIGINT = MssqlType("bigint", "bigint")
_INTEGERS = ("bigint", "int", "smallint", "tinyint", "bit")
_NULL_LENGTH = "0xFFFFFFFF"


def content_hash(columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
    """SHA-256 of the columns' exact bytes, each behind its length; NULL has a length of its own."""
    pieces = [
        sa.func.isnull(_length(_bytes(column)).op("+")(_bytes(column)), sa.literal_column(_NULL_LENGTH))
        for column in columns
    ]
    return _sha256(reduce(lambda one, other: one.op("+")(other), pieces))


def fingerprint_query(stamps: StampColumns, conditions: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    """Selects the number of rows, Σ version if that is an integer, and Σ of both mixes."""
    key, version, content = stamps
    parts = [part for column in key for part in _integers(column)]
    parts += _version_parts(version, content)
    flat = {f"part{i}": part for i, part in enumerate(parts)}
    has_number = bool(version) and _is_integer(version[0])
    if has_number:
        flat["version"] = sa.cast(version[0], _BIGINT)
    # Each is named once in a subquery, since it stands in several sums.
    rows = sa.select(*(value.label(name) for name, value in flat.items())).where(*conditions).subquery("stamps")
    named = [rows.c[f"part{i}"] for i in range(len(parts))]
    sums = [sa.func.sum(mix.of(named, big)) for mix in MIXES]
    versions = [sa.func.sum(rows.c.version.op("&")(big(LOW_BITS)))] if has_number else []
    return sa.select(sa.func.count_big(sa.literal_column("*")), *versions, *sums).select_from(rows)


def _version_parts(
    version: Sequence[sa.Column[Any]], content: sa.ColumnElement[Any] | None
) -> list[sa.ColumnElement[Any]]:
    if not version:
        return [_eight_bytes(content, 1), _eight_bytes(content, 9)]
    parts = []
    for i, column in enumerate(version):
        for value in _integers(column):
            if not column.nullable:
                parts.append(value)
            elif i or content is None:
                parts.append(sa.func.isnull(value, big(NULL_AS)))
            else:
                parts.append(sa.case((column.is_(None), _eight_bytes(content, 1)), else_=value))
    return parts


def _is_integer(column: sa.Column[Any]) -> bool:
    type_: Any = column.type
    return type_.base in _INTEGERS or type_.declared == "binary(8)"


def _integers(column: sa.Column[Any]) -> list[sa.ColumnElement[Any]]:
    """The column's value as integers of 64 bits: another value has others."""
    if _is_integer(column):
        return [sa.cast(column, _BIGINT)]
    if column.type.base == "uniqueidentifier":  # type: ignore[attr-defined] # an MssqlType
        return [_eight_bytes(as_type(column, "binary(16)"), start) for start in (1, 9)]
    return [_eight_bytes(_sha256(_bytes(column)), 1)]


def _bytes(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    result: sa.ColumnElement[Any] = column.type.exact_bytes(column)  # type: ignore[attr-defined] # an MssqlType
    return result


def _length(value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    length: sa.ColumnElement[Any] = as_type(as_type(sa.func.datalength(value), "int"), "binary(4)")
    return length


def _sha256(value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.hashbytes(sa.literal_column("'SHA2_256'"), value)


def _eight_bytes(value: Any, start: int) -> sa.ColumnElement[Any]:
    part = sa.func.substring(value, sa.literal_column(str(start)), sa.literal_column("8"))
    return sa.cast(part, _BIGINT)
