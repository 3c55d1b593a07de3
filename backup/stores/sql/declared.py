"""A table as statements name and declare it, and the app's own columns in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from backup.core.errors import ConfigError
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.column import Column, ServerType, named_column, type_parts
from backup.stores.sql.engines.prepared import TABLES_KEPT
from backup.stores.sql.engines.tables import TableAlone, TableName, whole_schema

SYNCED_AT = "SyncedAt"
"""The column of a copy that says when it was made."""

DELETED_AT = "DeletedAt"
"""The column of a copy that says when its record was found to be deleted in the source; NULL while it is there."""


def split_name(table: str) -> tuple[str | None, str]:
    """`customer.Customers`, `[my schema].[my.table]` or `Customers` → schema and table."""
    parts = [
        bracketed.replace("]]", "]") or quoted.replace('""', '"') or plain
        for bracketed, quoted, plain in re.findall(r'\[((?:[^]]|\]\])+)\]|"((?:[^"]|"")+)"|([^.\[\]"]+)', table)
    ]
    if len(parts) not in (1, 2):
        raise ConfigError(
            f"{table!r} is not a table name.",
            hint="Write schema.table, with brackets where a name has a dot.",
        )
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])


def wanted_name(dialect: Dialect, schema: str | None, name: str) -> TableName:
    """The table of this name, in the schema where the server looks for a table without one if there is none."""
    return TableName(schema or dialect.default_schema, name)


def declare(
    table: TableName, columns: Sequence[Column], key_names: Sequence[str], *own_columns: sa.Column[Any]
) -> sa.Table:
    """The table as SQLAlchemy and CREATE TABLE need it. The key's order may differ from the order of the columns.

    `own_columns` are the app's own, after the others.
    """
    if own_columns:
        return _declared(table, columns, key_names, *own_columns)
    return _declared_once(table, tuple(columns), tuple(key_names))


def _declared(
    table: TableName, columns: Sequence[Column], key_names: Sequence[str], *own_columns: sa.Column[Any]
) -> sa.Table:
    return (TableAlone if table.alone else sa.Table)(
        table.name,
        sa.MetaData(),
        *(sa.Column(c.name, c.type, nullable=c.nullable, autoincrement=False) for c in columns),
        *own_columns,
        sa.PrimaryKeyConstraint(*key_names),
        schema=whole_schema(table.schema),
    )


# Each run reads its tables again. A table that has not changed is the same object, so its statements are compiled once.
_declared_once = lru_cache(maxsize=TABLES_KEPT)(_declared)


def time_type(dialect: Dialect) -> ServerType:
    """The type of the app's own times in the server's words."""
    return ServerType(dialect.utc_time.compile(dialect=dialect.engine.dialect))


def own_column(columns: Sequence[Column], name: str, declared: str, dialect: Dialect) -> Column | None:
    """The app's own column of this name in a backup's table, which the app declares so; None if there is none. A column
    of the source's may have the same name.

    Where the server takes names of another case for the same, so does this: a table that somebody made may spell it
    otherwise, and some servers that speak T-SQL do so by themselves.
    """
    column = named_column(columns, name)
    if column is None or not (column.name == name or dialect.folds_names):
        return None
    is_own = column.nullable and type_parts(column.type.declared)[0] == type_parts(declared)[0]
    return column if is_own else None
