"""The app's own tables beside a store's: SyncHistory, the recycle bin, the sample's sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.stores.sibling import Entry, FieldType, Look, OneOf, Seen, Shape
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.engines.utc_time import UtcTime
from backup.stores.sql.entry_parts import EntryParts

FIELD_TYPES: dict[FieldType, sa.types.TypeEngine[Any]] = {
    "name": sa.Unicode(200),
    "place": sa.Unicode(400),
    "text": sa.UnicodeText(),
    "json": sa.JSON(),
    "integer": sa.BigInteger(),
    "decimal": sa.Numeric(18, 2, asdecimal=False),
    "flag": sa.Boolean(),
}
"""Of every field but a time, whose type is the dialect's `utc_time`."""

_KEY, _ABOVE, _BELOW = "sought", "above", "below"  # parameters, beside those named after fields
_LOOK, _PLACE, _AT = "look_number", "place_in_look", "server_time"  # columns that `_looks` adds
_IF = "if_"  # the parameter for a value that a field must have already begins with this


class SqlSibling:
    """A table of the app's own, beside the store's. `schema_of` says which schema holds a table of a given name."""

    def __init__(self, access: SqlAccess, shape: Shape, schema_of: Callable[[str], str | None]) -> None:
        self._access, self._shape, self._schema_of = access, shape, schema_of
        access.names.add(shape.name.lower())

    @cached_property
    def table(self) -> sa.Table:
        """The table, with the columns that it has or should get."""
        shape, schema = self._shape, self._schema_of(self._shape.name)
        time_type = self._access.dialect.utc_time
        return _table(shape.name, shape.key, tuple(shape.fields.items()), shape.indexes, schema, time_type)

    @cached_property
    def _parts(self) -> EntryParts:
        return EntryParts(self._access.dialect, self._shape, self.table)

    def create(self) -> None:
        self._access.create_database()
        self._access.create(self.table)
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

    def put(self, entries: Sequence[Entry], *, new: bool = False) -> None:
        may_exist = not new
        for attempt in self._access.attempts(self._writing, writes=True, fenced=False):
            with attempt as cx:
                for entry in entries:
                    if not (may_exist and self._is_replaced(cx, entry)):
                        cx.execute(self.table.insert(), dict(entry))
            may_exist = True

    def _is_replaced(self, cx: sa.Connection, entry: Entry) -> bool:
        return _has_changed(cx, _update(self.table), {**entry, _KEY: entry[self._shape.key]})

    def change(
        self, key: str, only_if: OneOf, fields: Entry, transaction: Any = None, seconds: float | None = None
    ) -> bool:
        query, values = _update(self.table, _shape_of(only_if)), {**fields, **_values_of(key, only_if)}
        if transaction is not None:
            return _has_changed(transaction, query, values)
        if seconds is not None:
            with self._access.once(self._writing, writes=True, fenced=False, seconds=seconds) as cx:
                return _has_changed(cx, query, values)
        for attempt in self._access.attempts(self._writing, writes=True, fenced=False):
            with attempt as cx:
                changed = _has_changed(cx, query, values)
        return changed

    def holds(self, key: str, only_if: OneOf, transaction: Any = None) -> bool:
        lock = self._access.dialect.locked_for_share if transaction is not None else None
        query = _select(self.table, _shape_of(only_if), lock)
        values = _values_of(key, only_if)
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
        query = _query(
            self.table,
            _kinds_of(where),
            (above is not None, below is not None),
            order_by,
            descending,
            limit,
            tuple(fields),
        )
        values = {**_without_null(where), _ABOVE: above, _BELOW: below}
        if transaction is not None:
            return self._rows(transaction, query, values, limit, max_bytes)
        for attempt in self._access.attempts(self._reading, single=max_bytes is None):
            with attempt as cx:
                rows = self._rows(cx, query, values, limit, max_bytes)
        return rows

    def look(self, looks: Sequence[Look]) -> Seen:
        kinds = tuple(_Look(_kinds_of(look.where), look.order_by, look.limit, look.descending) for look in looks)
        query = _looks(self.table, kinds, self._access.dialect.server_clock)
        values = {
            f"{name}{number}": value
            for number, look in enumerate(looks)
            for name, value in _without_null(look.where).items()
        }
        for attempt in self._access.attempts(self._reading, single=True):
            with attempt as cx:
                rows = [dict(row) for row in cx.execute(query, values).mappings()]
        entries: list[list[dict[str, Any]]] = [[] for _ in looks]
        at: datetime | None = None
        for row in rows:
            entries[row.pop(_LOOK)].append(row)
            at = row.pop(_AT)
            del row[_PLACE]
        return Seen(entries, at and (at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)))

    def _rows(
        self, cx: sa.Connection, query: sa.Select[Any], values: Mapping[str, Any], limit: int, max_bytes: int | None
    ) -> list[dict[str, Any]]:
        """The query's first rows: at most `limit`, and none after the row that makes them exceed `max_bytes`."""
        if max_bytes is None:
            return [self._parts.whole(cx, dict(row)) for row in cx.execute(query, values).mappings().all()]
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
        conditions = [_condition(self.table.c[name], *_kind_of(value)) for name, value in where.items()]
        column = self.table.c[by]
        query = sa.select(sa.func.count()).select_from(self.table).where(column > above, column < below, *conditions)
        for attempt in self._access.attempts(f"count {self._shape.name}", single=True):
            with attempt as cx:
                count = cx.scalar(query, _without_null(where))
        return int(count or 0)

    def delete(self, keys: Sequence[str], partition: str | None = None) -> None:
        if not keys:
            return
        query = self.table.delete().where(self.table.c[self._shape.key].in_(keys))
        if partition is not None:
            query = query.where(self.table.c[self._shape.partition] == partition)
        for attempt in self._access.attempts(f"purge {self._shape.name}", writes=True):
            with attempt as cx:
                self._parts.delete(cx, keys)
                cx.execute(query)


def _has_changed(cx: sa.Connection, query: sa.Update, values: Mapping[str, Any]) -> bool:
    return cx.execute(query, values).rowcount > 0


@lru_cache(maxsize=64)  # the same object each time, so that statements on it are compiled once, not in every run
def _table(
    name: str,
    key: str,
    fields: tuple[tuple[str, FieldType], ...],
    indexes: tuple[tuple[str, ...], ...],
    schema: str | None,
    time_type: UtcTime,
) -> sa.Table:
    types = {**FIELD_TYPES, "time": time_type}
    return sa.Table(
        name,
        sa.MetaData(),
        *(
            sa.Column(field, types[kind], primary_key=field == key, nullable=field != key, autoincrement=False)
            for field, kind in fields
        ),
        *(sa.Index(f"IX_{name}_{names[0]}", *names) for names in indexes),
        schema=schema,
    )


# Statements are made once, not in every run and batch. So they name only the fields that an entry must match, each
# with whether NULL matches too. Their parameters are the key and the other values of these fields.

_Shape = tuple[tuple[str, bool], ...]


def _shape_of(only_if: OneOf) -> _Shape:
    return tuple((name, None in values) for name, values in only_if.items())


def _values_of(key: str, only_if: OneOf) -> dict[str, Any]:
    values_of_field = {
        f"{_IF}{name}": [value for value in values if value is not None] for name, values in only_if.items()
    }
    return {_KEY: key, **values_of_field}


def _matches(table: sa.Table, shape: _Shape) -> Iterator[sa.ColumnElement[bool]]:
    """The conditions for the entry of the key, if its fields match."""
    [key] = table.primary_key.columns
    yield key == sa.bindparam(_KEY, type_=key.type)
    for name, with_null in shape:
        column = table.c[name]
        is_value = column.in_(sa.bindparam(f"{_IF}{name}", expanding=True, type_=column.type))
        yield sa.or_(is_value, column.is_(None)) if with_null else is_value


@lru_cache(maxsize=64)
def _update(table: sa.Table, shape: _Shape = ()) -> sa.Update:
    """Its further parameters are the fields to set."""
    return table.update().where(*_matches(table, shape))


@lru_cache(maxsize=64)
def _select(
    table: sa.Table, shape: _Shape, lock: Callable[[sa.Select[Any]], sa.Select[Any]] | None = None
) -> sa.Select[Any]:
    """Selects the entry's key; with `lock`, which is a dialect's, the entry is locked until the transaction ends."""
    query = sa.select(*table.primary_key.columns).where(*_matches(table, shape))
    return query if lock is None else lock(query)


def _kind_of(value: Any) -> tuple[bool, bool]:
    """Whether a field may have any of several values, and whether NULL is among them."""
    several = isinstance(value, list)
    return several, None in value if several else value is None


def _without_null(where: Mapping[str, Any]) -> dict[str, Any]:
    """The values as parameters, without NULL: the statement itself names that."""
    lists = {name: values for name, values in where.items() if _kind_of(values)[0]}
    return {**where, **{name: [value for value in values if value is not None] for name, values in lists.items()}}


_Kinds = tuple[tuple[str, bool, bool], ...]
"""Fields, each with what `_kind_of` says of its value."""


def _kinds_of(where: Mapping[str, Any]) -> _Kinds:
    return tuple((name, *_kind_of(value)) for name, value in where.items())


def _condition(column: sa.Column[Any], several: bool, null: bool, ending: str = "") -> sa.ColumnElement[bool]:
    """The condition that the column has the value, or any of the values, of the parameter of its name and `ending`.

    NULL is never equal to a value, so it has a condition of its own.
    """
    name = f"{column.name}{ending}"
    if several:
        is_value: sa.ColumnElement[bool] = column.in_(sa.bindparam(name, expanding=True, type_=column.type))
        return sa.or_(is_value, column.is_(None)) if null else is_value
    return column.is_(None) if null else column == sa.bindparam(name, type_=column.type)


@lru_cache(maxsize=64)
def _query(
    table: sa.Table,
    where: _Kinds,
    bounds: tuple[bool, bool],
    order_by: str,
    descending: bool,
    limit: int,
    fields: tuple[str, ...],
) -> sa.Select[Any]:
    """Selects rows by these fields, each with what `_kind_of` says of its value. The parameters have their names."""
    by = table.c[order_by]
    conditions = [_condition(table.c[name], several, null) for name, several, null in where]
    conditions += [by > sa.bindparam(_ABOVE, type_=by.type)] if bounds[0] else []
    conditions += [by < sa.bindparam(_BELOW, type_=by.type)] if bounds[1] else []
    query = sa.select(*(table.c[name] for name in fields)) if fields else sa.select(table)
    return query.where(*conditions).order_by(by.desc() if descending else by).limit(limit)


class _Look(NamedTuple):
    where: _Kinds
    order_by: str
    limit: int
    descending: bool


@lru_cache(maxsize=64)
def _looks(
    table: sa.Table, looks: tuple[_Look, ...], clock: sa.ColumnElement[datetime] | None
) -> sa.Select[Any] | sa.CompoundSelect[Any]:
    """Selects what all looks see, in their order. The parameters are named after fields, each with its look's number.

    Each row has the number of its look, and the time of the server where it has a `clock`.
    """
    parts = []
    for number, look in enumerate(looks):
        by = table.c[look.order_by].desc() if look.descending else table.c[look.order_by]
        conditions = [_condition(table.c[name], several, null, str(number)) for name, several, null in look.where]
        place = sa.func.row_number().over(order_by=by).label(_PLACE)
        rows = sa.select(table, place).where(*conditions).order_by(by).limit(look.limit).subquery(f"look{number}")
        time = (sa.null() if clock is None else clock).label(_AT)
        parts.append(sa.select(*rows.c, sa.literal_column(str(number), sa.Integer).label(_LOOK), time))
    union = sa.union_all(*parts)
    return union.order_by(union.selected_columns[_LOOK], union.selected_columns[_PLACE])
