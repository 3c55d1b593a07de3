"""Has a table's server make the images of rows that change, so that they never become values of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.core.errors import StoreError
from backup.core.key_ranges import KeyRange
from backup.core.model import Action, Key
from backup.core.suggestions import quantity
from backup.stores.exact_json import is_one_integer
from backup.stores.keeping import Keep, KeepByServer
from backup.stores.sql.app_tables import SqlSibling
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.images_to_make import EntryIds, ImagesToMake
from backup.stores.sql.table import TableShape


class ServerImages:
    """The images that the server makes in one transaction."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.refused = False
        """Whether the server has refused to make images. Then the transaction has failed."""

    def make(
        self,
        cx: sa.Connection,
        shape: TableShape,
        keep: Keep,
        keys: Sequence[Key],
        action: Action,
        matching: Callable[[Sequence[Key]], set[Key]],
    ) -> set[Key] | None:
        """Puts the images of the rows of these keys into the bin, before this change of them. Returns the keys that
        have a row, which `matching` looks up if they may be fewer.

        None, and nothing was done, where this process has to make them: see `KeepByServer` and `Dialect.make_images`.
        Of a table with masks, an image is not what is in the row; of one whose deleted records stay, it may be one of
        an insert. Raises StoreError if the bin then lacks the entry of such a row.
        """
        entries = _entries(shape, keep, keys, action, cx)
        made = None if entries is None else self._make(cx, shape, entries, shape.is_one_of(keys), _ends(keys))
        if entries is None or made is None or made == len({*keys}):
            return None if made is None else {*keys}
        existing_keys = matching(keys)
        if made < len(existing_keys):
            entries.refuse_lost(existing_keys, cx)
        return existing_keys

    def make_of(
        self,
        cx: sa.Connection,
        shape: TableShape,
        keep: Keep,
        action: Action,
        condition: sa.ColumnElement[bool],
        ends: KeyRange | None,
    ) -> int | None:
        """As `make`, for the rows that fulfil the condition; their keys lie between the `ends`. Returns how many
        entries it has added: as many as there are rows, unless the bin has lost some, or has entries of this run about
        them."""
        entries = _entries(shape, keep, None, action, cx)
        return None if entries is None else self._make(cx, shape, entries, condition, ends)

    def make_all(
        self,
        cx: sa.Connection,
        shape: TableShape,
        keep: Keep,
        action: Action,
        condition: sa.ColumnElement[bool],
        ends: KeyRange | None,
        rows: int,
    ) -> bool:
        """As `make_of`, for so many rows, and returns whether the bin has an entry of each. Reads their keys only where
        the run has kept some of them before. Raises StoreError if the bin lacks the entry of one."""

        def keys() -> Sequence[Key]:
            return [tuple(row) for row in cx.execute(sa.select(*shape.key).where(condition))]

        entries = _entries(shape, keep, None, action, cx) or _entries(shape, keep, keys(), action, cx)
        made = None if entries is None else self._make(cx, shape, entries, condition, ends)
        if entries is None or made is None:
            return False
        if made < rows:
            entries.refuse_lost(keys(), cx)
        return True

    def make_inserted(
        self,
        cx: sa.Connection,
        shape: TableShape,
        keep: Keep,
        key: Sequence[sa.Column[Any]],
        condition: sa.ColumnElement[bool],
        rows: int,
    ) -> bool:
        """Puts the keys of the rows that fulfil the condition into the bin, as of records that this transaction
        inserts. `key` are the columns of these rows, of the table or of one whose rows are to be inserted; there are so
        many `rows`. Returns whether the bin has an entry of each; False where this process has to make them, which
        tells single integers together.

        Raises StoreError if the bin lacks the entry of one, or if there are more rows.
        """
        if not may_make(shape, keep) or _has_integers(cx, key, condition):
            return False
        entries = _entries(shape, keep, None, Action.INSERTED, cx)
        made = None if entries is None else self._make(cx, shape, entries, condition, None, key)
        if entries is None or made is None:
            return False
        if made != rows:
            keys = [tuple(row) for row in cx.execute(sa.select(*key).where(condition))]
            entries.refuse_lost(keys, cx)
            refuse_others(len(keys) - rows, shape)
        return True

    def _make(
        self,
        cx: sa.Connection,
        shape: TableShape,
        entries: _Entries,
        condition: sa.ColumnElement[bool],
        ends: KeyRange | None,
        inserted: Sequence[sa.Column[Any]] = (),
    ) -> int | None:
        """`inserted`: the columns of keys that have no record yet."""
        images = ImagesToMake(entries.table.table, entries.ids, entries.fields, inserted or shape.key, [], [], ends)
        if not inserted:
            computed = any(column.computed for column in shape.columns)
            images = images._replace(version=shape.version, columns=[*shape.table.columns], computed=computed)
        try:
            return self._dialect.make_images(cx, images, condition)
        except sa.exc.DBAPIError:
            self.refused = True
            raise


def may_make(shape: TableShape, keep: Keep) -> bool:
    """Whether a server may make images of the table at all: see `ServerImages.make`."""
    as_in_row = shape.key_is_spelled_once and shape.masked is None and shape.marks is None
    return as_in_row and isinstance(keep, KeepByServer)


def _has_integers(cx: sa.Connection, key: Sequence[sa.Column[Any]], condition: sa.ColumnElement[bool]) -> bool:
    """Whether one of these keys is an integer and nothing else. On SQLite, it may be one under any declared type."""
    [first, *others] = key
    type_: Any = first.type  # a ServerType
    if others or not type_.may_hold(0):
        return False
    is_integer = first == sa.cast(first, sa.BigInteger)
    return type_.kinds == (int,) or bool(cx.scalar(sa.select(sa.exists().where(condition, is_integer))))


def refuse_others(records: int, shape: TableShape) -> None:
    """Raises StoreError if there are so many other records in a part of the table that was empty."""
    if records:
        raise StoreError(f"Others wrote {quantity(records, 'record')} into a part of the {shape.label} that was empty.")


def _ends(keys: Sequence[Key]) -> KeyRange | None:
    if not all(map(is_one_integer, keys)):
        return None
    numbers = [key[0] for key in keys]
    return min(numbers), max(numbers)


class _Entries(NamedTuple):
    """As `EntriesToMake`, in a table of this kind of store."""

    table: SqlSibling
    ids: EntryIds
    fields: Mapping[str, Any]

    def refuse_lost(self, keys: Iterable[Key], cx: sa.Connection) -> None:
        """Raises StoreError if the bin lacks the entry of one of these keys."""
        self.table.refuse_lost([*map(self.ids.of, keys)], cx)


def _entries(
    shape: TableShape, keep: Keep, keys: Sequence[Key] | None, action: Action, cx: sa.Connection
) -> _Entries | None:
    """How the entries look; None where this process has to make the images."""
    if not (isinstance(keep, KeepByServer) and may_make(shape, keep)):
        return None
    if keys is not None and not all(map(shape.spells, keys)):  # the entry would be one of another key
        return None
    entries = keep.entries_to_make(keys, action, cx)
    if entries is None or not isinstance(entries.table, SqlSibling):
        return None
    return _Entries(entries.table, EntryIds(*entries[1:4]), entries.fields)
