"""Stamps of a table with rows that cannot be read: a mark for each of these rows, the stamps of all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from backup.core.errors import RightMissing, SchemaMismatch, StoreError, StoreUnavailable, Undecoded
from backup.core.model import Key, StampRow, Unread
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.batch import key_batches
from backup.stores.sql.engines import Dialect
from backup.stores.sql.rows import small_rows
from backup.stores.sql.table import TableShape
from backup.stores.values import Limits

_UNREAD_AT_MOST = 1_000
_NO_KEY = "Its key has a NULL, so nothing tells it from other records. Give the rows with NULL in {} a key."
_NO_TEXT = "Its key has bytes that are not valid in the database's encoding. Write the key again, as valid text."


def may_be_of_rows(error: StoreError) -> bool:
    """Whether single rows may be the cause of the error, so that the other rows can be read."""
    return not isinstance(error, StoreUnavailable | RightMissing)


class ReadApart:
    """The stamps of the rows that fulfil some conditions, where one statement could not read them all."""

    def __init__(
        self,
        access: SqlAccess,
        limits: Limits,
        shape: TableShape,
        conditions: Sequence[sa.ColumnElement[bool]],
        error: StoreError,
    ) -> None:
        self._access, self._limits, self._shape = access, limits, shape
        self._conditions, self._error = conditions, error
        self._rows: set[StampRow] = set()
        self._unread: dict[Key, Unread] = {}

    def rows(self) -> set[StampRow]:
        """The stamps as flat rows. A row that cannot be read has an `Unread` in place of its version.

        Cost: all keys; and for each row that cannot be read, about twice the logarithm of a batch's size in statements.
        Raises the first error if there are more than a thousand such rows, because then rows are hardly its cause.
        """
        keys, broken_keys = readable_and_broken_keys(self._access, self._shape, self._conditions)
        for key in broken_keys:
            self._set_apart(key, Unread(_NO_TEXT, of_key=True))
        for part in key_batches(list(keys), self._shape, self._access.dialect, self._limits):
            self._read(part)
        padding = (None,) * len(self._shape.version)
        return self._rows | {(*key, mark, *padding) for key, mark in self._unread.items()}

    def _read(self, keys: Sequence[Key]) -> None:
        query = self._shape.stamp_query(self._access.dialect)
        query = query.where(self._shape.is_one_of(keys), *self._conditions)
        try:
            for attempt in self._access.attempts("read stamps", seconds=self._limits.chunk_call_seconds):
                with attempt as cx:
                    rows = small_rows(cx, query)
            self._rows |= rows
        except StoreError as error:
            if not may_be_of_rows(error):
                raise
            if len(keys) == 1:
                self._set_apart(keys[0], Unread(str(error)))
                return
            middle = len(keys) // 2
            self._read(keys[:middle])
            self._read(keys[middle:])

    def _set_apart(self, key: Key, mark: Unread) -> None:
        self._unread[key] = mark
        if len(self._unread) > _UNREAD_AT_MOST:
            raise self._error


def readable_and_broken_keys(
    access: SqlAccess,
    shape: TableShape,
    conditions: Sequence[sa.ColumnElement[bool]],
    *,
    start: int = 0,
    limit: int = 0,
) -> tuple[list[Key], list[Key]]:
    """The keys of the rows that fulfil the conditions, then the keys that are not valid text. In the latter, half a
    surrogate pair stands for each invalid byte.

    With a `limit`: at most so many keys, in their order, without the first `start` ones. Without it: all, unordered.
    """

    def query(columns: Sequence[Any]) -> sa.Select[Any]:
        select = sa.select(*columns).where(*conditions)
        return select.order_by(*shape.key).offset(start).limit(limit) if limit else select

    def read_keys(columns: Sequence[Any]) -> list[Key]:
        for attempt in access.attempts("read keys"):
            with attempt as cx:
                rows = [tuple(row) for row in cx.execute(query(columns))]
        return rows

    try:
        return read_keys(shape.exact_key), []
    except Undecoded:
        columns = [_raw(column, access.dialect) for column in shape.key]
        if columns == shape.key:
            raise
        keys = [tuple(map(_text_of, row)) for row in read_keys(columns)]
    return [key for key in keys if _is_text(key)], [key for key in keys if not _is_text(key)]


def rows_without_keys(access: SqlAccess, shape: TableShape) -> set[StampRow]:
    """The stamps of the rows whose key has a NULL, with an `Unread` in place of the version. In place of the NULL their
    keys have a number each, for people. Raises SchemaMismatch if there are more than a thousand such rows."""
    has_null = sa.or_(*(column.is_(None) for column in shape.nullable_key))
    query = sa.select(*shape.key).where(has_null, *shape.filters).limit(_UNREAD_AT_MOST + 1)
    for attempt in access.attempts("look for keys without a value"):
        with attempt as cx:
            keys = sorted((tuple(row) for row in cx.execute(query)), key=str)
    names = ", ".join(column.name for column in shape.nullable_key)
    if len(keys) > _UNREAD_AT_MOST:
        raise SchemaMismatch(
            f"The {access.label} has more than {_UNREAD_AT_MOST} rows with NULL in their key ({names}), which nothing "
            "can tell apart.",
            hint="Give these rows a key, or declare the key columns NOT NULL. Nothing was changed.",
        )
    rest = (Unread(_NO_KEY.format(names), of_key=True), *(None for _ in shape.version))
    numbered = enumerate(keys, start=1)
    return {(*(f"NULL, row {n}" if part is None else part for part in key), *rest) for n, key in numbered}


def _raw(column: sa.Column[Any], dialect: Dialect) -> Any:
    kinds = getattr(column.type, "kinds", ())
    raw = dialect.bytes_of(column) if kinds == (str,) else None
    return column if raw is None else raw


def _text_of(part: Any) -> Any:
    return part.decode("utf-8", "surrogateescape") if isinstance(part, bytes) else part


def _is_text(key: Key) -> bool:
    texts = (part for part in key if isinstance(part, str))
    return not any("\ud800" <= character <= "\udfff" for text in texts for character in text)
