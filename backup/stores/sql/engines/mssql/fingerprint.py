"""Fingerprints and content hashes in T-SQL: arithmetic for integers, HASHBYTES for other values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import sqlalchemy as sa

from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.mixing import LOW_BITS, MIXES, NULL_AS, bucket_of
from backup.stores.sql.engines.mssql.types import MssqlType, as_exact_text, as_type, big, eight_bytes, sha256

_COLON: Any = sa.literal_column("N':'")
_NULL: Any = sa.literal_column("N'-'")
_BIGINT = MssqlType("bigint", "bigint")
_CONCATENATED = 32
_INTEGERS = ("bigint", "int", "smallint", "tinyint", "bit")


def content_hash(columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
    """The SHA-256 of the columns' exact texts, each after its length. NULL has a mark without a length."""
    return _hash_of_texts(list(map(_text, columns)))


def keyed_hash(columns: Sequence[sa.Column[Any]], secret: str, mark: str) -> sa.ColumnElement[Any]:
    """The SHA-256 of the secret and the columns' exact texts, and the 8 bytes of the mark, as varbinary(40)."""
    hashed = _hash_of_texts([as_exact_text(sa.literal(secret)), *map(_text, columns)])
    stamp: sa.ColumnElement[Any] = as_type(hashed.op("+")(sa.literal_column(f"0x{mark}")), "varbinary(40)")
    return stamp


def _hash_of_texts(texts: Sequence[Any]) -> sa.ColumnElement[Any]:
    pieces: list[Any] = []
    for text in texts:
        length = as_type(sa.func.datalength(text), "nvarchar(20)")
        pieces.append(sa.func.isnull(length.op("+")(_COLON).op("+")(text), _NULL))
    while len(pieces) > 1:
        # Each + nests in the one before. Neither a server nor SQLAlchemy takes a thousand nested ones.
        pieces = [
            _concatenated(pieces[start : start + _CONCATENATED]) for start in range(0, len(pieces), _CONCATENATED)
        ]
    result: sa.ColumnElement[Any] = sha256(pieces[0])
    return result


def _concatenated(texts: Sequence[Any]) -> Any:
    return reduce(lambda whole, text: whole.op("+")(text), texts)


def bucket_expression(key: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
    """The key's bucket."""
    return sa.type_coerce(bucket_of([part for column in key for part in _integers(column)], big), _BIGINT)


def fingerprint_query(
    stamps: StampColumns,
    conditions: Sequence[sa.ColumnElement[bool]],
    bucket: sa.ColumnElement[Any] | None = None,
    at_most: int | None = None,
) -> sa.Select[Any]:
    """Selects the bucket or NULL, the number of rows, the sum of an integer version, and both mixed sums.

    With `at_most` it reads only one row more than that.
    """
    key, version, content, _ = stamps
    parts = [part for column in key for part in _integers(column)]
    parts += _version_parts(version, content)
    columns = {f"part{i}": part for i, part in enumerate(parts)}
    has_number = bool(version) and _is_integer(version[0])
    if has_number:
        columns["version"] = sa.cast(version[0], _BIGINT)
    if bucket is not None:
        columns["bucket"] = bucket
    # A subquery names each expression once: several sums use it.
    query = sa.select(*(value.label(name) for name, value in columns.items())).where(*conditions)
    rows = query.limit(None if at_most is None else at_most + 1).subquery("stamps")
    named_parts = [rows.c[f"part{i}"] for i in range(len(parts))]
    sums = [sa.func.sum(mix.of(named_parts, big)) for mix in MIXES]
    versions = [sa.func.sum(rows.c.version.op("&")(big(LOW_BITS)))] if has_number else []
    selected = [sa.func.count_big(sa.literal_column("*")), *versions, *sums]
    if bucket is None:
        return sa.select(sa.null(), *selected).select_from(rows)
    return sa.select(rows.c.bucket, *selected).group_by(rows.c.bucket)


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
    """The column's value as 64-bit integers. Different values have different ones, where hashed with near certainty."""
    if _is_integer(column):
        return [sa.cast(column, _BIGINT)]
    if column.type.base == "uniqueidentifier":  # type: ignore[attr-defined] # an MssqlType
        return [eight_bytes(as_type(column, "binary(16)"), start) for start in (1, 9)]
    return [eight_bytes(sha256(_text(column)), 1)]


def _text(column: sa.Column[Any]) -> Any:
    return column.type.exact_text(column)  # type: ignore[attr-defined] # an MssqlType
