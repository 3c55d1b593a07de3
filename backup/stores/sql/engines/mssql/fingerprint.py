"""Fingerprints and hashes of content in T-SQL: arithmetic for what is an integer, HASHBYTES for all else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import sqlalchemy as sa

from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.mixing import LOW_BITS, MIXES, NULL_AS, bucket_of
from backup.stores.sql.engines.mssql.types import MssqlType, as_type, big, eight_bytes, sha256

_COLON: Any = sa.literal_column("N':'")
_NULL: Any = sa.literal_column("N'-'")
_BIGINT = MssqlType("bigint", "bigint")
_STRUNG = 32
_INTEGERS = ("bigint", "int", "smallint", "tinyint", "bit")


def content_hash(columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
    """SHA-256 of the columns' exact texts, each behind its length; NULL has none."""
    pieces: list[Any] = []
    for text in map(_text, columns):
        length = as_type(sa.func.datalength(text), "nvarchar(20)")
        pieces.append(sa.func.isnull(length.op("+")(_COLON).op("+")(text), _NULL))
    while len(pieces) > 1:
        # Each + is within the one before, and neither a server nor SQLAlchemy goes down a thousand of them.
        pieces = [_strung(pieces[start : start + _STRUNG]) for start in range(0, len(pieces), _STRUNG)]
    result: sa.ColumnElement[Any] = sha256(pieces[0])
    return result


def _strung(texts: Sequence[Any]) -> Any:
    return reduce(lambda whole, text: whole.op("+")(text), texts)


def bucket_expression(key: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
    """The key's bucket."""
    return sa.type_coerce(bucket_of([part for column in key for part in _integers(column)], big), _BIGINT)


def fingerprint_query(
    stamps: StampColumns, conditions: Sequence[sa.ColumnElement[bool]], bucket: sa.ColumnElement[Any] | None = None
) -> sa.Select[Any]:
    """Selects the bucket, else NULL, the number of rows, Σ version if that is an integer, and Σ of both mixes."""
    key, version, content = stamps
    parts = [part for column in key for part in _integers(column)]
    parts += _version_parts(version, content)
    flat = {f"part{i}": part for i, part in enumerate(parts)}
    has_number = bool(version) and _is_integer(version[0])
    if has_number:
        flat["version"] = sa.cast(version[0], _BIGINT)
    if bucket is not None:
        flat["bucket"] = bucket
    # Each is named once in a subquery, since it stands in several sums.
    rows = sa.select(*(value.label(name) for name, value in flat.items())).where(*conditions).subquery("stamps")
    named = [rows.c[f"part{i}"] for i in range(len(parts))]
    sums = [sa.func.sum(mix.of(named, big)) for mix in MIXES]
    versions = [sa.func.sum(rows.c.version.op("&")(big(LOW_BITS)))] if has_number else []
    found = [sa.func.count_big(sa.literal_column("*")), *versions, *sums]
    if bucket is None:
        return sa.select(sa.null(), *found).select_from(rows)
    return sa.select(rows.c.bucket, *found).group_by(rows.c.bucket)


def _version_parts(
    version: Sequence[sa.Column[Any]], content: sa.ColumnElement[Any] | None
) -> list[sa.ColumnElement[Any]]:
    if not version:
        return [eight_bytes(content, 1), eight_bytes(content, 9)]
    parts = []
    for i, column in enumerate(version):
        for value in _integers(column):
            if not column.nullable:
                parts.append(value)
            elif i or content is None:
                parts.append(sa.func.isnull(value, big(NULL_AS)))
            else:
                parts.append(sa.case((column.is_(None), eight_bytes(content, 1)), else_=value))
    return parts


def _is_integer(column: sa.Column[Any]) -> bool:
    type_: Any = column.type
    return type_.base in _INTEGERS or type_.declared == "binary(8)"


def _integers(column: sa.Column[Any]) -> list[sa.ColumnElement[Any]]:
    """The column's value as integers of 64 bits: another value has others."""
    if _is_integer(column):
        return [sa.cast(column, _BIGINT)]
    if column.type.base == "uniqueidentifier":  # type: ignore[attr-defined] # an MssqlType
        return [eight_bytes(as_type(column, "binary(16)"), start) for start in (1, 9)]
    return [eight_bytes(sha256(_text(column)), 1)]


def _text(column: sa.Column[Any]) -> Any:
    return column.type.exact_text(column)  # type: ignore[attr-defined] # an MssqlType
