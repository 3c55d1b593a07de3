"""Fingerprints on SQLite, which has no hash function, and whose arithmetic costs more than its reading.

So it writes the stamps of a chunk into JSON lists, one for each column and in the order of the keys, and these are
hashed here, in the same process. A function of Python's, called for every row, would cost several times as much.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa

from backup.core.model import Fingerprint
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.column import ServerType
from backup.stores.sql.engines.sqlite.text import text_of
from backup.stores.sql.engines.tables import TableAlone

HASH = "exact_hash"
HASH_OF_BYTES = "exact_hash_of_bytes"
_BLOB = ServerType("BLOB")
_FIRST_COLUMN: Any = sa.literal_column("1")
_LOW = (1 << 32) - 1
_ARGUMENTS = 127  # which a function may have, as SQLite is built unless told otherwise
INTEGERS = ("INTEGER", "NUMERIC")
"""The affinities of columns whose values are integers, if they are numbers without a fraction."""
_Lists = tuple[Any, ...]


def exact_hash(*values: Any) -> str:
    """A hash of the values and their types: 1, 1.0 and '1' have three."""
    return blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def exact_hash_of_bytes(*values: Any) -> str:
    """The same of values whose texts have come as their bytes in hexadecimal digits."""
    return exact_hash(*(text_of(bytes.fromhex(value)) if isinstance(value, str) else value for value in values))


def content_hash(columns: Sequence[Any], *, any_bytes: bool) -> sa.ColumnElement[Any]:
    """A hash of a row's exact values, the same whether its texts may have `any_bytes`. One of many columns is made of
    the hashes of their parts."""
    if len(columns) > _ARGUMENTS:
        starts = range(0, len(columns), _ARGUMENTS)
        columns = [content_hash(columns[start : start + _ARGUMENTS], any_bytes=any_bytes) for start in starts]
        any_bytes = False
    values = map(_in_digits, columns) if any_bytes else columns
    result: sa.ColumnElement[Any] = getattr(sa.func, HASH_OF_BYTES if any_bytes else HASH)(*values)
    return result


def _in_digits(column: Any) -> sa.ColumnElement[Any]:
    """The value, a text as its bytes: a function of this process is given no text that is no UTF-8."""
    text = sa.func.typeof(column) == sa.literal_column("'text'")
    return sa.case((text, sa.func.hex(sa.cast(column, _BLOB))), else_=column)


def fingerprints(
    cx: sa.Connection,
    stamps: StampColumns,
    conditions: Sequence[sa.ColumnElement[bool]],
    affinities: Sequence[str],
    bucket: sa.ColumnElement[Any] | None,
    *,
    any_bytes: bool,
) -> Mapping[Any, Fingerprint] | None:
    """As `Dialect.fingerprints` says; `affinities` are those of the key's and the version's columns."""
    lists = partial(_lists, cx, conditions=conditions, bucket=bucket, any_bytes=any_bytes)
    try:
        found = _exact_lists(lists, stamps, affinities)
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlite_errorcode", 0) == sqlite3.SQLITE_TOOBIG:
            return None
        if "BLOB" not in str(error.orig):
            raise
        found = None  # JSON holds no bytes
    if found is None:
        # Any column of SQLite may hold any value, and JSON does not have all digits of some: hash every one.
        found = _exact_lists(lists, stamps, [""] * len(affinities))
    assert found is not None  # noqa: S101 - for mypy; hashes are texts
    return {number: _fingerprint(*rest) for number, *rest in found}


def _fingerprint(records: int, versions: int | None, *lists: bytes) -> Fingerprint:
    digest = blake2b(digest_size=16)
    for one in lists:
        digest.update(len(one).to_bytes(8))
        digest.update(one)
    sums = (_added_up(lists[-1]), versions or 0)
    return Fingerprint("blake2b", records, sums, int.from_bytes(digest.digest()) if records else 0)


def _exact_lists(
    lists: Callable[[StampColumns, Sequence[str]], Sequence[_Lists]], stamps: StampColumns, affinities: Sequence[str]
) -> Sequence[_Lists] | None:
    """What `lists` gives; None where a list does not tell all values apart."""
    if not stamps.version:
        found = lists(stamps, affinities)
    else:
        # Few tables have rows without a version: their contents are asked for once the lists show a NULL.
        found = lists(stamps._replace(content=None), affinities)
        if stamps.content is not None and any(b"null" in text for row in found for text in row[3:]):
            found = lists(stamps, affinities)
    texts = ((text, kind) for row in found for text, kind in zip(row[3:], affinities, strict=False))
    return None if any(kind in INTEGERS and not _is_integers(text) for text, kind in texts) else found


def _lists(
    cx: sa.Connection,
    stamps: StampColumns,
    affinities: Sequence[str],
    conditions: Sequence[sa.ColumnElement[bool]],
    bucket: sa.ColumnElement[Any] | None,
    any_bytes: bool,
) -> Sequence[_Lists]:
    """Of each bucket: its number, how many records, the sum of their versions, a list for each column, and one of the
    hashes of content."""
    key, version, content = stamps
    # JSON tells integers and texts apart, each from its like. Of all else it says too little.
    values: list[sa.ColumnElement[Any]] = [
        _plain(column)
        if kind in (*INTEGERS, "TEXT")
        else sa.case((column.is_not(None), content_hash([column], any_bytes=any_bytes)))
        for column, kind in zip([*key, *version], affinities, strict=True)
    ]
    number: sa.ColumnElement[Any] = version[0].op("&")(_LOW) if version else sa.literal(0)
    hashed: sa.ColumnElement[Any] = sa.literal("") if content is None else content
    named: sa.ColumnElement[Any] = sa.null() if bucket is None else bucket
    is_kept_in_order = len(key) == 1 and key[0].type.declared.upper() == "INTEGER"  # type: ignore[attr-defined] # a ServerType
    if not (is_kept_in_order and any(_bounds(condition, key[0]) for condition in conditions)):
        # Without a bound for the key the server may walk an index of other columns.
        some = [value.label(f"c{i}") for i, value in enumerate([*values, number, hashed, named])]
        *columns, number, hashed, named = list(sa.select(*some).where(*conditions).order_by(*key).subquery().c)
        values, conditions = list(columns), []
    lists = [_list(value) for value in values]
    if len(values) == len(version) + 1 == 2 and set(affinities) <= set(INTEGERS):
        lists = [sa.cast(sa.func.json_group_object(*values), _BLOB)]  # one list is quicker than two
    query = sa.select(named, sa.func.count(), sa.func.sum(number), *lists).where(*conditions)
    if content is not None:
        query = query.add_columns(_list(hashed, values[len(key)].is_(None) if version else None))
    if bucket is not None:
        query = query.group_by(_FIRST_COLUMN)
    cursor: Any = cx.execute(query).cursor  # the driver's own, without conversions
    rows: Sequence[_Lists] = cursor.fetchall()
    return rows if content is not None else [(*row, b"[]") for row in rows]


def _plain(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """The column's value, without a collation that this process may not know."""
    return sa.collate(column, "BINARY") if isinstance(column.table, TableAlone) else column


def _bounds(condition: sa.ColumnElement[bool], column: sa.Column[Any]) -> bool:
    return any(part is column for part in sa.sql.visitors.iterate(condition))


def _list(value: sa.ColumnElement[Any], where: sa.ColumnElement[bool] | None = None) -> sa.ColumnElement[Any]:
    found = sa.func.json_group_array(value)
    return sa.cast(found if where is None else found.filter(where), _BLOB)


def _is_integers(text: bytes) -> bool:
    return not text.translate(None, b'0123456789-,[]{}:"').replace(b"null", b"")


def _added_up(hashes: bytes) -> int:
    return sum(int(one, 16) for one in hashes.decode().strip("[]").replace('"', "").split(",") if one)
