"""Fingerprints on SQLite, which has no hash function, and whose arithmetic costs more than its reading.

So it writes the stamps of a chunk into JSON lists, one for each column and in the order of the keys, and these are
hashed here, in the same process. A function of Python's, called for every row, would cost several times as much.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa

from backup.models import Fingerprint
from backup.stores.dialects.base import ServerType, StampColumns

HASH = "exact_hash"
_BLOB = ServerType("BLOB")
_LEAST = -(1 << 63)
_LOW = (1 << 32) - 1
_INTEGERS = ("INTEGER", "NUMERIC")


def exact_hash(*values: Any) -> str:
    """A hash of the values and their types: 1, 1.0 and '1' have three."""
    return blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def fingerprint(
    cx: sa.Connection,
    stamps: StampColumns,
    conditions: Sequence[sa.ColumnElement[bool]],
    affinities: Sequence[str],
) -> Fingerprint | None:
    """As `Dialect.fingerprint` says; `affinities` are those of the key's and the version's columns."""
    try:
        found = _lists(cx, stamps, conditions, affinities)
        texts = zip(found[2:], affinities, strict=False)
        if found[0] and any(kind in _INTEGERS and not _is_integers(text) for text, kind in texts):
            # Any column of SQLite may hold any value. JSON does not have all digits of some.
            found = _lists(cx, stamps, conditions, None)
    except sa.exc.DBAPIError as error:
        code, text = getattr(error.orig, "sqlite_errorcode", 0), str(error.orig)
        if code == sqlite3.SQLITE_TOOBIG:
            return None
        if "BLOB" not in text:
            raise
        found = _lists(cx, stamps, conditions, None)  # JSON holds no bytes
    records, versions, *lists = found
    digest = blake2b(digest_size=16)
    for one in lists:
        digest.update(len(one).to_bytes(8))
        digest.update(one)
    return Fingerprint(
        "blake2b", records, (_added_up(lists[-1]), versions or 0), int.from_bytes(digest.digest()) if records else 0
    )


def _lists(
    cx: sa.Connection,
    stamps: StampColumns,
    conditions: Sequence[sa.ColumnElement[bool]],
    affinities: Sequence[str] | None,
) -> Sequence[Any]:
    """The number of records, the sum of their versions, a list for each column, and one of the hashes of content.

    Without `affinities` hashes stand for all values.
    """
    key, version, content = stamps
    columns = [*key, *version]
    values: list[sa.ColumnElement[Any]] = [
        column if kind in (*_INTEGERS, "TEXT") else sa.case((column.is_not(None), _hash(column)))
        for column, kind in zip(columns, affinities or [""] * len(columns), strict=True)
    ]
    number: sa.ColumnElement[Any] = version[0].op("&")(_LOW) if version else sa.literal(0)
    hashed: sa.ColumnElement[Any] = sa.literal("") if content is None else content
    if len(key) == 1 and key[0].type.declared.upper() == "INTEGER":  # type: ignore[attr-defined] # a ServerType
        # The table is kept in this order, and a bound makes the server walk it and no index.
        conditions = [*conditions, key[0] >= sa.literal(_LEAST, sa.BigInteger)]
    else:
        some = [value.label(f"c{i}") for i, value in enumerate([*values, number, hashed])]
        *named, number, hashed = list(sa.select(*some).where(*conditions).order_by(*key).subquery().c)
        values = list(named)
        conditions = []
    query = sa.select(sa.func.count(), sa.func.sum(number), *map(_list, values)).where(*conditions)
    if content is not None:
        query = query.add_columns(_list(hashed, values[len(key)].is_(None) if version else None))
    cursor: Any = cx.execute(query).cursor  # the driver's own, without conversions
    row: Sequence[Any] = cursor.fetchone()
    return row if content is not None else [*row, b"[]"]


def _list(value: sa.ColumnElement[Any], where: sa.ColumnElement[bool] | None = None) -> sa.ColumnElement[Any]:
    found = sa.func.json_group_array(value)
    return sa.cast(found if where is None else found.filter(where), _BLOB)


def _hash(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    result: sa.ColumnElement[Any] = getattr(sa.func, HASH)(column)
    return result


def _is_integers(text: bytes) -> bool:
    return not text.replace(b"null", b"").translate(None, b"0123456789-,[]")


def _added_up(hashes: bytes) -> int:
    return sum(int(one, 16) for one in hashes.decode().strip("[]").replace('"', "").split(",") if one)
