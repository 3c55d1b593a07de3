"""Fingerprints and content hashes on PostgreSQL, by the server's 64-bit hashes with seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from backup.core.model import Fingerprint
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.column import ServerType
from backup.stores.sql.engines.mixing import bucket_of, few_only
from backup.stores.sql.engines.postgresql.types import IntegerType
from backup.stores.sql.engines.prepared import TABLES_KEPT, numbered_union, spelled_once

_SEEDS = (0x1B873593CC9E2D51, 0x2545F4914F6CDD1D)
_BIGINT = ServerType("bigint")
_FIRST_COLUMN: Any = sa.literal_column("1")
# A database with SQL_ASCII takes any bytes as text, also bytes that are not valid UTF-8.
_ENCODING: Any = sa.literal_column(
    "CAST(CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END AS name)"
)


def content_hash(columns: Sequence[sa.ColumnElement[Any]]) -> sa.ColumnElement[Any]:
    """The SHA-256 of the row's text. The same columns give the same object."""
    return _content_hash(tuple(columns))


@lru_cache(maxsize=TABLES_KEPT)
def _content_hash(columns: Sequence[sa.ColumnElement[Any]]) -> sa.ColumnElement[Any]:
    whole = sa.cast(sa.func.row(*columns), sa.Text)  # two different rows have different texts
    return sa.func.encode(sa.func.sha256(sa.func.convert_to(whole, _ENCODING)), "hex")


def bytes_of(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """The bytes of the column's text as the database stores them."""
    return sa.func.convert_to(sa.cast(column, sa.Text), "SQL_ASCII")


def bucket_expression(key: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
    """The key's bucket."""
    parts = [_big(c) if isinstance(c.type, IntegerType) else sa.func.hashtextextended(_text(c), 0) for c in key]
    return sa.type_coerce(bucket_of(parts, _number), _BIGINT)


def fingerprints(
    cx: sa.Connection,
    stamps: StampColumns,
    conditions: Sequence[sa.ColumnElement[bool]],
    bucket: sa.ColumnElement[Any] | None = None,
    at_most: int | None = None,
) -> Mapping[Any, Fingerprint] | None:
    """What `Dialect.fingerprints` returns."""
    if conditions or bucket is not None:
        rows: Any = cx.execute(fingerprint_query(stamps, conditions, bucket, at_most))
    else:
        rows = cx.exec_driver_sql(*_whole(cx.dialect, *_parts(stamps), at_most))
    return few_only({number: fingerprint_of_sums(cx, *row) for number, *row in rows}, at_most)


def fingerprint_of_sums(cx: sa.Connection, records: int, *values: Any) -> Fingerprint:
    """The fingerprint of these sums, which carries the server's version: the next one may hash otherwise."""
    server: Any = cx.dialect.server_version_info
    return Fingerprint(f"PostgreSQL {server[0]}", records, tuple(int(value or 0) for value in values))


def small_fingerprints(
    cx: sa.Connection, tables: Sequence[StampColumns], at_most: Sequence[int | None]
) -> Sequence[Fingerprint | None]:
    """What `Dialect.small_fingerprints` returns: of those tables that are known to be small, in a statement or two."""
    of_tables: list[Fingerprint | None] = [None] * len(tables)
    together: dict[bool, list[int]] = {}
    for i, (stamps, bound) in enumerate(zip(tables, at_most, strict=True)):
        if bound is None:
            together.setdefault(_has_sum(stamps.version), []).append(i)  # their rows have one value more
    for places in together.values():
        asked = {i: _whole(cx.dialect, *_parts(tables[i]), None) for i in places}
        text = numbered_union({i: text for i, (text, _) in asked.items()})
        for i, _, *row in cx.exec_driver_sql(text, tuple(value for _, values in asked.values() for value in values)):
            of_tables[i] = fingerprint_of_sums(cx, *row)
    return of_tables


def _parts(stamps: StampColumns) -> tuple[Any, Any, Any]:
    return tuple(stamps.key), tuple(stamps.version), stamps.content


def _has_sum(version: Sequence[sa.Column[Any]]) -> bool:
    """Whether a fingerprint also has the exact sum of the version in first place."""
    return bool(version) and isinstance(version[0].type, IntegerType)


@lru_cache(maxsize=TABLES_KEPT)
def _whole(
    dialect: sa.Dialect, key: Any, version: Any, content: Any, at_most: int | None
) -> tuple[str, tuple[Any, ...]]:
    """The statement about a whole table, and its parameters. It is made once for a table that stays as it is."""
    return spelled_once(fingerprint_query(StampColumns(key, version, content), (), None, at_most), dialect)


def fingerprint_query(
    stamps: StampColumns,
    conditions: Sequence[sa.ColumnElement[bool]],
    bucket: sa.ColumnElement[Any] | None,
    at_most: int | None,
) -> sa.Select[Any]:
    groups = [] if bucket is None else [bucket]
    values: list[sa.ColumnElement[Any]] = [_mixed(stamps, seed, seed == _SEEDS[0]) for seed in _SEEDS]
    if _has_sum(stamps.version):
        values = [stamps.version[0], *values]
    if at_most is not None:  # enough to see that there are more
        labelled = [value.label(f"c{i}") for i, value in enumerate([*values, *groups])]
        rows = sa.select(*labelled).where(*conditions).limit(sa.literal_column(str(at_most + 1))).subquery()
        columns, conditions = list(rows.c), []
        values, groups = [*columns[: len(values)]], [*columns[len(values) :]]
    selected = [sa.func.count(), *map(sa.func.sum, values)]
    query = sa.select(*(groups or [sa.null()]), *selected).where(*conditions)
    return query.group_by(_FIRST_COLUMN) if groups else query


def _mixed(stamps: StampColumns, seed: int, is_first: bool) -> sa.ColumnElement[Any]:
    """A hash of a stamp, chained: the hash of each part is the seed of the next.

    An integer is a seed as it is, which spares its hash. So the first word begins with the version, and the second with
    the key.
    """
    key, version, content, _ = stamps
    of_key = _chained(key, _number(seed), is_first)
    if not version:
        return sa.func.hashtextextended(content, of_key)
    if is_first and _has_sum(version):
        mixed, version = _chained(key, _big(version[0]), is_first), version[1:]
    elif not is_first and isinstance(key[0].type, IntegerType):
        # The constant keeps the two words apart where keys and versions are the same numbers.
        mixed = _chained(key[1:], _big(key[0]).op("#")(_number(seed)), is_first)
    else:
        mixed = of_key
    for column in version:
        # An integer in first place has an exact sum as well, so a folded hash is enough.
        hashed = _hashed(column, mixed, is_first or column is stamps.version[0])
        may_be_null = column.nullable and (content is None or column is not stamps.version[0])
        mixed = sa.func.coalesce(hashed, sa.func.hashint8extended(mixed, seed)) if may_be_null else hashed
    if content is None:
        return mixed
    return sa.case((stamps.version[0].is_(None), sa.func.hashtextextended(content, of_key)), else_=mixed)


def _chained(key: Sequence[sa.Column[Any]], start: sa.ColumnElement[Any], is_folded: bool) -> sa.ColumnElement[Any]:
    mixed = start
    for column in key:
        mixed = _hashed(column, mixed, is_folded)
    return mixed


def _hashed(column: sa.Column[Any], seed: sa.ColumnElement[Any], is_folded: bool) -> sa.ColumnElement[Any]:
    if isinstance(column.type, IntegerType):
        value = _big(column)
        if column.type.declared == "bigint" and not is_folded:
            # The server folds 64 bits into 32 before it hashes. The XOR keeps apart values that would fold alike.
            value = value.op("#")(value.op(">>")(sa.literal_column("32")))
        return sa.func.hashint8extended(value, seed)
    return sa.func.hashtextextended(_text(column), seed)


def _big(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.cast(column, sa.BigInteger)


def _text(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.collate(sa.cast(column, sa.Text), "C")  # another collation may treat two texts as equal


def _number(value: int) -> sa.ColumnElement[Any]:
    return sa.literal_column(str(value), sa.BigInteger)
