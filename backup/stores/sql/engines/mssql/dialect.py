"""SQL Server through pyodbc.

SQL Server 2016 and later and Azure SQL understand every statement here. OPENJSON needs a database of compatibility
level 130, that of SQL Server 2016. Without it each value goes as a parameter, which is slower.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.mssql import DATETIME2

from backup.core.errors import ConfigError
from backup.core.model import Fingerprint
from backup.core.suggestions import subject
from backup.core.transforms import Stamping
from backup.stores.connection import SqlServer
from backup.stores.listing import Listed
from backup.stores.sql.engines.base import Dialect, PlannedWrite, ServerBlocks, StampColumns
from backup.stores.sql.engines.column import Column, Relation, spelled_table
from backup.stores.sql.engines.databases import create_database_if_missing, drop_database
from backup.stores.sql.engines.defaults import DialectDefaults
from backup.stores.sql.engines.described import Described
from backup.stores.sql.engines.failures import Failure
from backup.stores.sql.engines.images_to_make import ImagesToMake
from backup.stores.sql.engines.images_to_stage import ImageRows, ImagesToStage, StagedImages
from backup.stores.sql.engines.mixing import few_only
from backup.stores.sql.engines.mssql import altering, listing, rights, system_tables
from backup.stores.sql.engines.mssql.altering import MSSQL
from backup.stores.sql.engines.mssql.app_rows import added_rows, is_one_of
from backup.stores.sql.engines.mssql.blocks import SqlServerBlocks
from backup.stores.sql.engines.mssql.counters import advance, own_identities
from backup.stores.sql.engines.mssql.engines import SqlServerEngines
from backup.stores.sql.engines.mssql.errors import failure
from backup.stores.sql.engines.mssql.fingerprint import (
    BYTES_STAMP,
    TEXT_STAMP,
    bucket_expression,
    content_hash,
    fingerprints_of,
    keyed_hash,
    no_stamp,
)
from backup.stores.sql.engines.mssql.images import make_images
from backup.stores.sql.engines.mssql.json import (
    Spell,
    insert_statement,
    split_long,
    update_statement,
    write_as_json,
)
from backup.stores.sql.engines.mssql.relay import relay_rows, stage_rows
from backup.stores.sql.engines.mssql.shared_lock import share_a_lock
from backup.stores.sql.engines.mssql.snapshot import begin_under_snapshot
from backup.stores.sql.engines.mssql.staged_images import count_equal, rows_of_images, stage_images
from backup.stores.sql.engines.mssql.types import MssqlType, relation
from backup.stores.sql.engines.opening import CALL_SECONDS, CONNECTIONS, DialectOptions
from backup.stores.sql.engines.pairs import is_same_by
from backup.stores.sql.engines.prepared import Prepared
from backup.stores.sql.engines.relayed import Relayed, RelayedRows, StagedRows
from backup.stores.sql.engines.rights import mssql_unseen_hint
from backup.stores.sql.engines.secondary_indexes import any_begins_with, inspected_indexes
from backup.stores.sql.engines.snapshot import Snapshot
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.engines.utc_time import UtcTime

_IGNORES_HINTS = sa.text("SELECT CASE WHEN SERVERPROPERTY('BabelfishVersion') IS NULL THEN 0 ELSE 1 END")

_EXISTS = sa.text("SELECT DB_ID(:name)")
_UTC_TIME = UtcTime(DATETIME2())  # type: ignore[no-untyped-call]
_CLOCK = sa.func.sysutcdatetime(type_=_UTC_TIME)


class SqlServerDialect(DialectDefaults):
    """One SQL Server database."""

    kind = "mssql"
    product = "SQL Server"
    default_schema: str | None = "dbo"
    max_parameters = 2_000  # the server's limit is 2,100
    max_columns = 1_024
    folds_names = True  # unless its database has a collation that does not
    in_process = False
    relays_outside = True
    chooses_images = False  # nobody promises that it looks at conditions before OPENJSON
    references = system_tables.REFERENCES
    delete_triggers = system_tables.DELETE_TRIGGERS
    write_triggers = system_tables.WRITE_TRIGGERS
    utc_time = _UTC_TIME
    row_count: sa.ColumnElement[int] = sa.func.count_big(sa.literal_column("*"))

    def __init__(self, where: SqlServer, connections: int = CONNECTIONS, call_seconds: float = CALL_SECONDS) -> None:
        self._where, self._connections, self._call_seconds = where, connections, call_seconds
        self._engines = SqlServerEngines(where, connections, call_seconds)
        # `_columns` sets these: the database's collation, whether it has OPENJSON, which blocks need, and reads
        # hexadecimal digits, and the type of stamps.
        self._collation: str | None = None
        self._has_openjson = self.reads_hex = True
        self._stamp_type = BYTES_STAMP
        self.blocks: ServerBlocks | None = SqlServerBlocks()
        self._ignores_hints: bool | None = None  # None: not asked yet

    @property
    def location(self) -> str:
        return self._engines.location

    @property
    def engine(self) -> sa.Engine:
        return self._engines.engine

    def close(self) -> None:
        self._engines.close()

    def is_same_database(self, here: sa.Connection, there: sa.Connection) -> bool:
        return is_same_by(here, there, lambda: share_a_lock(here, there, self.location))

    @property
    def server_clock(self) -> sa.ColumnElement[datetime] | None:
        return _CLOCK

    def ensure_database(self, like: Dialect | None = None) -> None:  # noqa: ARG002 - the server has its own permissions
        create_database_if_missing(self, self._where.database, _EXISTS, self._engines.of_server)

    def drop_database(self) -> None:
        drop_database(self, self._where.database, _EXISTS, self._engines.of_server)

    def beside(self, name: str) -> SqlServerDialect:
        return SqlServerDialect(self._where.with_database(name), self._connections, self._call_seconds)

    def reading(self) -> AbstractContextManager[sa.Connection]:
        return self._engines.reading.begin()

    def writing(self) -> AbstractContextManager[sa.Connection]:
        return self._engines.writing.begin()

    def begin_snapshot(self, tables: Sequence[TableName]) -> Snapshot:
        return begin_under_snapshot(self.engine, tables, self.cut, self.location)

    @contextmanager
    def reading_in(self, snapshot: Snapshot) -> Iterator[sa.Connection]:
        with snapshot.reading(self.engine) as cx:
            self._engines.read_texts_with(cx.connection.driver_connection)
            yield cx

    def cut(self, cx: sa.Connection) -> Callable[[], None]:
        leave: Callable[[], None] = cx.connection.driver_connection.leave  # type: ignore[union-attr] # LeavableConnection

        return leave

    def locked(self, query: sa.Select[Any], *, gaps: bool = True) -> sa.Select[Any]:
        # HOLDLOCK: nobody can insert a key that the query did not find.
        [table] = query.get_final_froms()
        return query.with_hint(table, "WITH (UPDLOCK, HOLDLOCK)" if gaps else "WITH (UPDLOCK)", "mssql")

    @staticmethod
    def locked_for_share(query: sa.Select[Any]) -> sa.Select[Any]:
        [table] = query.get_final_froms()
        return query.with_hint(table, "WITH (REPEATABLEREAD, ROWLOCK)", "mssql")

    def lock(self, cx: sa.Connection, column: sa.Column[Any], rows: sa.ColumnElement[bool]) -> None:
        # Babelfish ignores table hints: there only a write locks.
        if self._ignores_hints is None:
            self._ignores_hints = bool(cx.scalar(_IGNORES_HINTS))
        if self._ignores_hints:
            cx.execute(column.table.update().where(rows).values({column: column}))

    def relay(self, cx: sa.Connection, rows: RelayedRows, source: Dialect) -> Relayed | None:
        return relay_rows(cx, rows) if self.reaches(source) else None

    def stage(self, cx: sa.Connection, rows: RelayedRows, source: Dialect) -> StagedRows | None:
        return stage_rows(cx, rows) if self.reaches(source) else None

    def reaches(self, source: Dialect) -> bool:
        """Whether the settings name one server and one login for both."""
        return isinstance(source, SqlServerDialect) and self._where.with_database("") == source._where.with_database("")

    def make_images(self, cx: sa.Connection, images: ImagesToMake, condition: sa.ColumnElement[bool]) -> int | None:
        return make_images(cx, images, condition, lambda query: self.locked(query, gaps=False))

    def stage_images(self, cx: sa.Connection, images: ImagesToStage) -> StagedImages | None:
        return stage_images(cx, images) if self._has_openjson else None

    def reads_images_of(self, source: Dialect) -> bool:
        return self._has_openjson and self.reaches(source)

    def rows_of_images(
        self,
        cx: sa.Connection,  # noqa: ARG002 - for SQLite
        images: sa.Table,
        columns: tuple[sa.Column[Any], ...],
    ) -> ImageRows | None:
        return rows_of_images(images, columns) if self._has_openjson else None

    def count_equal(self, cx: sa.Connection, staged: StagedImages) -> int:
        return count_equal(cx, staged)

    def advance_counters(self, cx: sa.Connection, table: sa.Table, identity: Collection[str]) -> list[str]:
        return [text for name in identity for text in advance(cx, table, name, MSSQL)]

    def read_any_text(self) -> bool:
        self._engines.read_halves()
        return True

    def insert_rows(
        self, cx: sa.Connection, insert: Prepared, rows: Sequence[tuple[Any, ...]], *, identity: bool
    ) -> None:
        if not identity:
            self._write(cx, insert_statement, insert, rows)
            return
        with own_identities(cx, spelled_table(MSSQL, insert.table)):
            self._write(cx, insert_statement, insert, rows)

    def update_rows(self, cx: sa.Connection, update: Prepared, rows: Sequence[tuple[Any, ...]]) -> None:
        self._write(cx, update_statement, update, rows)

    def _write(self, cx: sa.Connection, spell: Spell, prepared: Prepared, rows: Sequence[tuple[Any, ...]]) -> None:
        short, long = split_long(rows) if self._has_openjson else ((), rows)
        if short and write_as_json(cx, spell, prepared, short, reads_hex=self.reads_hex):
            rows = long
        if rows:
            prepared.run(cx, rows)

    def add_rows(self, cx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
        for statement, parameters in added_rows(cx.dialect, table, rows, has_openjson=self._has_openjson):
            cx.execute(statement, parameters)
        return 0  # the server also counts rows that an INSTEAD OF trigger has swallowed

    def is_one_of(self, column: sa.Column[Any], values: Sequence[str]) -> sa.ColumnElement[bool]:
        return is_one_of(column, values) if self._has_openjson else column.in_(values)

    def insert_entries(self, cx: sa.Connection, table: sa.Table, entries: Sequence[Mapping[str, Any]]) -> None:
        # Not as an array: for that pyodbc asks for the type of each field, and the server inserts row by row.
        step = self.max_parameters // len(entries[0])
        for start in range(0, len(entries), step):
            cx.execute(table.insert().values([dict(entry) for entry in entries[start : start + step]]))

    def unseen_hint(self, schema: str | None, table: str) -> str:
        return mssql_unseen_hint(schema or self.default_schema or "", table, self._login)

    def find(self, cx: sa.Connection, schema: str | None, table: str) -> TableName | None:
        return system_tables.find(cx, schema, table)

    def list_tables(self, cx: sa.Connection) -> Sequence[Listed]:
        return listing.list_tables(cx)

    def describe_all(self, cx: sa.Connection, names: Sequence[TableName]) -> Sequence[Described | None]:
        rows_of = system_tables.describe_all(cx, names)
        return [self._described(name, rows_of[name]) if name in rows_of else None for name in names]

    def _described(self, name: TableName, rows: Sequence[Mapping[str, Any]]) -> Described:
        try:
            return Described(name, self._columns(rows), identity=(rows[0]["object_id"],))
        except ConfigError as error:
            return Described(name, error=error)

    def login_schema(self, cx: sa.Connection) -> str | None:
        return str(cx.scalar(sa.text("SELECT SCHEMA_NAME()")) or self.default_schema)

    def describe(self, cx: sa.Connection, schema: str | None, table: str) -> Described | None:
        described = system_tables.describe_named(cx, schema, table)
        if described is None:
            return super().describe(cx, schema, table)
        name, rows = described
        try:
            system_tables.refuse_hidden(cx, name, rows)
        except ConfigError as error:
            return Described(name, error=error)
        return self._described(name, rows)

    def columns(self, cx: sa.Connection, schema: str | None, table: str) -> list[Column]:
        return self._columns(system_tables.describe(cx, schema or "dbo", table))

    def _columns(self, rows: Sequence[Mapping[str, Any]]) -> list[Column]:
        if rows:
            self._collation, self._has_openjson = rows[0]["database_collation"], bool(rows[0]["has_openjson"])
            self.blocks = SqlServerBlocks() if self._has_openjson else None
            self.reads_hex = bool(rows[0]["reads_hex"])
            self._stamp_type = BYTES_STAMP if rows[0]["joins_bytes"] else TEXT_STAMP
        return system_tables.columns_of(rows)

    def has_schema(self, cx: sa.Connection, schema: str) -> bool:
        return cx.scalar(sa.text("SELECT SCHEMA_ID(:name)"), {"name": schema}) is not None

    def content_hash(self, columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
        return content_hash(columns)

    def keyed_hash(self, columns: Sequence[sa.Column[Any]], stamping: Stamping) -> sa.ColumnElement[Any]:
        return keyed_hash(columns, stamping.stamp_secret, stamping.mark, self._stamp_type)

    @property
    def stamp_type(self) -> MssqlType:
        return self._stamp_type

    @property
    def no_stamp(self) -> sa.ColumnElement[Any]:
        return no_stamp(self._stamp_type)

    def bucket(self, key: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any] | None:
        return bucket_expression(key)

    def fingerprints(
        self,
        cx: sa.Connection,
        stamps: StampColumns,
        conditions: Sequence[sa.ColumnElement[bool]],
        bucket: sa.ColumnElement[Any] | None = None,
        at_most: int | None = None,
        *,
        in_parts: bool = False,  # noqa: ARG002 - the rows stay in the server
    ) -> Mapping[Any, Fingerprint] | None:
        return few_only(fingerprints_of(cx, stamps, conditions, bucket, at_most), at_most)

    def relation(self, source: Column, copy: Column) -> Relation:
        return relation(source.type.declared, copy.type.declared)

    def can_alter(self, table: sa.Table, column: Column) -> bool:
        return not altering.is_in_key(table, column)

    def add(self, table: sa.Table, column: Column) -> str:
        return altering.add_column(table, column)

    def indexes(self, cx: sa.Connection, tables: Sequence[TableName]) -> Sequence[Sequence[Mapping[str, Any]]]:
        by_table = [inspected_indexes(cx, table) for table in tables]
        for index in chain.from_iterable(by_table):
            if "mssql_clustered" not in (options := index["dialect_options"]):
                options["mssql_using"] = "xml, spatial or hash"
        return by_table

    def has_index_by(self, cx: sa.Connection, table: TableName, column: str) -> bool:
        return any_begins_with(self.indexes(cx, [table])[0], column)

    def rename(self, cx: sa.Connection, table: TableName, new: TableName) -> None:
        altering.rename(cx, table, new)

    def alter(self, table: sa.Table, old: Column, new: Column) -> list[str]:
        return altering.alter_column(table, old, new, self._collation or "")

    def failure(self, error: Exception) -> Failure:
        return failure(error, self._login)

    def refusal(self, cx: sa.Connection, table: sa.Table, write: PlannedWrite) -> Failure | None:
        return rights.refusal(cx, table, write, self._login)

    @property
    def _login(self) -> str | None:
        return self._where.keywords.get("UID")


def opened(where: SqlServer, options: DialectOptions) -> SqlServerDialect:
    """The dialect of a SQL Server database. `master` stands for the default database; ConfigError if there is none."""
    if where.database.lower() == "master":
        if not options.default_database:
            named = f"{subject(options.setting)} names the database master."
            raise ConfigError(named, hint="Name the database itself.")
        where = where.with_database(options.default_database)
    return SqlServerDialect(where, options.connections, options.call_seconds)
