"""The statements that alter a table of SQL Server: they rename it, add a column, and give a column another type."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.mssql.base import MSDialect

from backup.stores.sql.engines.column import Column, ServerType, spelled_column, spelled_table
from backup.stores.sql.engines.tables import TableName, quoted_parts, send_ddl

MSSQL = MSDialect()  # type: ignore[no-untyped-call] # SQLAlchemy leaves it so
"""How SQL Server quotes names."""


def rename(cx: sa.Connection, table: TableName, new: TableName) -> None:
    """Gives the table another name, and another schema, which exists, if that differs."""
    if table.schema != new.schema:
        to_schema, moved = quoted_parts(MSSQL, new.schema), quoted_parts(MSSQL, table.schema, table.name)
        send_ddl(cx, f"ALTER SCHEMA {to_schema} TRANSFER {moved}")
    if table.name != new.name:  # the new name is taken as it is, so it has no brackets
        names = {"moved": quoted_parts(MSSQL, new.schema, table.name), "name": new.name}
        cx.execute(sa.text("EXEC sp_rename :moved, :name, 'OBJECT'"), names)


def is_in_key(table: sa.Table, column: Column) -> bool:
    """Whether the column is in the table's primary key. Then the server cannot alter it before that is dropped."""
    return column.name in table.primary_key.columns


def add_column(table: sa.Table, column: Column) -> str:
    """The statement that adds a nullable column of this name and type."""
    return f"ALTER TABLE {spelled_table(MSSQL, table)} ADD {_declared(table, column.name, column.type, True)}"


def alter_column(table: sa.Table, old: Column, new: Column, collation: str) -> list[str]:
    """The statements that give the `old` column the type of the `new` one. `collation` is that of the database."""
    name, in_key = spelled_table(MSSQL, table), is_in_key(table, old)
    # The statement says only what changes: some servers that speak T-SQL refuse the rest. By default a column may be
    # NULL, since ODBC switches ANSI_NULL_DFLT_ON on, and has the database's collation.
    nullable = False if in_key else None if old.nullable else new.nullable
    spelled, _, own_collation = new.type.declared.partition(" COLLATE ")
    plain = ServerType(spelled) if own_collation.lower() == collation.lower() else new.type
    statement = f"ALTER TABLE {name} ALTER COLUMN {_declared(table, old.name, plain, nullable)}"
    if not in_key:
        return [statement]
    key = ", ".join(spelled_column(MSSQL, table, column.name) for column in table.primary_key.columns)
    return [f"drop the primary key of {name}", statement, f"ALTER TABLE {name} ADD PRIMARY KEY ({key})"]


def _declared(table: sa.Table, name: str, type_: ServerType, nullable: bool | None) -> str:
    return spelled_column(MSSQL, table, name, type_, nullable=nullable)
