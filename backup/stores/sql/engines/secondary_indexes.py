"""The secondary indexes of a table, as SQLAlchemy reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.reflection import ObjectKind, ObjectScope

from backup.stores.sql.engines.tables import TableName, whole_schema

_PLAIN_KINDS = (None, "", "btree")


def inspected_indexes(cx: sa.Connection, table: TableName) -> Sequence[Mapping[str, Any]]:
    """As `Dialect.indexes`, of one table. The server lists unique constraints as indexes."""
    return sa.inspect(cx).get_indexes(table.name, whole_schema(table.schema))


def inspected_together(cx: sa.Connection, tables: Sequence[TableName]) -> Sequence[Sequence[Mapping[str, Any]]]:
    """As `Dialect.indexes`, in three statements for each schema. The server lists unique constraints as indexes."""
    inspector, kind, scope = sa.inspect(cx), ObjectKind.ANY, ObjectScope.ANY
    indexes: dict[TableName, list[Mapping[str, Any]]] = {table: [] for table in tables}
    for schema in {table.schema for table in tables}:
        of_schema = {table.name: table for table in tables if table.schema == schema}
        listed = inspector.get_multi_indexes(whole_schema(schema), filter_names=[*of_schema], kind=kind, scope=scope)
        for (_, name), own in listed.items():
            indexes[of_schema[name]] += own
    return [indexes[table] for table in tables]


def odd_kind(index: Mapping[str, Any]) -> str:
    """Why the index, which is as `Dialect.indexes` returns it, does not have all rows in the order of its columns;
    empty if it has."""
    options: Mapping[str, Any] = index.get("dialect_options") or {}
    if any(value is not None and name.endswith("_where") for name, value in options.items()):
        return "it is for a part of the rows, and other rows may not fit into it"
    kinds = (value for name, value in options.items() if name.endswith("_using"))
    if kind := next((kind for kind in kinds if kind not in _PLAIN_KINDS), None):
        return f"its kind is {kind}"
    return "it holds whole columns" if any(name.endswith("_columnstore") for name in options) else ""


def any_begins_with(indexes: Iterable[Mapping[str, Any]], column: str) -> bool:
    """Whether one of the indexes has all rows in the order of this column."""
    return any(index["column_names"][:1] == [column] and not odd_kind(index) for index in indexes)
