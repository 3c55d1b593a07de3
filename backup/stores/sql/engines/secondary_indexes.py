"""The secondary indexes of a table, as SQLAlchemy reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from backup.stores.sql.engines.tables import TableName, whole_schema

_PLAIN_KINDS = (None, "", "btree")


def inspected_indexes(cx: sa.Connection, table: TableName) -> Sequence[Mapping[str, Any]]:
    """As `Dialect.indexes`: with the unique constraints, where the server does not list them as indexes."""
    inspector, schema = sa.inspect(cx), whole_schema(table.schema)
    indexes: list[Mapping[str, Any]] = [*inspector.get_indexes(table.name, schema)]
    with suppress(NotImplementedError):
        indexes += [dict(constraint) for constraint in inspector.get_unique_constraints(table.name, schema)]
    return indexes


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
