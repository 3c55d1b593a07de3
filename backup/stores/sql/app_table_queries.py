"""The statements on the app's own tables. Each is made once, not in every run and batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.stores.sibling import Entry, FieldType, Groups, OneOf, Shape
from backup.stores.sql.engines.tables import whole_schema
from backup.stores.sql.engines.utc_time import UtcTime

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

KEY, ABOVE, BELOW = "sought", "above", "below"  # parameters, beside those named after fields
LOOK, PLACE, AT = "look_number", "place_in_look", "server_time"  # columns that `look_query` adds
_NEW = "new_"  # the parameter for a field of a new entry begins with this
_IF = "if_"  # the parameter for a value that a field must have already begins with this


@lru_cache(maxsize=64)  # the same object each time, so that statements on it are compiled once, not in every run
def app_table(shape: Shape, schema: str | None, time_type: UtcTime) -> sa.Table:
    """The table of this shape, with an index for each list of names."""
    types, key = {**FIELD_TYPES, "time": time_type}, shape.key
    return sa.Table(
        shape.name,
        sa.MetaData(),
        *(
            sa.Column(field, types[kind], primary_key=field == key, nullable=field != key, autoincrement=False)
            for field, kind in shape.fields.items()
        ),
        *(sa.Index(f"IX_{shape.name}_{names[0]}", *names) for names in shape.indexes),
        schema=whole_schema(schema),
    )


_Shape = tuple[tuple[str, bool], ...]


def shape_of(only_if: OneOf) -> _Shape:
    """The names of the fields that an entry must match, each with whether NULL matches."""
    return tuple((name, None in values) for name, values in only_if.items())


def match_values(key: str, only_if: OneOf) -> dict[str, Any]:
    """The parameters of `update_query` and `select_query`: the key, and the values that fields must match."""
    values_of_field = {
        f"{_IF}{name}": [value for value in values if value is not None] for name, values in only_if.items()
    }
    return {KEY: key, **values_of_field}


def _matches(table: sa.Table, shape: _Shape) -> Iterator[sa.ColumnElement[bool]]:
    """The conditions for the entry of the key, if its fields match."""
    [key] = table.primary_key.columns
    yield key == sa.bindparam(KEY, type_=key.type)
    for name, with_null in shape:
        column = table.c[name]
        is_value = column.in_(sa.bindparam(f"{_IF}{name}", expanding=True, type_=column.type))
        yield sa.or_(is_value, column.is_(None)) if with_null else is_value


@lru_cache(maxsize=64)
def update_query(table: sa.Table, shape: _Shape = ()) -> sa.Update:
    """Updates the entry of a key, if its fields match. Its further parameters are the fields to set."""
    return table.update().where(*_matches(table, shape))


@lru_cache(maxsize=64)
def select_query(
    table: sa.Table, shape: _Shape, lock: Callable[[sa.Select[Any]], sa.Select[Any]] | None = None
) -> sa.Select[Any]:
    """Selects the entry's key; with `lock`, which is a dialect's, the entry is locked until the transaction ends."""
    query = sa.select(*table.primary_key.columns).where(*_matches(table, shape))
    return query if lock is None else lock(query)


@lru_cache(maxsize=64)
def next_query(table: sa.Table, groups: Groups, names: tuple[str, ...], *, casts: bool) -> sa.Insert:
    """Inserts an entry with these fields, unless its group has one with the same `order` or a higher one, or one that
    is counted. Its parameters are those of `next_values`; `casts`: the server has to be told their types."""
    other = table.alias()
    values = {name: sa.bindparam(f"{_NEW}{name}", type_=table.c[name].type) for name in names}
    field, counted = groups.counted
    taken = sa.exists().where(
        *(other.c[name] == values[name] for name in (groups.by, groups.then_by)),
        sa.or_(other.c[groups.order] >= values[groups.order], other.c[field] == counted),
    )
    selected = [sa.cast(value, table.c[name].type) if casts else value for name, value in values.items()]
    insert = table.insert().from_select([*values], sa.select(*selected).where(~taken))
    return insert.execution_options(preserve_rowcount=True)


def next_values(entry: Entry) -> dict[str, Any]:
    """The parameters of `next_query` for this entry."""
    return {f"{_NEW}{name}": value for name, value in entry.items()}


def kind_of(value: Any) -> tuple[bool, bool]:
    """Whether a field may have any of several values, and whether NULL is among them."""
    several = isinstance(value, list)
    return several, None in value if several else value is None


def without_null(where: Mapping[str, Any]) -> dict[str, Any]:
    """The values as parameters, without NULL: the statement itself names that."""
    lists = {name: values for name, values in where.items() if kind_of(values)[0]}
    return {**where, **{name: [value for value in values if value is not None] for name, values in lists.items()}}


_Kinds = tuple[tuple[str, bool, bool], ...]
"""Fields, each with what `kind_of` says of its value."""


def kinds_of(where: Mapping[str, Any]) -> _Kinds:
    """The fields, each with what `kind_of` says of its value."""
    return tuple((name, *kind_of(value)) for name, value in where.items())


def condition_on(column: sa.Column[Any], several: bool, null: bool, ending: str = "") -> sa.ColumnElement[bool]:
    """The condition that the column has the value, or any of the values, of the parameter of its name and `ending`.

    NULL is never equal to a value, so it has a condition of its own.
    """
    name = f"{column.name}{ending}"
    if several:
        is_value: sa.ColumnElement[bool] = column.in_(sa.bindparam(name, expanding=True, type_=column.type))
        return sa.or_(is_value, column.is_(None)) if null else is_value
    return column.is_(None) if null else column == sa.bindparam(name, type_=column.type)


@lru_cache(maxsize=64)
def find_query(
    table: sa.Table,
    where: _Kinds,
    bounds: tuple[bool, bool],
    order_by: str,
    descending: bool,
    limit: int,
    fields: tuple[str, ...],
) -> sa.Select[Any]:
    """Selects rows by these fields, each with what `kind_of` says of its value. The parameters have their names."""
    by = table.c[order_by]
    conditions = [condition_on(table.c[name], several, null) for name, several, null in where]
    conditions += [by > sa.bindparam(ABOVE, type_=by.type)] if bounds[0] else []
    conditions += [by < sa.bindparam(BELOW, type_=by.type)] if bounds[1] else []
    query = sa.select(*(table.c[name] for name in fields)) if fields else sa.select(table)
    return query.where(*conditions).order_by(by.desc() if descending else by).limit(limit)


class LookKinds(NamedTuple):
    """One of the looks of `look_query`, without its values. `bounded`: it is above one."""

    where: _Kinds
    bounded: bool
    order_by: str
    limit: int
    descending: bool


@lru_cache(maxsize=64)
def look_query(
    table: sa.Table, looks: tuple[LookKinds, ...], clock: sa.ColumnElement[datetime] | None
) -> sa.Select[Any]:
    """Selects what all looks see, in their order. The parameters are named after fields, each with its look's number.

    Each row has the number of its look, and the time of the server where it has a `clock`.
    """
    [key] = table.primary_key.columns
    parts = []
    for number, look in enumerate(looks):
        field = table.c[look.order_by]
        by = field.desc() if look.descending else field
        conditions = [condition_on(table.c[name], several, null, str(number)) for name, several, null in look.where]
        conditions += [field > sa.bindparam(f"{ABOVE}{number}", type_=field.type)] if look.bounded else []
        place = sa.func.row_number().over(order_by=by).label(PLACE)
        rows = sa.select(key, place).where(*conditions).order_by(by).limit(look.limit).subquery(f"look{number}")
        parts.append(sa.select(*rows.c, sa.literal_column(str(number), sa.Integer).label(LOOK)))
    # The looks find keys alone: a server takes longer to read a statement with all columns of each than to answer it.
    keys = sa.union_all(*parts).subquery("looks")
    time = (sa.null() if clock is None else clock).label(AT)
    query = sa.select(*table.columns, keys.c[LOOK], time).join_from(keys, table, keys.c[key.name] == key)
    return query.order_by(keys.c[LOOK], keys.c[PLACE])
