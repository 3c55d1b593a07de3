"""Fingerprints and content hashes in T-SQL: arithmetic for integers, HASHBYTES for other values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from backup.core.model import Fingerprint
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.mixing import LOW_BITS, MIXES, NULL_AS, bucket_of
from backup.stores.sql.engines.mssql.expressions import as_exact_text, as_type, big, concatenated, eight_bytes, sha256
from backup.stores.sql.engines.mssql.types import MssqlType

_COLON: Any = sa.literal_column("N':'")
_NULL: Any = sa.literal_column("N'-'")
_END: Any = sa.literal_column("';'")
_SHORT_NULL: Any = sa.literal_column("'~'")
_BIGINT = MssqlType("bigint", "bigint")
BYTES_STAMP = MssqlType("varbinary(40)", "varbinary")
TEXT_STAMP = MssqlType("varchar(64)", "varchar")
"""Of a server that adds bytes where it should join them, as Babelfish does."""
_CONCATENATED = 32  # texts of one level: each + nests in the one before, and a thousand levels are refused
_INTEGERS = ("bigint", "int", "smallint", "tinyint", "bit")


def content_hash(columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
    """The SHA-256 of the columns' exact texts: short ones with an end, others after their lengths. NULL has a mark that
    no text begins with."""
    shorts = [column.type.short_text(column) for column in columns]  # type: ignore[attr-defined] # MssqlType
    ended = [sa.func.isnull(concatenated(short, _END), _SHORT_NULL) for short in shorts if short is not None]
    others = [column for column, short in zip(columns, shorts, strict=True) if short is None]
    if not others and len(ended) <= _CONCATENATED:
        return sha256(concatenated(*ended))  # type: ignore[no-any-return]
    # A text of any length costs much more than a short one. So short ones are put together first.
    return _hash_of([*map(as_exact_text, _in_groups(ended)), *(_after_its_length(_text(column)) for column in others)])


def keyed_hash(
    columns: Sequence[sa.Column[Any]], secret: str, mark: str, stamp_type: MssqlType
) -> sa.ColumnElement[Any]:
    """The SHA-256 of the secret and the columns' exact texts, and the 8 bytes of the mark: as `BYTES_STAMP`, or half of
    it in decimal and the mark in hexadecimal digits, as `TEXT_STAMP`. Backups keep it: it stays as it is."""
    texts = [as_exact_text(sa.literal(secret)), *map(_text, columns)]
    hashed = _hash_of(list(map(_after_its_length, texts)))
    if stamp_type is TEXT_STAMP:
        numbers = (as_type(eight_bytes(hashed, start), "varchar(20)") for start in (1, 9))
        parts: Any = concatenated(*numbers, sa.literal_column(f"':{mark}'"))
    else:
        parts = concatenated(hashed, sa.literal_column(f"0x{mark}"))
    return sa.type_coerce(as_type(parts, stamp_type.declared), stamp_type)


def no_stamp(stamp_type: MssqlType) -> sa.ColumnElement[Any]:
    """What stands for a stamp that a row does not have."""
    return sa.literal_column("''" if stamp_type is TEXT_STAMP else "0x", stamp_type)


def _after_its_length(text: Any) -> Any:
    """The text after its length; a mark in place of NULL."""
    length = as_type(sa.func.datalength(text), "nvarchar(20)")
    return sa.func.isnull(concatenated(length, _COLON, text), _NULL)


def _hash_of(texts: list[Any]) -> sa.ColumnElement[Any]:
    # Each + nests in the one before. Neither a server nor SQLAlchemy takes a thousand nested ones.
    while len(texts) > 1:
        texts = _in_groups(texts)
    return sha256(texts[0])  # type: ignore[no-any-return]


def _in_groups(texts: Sequence[Any]) -> list[Any]:
    return [concatenated(*texts[start : start + _CONCATENATED]) for start in range(0, len(texts), _CONCATENATED)]


def bucket_expression(key: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
    """The key's bucket."""
    return sa.type_coerce(bucket_of([part for column in key for part in _integers(column)], big), _BIGINT)


def fingerprints_of(
    cx: sa.Connection,
    stamps: StampColumns,
    conditions: Sequence[sa.ColumnElement[bool]],
    bucket: sa.ColumnElement[Any] | None = None,
    at_most: int | None = None,
) -> dict[Any, Fingerprint]:
    """The fingerprints of the rows that fulfil the conditions, by bucket; of no more than `at_most` rows and one."""
    return {
        number: Fingerprint("T-SQL", records, tuple(int(value or 0) for value in sums))
        for number, records, *sums in cx.execute(fingerprint_query(stamps, conditions, bucket, at_most))
    }


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
        is_text = content is not None and getattr(content.type, "base", None) == TEXT_STAMP.base
        return [eight_bytes(sha256(content) if is_text else content, 1)]
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
    short = column.type.short_text(column)  # type: ignore[attr-defined] # an MssqlType
    return [eight_bytes(sha256(_text(column) if short is None else short), 1)]


def _text(column: sa.Column[Any]) -> Any:
    return column.type.exact_text(column)  # type: ignore[attr-defined] # an MssqlType
