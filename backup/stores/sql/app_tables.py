"""The app's own tables beside a store's: SyncHistory, the recycle bin, the sample's sources."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import sqlalchemy as sa

from backup.core.errors import NotInitialized, StoreError, StoreUnavailable
from backup.core.log import event
from backup.stores.sibling import Entry, Groups, Look, OneOf, Seen, Shape
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.app_table_queries import (
    ABOVE,
    AT,
    BELOW,
    KEY,
    LOOK,
    LookKinds,
    app_table,
    condition_on,
    find_query,
    kind_of,
    kinds_of,
    look_query,
    match_values,
    next_query,
    next_values,
    select_query,
    shape_of,
    update_query,
    without_null,
)
from backup.stores.sql.entry_parts import EntryParts
from backup.stores.sql.making import make_if_missing, make_table
from backup.stores.sql.read_entries import ReadEntry, read_entries


class SqlSibling:
    """A table of the app's own, beside the store's. `schema_of` says which schema holds a table of a given name."""

    def __init__(self, access: SqlAccess, shape: Shape, schema_of: Callable[[str], str | None]) -> None:
        self._access, self._shape, self._schema_of = access, shape, schema_of
        access.names.add(shape.name.lower())

    @cached_property
    def table(self) -> sa.Table:
        """The table, with the columns that it has or should get."""
        return app_table(self._shape, self._schema_of(self._shape.name), self._access.dialect.utc_time)

    @cached_property
    def _parts(self) -> EntryParts:
        return EntryParts(self._access.dialect, self._shape, self.table)

    def create(self) -> None:
        self._access.create_database()
        make_table(self._access, self.table)
        table = self.table
        for attempt in self._access.attempts(f"complete {self._shape.name}", writes=True):
            with attempt as cx:
                columns = sa.inspect(cx).get_columns(table.name, table.schema)
                existing_names = {column["name"].lower() for column in columns}
                for column in table.columns:
                    if column.name.lower() not in existing_names:  # an earlier release made the table
                        declaration = sa.schema.CreateColumn(column).compile(dialect=cx.dialect)
                        name = cx.dialect.identifier_preparer.format_table(table)
                        cx.exec_driver_sql(f"ALTER TABLE {name} ADD {declaration}")
        if table.indexes:
            self._create_indexes()

    def _create_indexes(self) -> None:
        """Makes the indexes that the table lacks: an earlier release made it. Where the server refuses one, as to a
        login that may not, the app goes on without: an index only saves time."""
        for attempt in self._access.attempts(f"list the indexes of {self.table.name}"):
            with attempt as cx:
                lacking = self._lacking_indexes(cx)
        for index in lacking:
            is_there = partial(self._has_index, index)
            try:
                make_if_missing(self._access, f"create the index {index.name}", is_there, index.create)
            except StoreUnavailable:
                raise
            except (StoreError, NotInitialized) as error:  # some servers answer as if there were no table
                event("index.not_made", level=logging.WARNING, index=index.name, error=error, hint=error.hint)

    def _has_index(self, index: sa.Index, cx: sa.Connection) -> bool:
        return index not in self._lacking_indexes(cx)

    def _lacking_indexes(self, cx: sa.Connection) -> list[sa.Index]:
        # By their columns: not every server that speaks T-SQL keeps the name of an index.
        listed = sa.inspect(cx).get_indexes(self.table.name, schema=self.table.schema)
        existing = {tuple((name or "").lower() for name in index["column_names"]) for index in listed}
        return [index for index in self.table.indexes if tuple(c.name.lower() for c in index.columns) not in existing]

    def put(self, entries: Sequence[Entry], *, new: bool = False) -> None:
        may_exist = not new
        for attempt in self._access.attempts(self._writing, writes=True, fenced=False):
            with attempt as cx:
                for entry in entries:
                    if not (may_exist and self._is_replaced(cx, entry)):
                        cx.execute(self.table.insert(), dict(entry))
            may_exist = True

    def _is_replaced(self, cx: sa.Connection, entry: Entry) -> bool:
        return _has_changed(cx, update_query(self.table), {**entry, KEY: entry[self._shape.key]})

    def change(
        self, key: str, only_if: OneOf, fields: Entry, transaction: Any = None, seconds: float | None = None
    ) -> bool:
        query, values = update_query(self.table, shape_of(only_if)), {**fields, **match_values(key, only_if)}
        if transaction is not None:
            return _has_changed(transaction, query, values)
        if seconds is not None:
            with self._access.once(self._writing, writes=True, fenced=False, seconds=seconds) as cx:
                return _has_changed(cx, query, values)
        for attempt in self._access.attempts(self._writing, writes=True, fenced=False):
            with attempt as cx:
                changed = _has_changed(cx, query, values)
        return changed

    def add_next(self, groups: Groups, entry: Entry) -> bool:
        """As `Relational.add_next`."""
        given = {name: value for name, value in entry.items() if value is not None}  # most are nothing
        query = next_query(self.table, groups, (*given,), casts=not self._access.dialect.in_process)
        for attempt in self._access.attempts(self._writing, writes=True, fenced=False):
            with attempt as cx:
                # An earlier try, whose answer was lost, may have added it.
                is_there = _has_changed(cx, query, next_values(given)) or self._is_replaced(cx, entry)
        return is_there

    def holds(self, key: str, only_if: OneOf, transaction: Any = None) -> bool:
        lock = self._access.dialect.locked_for_share if transaction is not None else None
        query = select_query(self.table, shape_of(only_if), lock)
        values = match_values(key, only_if)
        if transaction is not None:
            return transaction.execute(query, values).first() is not None
        for attempt in self._access.attempts(self._reading, single=True):
            with attempt as cx:
                row = cx.execute(query, values).first()
        return row is not None

    def readdress(self, cx: sa.Connection, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Gives all entries, and parts of entries, that have all the fields of `before` those of `after`."""
        if sa.inspect(cx).has_table(self.table.name, schema=self.table.schema):
            conditions = (self.table.c[name] == value for name, value in before.items())
            cx.execute(self.table.update().where(*conditions).values(after))

    @property
    def _reading(self) -> str:
        return f"read {self._shape.name}"

    @property
    def _writing(self) -> str:
        return f"write {self._shape.name}"

    def add(self, entries: Sequence[Entry], transaction: Any = None) -> None:
        if not entries:
            return
        if transaction is not None:
            self._parts.add(transaction, entries)
            return
        for attempt in self._access.attempts(self._writing, writes=True):
            with attempt as cx:
                self._parts.add(cx, entries)

    def refuse_lost(self, keys: Sequence[str], cx: sa.Connection) -> None:
        """As `EntryParts.refuse_lost`, in the caller's transaction."""
        self._parts.refuse_lost(cx, keys)

    def find(
        self,
        where: Mapping[str, Any],
        *,
        order_by: str,
        limit: int,
        descending: bool = False,
        above: Any = None,
        below: Any = None,
        fields: Sequence[str] = (),
        transaction: Any = None,
        max_bytes: int | None = None,
    ) -> list[dict[str, Any]]:
        query = find_query(
            self.table,
            kinds_of(where),
            (above is not None, below is not None),
            order_by,
            descending,
            limit,
            tuple(fields),
        )
        values = {**without_null(where), ABOVE: above, BELOW: below}
        if transaction is not None:
            return self._rows(transaction, query, values, limit, max_bytes)
        for attempt in self._access.attempts(self._reading, single=max_bytes is None):
            with attempt as cx:
                rows = self._rows(cx, query, values, limit, max_bytes)
        return rows

    def look(self, looks: Sequence[Look]) -> Seen:
        kinds = tuple(
            LookKinds(kinds_of(look.where), look.above is not None, look.order_by, look.limit, look.descending)
            for look in looks
        )
        query = look_query(self.table, kinds, self._access.dialect.server_clock)
        values = {
            f"{name}{number}": value
            for number, look in enumerate(looks)
            for name, value in without_null({**look.where, ABOVE: look.above}).items()
        }
        for attempt in self._access.attempts(self._reading, single=True):
            with attempt as cx:
                rows = read_entries(cx, query, values, self._access.dialect)
        entries: list[list[ReadEntry]] = [[] for _ in looks]
        for row in rows:
            entries[row[LOOK]].append(row)
        return Seen(entries, rows[0][AT] if rows else None)

    def _rows(
        self, cx: sa.Connection, query: sa.Select[Any], values: Mapping[str, Any], limit: int, max_bytes: int | None
    ) -> list[dict[str, Any]]:
        """The query's first rows: at most `limit`, and none after the row that makes them exceed `max_bytes`."""
        if max_bytes is None:
            return [self._parts.whole(cx, entry) for entry in _entries(cx.execute(query, values))]
        largest = self._access.dialect.largest_row_bytes(cx, self.table, query, values)
        bounded = query if largest is None else query.limit(max(1, min(limit, max_bytes // max(1, largest))))
        rows: list[dict[str, Any]] = []
        size = 0
        for row in map(dict, (result := cx.execute(bounded, values)).mappings()):
            rows.append(row)
            size += self._parts.size(row)
            if size > max_bytes:
                break
        result.close()
        return [self._parts.whole(cx, row) for row in rows]

    def count(self, where: Mapping[str, Any], by: str, above: Any, below: Any) -> int:
        conditions = [condition_on(self.table.c[name], *kind_of(value)) for name, value in where.items()]
        column = self.table.c[by]
        query = sa.select(sa.func.count()).select_from(self.table).where(column > above, column < below, *conditions)
        for attempt in self._access.attempts(f"count {self._shape.name}", single=True):
            with attempt as cx:
                count = cx.scalar(query, without_null(where))
        return int(count or 0)

    def delete(self, keys: Sequence[str], partition: str | None = None) -> None:
        if not keys:
            return
        query = self.table.delete().where(self._access.dialect.is_one_of(self.table.c[self._shape.key], keys))
        if partition is not None:
            query = query.where(self.table.c[self._shape.partition] == partition)
        for attempt in self._access.attempts(f"purge {self._shape.name}", writes=True):
            with attempt as cx:
                self._parts.delete(cx, keys)
                cx.execute(query)


def _entries(result: sa.CursorResult[Any]) -> list[dict[str, Any]]:
    names = [*result.keys()]
    return [dict(zip(names, row, strict=True)) for row in result.all()]


def _has_changed(cx: sa.Connection, query: sa.Update | sa.Insert, values: Mapping[str, Any]) -> bool:
    return cx.execute(query, values).rowcount > 0
