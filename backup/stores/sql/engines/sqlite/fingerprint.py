"""Fingerprints on SQLite, which has no hash function and where arithmetic costs more than reading.

SQLite writes a chunk's stamps into JSON lists, one for each column, in the order of the keys. This process hashes the
lists. To call a Python function for each row would cost several times as much.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa

from backup.core.model import Fingerprint
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.column import ServerType
from backup.stores.sql.engines.prepared import TABLES_KEPT, spelled_once
from backup.stores.sql.engines.sqlite import numbered
from backup.stores.sql.engines.sqlite.plainly import asked_plainly
from backup.stores.sql.engines.sqlite.text import UTF_16, in_utf_8, text_of
from backup.stores.sql.engines.sqlite.version_lists import FUNCTIONS
from backup.stores.sql.engines.tables import TableAlone

HASH = "exact_hash"
HASHES_OF_BYTES = {name: f"exact_hash_of_{name.replace('-', '_')}" for name in ("UTF-8", *UTF_16)}
"""The function that hashes bytes of texts, for each encoding."""
_BLOB = ServerType("BLOB")
_FIRST_COLUMN: Any = sa.literal_column("1")
_LEAST: Any = sa.literal_column("-9e999")  # less than any other number, text or bytes
_ARGUMENTS = 127  # a function's most arguments in SQLite as it is usually built
INTEGERS = ("INTEGER", "NUMERIC")
"""The affinities of columns that store a number without a fraction as an integer."""
_OTHERS = re.compile(rb"\xef\xbf\xbd|[\xf0-\xf4]")
"""In UTF-8: U+FFFD, and the characters beyond U+FFFF."""
_LARGE = 1 << 16
_Lists = tuple[Any, ...]


def exact_hash(*values: Any) -> str:
    """A hash of the values and their types: 1, 1.0 and '1' have three different hashes. It is one of `repr(values)`,
    which memory never holds of a large value."""
    if not any(isinstance(value, str | bytes) and len(value) > _LARGE for value in values):
        return blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    digest = blake2b(b"(", digest_size=16)
    for place, value in enumerate(values):
        digest.update(b", " if place else b"")
        for piece in _pieces(value) if isinstance(value, str | bytes) and len(value) > _LARGE else [repr(value)]:
            digest.update(piece.encode("utf-8", "surrogatepass"))
    digest.update(b",)" if len(values) == 1 else b")")
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[str]:
    """The `repr` of a text or of bytes, piece by piece. What quotes it has depends on the whole value."""
    prefix, single, double = ("", "'", '"') if isinstance(value, str) else ("b", b"'", b'"')
    has_both = single in value and double in value
    quote = '"' if single in value and not has_both else "'"
    yield f"{prefix}{quote}"
    for start in range(0, len(value), _LARGE):
        piece = value[start : start + _LARGE]
        # With the other quote at its end, each piece is quoted as the whole is.
        yield repr(piece + double)[len(prefix) + 1 : -2] if has_both else repr(piece)[len(prefix) + 1 : -1]
    yield quote


def exact_hash_of_bytes(encoding: str, *values: Any) -> str:
    """The `exact_hash` of values whose texts arrive as bytes of the file's `encoding`, in hexadecimal digits."""
    texts = (text_of(bytes.fromhex(value), encoding) if isinstance(value, str) else value for value in values)
    return exact_hash(*texts)


def content_hash(columns: Sequence[Any], *, raw: str | None) -> sa.ColumnElement[Any]:
    """A hash of a row's exact values. `raw`: its texts may be not valid in the file's encoding, or that is not
    UTF-8; the hash is the same either way.

    For more columns than a function takes, it is a hash of the hashes of groups of columns. The same columns give the
    same object.
    """
    return _content_hash(tuple(columns), raw)


@lru_cache(maxsize=TABLES_KEPT)
def _content_hash(columns: Sequence[Any], raw: str | None) -> sa.ColumnElement[Any]:
    if len(columns) > _ARGUMENTS:
        starts = range(0, len(columns), _ARGUMENTS)
        columns = [_content_hash(columns[start : start + _ARGUMENTS], raw) for start in starts]
        raw = None
    values = map(_in_digits, columns) if raw else columns
    result: sa.ColumnElement[Any] = getattr(sa.func, HASHES_OF_BYTES[raw] if raw else HASH)(*values)
    return result


def _in_digits(column: Any) -> sa.ColumnElement[Any]:
    """The value; a text as the hexadecimal digits of its bytes. SQLite passes no invalid UTF-8 to a Python function."""
    text = sa.func.typeof(column) == sa.literal_column("'text'")
    return sa.case((text, sa.func.hex(sa.cast(column, _BLOB))), else_=column)


def fingerprints(
    cx: sa.Connection,
    stamps: StampColumns,
    conditions: Sequence[sa.ColumnElement[bool]],
    affinities: Sequence[str],
    bucket: sa.ColumnElement[Any] | None,
    *,
    raw: str | None,
    at_most: int | None = None,
    in_parts: bool = False,
) -> Mapping[Any, Fingerprint] | None:
    """What `Dialect.fingerprints` returns. `affinities` are those of the key's and the version's columns."""
    if _is_list_of_versions(stamps, affinities) and bucket is None and _are_bounds(conditions, stamps.key[0]):
        made = numbered.numbered_fingerprint(cx, stamps, conditions, at_most, in_parts=in_parts)
        if made is not None:
            return {None: made}
    lists = partial(_lists, cx, conditions=conditions, bucket=bucket, raw=raw, at_most=at_most)
    try:
        rows = _exact_lists(lists, stamps, affinities)
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlite_errorcode", 0) == sqlite3.SQLITE_TOOBIG:
            return None
        if "BLOB" not in str(error.orig):
            raise
        rows = None  # JSON holds no bytes
    if rows is None:
        # Any column of SQLite may hold any value, and JSON loses digits of some. So hash every value.
        rows = _exact_lists(lists, stamps, [""] * len(affinities))
    assert rows is not None  # noqa: S101 - for mypy; hashes are texts
    if at_most is not None and sum(records for _, records, *_ in rows) > at_most:
        return None
    return {number: _fingerprint(*rest) for number, *rest in rows}


def small_fingerprints(
    cx: sa.Connection, tables: Sequence[tuple[StampColumns, Sequence[str]]], at_most: Sequence[int | None]
) -> Sequence[Fingerprint | None]:
    """What `Dialect.small_fingerprints` returns: of those tables whose versions may be listed alone. Each with the
    affinities of its columns."""
    listed = [i for i, (stamps, affinities) in enumerate(tables) if _is_list_of_versions(stamps, affinities)]
    made: list[Fingerprint | None] = [None] * len(tables)
    if listed:
        of_listed = numbered.numbered_fingerprints(cx, [(tables[i][0], at_most[i]) for i in listed])
        for i, fingerprint in zip(listed, of_listed, strict=True):
            made[i] = fingerprint
    return made


def reads_in_parts(stamps: StampColumns, affinities: Sequence[str]) -> bool:
    """What `Dialect.reads_in_parts` says."""
    return _is_list_of_versions(stamps, affinities) and numbered.may_be_dense(stamps)


def _is_list_of_versions(stamps: StampColumns, affinities: Sequence[str]) -> bool:
    """Whether a list of the versions may be enough."""
    is_plain = stamps.is_numbered and not isinstance(stamps.key[0].table, TableAlone)
    return is_plain and len(stamps.version) == 1 and set(affinities) <= set(INTEGERS)


def _are_bounds(conditions: Sequence[sa.ColumnElement[bool]], key: sa.Column[Any]) -> bool:
    return all(_bounds(condition, key) for condition in conditions)


def _fingerprint(records: int, *lists: bytes) -> Fingerprint:
    digest = blake2b(digest_size=16)
    for text in lists:
        digest.update(len(text).to_bytes(8))
        digest.update(text)
    return Fingerprint(FUNCTIONS, records, (), int.from_bytes(digest.digest()) if records else 0)


def _exact_lists(
    lists: Callable[[StampColumns, Sequence[str]], Sequence[_Lists]], stamps: StampColumns, affinities: Sequence[str]
) -> Sequence[_Lists] | None:
    """The rows of `lists`; None if two different values may look the same in a list."""
    if not stamps.version:
        rows = lists(stamps, affinities)
    else:
        # Few tables have rows without a version. So ask for content hashes only if the lists show a NULL.
        rows = lists(stamps._replace(content=None), affinities)
        if stamps.content is not None and any(b"null" in text for row in rows for text in row[2:]):
            rows = lists(stamps, affinities)
    texts = ((text, kind) for row in rows for text, kind in zip(row[2:], affinities, strict=False))
    return None if any(_may_look_alike(text, kind) for text, kind in texts) else rows


def _may_look_alike(text: bytes, kind: str) -> bool:
    """Whether two different values of a column of this affinity may look the same in the list."""
    if kind in INTEGERS:
        return not _is_integers(text)
    # In a list of a file in UTF-16, half a surrogate pair is U+FFFD, or one character with the one behind it. A copy in
    # UTF-8 decides by the same characters, so that both sides have the same kind of list.
    return kind == "TEXT" and not text.isascii() and _OTHERS.search(text) is not None


def _lists(
    cx: sa.Connection,
    stamps: StampColumns,
    affinities: Sequence[str],
    conditions: Sequence[sa.ColumnElement[bool]],
    bucket: sa.ColumnElement[Any] | None,
    raw: str | None,
    at_most: int | None,
) -> Sequence[_Lists]:
    """A row for each bucket: its number, the number of records, a list of values for each column, and a list of content
    hashes."""
    if not conditions and bucket is None:
        columns = tuple(stamps.key), tuple(stamps.version), stamps.content
        rows: Sequence[_Lists] = asked_plainly(cx, *_whole(cx.dialect, *columns, tuple(affinities), raw, at_most))
    else:
        # The driver's own cursor converts nothing.
        cursor: Any = cx.execute(_query(stamps, affinities, conditions, bucket, raw, at_most)).cursor
        try:
            rows = cursor.fetchall()
        except sqlite3.Error as error:  # a row behind the first one
            raise sa.exc.DBAPIError(None, None, error) from None
    rows = [(*row[:2], *map(in_utf_8, row[2:])) for row in rows]
    return rows if stamps.content is not None else [(*row, b"[]") for row in rows]


@lru_cache(maxsize=TABLES_KEPT)
def _whole(
    dialect: sa.Dialect,
    key: Any,
    version: Any,
    content: Any,
    affinities: tuple[str, ...],
    raw: str | None,
    at_most: int | None,
) -> tuple[str, tuple[Any, ...]]:
    """The statement about a whole table, and its parameters. It is made once for a table that stays as it is."""
    query = _query(StampColumns(key, version, content), affinities, (), None, raw, at_most)
    return spelled_once(query, dialect)


def _query(
    stamps: StampColumns,
    affinities: Sequence[str],
    conditions: Sequence[sa.ColumnElement[bool]],
    bucket: sa.ColumnElement[Any] | None,
    raw: str | None,
    at_most: int | None,
) -> sa.Select[Any]:
    key, version, content, _ = stamps
    # JSON keeps different integers and different texts apart. For other values it is not exact.
    values: list[sa.ColumnElement[Any]] = [
        _plain(column)
        if kind in (*INTEGERS, "TEXT")
        else sa.case((column.is_not(None), content_hash([column], raw=raw)))
        for column, kind in zip([*key, *version], affinities, strict=True)
    ]
    hashed: sa.ColumnElement[Any] = sa.literal("") if content is None else content
    group: sa.ColumnElement[Any] = sa.null() if bucket is None else bucket
    count: sa.ColumnElement[Any] = sa.func.count()
    is_in_key_order = len(key) == 1 and key[0].type.declared.upper() == "INTEGER"  # type: ignore[attr-defined] # a ServerType
    if is_in_key_order and at_most is not None and not conditions and bucket is None:
        # SQLite counts a whole table by its pages, which costs next to nothing, and reads no row if there are too many.
        count = sa.select(sa.func.count()).select_from(key[0].table).scalar_subquery()
        conditions, at_most = [key[0] >= _LEAST, count <= sa.literal_column(str(at_most))], None
    is_bound = is_in_key_order and any(_bounds(condition, key[0]) for condition in conditions)
    if not is_bound or at_most is not None:
        # Without a bound on the key SQLite may read an index of other columns, in another order.
        labelled = [value.label(f"c{i}") for i, value in enumerate([*values, hashed, group])]
        rows = sa.select(*labelled).where(*conditions).order_by(*key)
        if at_most is not None:  # enough to see that there are more
            rows = rows.limit(sa.literal_column(str(at_most + 1)))
        *columns, hashed, group = list(rows.subquery().c)
        values, conditions = list(columns), []
    lists = [_list(value) for value in values]
    if len(values) == len(version) + 1 == 2 and set(affinities) <= set(INTEGERS):
        lists = [sa.cast(sa.func.json_group_object(*values), _BLOB)]  # one list is quicker than two
    query = sa.select(group, count, *lists).where(*conditions)
    if content is not None:
        query = query.add_columns(_list(hashed, values[len(key)].is_(None) if version else None))
    return query if bucket is None else query.group_by(_FIRST_COLUMN)


def _plain(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """The column's value, without a collation that this process may not know."""
    return sa.collate(column, "BINARY") if isinstance(column.table, TableAlone) else column


def _bounds(condition: sa.ColumnElement[bool], column: sa.Column[Any]) -> bool:
    return any(part is column for part in sa.sql.visitors.iterate(condition))


def _list(value: sa.ColumnElement[Any], where: sa.ColumnElement[bool] | None = None) -> sa.ColumnElement[Any]:
    values = sa.func.json_group_array(value)
    return sa.cast(values if where is None else values.filter(where), _BLOB)


def _is_integers(text: bytes) -> bool:
    return not text.translate(None, b'0123456789-,[]{}:"').replace(b"null", b"")
