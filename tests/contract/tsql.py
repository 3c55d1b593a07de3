"""A table of SQL Server with many types, and what is sent about it as text. Needs no server."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

from sqlalchemy.dialects.mssql.pyodbc import dialect as mssql_dialect

from backup.stores import Rules
from backup.stores.connection import SqlServer
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.mssql.dialect import SqlServerDialect
from backup.stores.sql.engines.mssql.types import type_of
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.table import TableShape


def column(name: str, type_name: str, length: int = 0, precision: int = 0, scale: int = 0, **more: Any) -> Column:
    collation = more.pop("collation", None)
    row = {
        "type_name": type_name,
        "base_name": more.pop("base_name", type_name),
        "max_length": length,
        "precision": precision,
        "scale": scale,
        "collation_name": collation,
        "has_openjson": more.pop("has_openjson", True),
    }
    return Column(name, type_of(name, row), nullable=more.pop("nullable", True), collation=collation, **more)


COLUMNS = [
    column("Id", "int", nullable=False),
    column("Region", "varchar", 10, collation="SQL_Latin1_General_CP1_CI_AS", nullable=False),
    column("Name", "nvarchar", 400, collation="Latin1_General_CI_AS"),
    column("Notes", "nvarchar", -1, collation="Latin1_General_CI_AS"),
    column("Amount", "decimal", 9, 18, 4),
    column("At", "datetime2", 8, 27, 7),
    column("Clock", "time", 5, 16, 7),
    column("Off", "datetimeoffset", 10, 34, 7),
    column("Doc", "xml", -1),
    column("Stamp", "timestamp", 8),
    column("Phone", "PhoneNumber", 20, collation="Latin1_General_CI_AS", base_name="varchar"),
    column("Node", "hierarchyid", 892),
    column("100% [odd]", "float", 8, 53),
    column("Version", "bigint"),
]


def shape(key: tuple[str, ...] = ("Id",), columns: list[Column] | None = None) -> TableShape:
    rules = Rules(version=("Version",), where={"Region": "EU"})
    columns = [replace(column, nullable=column.nullable and column.name not in key) for column in columns or COLUMNS]
    return TableShape(columns, key, rules, TableName("my shop", "Things"), "table")


def dialect() -> Any:
    """As it is once connected to SQL Server 2016 or later."""
    connected = mssql_dialect(paramstyle="qmark")  # type: ignore[no-untyped-call]
    connected._supports_offset_fetch = connected.deprecate_large_types = True
    return connected


def text(statement: Any) -> str:
    compiled = statement.compile(dialect=dialect())
    return " ".join(str(compiled).split()).replace("[my shop].[Things]", "T")


def unasked_server() -> SqlServerDialect:
    """SQL Server as an engine. Nobody connects to it."""
    return SqlServerDialect(SqlServer({"Server": "x", "Database": "y"}, token=False))


class Session:
    """A session of a server: it notes what it is asked, and answers with the next row."""

    def __init__(self, *rows: tuple[Any, ...] | None) -> None:
        self.asked: list[str] = []
        self.info: dict[str, Any] = {}
        self._rows = list(rows)

    def execute(
        self, statement: Any, _: Any = None, *, execution_options: Mapping[str, Any] = MappingProxyType({})
    ) -> Any:
        schemas = execution_options.get("schema_translate_map")
        options = {"schema_translate_map": schemas, "render_schema_translate": True} if schemas else {}
        compiled = statement.compile(dialect=dialect(), **options)
        self.asked.append(" ".join(str(compiled).split()))
        row = self._rows.pop(0)
        return SimpleNamespace(first=lambda: row, one=lambda: row, rowcount=3)

    def scalar(self, statement: Any) -> Any:
        return self.execute(statement).one()[0]

    def exec_driver_sql(self, statement: str, **_: Any) -> None:
        self.asked.append(statement)

    @contextmanager
    def opened(self) -> Any:
        yield self
