"""SQL Server through pyodbc.

Every statement here is understood by SQL Server 2016 and later and by Azure SQL. OPENJSON needs a database of
compatibility level 130, SQL Server 2016's own; below that, values go as parameters of their own, which is slower.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cached_property
from math import ceil
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.mssql import DATETIME2
from sqlalchemy.dialects.mssql.base import MSDialect

from backup.core.errors import ConfigError
from backup.core.model import Fingerprint
from backup.stores.connection import SqlServer
from backup.stores.sql.engines.base import CALL_SECONDS, CONNECTIONS, Dialect, DialectOptions, StampColumns
from backup.stores.sql.engines.column import Column, Relation, ServerType, spelled_column, spelled_table
from backup.stores.sql.engines.databases import create_database_if_missing, drop_database
from backup.stores.sql.engines.failures import Failure, missing_driver
from backup.stores.sql.engines.mssql import system_tables
from backup.stores.sql.engines.mssql.connection import connect
from backup.stores.sql.engines.mssql.counters import advance
from backup.stores.sql.engines.mssql.errors import failure
from backup.stores.sql.engines.mssql.fingerprint import bucket_expression, content_hash, fingerprint_query
from backup.stores.sql.engines.mssql.json import (
    JSON,
    Spell,
    added_rows,
    insert_statement,
    parted,
    to_json,
    update_statement,
)
from backup.stores.sql.engines.mssql.leavable import LeavableConnection
from backup.stores.sql.engines.mssql.parameters import forget_writes, send_many, send_one
from backup.stores.sql.engines.mssql.types import relation
from backup.stores.sql.engines.prepared import Prepared, send
from backup.stores.sql.engines.rights import mssql_unseen_hint
from backup.stores.sql.engines.tables import Found
from backup.stores.sql.engines.utc_time import UtcTime

_READS_OVER_HINTS = sa.text("SELECT CASE WHEN SERVERPROPERTY('BabelfishVersion') IS NULL THEN 0 ELSE 1 END")
_SPELLING = MSDialect()  # type: ignore[no-untyped-call] # SQLAlchemy leaves it so

_EXISTS = sa.text("SELECT DB_ID(:name)")
_SNAPSHOTS = sa.text(
    "SELECT snapshot_isolation_state, is_read_committed_snapshot_on FROM sys.databases WHERE database_id = DB_ID()"
)
# A lock of this kind is of one database. Servers that speak T-SQL may share them among databases: so their number too.
_LOCK = sa.text(
    "EXEC sp_getapplock @Resource = :name, @LockMode = 'Exclusive', @LockOwner = 'Transaction', @LockTimeout = 0"
)
_LOCKED = sa.text("SELECT APPLOCK_TEST('public', :name, 'Exclusive', 'Transaction'), DB_ID()")


class SqlServerDialect:
    """One SQL Server database."""

    kind = "mssql"
    product = "SQL Server"
    default_schema: str | None = "dbo"
    max_parameters = 2_000  # the server's limit is 2,100
    max_columns = 1_024
    in_process = False
    references = system_tables.REFERENCES
    delete_triggers = system_tables.DELETE_TRIGGERS
    utc_time = UtcTime(DATETIME2())  # type: ignore[no-untyped-call]
    connects_in_time = False
    row_count: sa.ColumnElement[int] = sa.func.count_big(sa.literal_column("*"))

    def __init__(self, where: SqlServer, connections: int = CONNECTIONS, call_seconds: float = CALL_SECONDS) -> None:
        self._where, self._connections, self._call_seconds = where, connections, call_seconds
        # Known with the database's first columns: its own collation, and whether statements may have OPENJSON.
        self._collation: str | None = None
        self._has_openjson = True
        self._halves = False
        self._reads_over_hints: bool | None = None  # once it was asked for

    @property
    def location(self) -> str:
        return f"{self._where.address}/{self._where.database}"

    @cached_property
    def engine(self) -> sa.Engine:
        return self._engine(self._where, pool_size=self._connections, max_overflow=0)

    def _engine(self, where: SqlServer, **options: Any) -> sa.Engine:
        try:
            import pyodbc  # type: ignore[import-not-found]
        except ImportError as error:
            raise missing_driver(
                "pyodbc", "It needs unixODBC: install Debian's libodbc2 (macOS: brew install unixodbc)."
            ) from error
        engine = sa.create_engine(
            "mssql+pyodbc://",
            creator=lambda: LeavableConnection(
                connect(pyodbc, where, ceil(self._call_seconds), halves=self._halves),
                lambda: pyodbc.OperationalError("08S01", "the connection was given up"),
            ),
            hide_parameters=True,
            use_setinputsizes=False,  # `send_one` and `send_many` do that
            fast_executemany=True,  # so that inserts come to `send_many` and not as statements with thousands of values
            **options,
        )
        sa.event.listen(engine, "do_execute", send_one)
        sa.event.listen(engine, "do_executemany", send_many)
        sa.event.listen(engine, "begin", forget_writes)
        return engine

    def _server(self) -> sa.Engine:
        return self._engine(self._where.with_database("master"), isolation_level="AUTOCOMMIT")

    def is_same_database(self, one: sa.Connection, other: sa.Connection) -> bool:
        """By a lock of a name that nobody else asks for: who cannot get it asks the database that has given it away."""
        name = {"name": f"backup-{uuid4()}"}
        one.execute(_LOCK, name)
        mine, theirs = one.execute(_LOCKED, name).one(), other.execute(_LOCKED, name).one()
        return bool(mine[0] == 1 and theirs[0] == 0 and mine[1] == theirs[1])

    @property
    def server_clock(self) -> sa.ColumnElement[datetime] | None:
        return sa.func.sysutcdatetime(type_=sa.DateTime())

    def ensure_database(self, like: Dialect | None = None) -> None:  # noqa: ARG002 - the server has its own rights
        create_database_if_missing(self, self._where.database, _EXISTS, self._server)

    def drop_database(self) -> None:
        drop_database(self, self._where.database, _EXISTS, self._server)

    def beside(self, name: str) -> SqlServerDialect:
        return SqlServerDialect(self._where.with_database(name), self._connections, self._call_seconds)

    def reading(self) -> AbstractContextManager[sa.Connection]:
        return self._reading.begin()

    @cached_property
    def _reading(self) -> sa.Engine:
        """Connections under SNAPSHOT, if the database allows that; with READ_COMMITTED_SNAPSHOT on none needs it."""
        try:
            with self.engine.connect() as cx:
                found = cx.execute(_SNAPSHOTS).first()
        except sa.exc.DBAPIError as error:
            if self.failure(error.orig if isinstance(error.orig, Exception) else error).kind != "refused":
                raise
            found = None  # a server that has no such view offers no snapshots either
        return self.engine.execution_options(isolation_level="SNAPSHOT") if found == (1, False) else self.engine

    def writing(self) -> AbstractContextManager[sa.Connection]:
        return self.engine.begin()

    def cut(self, cx: sa.Connection) -> Callable[[], None]:
        leave: Callable[[], None] = cx.connection.driver_connection.leave  # type: ignore[union-attr] # LeavableConnection

        return leave

    def locked(self, query: sa.Select[Any]) -> sa.Select[Any]:
        # HOLDLOCK: what is asked for and not there stays so, too.
        [table] = query.get_final_froms()
        return query.with_hint(table, "WITH (UPDLOCK, HOLDLOCK)", "mssql")

    @staticmethod
    def shared(query: sa.Select[Any]) -> sa.Select[Any]:
        [table] = query.get_final_froms()
        return query.with_hint(table, "WITH (REPEATABLEREAD, ROWLOCK)", "mssql")

    def lock(self, cx: sa.Connection, column: sa.Column[Any], rows: sa.ColumnElement[bool]) -> None:
        # Babelfish reads over table hints; there only a write locks.
        if self._reads_over_hints is None:
            self._reads_over_hints = bool(cx.scalar(_READS_OVER_HINTS))
        if self._reads_over_hints:
            cx.execute(column.table.update().where(rows).values({column: column}))

    def advance_counters(self, cx: sa.Connection, table: sa.Table, identity: Collection[str]) -> list[str]:
        return [text for name in identity for text in advance(cx, table, name, _SPELLING)]

    def is_one_file(self, other: Dialect) -> bool:  # noqa: ARG002 - there are none
        return False

    def read_halves(self) -> bool:
        if not self._halves:
            self._halves = True
            self.engine.dispose()  # new connections read them
        return True

    def insert_rows(
        self, cx: sa.Connection, insert: Prepared, rows: Sequence[tuple[Any, ...]], *, identity: bool
    ) -> None:
        if identity:
            cx.exec_driver_sql(f"SET IDENTITY_INSERT {spelled_table(_SPELLING, insert.table)} ON")
        self._write(cx, insert_statement, insert, rows)

    def update_rows(self, cx: sa.Connection, update: Prepared, rows: Sequence[tuple[Any, ...]]) -> None:
        self._write(cx, update_statement, update, rows)

    def _write(self, cx: sa.Connection, spell: Spell, prepared: Prepared, rows: Sequence[tuple[Any, ...]]) -> None:
        short, long = parted(rows) if self._has_openjson else ((), rows)
        sent = to_json([prepared.table.c[name].type for name in prepared.names], short) if short else None
        if sent is None:
            prepared.run(cx, rows)
            return
        send(cx, spell(prepared, sent.forms, cx.dialect), [(sent.text,)], types=(JSON,))
        if long:
            prepared.run(cx, long)

    def add_rows(self, cx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        for statement, parameters in added_rows(cx.dialect, table, rows, has_openjson=self._has_openjson):
            cx.execute(statement, parameters)

    def unseen_hint(self, schema: str | None, table: str) -> str:
        return mssql_unseen_hint(schema or self.default_schema or "", table, self._where.keywords.get("UID"))

    def find(self, cx: sa.Connection, schema: str | None, table: str) -> Found | None:
        return system_tables.find(cx, schema, table)

    def home(self, cx: sa.Connection) -> str | None:
        return str(cx.scalar(sa.text("SELECT SCHEMA_NAME()")) or self.default_schema)

    def columns(self, cx: sa.Connection, schema: str | None, table: str) -> list[Column]:
        found = system_tables.described(cx, schema or "dbo", table)
        if found:
            self._collation, self._has_openjson = found[0]["database_collation"], bool(found[0]["has_openjson"])
        return system_tables.columns_of(found)

    def fitted(
        self,
        cx: sa.Connection,  # noqa: ARG002 - a column's type says all
        columns: Sequence[Column],
        key_names: Sequence[str],  # noqa: ARG002
    ) -> list[Column]:
        return list(columns)

    def has_schema(self, cx: sa.Connection, schema: str) -> bool:
        return cx.scalar(sa.text("SELECT SCHEMA_ID(:name)"), {"name": schema}) is not None

    def content_hash(self, columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
        return content_hash(columns)

    def bytes_of(self, column: sa.Column[Any]) -> sa.ColumnElement[Any] | None:  # noqa: ARG002 - of any column
        return None

    def bucket(self, key: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any] | None:
        return bucket_expression(key)

    def fingerprints(
        self,
        cx: sa.Connection,
        stamps: StampColumns,
        conditions: Sequence[sa.ColumnElement[bool]],
        bucket: sa.ColumnElement[Any] | None = None,
    ) -> Mapping[Any, Fingerprint] | None:
        return {
            number: Fingerprint("T-SQL", records, tuple(int(one or 0) for one in sums))
            for number, records, *sums in cx.execute(fingerprint_query(stamps, conditions, bucket))
        }

    def largest(
        self,
        cx: sa.Connection,  # noqa: ARG002 - of any query
        table: sa.Table,  # noqa: ARG002
        query: sa.Select[Any],  # noqa: ARG002
        values: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> int | None:
        return None

    def relation(self, source: Column, copy: Column) -> Relation:
        return relation(source.type.declared, copy.type.declared)

    def can_alter(self, table: sa.Table, column: Column) -> bool:
        return column.name not in table.primary_key.columns

    def add(self, table: sa.Table, column: Column) -> str:
        return f"ALTER TABLE {spelled_table(_SPELLING, table)} ADD {_spelled(table, column.name, column.type, True)}"

    def alter(self, table: sa.Table, old: Column, new: Column) -> list[str]:
        name, in_key = spelled_table(_SPELLING, table), not self.can_alter(table, old)
        # What stays as it is goes without saying: not every server that speaks T-SQL lets it be said. Without a word a
        # column may be NULL, for ODBC switches ANSI_NULL_DFLT_ON on, and has the database's collation.
        nullable = False if in_key else None if old.nullable else new.nullable
        spelled, _, collation = new.type.declared.partition(" COLLATE ")
        plain = ServerType(spelled) if collation.lower() == (self._collation or "").lower() else new.type
        statement = f"ALTER TABLE {name} ALTER COLUMN {_spelled(table, old.name, plain, nullable)}"
        if not in_key:
            return [statement]
        key = ", ".join(spelled_column(_SPELLING, table, column.name) for column in table.primary_key.columns)
        return [f"drop the primary key of {name}", statement, f"ALTER TABLE {name} ADD PRIMARY KEY ({key})"]

    def failure(self, error: Exception) -> Failure:
        return failure(error, self._where.keywords.get("UID"))


def _spelled(table: sa.Table, name: str, type_: ServerType, nullable: bool | None) -> str:
    return spelled_column(_SPELLING, table, name, type_, nullable=nullable)


def opened(where: SqlServer, options: DialectOptions) -> SqlServerDialect:
    """The dialect of a SQL Server's database; not of `master`, unless another is given in its place."""
    if where.database.lower() == "master":
        if not options.default_database:
            raise ConfigError(f"Setting {options.setting} names the database master.", hint="Name the database itself.")
        where = where.with_database(options.default_database)
    return SqlServerDialect(where, options.connections, options.call_seconds)
