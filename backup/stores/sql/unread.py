"""Stamps of a table that cannot be read together: those that can, and a mark for each of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from backup.core.errors import RightMissing, StoreError, StoreUnavailable, Undecoded
from backup.core.model import Key, StampRow, Unread
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.batch import key_batches
from backup.stores.sql.engines import Dialect
from backup.stores.sql.rows import small_rows
from backup.stores.sql.table import TableShape
from backup.stores.values import Limits

_UNREAD_AT_MOST = 1_000
_NO_TEXT = "Its key has bytes that are no UTF-8: write it anew, in the database's encoding."


def may_be_of_rows(error: StoreError) -> bool:
    """Whether the error may be about single rows, so that the others can be read."""
    return not isinstance(error, StoreUnavailable | RightMissing)


class ReadApart:
    """The stamps of the rows that fulfil some conditions, after they could not be read by one statement."""

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
        """The stamps laid flat, with an `Unread` in place of the version of a row that cannot be read.

        Cost: the keys, and for each of such rows about twice the logarithm of a batch's size in statements. Raises the
        error that came first where these are more than a thousand, for then it is hardly about them.
        """
        keys, odd = keys_and_odd(self._access, self._shape, self._conditions)
        for key in odd:
            self._set_apart(key, Unread(_NO_TEXT, of_key=True))
        for part in key_batches(list(keys), self._shape, self._access.dialect, self._limits):
            self._read(part)
        nothing = (None,) * len(self._shape.version)
        return self._rows | {(*key, why, *nothing) for key, why in self._unread.items()}

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

    def _set_apart(self, key: Key, why: Unread) -> None:
        self._unread[key] = why
        if len(self._unread) > _UNREAD_AT_MOST:
            raise self._error


def keys_and_odd(
    access: SqlAccess,
    shape: TableShape,
    conditions: Sequence[sa.ColumnElement[bool]],
    *,
    start: int = 0,
    limit: int = 0,
) -> tuple[list[Key], list[Key]]:
    """The keys of the rows that fulfil the conditions; and those that are no text, with half a surrogate pair for each
    byte that is none. In the order of keys, from the `start` on, up to a `limit` if there is one."""

    def query(columns: Sequence[Any]) -> sa.Select[Any]:
        found = sa.select(*columns).where(*conditions)
        return found.order_by(*shape.key).offset(start).limit(limit) if limit else found

    def ask(columns: Sequence[Any]) -> list[Key]:
        for attempt in access.attempts("read keys"):
            with attempt as cx:
                found = [tuple(row) for row in cx.execute(query(columns))]
        return found

    try:
        return ask(shape.key), []
    except Undecoded:
        columns = [_raw(column, access.dialect) for column in shape.key]
        if columns == shape.key:
            raise
        keys = [tuple(map(_text_of, row)) for row in ask(columns)]
    return [key for key in keys if _is_text(key)], [key for key in keys if not _is_text(key)]


def _raw(column: sa.Column[Any], dialect: Dialect) -> Any:
    kinds = getattr(column.type, "kinds", ())
    raw = dialect.bytes_of(column) if kinds == (str,) else None
    return column if raw is None else raw


def _text_of(part: Any) -> Any:
    return part.decode("utf-8", "surrogateescape") if isinstance(part, bytes) else part


def _is_text(key: Key) -> bool:
    return not any(isinstance(part, str) and any("\ud800" <= one <= "\udfff" for one in part) for part in key)
