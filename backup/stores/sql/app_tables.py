"""The app's own tables beside a store's: SyncHistory, the recycle bin, the sample's sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mssql, sqlite

from backup.stores.sibling import Entry, FieldType, OneOf, Shape
from backup.stores.sql.access import SqlAccess


class _TimeOrText(sqlite.DATETIME):
    """SQLite's columns take anything: what is no time comes as it is, and whoever reads it looks."""

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        process: Any = super().result_processor(dialect, coltype)

        def tolerant(value: Any) -> Any:
            try:
                return process(value)
            except (ValueError, TypeError):
                return value

        return tolerant


class UtcTime(sa.TypeDecorator[datetime]):
    """Aware UTC in Python; datetime2 on SQL Server, timestamptz on PostgreSQL, text on SQLite. Refuses naive times."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name == "mssql":
            return dialect.type_descriptor(mssql.DATETIME2())  # type: ignore[no-untyped-call]
        if dialect.name == "sqlite":
            return dialect.type_descriptor(_TimeOrText())  # type: ignore[no-untyped-call]
        return dialect.type_descriptor(sa.DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone")
        utc = value.astimezone(UTC)
        return utc if dialect.name == "postgresql" else utc.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        if not isinstance(value, datetime):
            return value
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


FIELD_TYPES: dict[FieldType, sa.types.TypeEngine[Any]] = {
    "name": sa.Unicode(200),
    "place": sa.Unicode(400),
    "text": sa.UnicodeText(),
    "json": sa.JSON(),
    "integer": sa.BigInteger(),
    "decimal": sa.Numeric(18, 2, asdecimal=False),
    "time": UtcTime(),
    "flag": sa.Boolean(),
}


_KEY, _ABOVE, _BELOW = "sought", "above", "below"  # parameters, beside those named for fields
_IF = "if_"  # begins the name of a parameter for a field that an entry must have already


class SqlSibling:
    """A table of the app's own, beside the store's; `schema_of` says in which schema a table of its name is there."""

    def __init__(self, access: SqlAccess, shape: Shape, schema_of: Callable[[str], str | None]) -> None:
        self._access, self._shape, self._schema_of = access, shape, schema_of
        access.names.add(shape.name.lower())

    @cached_property
    def _table(self) -> sa.Table:
        shape, schema = self._shape, self._schema_of(self._shape.name)
        return _table(shape.name, shape.key, tuple(shape.fields.items()), shape.indexes, schema)

    def create(self) -> None:
        self._access.create_database()
        self._access.create(self._table)
        table = self._table
        for attempt in self._access.attempts(f"complete {self._shape.name}", writes=True):
            with attempt as cx:
                there = {column["name"].lower() for column in sa.inspect(cx).get_columns(table.name, table.schema)}
                for column in table.columns:
                    if column.name.lower() not in there:  # made by an earlier release
                        spelled = sa.schema.CreateColumn(column).compile(dialect=cx.dialect)
                        name = cx.dialect.identifier_preparer.format_table(table)
                        cx.exec_driver_sql(f"ALTER TABLE {name} ADD {spelled}")

    def put(self, entries: Sequence[Entry]) -> None:
        for attempt in self._access.attempts(self._writing, writes=True, fenced=False):
            with attempt as cx:
                for entry in entries:
                    updated = cx.execute(_update(self._table), {**entry, _KEY: entry[self._shape.key]})
                    if updated.rowcount == 0:
                        cx.execute(self._table.insert(), dict(entry))

    def change(
        self, key: str, only_if: OneOf, fields: Entry, transaction: Any = None, seconds: float | None = None
    ) -> bool:
        query, values = _update(self._table, _shape_of(only_if)), {**fields, **_values_of(key, only_if)}
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
        query = _select(self._table, _shape_of(only_if), locked=transaction is not None)
        values = _values_of(key, only_if)
        if transaction is not None:
            return transaction.execute(query, values).first() is not None
        for attempt in self._access.attempts(self._reading):
            with attempt as cx:
                row = cx.execute(query, values).first()
        return row is not None

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
            self._access.dialect.add_rows(transaction, self._table, entries)
            return
        for attempt in self._access.attempts(self._writing, writes=True):
            with attempt as cx:
                self._access.dialect.add_rows(cx, self._table, entries)

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
            self._table,
            tuple((name, *_asked_for(value)) for name, value in where.items()),
            (above is not None, below is not None),
            order_by,
            descending,
            limit,
            tuple(fields),
        )
        values = {**_without_null(where), _ABOVE: above, _BELOW: below}
        if transaction is not None:
            return self._rows(transaction, query, values, limit, max_bytes)
        for attempt in self._access.attempts(self._reading):
            with attempt as cx:
                rows = self._rows(cx, query, values, limit, max_bytes)
        return rows

    def _rows(
        self, cx: sa.Connection, query: sa.Select[Any], values: Mapping[str, Any], limit: int, max_bytes: int | None
    ) -> list[dict[str, Any]]:
        """The query's first rows, up to a number and a size."""
        if max_bytes is None:
            return [dict(row) for row in cx.execute(query, values).mappings()]
        largest = self._access.dialect.largest(cx, self._table, query, values)
        few = query if largest is None else query.limit(max(1, min(limit, max_bytes // max(1, largest))))
        found: list[dict[str, Any]] = []
        size = 0
        for row in (result := cx.execute(few, values)).mappings():
            found.append(dict(row))
            size += sum(len(value) for value in row.values() if isinstance(value, str))
            if size > max_bytes:
                break
        result.close()
        return found

    def count(self, where: Mapping[str, Any], by: str, above: Any, below: Any) -> int:
        conditions = [_condition(self._table.c[name], *_asked_for(value)) for name, value in where.items()]
        column = self._table.c[by]
        query = sa.select(sa.func.count()).select_from(self._table).where(column > above, column < below, *conditions)
        for attempt in self._access.attempts(f"count {self._shape.name}"):
            with attempt as cx:
                counted = cx.scalar(query, _without_null(where))
        return int(counted or 0)

    def delete(self, keys: Sequence[str], partition: str | None = None) -> None:
        if not keys:
            return
        query = self._table.delete().where(self._table.c[self._shape.key].in_(keys))
        if partition is not None:
            query = query.where(self._table.c[self._shape.partition] == partition)
        for attempt in self._access.attempts(f"purge {self._shape.name}", writes=True):
            with attempt as cx:
                cx.execute(query)


def _has_changed(cx: sa.Connection, query: sa.Update, values: Mapping[str, Any]) -> bool:
    return cx.execute(query, values).rowcount > 0


@lru_cache(maxsize=64)  # one object, so that statements on it are compiled once, not in every run
def _table(
    name: str,
    key: str,
    fields: tuple[tuple[str, FieldType], ...],
    indexes: tuple[tuple[str, ...], ...],
    schema: str | None,
) -> sa.Table:
    return sa.Table(
        name,
        sa.MetaData(),
        *(
            sa.Column(field, FIELD_TYPES[kind], primary_key=field == key, nullable=field != key, autoincrement=False)
            for field, kind in fields
        ),
        *(sa.Index(f"IX_{name}_{names[0]}", *names) for names in indexes),
        schema=schema,
    )


# Statements are made once, not in every run and batch. What an entry must be like is told by its fields, each with
# whether NULL will do; the parameters are the key and the fields' other values.

_Shape = tuple[tuple[str, bool], ...]


def _shape_of(only_if: OneOf) -> _Shape:
    return tuple((name, None in values) for name, values in only_if.items())


def _values_of(key: str, only_if: OneOf) -> dict[str, Any]:
    given = {f"{_IF}{name}": [value for value in values if value is not None] for name, values in only_if.items()}
    return {_KEY: key, **given}


def _is(table: sa.Table, shape: _Shape) -> Iterator[sa.ColumnElement[bool]]:
    [key] = table.primary_key.columns
    yield key == sa.bindparam(_KEY, type_=key.type)
    for name, null in shape:
        column = table.c[name]
        some = column.in_(sa.bindparam(f"{_IF}{name}", expanding=True, type_=column.type))
        yield sa.or_(some, column.is_(None)) if null else some


@lru_cache(maxsize=64)
def _update(table: sa.Table, shape: _Shape = ()) -> sa.Update:
    """Its further parameters are the fields to set."""
    return table.update().where(*_is(table, shape))


@lru_cache(maxsize=64)
def _select(table: sa.Table, shape: _Shape, *, locked: bool) -> sa.Select[Any]:
    """Selects the entry's key; `locked` until the transaction ends."""
    query = sa.select(*table.primary_key.columns).where(*_is(table, shape))
    # SQLite has one writer at a time, and this is one.
    locking = query.with_for_update(read=True).with_hint(table, "WITH (REPEATABLEREAD, ROWLOCK)", "mssql")
    return locking if locked else query


def _asked_for(value: Any) -> tuple[bool, bool]:
    """Whether a field may have one of several values, and whether NULL is among them."""
    several = isinstance(value, list)
    return several, None in value if several else value is None


def _without_null(where: Mapping[str, Any]) -> dict[str, Any]:
    """The values as parameters; what is NULL is said by the statement."""
    several = {name: [one for one in value if one is not None] for name, value in where.items() if _asked_for(value)[0]}
    return {**where, **several}


def _condition(column: sa.Column[Any], several: bool, null: bool) -> sa.ColumnElement[bool]:
    """That the column has what the parameter of its name says; NULL is never equal to a value."""
    if several:
        found: sa.ColumnElement[bool] = column.in_(sa.bindparam(column.name, expanding=True, type_=column.type))
        return sa.or_(found, column.is_(None)) if null else found
    return column.is_(None) if null else column == sa.bindparam(column.name, type_=column.type)


@lru_cache(maxsize=64)
def _query(
    table: sa.Table,
    where: tuple[tuple[str, bool, bool], ...],
    bounds: tuple[bool, bool],
    order_by: str,
    descending: bool,
    limit: int,
    fields: tuple[str, ...],
) -> sa.Select[Any]:
    """Selects rows by these fields, each with what `_asked_for` says of it; their names are the parameters."""
    by = table.c[order_by]
    conditions = [_condition(table.c[name], several, null) for name, several, null in where]
    conditions += [by > sa.bindparam(_ABOVE, type_=by.type)] if bounds[0] else []
    conditions += [by < sa.bindparam(_BELOW, type_=by.type)] if bounds[1] else []
    query = sa.select(*(table.c[name] for name in fields)) if fields else sa.select(table)
    return query.where(*conditions).order_by(by.desc() if descending else by).limit(limit)
