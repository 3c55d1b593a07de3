"""SQL Server through pyodbc: times and what Python has no exact value for travel as text or bytes.

Every statement here is understood by SQL Server 2016 and later and by Azure SQL.
"""

from __future__ import annotations

import re
import struct
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import UserDefinedType

from backup.errors import ConfigError
from backup.stores.connection import SqlServer
from backup.stores.dialects.base import Column, Failure, ServerType, driver_text, missing_driver

_LOGIN_TIMEOUT_SECONDS = 30
_ACCESS_TOKEN_ATTRIBUTE = 1256  # SQL_COPT_SS_ACCESS_TOKEN in msodbcsql.h
_TOKEN_SCOPE = "https://database.windows.net/.default"  # noqa: S105 - a scope, not a token
_STATE_TRANSIENT = {"08S01", "08001", "08003", "08007", "HYT00", "HYT01", "40001", "01002"}
# Deadlock, lock timeout, snapshot conflict, connection resets, and Azure SQL's list of transient errors.
_CODE_TRANSIENT = {20, 64, 233, 1205, 1222, 3960, 8645, 8651, 10053, 10054, 10060, 10928, 10929, 10936}
_CODE_TRANSIENT |= {40020, 40143, 40166, 40197, 40501, 40540, 40613, 42108, 42109, 49918, 49919, 49920}
_CODE_LOGIN = {18452, 18456, 18470, 18486, 18487, 18488, 40615}

_COLUMNS = sa.text(
    """
    SELECT c.name, t.name AS type_name, b.name AS base_name, c.max_length, c.precision, c.scale, c.collation_name,
           c.is_nullable, c.is_identity, c.is_computed, k.key_ordinal
    FROM sys.columns c
    JOIN sys.objects o ON o.object_id = c.object_id
    JOIN sys.schemas s ON s.schema_id = o.schema_id
    JOIN sys.types t ON t.user_type_id = c.user_type_id
    LEFT JOIN sys.types b ON b.user_type_id = c.system_type_id
    LEFT JOIN sys.indexes i ON i.object_id = c.object_id AND i.is_primary_key = 1
    LEFT JOIN sys.index_columns k ON k.object_id = i.object_id AND k.index_id = i.index_id AND k.column_id = c.column_id
    WHERE o.name = :table AND s.name = :schema AND o.type IN ('U', 'V')
    ORDER BY c.column_id
    """
)


class MssqlType(ServerType):
    """A SQL Server type with the size the driver is told, because it guesses wrongly behind CAST, for NULL and in arrays."""

    cache_ok = True

    def __init__(self, declared: str, base: str, length: int = 0, precision: int = 0, scale: int = 0) -> None:
        super().__init__(declared)
        self.base, self.length, self.precision, self.scale = base, length, precision, scale

    def get_dbapi_type(self, dbapi: Any) -> Any:
        match self.base:
            case "char" | "varchar" | "nchar" | "nvarchar" | "text" | "ntext" | "xml" | "json":
                return (dbapi.SQL_WVARCHAR, self.length, 0)
            case "binary" | "varbinary" | "image" | "hierarchyid" | "geography" | "geometry":
                return (dbapi.SQL_VARBINARY, self.length, 0)
            case "decimal" | "numeric" | "money" | "smallmoney":
                return (dbapi.SQL_DECIMAL, self.precision, self.scale)
            case "bigint":
                return dbapi.SQL_BIGINT
            case "int" | "smallint" | "tinyint":
                return dbapi.SQL_INTEGER
            case "bit":
                return dbapi.SQL_BIT
            case "float" | "real":
                return dbapi.SQL_DOUBLE
            case "date":
                return dbapi.SQL_TYPE_DATE
            case _:  # uniqueidentifier and times travel as text
                return (dbapi.SQL_WVARCHAR, 40, 0)


class ConvertedType(MssqlType):
    """Read as `CONVERT(read, column, style)` and written as `CONVERT(type, value, style)`."""

    cache_ok = True
    _AS_READ = {"time": "varchar(20)", "xml": "nvarchar(max)", "json": "nvarchar(max)"}
    _STYLE = {"xml": ["1"], "time": [], "json": []}

    def _convert(self, to: str, value: Any) -> Any:
        style = self._STYLE.get(self.base, ["121"])
        return sa.func.convert(sa.literal_column(to), value, *map(sa.literal_column, style))

    def column_expression(self, column: Any) -> Any:
        return self._convert(self._AS_READ.get(self.base, "varchar(40)"), column)

    def bind_expression(self, bindvalue: Any) -> Any:
        return self._convert(self.declared, bindvalue)


class ClrType(MssqlType):
    """hierarchyid, geography, geometry: their serialised bytes."""

    cache_ok = True

    def column_expression(self, column: Any) -> Any:
        return sa.cast(column, _Raw("varbinary(max)"))

    def bind_expression(self, bindvalue: Any) -> Any:
        return sa.cast(bindvalue, _Raw(self.declared))


class CodePageType(MssqlType):
    """char and varchar. Parameters are Unicode; cast to the column's own collation they compare as the column does and use
    its index."""

    cache_ok = True

    def __init__(self, declared: str, base: str, length: int, collation: str) -> None:
        super().__init__(declared, base, length)
        self.collation = collation

    def bind_expression(self, bindvalue: Any) -> Any:
        return sa.cast(sa.collate(bindvalue, self.collation), _Raw(self.declared.split(" COLLATE ")[0]))


class _Raw(UserDefinedType[Any]):
    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


class SqlServerDialect:
    """One SQL Server database."""

    kind = "mssql"
    product = "SQL Server"
    default_schema = "dbo"
    max_parameters = 2_000  # the server's limit is 2,100

    def __init__(self, where: SqlServer) -> None:
        self._where = where

    @property
    def location(self) -> str:
        return f"{self._where.address}/{self._where.database}"

    @cached_property
    def engine(self) -> sa.Engine:
        return self._engine(self._where)

    def _engine(self, where: SqlServer, **options: Any) -> sa.Engine:
        try:
            import pyodbc
        except ImportError as error:
            raise missing_driver(
                "pyodbc", "It needs unixODBC: install Debian's libodbc2 (macOS: brew install unixodbc)."
            ) from error
        return sa.create_engine(
            "mssql+pyodbc://",
            creator=lambda: _connect(pyodbc, where),
            fast_executemany=True,
            hide_parameters=True,
            **options,
        )

    def ensure_database(self) -> None:
        try:
            with self.engine.connect():
                return
        except sa.exc.DBAPIError as error:
            if self.failure(error.orig or error).kind != "database_missing":  # type: ignore[arg-type]
                raise
        server = self._engine(self._where.with_database("master"), isolation_level="AUTOCOMMIT")
        with server.connect() as cx:
            if cx.scalar(sa.text("SELECT DB_ID(:name)"), {"name": self._where.database}) is None:
                name = server.dialect.identifier_preparer.quote_identifier(self._where.database)
                try:
                    cx.exec_driver_sql(f"CREATE DATABASE {name}")
                except sa.exc.DBAPIError as error:
                    if 1801 not in _codes(error.orig):  # made by someone else meanwhile
                        raise
        server.dispose()

    def ensure_schema(self, cx: sa.Connection, schema: str) -> None:
        if cx.scalar(sa.text("SELECT schema_id FROM sys.schemas WHERE name = :name"), {"name": schema}) is None:
            cx.execute(sa.schema.CreateSchema(schema))

    def before_insert(self, cx: sa.Connection, table: sa.Table, identity: bool) -> None:
        if identity:
            name = cx.dialect.identifier_preparer.format_table(table)
            cx.exec_driver_sql(f"SET IDENTITY_INSERT {name} ON")

    def columns(self, cx: sa.Connection, schema: str | None, table: str) -> list[Column]:
        found = cx.execute(_COLUMNS, {"table": table, "schema": schema or self.default_schema}).mappings().all()
        return [
            Column(
                name=row["name"],
                type=_type_of(row["name"], row),
                nullable=bool(row["is_nullable"]),
                key_position=row["key_ordinal"],
                collation=row["collation_name"],
                identity=bool(row["is_identity"]),
                computed=bool(row["is_computed"]) or row["type_name"] in ("timestamp", "rowversion"),
            )
            for row in found
        ]

    def failure(self, error: Exception) -> Failure:
        state, codes, text = str(error.args[0]) if error.args else "", _codes(error), driver_text(error)
        if codes & {4060, 911}:
            return Failure("database_missing", text)
        if state == "42S02" or 208 in codes:
            return Failure("missing", text)
        if state == "28000" or codes & _CODE_LOGIN:
            return Failure("unavailable", text)
        if state in ("IM002", "01000") and "Can't open lib" in text:
            return Failure("unavailable", text)
        if state in _STATE_TRANSIENT or codes & _CODE_TRANSIENT:
            return Failure("transient", text)
        return Failure("refused", text)


def _connect(pyodbc: Any, where: SqlServer) -> Any:
    keywords = dict(where.keywords)
    timeout = int(keywords.pop("LoginTimeout", _LOGIN_TIMEOUT_SECONDS))
    attributes = {}
    if where.token:
        from backup.stores.identity import credential

        token = credential(keywords.pop("UID", None)).get_token(_TOKEN_SCOPE).token.encode("utf-16-le")
        attributes[_ACCESS_TOKEN_ATTRIBUTE] = struct.pack(f"<I{len(token)}s", len(token), token)
    keywords["Driver"] = _driver(pyodbc, keywords.get("Driver"))
    connection = pyodbc.connect(
        ";".join(f"{name}={_quoted(value)}" for name, value in keywords.items()),
        timeout=timeout,
        attrs_before=attributes,
    )
    # Characters arrive as UTF-16 whatever the client's locale and the column's code page are.
    connection.setdecoding(pyodbc.SQL_CHAR, encoding="utf-16le", ctype=pyodbc.SQL_WCHAR)
    return connection


def _quoted(value: str) -> str:
    return "{" + value.replace("}", "}}") + "}" if re.search(r"[;{}\s]", value) else value


def _driver(pyodbc: Any, wanted: str | None) -> str:
    installed = pyodbc.drivers()
    if wanted and (
        wanted in installed or Path(wanted).is_absolute() or not re.match(r"ODBC Driver \d+ for SQL Server", wanted)
    ):
        return wanted
    for name in ("ODBC Driver 18 for SQL Server", "ODBC Driver 17 for SQL Server"):
        if name in installed:
            return name
    try:
        import mssql_python_odbc
    except ImportError:
        raise ConfigError(
            "No ODBC driver for SQL Server is installed.",
            hint="pip install mssql-python-odbc, or Microsoft's msodbcsql18 package.",
        ) from None
    libraries = Path(mssql_python_odbc.get_libs_dir())
    system = {"linux": "linux/*/*/lib/libmsodbcsql*.so.*", "darwin": "macos/*/lib/libmsodbcsql*.dylib"}.get(
        sys.platform, "**/msodbcsql*.dll"
    )
    found = sorted(libraries.glob(system), key=lambda path: ("debian" not in str(path), str(path)))
    if not found:
        raise ConfigError("The package mssql-python-odbc carries no driver for this system.")
    return str(found[0])


def _codes(error: BaseException | None) -> set[int]:
    text = " ".join(str(part) for part in (error.args if error else ()))
    return {int(code) for code in re.findall(r"\((\d{2,6})\)", text)}


def _type_of(column: str, row: Any) -> ServerType:
    name = row["type_name"]
    known = (
        name in _SIMPLE or name in _SIZED or name in _CONVERTED or name in _CLR or name in ("timestamp", "rowversion")
    )
    base = name if known else row["base_name"]  # an alias type is its base type; sysname is nvarchar(128)
    length, precision, scale = row["max_length"], row["precision"], row["scale"]
    if base in ("timestamp", "rowversion"):
        return MssqlType("binary(8)", "binary", 8)
    if base in _SIZED:
        characters = length // 2 if base in ("nchar", "nvarchar") and length > 0 else length
        size = "max" if length == -1 else str(characters)
        limit = 0 if length == -1 else characters
        if not row["collation_name"]:
            return MssqlType(f"{base}({size})", base, limit)
        spelled = f"{base}({size}) COLLATE {row['collation_name']}"
        if base in ("char", "varchar"):
            return CodePageType(spelled, base, limit, row["collation_name"])
        return MssqlType(spelled, base, limit)
    if base in ("decimal", "numeric"):
        return MssqlType(f"{base}({precision}, {scale})", base, 0, precision, scale)
    if base in ("money", "smallmoney"):
        return MssqlType(base, base, 0, 19, 4)
    if base == "float":
        return MssqlType(f"float({precision})" if precision in range(1, 54) else "float", base)
    if base in ("text", "ntext"):
        return MssqlType(f"{base} COLLATE {row['collation_name']}" if row["collation_name"] else base, base)
    if base in ("datetime2", "datetimeoffset", "time"):
        return ConvertedType(f"{base}({scale})", base)
    if base in _CONVERTED:
        return ConvertedType(base, base)
    if base in _CLR:
        return ClrType(base, base)
    if base in _SIMPLE:
        return MssqlType(base, base)
    raise ConfigError(
        f"Column {column} has the type {name}, which cannot be copied exactly.",
        hint="Back up a table without this column, or change the column's type.",
    )


_SIMPLE = {
    "bigint",
    "int",
    "smallint",
    "tinyint",
    "bit",
    "real",
    "float",
    "date",
    "uniqueidentifier",
    "image",
    "text",
    "ntext",
}
_SIMPLE |= {"decimal", "numeric", "money", "smallmoney"}
_SIZED = {"char", "varchar", "nchar", "nvarchar", "binary", "varbinary"}
_CONVERTED = {"datetime", "smalldatetime", "datetime2", "datetimeoffset", "time", "xml", "json"}
_CLR = {"hierarchyid", "geography", "geometry"}
