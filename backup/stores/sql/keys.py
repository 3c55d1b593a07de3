"""The keys of a table's rows: taken from records and stamps, read from texts, spelled as the server spells them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa

from backup.core.model import Key, Record, StampRow, Stamps
from backup.stores.asked_keys import parts_of, unusable_key, value_of
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.table import TableShape


class SqlKeys:
    """The keys of one table, by its shape as it is now."""

    def __init__(self, access: SqlAccess, catalog: SqlCatalog) -> None:
        self._access, self._catalog = access, catalog

    def of(self, record: Record) -> Key:
        return self._catalog.shape.key_of(record)

    def stamps(self, rows: Iterable[StampRow]) -> Stamps:
        return self._catalog.shape.stamps_of(rows)

    def may_hold(self, key: Key) -> bool:
        types = [column.type for column in self._catalog.shape.key]
        return len(key) == len(types) and all(type_.may_hold(part) for type_, part in zip(types, key, strict=True))  # type: ignore[attr-defined] # ServerTypes

    def from_text(self, text: str) -> Key:
        shape, dialect, label = self._catalog.shape, self._access.dialect, self._access.label
        key = _as_written(shape, text, plain=dialect.in_process)
        hint = f"Its key has the type {', '.join(shape.key_types)}."
        for attempt in self._access.attempts("look up a key"):
            with attempt as cx:
                try:
                    row_key = spelled(shape, key, cx)
                except (UnicodeEncodeError, OverflowError):  # from the driver
                    raise unusable_key(text, label, hint) from None
                except sa.exc.DBAPIError as error:
                    failure = dialect.failure(error.orig if isinstance(error.orig, Exception) else error)
                    if failure.kind != "refused" or failure.hint is not None:  # such as a missing right
                        raise
                    raise unusable_key(text, label, f"{hint} The server says: {failure.text}") from None
        return row_key or key

    def in_order(self, keys: Collection[Key]) -> list[Key]:
        try:
            return sorted(keys)
        except (TypeError, ArithmeticError):  # values of several types in SQLite, a decimal that is not a number
            return sorted(keys, key=str)

    def to_json(self, key: Key) -> list[Any]:
        parts = (f"0x{part.hex()}" if isinstance(part, bytes) else part for part in key)
        return [part if isinstance(part, int | str) else str(part) for part in parts]


def spelled(shape: TableShape, key: Key, cx: sa.Connection) -> Key | None:
    """The key of the row that the server finds under this key, as the row spells it; None if there is no such row."""
    row = cx.execute(sa.select(*shape.key).where(shape.is_one_of([key]))).first()
    return None if row is None else tuple(row)


def _as_written(shape: TableShape, text: str, *, plain: bool) -> Key:
    """The key that a person wrote: a JSON list of its columns' values, or the plain value of a single column.

    `plain` is as for `value_of`. Raises BadRequest for a text that cannot be a key of this table.
    """
    width, label = len(shape.key_names), shape.label
    parts = parts_of(text, label, any_bytes=plain)
    if width == 1 and (parts is None or len(parts) != 1):
        parts = [text]
    if parts is None or len(parts) != width or None in parts or {} in parts:
        hint = f"Its key is {', '.join(shape.key_names)}: write a JSON list of these {width} values."
        raise unusable_key(text, label, hint)
    try:
        return tuple(value_of(kind, part, plain=plain) for kind, part in zip(shape.key_types, parts, strict=True))
    except (ValueError, ArithmeticError):
        raise unusable_key(text, label, f"Its key has the type {', '.join(shape.key_types)}.") from None
