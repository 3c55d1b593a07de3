"""SQLite, the embedded default: values as they are stored, types as they are declared."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine import URL

from backup.core.model import Fingerprint
from backup.core.transforms import Stamping
from backup.stores.listing import Listed, PassedOver
from backup.stores.sql.engines.base import Dialect, StampColumns
from backup.stores.sql.engines.column import Column, Relation, ServerType, spelled_column, spelled_table
from backup.stores.sql.engines.defaults import DialectDefaults
from backup.stores.sql.engines.described import Described
from backup.stores.sql.engines.failures import Failure
from backup.stores.sql.engines.images_to_make import ImagesToMake
from backup.stores.sql.engines.images_to_stage import ImageRows, ImagesToStage, StagedImages
from backup.stores.sql.engines.mixing import bucket_of
from backup.stores.sql.engines.opening import CONNECTIONS, DialectOptions
from backup.stores.sql.engines.prepared import Prepared, driver_rows, send
from backup.stores.sql.engines.relayed import Relayed, RelayedRows, StagedRows
from backup.stores.sql.engines.secondary_indexes import any_begins_with
from backup.stores.sql.engines.snapshot import Snapshot
from backup.stores.sql.engines.sqlite import listing, system_tables
from backup.stores.sql.engines.sqlite.blocks import SqliteBlocks
from backup.stores.sql.engines.sqlite.connection import OpenFile, SqliteFile, is_same_connected, is_same_file
from backup.stores.sql.engines.sqlite.engines import SqliteEngines
from backup.stores.sql.engines.sqlite.fingerprint import (
    INTEGERS,
    content_hash,
    fingerprints,
    reads_in_parts,
    small_fingerprints,
)
from backup.stores.sql.engines.sqlite.images import make_images
from backup.stores.sql.engines.sqlite.overlay import overlay_rows
from backup.stores.sql.engines.sqlite.plainly import read_plainly
from backup.stores.sql.engines.sqlite.relay import relay_rows, stage_rows
from backup.stores.sql.engines.sqlite.snapshot import begin_read_transaction
from backup.stores.sql.engines.sqlite.staged_images import count_equal, rows_of_images, stage_images
from backup.stores.sql.engines.sqlite.types import TimeOrText, affinity_of, relation, type_of
from backup.stores.sql.engines.tables import TableName, quoted_parts, send_ddl
from backup.stores.sql.engines.utc_time import UtcTime

_SPELLING = SQLiteDialect()
_INTEGER = ServerType("INTEGER")


@lru_cache(maxsize=64)
def _addition(table: sa.Table, dialect: sa.Dialect) -> str:
    """The statement that inserts a row unless its primary key exists."""
    return str(sqlite_insert(table).on_conflict_do_nothing().compile(dialect=dialect))


class SqliteDialect(DialectDefaults):
    """One database file. A file that is missing is an error, never a new empty database."""

    kind = "sqlite"
    product = "SQLite"
    default_schema: str | None = None
    max_parameters = 30_000
    max_columns = 2_000
    folds_names = True
    in_process = True
    relays_outside = True
    blocks = SqliteBlocks()
    references = system_tables.REFERENCES
    delete_triggers = system_tables.DELETE_TRIGGERS
    write_triggers = system_tables.WRITE_TRIGGERS
    utc_time = UtcTime(TimeOrText())  # type: ignore[no-untyped-call]
    stamp_type = type_of("TEXT")
    no_stamp: sa.ColumnElement[Any] = sa.literal_column("''")
    row_count: sa.ColumnElement[int] = sa.func.count()

    def __init__(self, url: URL, connections: int = CONNECTIONS, *, read_only_by_default: bool = False) -> None:
        """Only `writing` opens a file that is `read_only_by_default` for writing."""
        self._engines = SqliteEngines(SqliteFile(url), connections, read_only=read_only_by_default)
        self._file, self._connections = self._engines.file, connections
        self.path = self._file.path

    @property
    def location(self) -> str:
        return str(self.path)

    @property
    def engine(self) -> sa.Engine:
        return self._engines.engine

    def close(self) -> None:
        self._engines.close()

    def forget_file(self) -> None:
        self._engines.forget_file()

    def is_same_database(self, here: sa.Connection, there: sa.Connection) -> bool:
        own, other = (cx.connection.driver_connection for cx in (here, there))
        return is_same_connected(cast("OpenFile", own), cast("OpenFile", other))

    server_clock: sa.ColumnElement[datetime] | None = None

    def ensure_database(self, like: Dialect | None = None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(like, SqliteDialect):
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, like.path.stat().st_mode & 0o777))
        self.forget_file()
        self._file.make(like._file.encoding if isinstance(like, SqliteDialect) else self._file.encoding)

    def drop_database(self) -> None:
        self.engine.dispose()
        self.forget_file()
        self.path.unlink(missing_ok=True)

    def beside(self, name: str) -> SqliteDialect:
        """A file of this name in the same folder."""
        url = URL.create("sqlite", database=str(self.path.with_name(f"{name}.db")))
        return SqliteDialect(url, self._connections)

    def reading(self) -> AbstractContextManager[sa.Connection]:
        return self._engines.reading()

    def writing(self) -> AbstractContextManager[sa.Connection]:
        return self._engines.writing()

    def writing_over(self, held: Callable[[], sa.Connection]) -> AbstractContextManager[sa.Connection]:
        return self._engines.writing(held)

    def leads_there(self, cx: sa.Connection) -> bool:
        return is_same_file(cx.connection.driver_connection, self.path)

    def begin_snapshot(self, tables: Sequence[TableName]) -> Snapshot:  # noqa: ARG002 - it is one of the whole file
        return begin_read_transaction(self._engines.alone(self._engines.mode), self.cut)

    @contextmanager
    def reading_in(self, snapshot: Snapshot) -> Iterator[sa.Connection]:
        with snapshot.reading(self.engine) as cx:
            driver: Any = cx.connection.driver_connection
            driver.was_interrupted = False  # that was about an earlier call
            self._file.read_texts_with(driver)
            yield cx

    def cut(self, cx: sa.Connection) -> Callable[[], None]:
        driver: Any = cx.connection.driver_connection

        def interrupt() -> None:
            with suppress(sqlite3.ProgrammingError):  # it is closed already
                driver.interrupt()

        return interrupt

    def locked(self, query: sa.Select[Any], *, gaps: bool = True) -> sa.Select[Any]:  # noqa: ARG002
        return query  # `writing` has locked the file

    @staticmethod
    def locked_for_share(query: sa.Select[Any]) -> sa.Select[Any]:
        return query  # SQLite has one writer at a time, and this is one

    def advance_counters(self, cx: sa.Connection, table: sa.Table, identity: Collection[str]) -> list[str]:  # noqa: ARG002
        return []  # SQLite itself counts on from the largest number

    def is_one_file(self, other: Dialect) -> bool:
        return isinstance(other, SqliteDialect) and (
            self.path == other.path or (self.path.exists() and other.path.exists() and self.path.samefile(other.path))
        )

    def read_any_text(self) -> bool:
        if not self._file.reads_any_bytes:
            self._file.reads_any_bytes = True
            self._engines.close()  # connections of another pool read them
        return True

    def insert_rows(
        self,
        cx: sa.Connection,
        insert: Prepared,
        rows: Sequence[tuple[Any, ...]],
        *,
        identity: bool,  # noqa: ARG002 - SQLite takes explicit values everywhere
    ) -> None:
        insert.run(cx, rows)

    def relay(self, cx: sa.Connection, rows: RelayedRows, source: Dialect) -> Relayed | None:
        if not isinstance(source, SqliteDialect) or self.is_one_file(source):
            return None
        return relay_rows(cx, rows, source.attachable)

    def stage(self, cx: sa.Connection, rows: RelayedRows, source: Dialect) -> StagedRows | None:
        if not isinstance(source, SqliteDialect) or self.is_one_file(source):
            return None
        return stage_rows(cx, rows, source.attachable)

    def overlay(self, cx: sa.Connection, rows: RelayedRows, source: Dialect, number: int | None) -> StagedRows | None:
        if not isinstance(source, SqliteDialect) or self.is_one_file(source):
            return None
        return overlay_rows(cx, rows, source.attachable, number)

    def stage_images(self, cx: sa.Connection, images: ImagesToStage) -> StagedImages | None:
        return None if self._file.hashed_encoding else stage_images(cx, images)

    def reads_images_of(self, source: Dialect) -> bool:  # noqa: ARG002 - of any
        return True

    def rows_of_images(
        self, cx: sa.Connection, images: sa.Table, columns: tuple[sa.Column[Any], ...]
    ) -> ImageRows | None:
        return None if self._file.hashed_encoding else rows_of_images(cx, images, columns)

    def count_equal(self, cx: sa.Connection, staged: StagedImages) -> int:
        return count_equal(cx, staged)

    def make_images(self, cx: sa.Connection, images: ImagesToMake, condition: sa.ColumnElement[bool]) -> int | None:
        return None if self._file.hashed_encoding else make_images(cx, images, condition)

    @property
    def attachable(self) -> str:
        """How a connection to another file names this one, to read it as this dialect does."""
        return self._file.spelled(self._engines.mode)

    def update_rows(self, cx: sa.Connection, update: Prepared, rows: Sequence[tuple[Any, ...]]) -> None:
        update.run(cx, rows)

    def add_rows(self, cx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
        return send(cx, _addition(table, cx.dialect), driver_rows(table, rows, cx.dialect))

    def insert_entries(self, cx: sa.Connection, table: sa.Table, entries: Sequence[Mapping[str, Any]]) -> None:
        self.add_rows(cx, table, entries)  # what SQLAlchemy does for each value takes as long as the insert

    def read_plainly(self, cx: sa.Connection, query: sa.Executable, values: Mapping[str, Any]) -> Any | None:
        return read_plainly(cx, query, values)

    def find(self, cx: sa.Connection, schema: str | None, table: str) -> TableName | None:
        return system_tables.find(cx, schema, table)

    def list_tables(self, cx: sa.Connection) -> Sequence[Listed]:
        return list(system_tables.remembered(cx, listing.list_tables))

    def list_left_out(self, cx: sa.Connection) -> Sequence[PassedOver]:
        return listing.list_left_out(cx)

    def describe(self, cx: sa.Connection, schema: str | None, table: str) -> Described | None:
        return system_tables.describe(cx, schema, table)

    def describe_all(self, cx: sa.Connection, names: Sequence[TableName]) -> Sequence[Described | None]:
        described = system_tables.describe_all(cx)
        return [described.get(name.name.lower()) for name in names]

    def login_schema(self, cx: sa.Connection) -> str | None:  # noqa: ARG002 - a file has no schemas
        return None

    def columns(self, cx: sa.Connection, schema: str | None, table: str) -> list[Column]:
        return system_tables.columns(cx, schema, table)

    def fitted(self, cx: sa.Connection, columns: Sequence[Column], key_names: Sequence[str]) -> list[Column]:
        return system_tables.sorted_alike(cx, columns, key_names)

    def content_hash(self, columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
        return content_hash(columns, raw=self._file.hashed_encoding)

    def keyed_hash(self, columns: Sequence[sa.Column[Any]], stamping: Stamping) -> sa.ColumnElement[Any]:
        keyed = content_hash([sa.literal(stamping.stamp_secret), *columns], raw=self._file.hashed_encoding)
        return keyed.op("||")(sa.literal(stamping.mark))

    def bucket(self, key: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any] | None:
        # Only of integers: a hash costs as much as reading the stamp.
        parts = [column for column in key if affinity_of(column) in INTEGERS]
        return sa.type_coerce(bucket_of(parts, _number), _INTEGER) if parts else None

    def fingerprints(
        self,
        cx: sa.Connection,
        stamps: StampColumns,
        conditions: Sequence[sa.ColumnElement[bool]],
        bucket: sa.ColumnElement[Any] | None = None,
        at_most: int | None = None,
        *,
        in_parts: bool = False,
    ) -> Mapping[Any, Fingerprint] | None:
        raw = self._file.hashed_encoding
        limits: Any = {"at_most": at_most, "in_parts": in_parts}
        return fingerprints(cx, stamps, conditions, _affinities(stamps), bucket, raw=raw, **limits)

    def small_fingerprints(
        self, cx: sa.Connection, tables: Sequence[StampColumns], at_most: Sequence[int | None]
    ) -> Sequence[Fingerprint | None]:
        return small_fingerprints(cx, [(stamps, _affinities(stamps)) for stamps in tables], at_most)

    def reads_in_parts(self, stamps: StampColumns) -> bool:
        return reads_in_parts(stamps, _affinities(stamps))

    def relation(self, source: Column, copy: Column) -> Relation:
        return relation(source.type.declared, copy.type.declared)

    def can_alter(self, table: sa.Table, column: Column) -> bool:  # noqa: ARG002 - the same for every column
        return False

    def add(self, table: sa.Table, column: Column) -> str:
        spelled = spelled_column(_SPELLING, table, column.name, column.type)
        return f"ALTER TABLE {spelled_table(_SPELLING, table)} ADD COLUMN {spelled}"

    def indexes(self, cx: sa.Connection, tables: Sequence[TableName]) -> Sequence[Sequence[Mapping[str, Any]]]:
        by_table = listing.indexes_of(cx, [table.name for table in tables])
        return [by_table[table.name] for table in tables]

    def has_index_by(self, cx: sa.Connection, table: TableName, column: str) -> bool:
        return any_begins_with(self.indexes(cx, [table])[0], column)

    def rename(self, cx: sa.Connection, table: TableName, new: TableName) -> None:
        send_ddl(cx, f"ALTER TABLE {quoted_parts(_SPELLING, *table[:2])} RENAME TO {quoted_parts(_SPELLING, new.name)}")

    def alter(self, table: sa.Table, old: Column, new: Column) -> list[str]:  # noqa: ARG002 - the same for every column
        old_name = spelled_column(_SPELLING, table, f"{table.name}_old")
        return [f"ALTER TABLE {spelled_table(_SPELLING, table)} RENAME TO {old_name}"]

    def failure(self, error: Exception) -> Failure:
        return self._file.failure(error)


def _affinities(stamps: StampColumns) -> list[str]:
    return list(map(affinity_of, [*stamps.key, *stamps.version]))


def _number(value: int) -> sa.ColumnElement[Any]:
    return sa.literal_column(str(value), sa.Integer)


def opened(url: URL, options: DialectOptions) -> SqliteDialect:
    """The dialect of a file."""
    return SqliteDialect(url, options.connections, read_only_by_default=options.read_only_by_default)
