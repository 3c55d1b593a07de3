"""SQLite, the embedded default: raw values, declared types kept verbatim."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from threading import RLock
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine import URL

from backup.errors import SchemaMismatch
from backup.models import Fingerprint
from backup.stores.dialects import sqlite_text
from backup.stores.dialects.base import (
    CONNECTIONS,
    Column,
    Dialect,
    Failure,
    Prepared,
    Relation,
    ServerType,
    StampColumns,
    digits,
    driver_rows,
    send,
    spelled_column,
    spelled_table,
    type_parts,
)
from backup.stores.dialects.mixing import bucket_of
from backup.stores.dialects.sqlite_connection import Mode, SqliteFile
from backup.stores.dialects.sqlite_fingerprint import INTEGERS, content_hash, fingerprints
from backup.stores.dialects.tables import Found

_PLAIN_TYPE = re.compile(r"[A-Za-z_][\w ]*(\(\s*[+-]?[\d.]+\s*(,\s*[+-]?[\d.]+\s*)?\))?")
_SPELLING = SQLiteDialect()
_NOWHERE = URL.create("sqlite")
_STATEMENTS = 500
_INTEGER = ServerType("INTEGER")
_COLLATIONS = ("BINARY", "NOCASE", "RTRIM")  # which every program has
_FIND = sa.text(
    "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name = :table COLLATE NOCASE"
    " ORDER BY name <> :table LIMIT 1"
)
_HAS_ODD_INDEX = sa.text(
    "SELECT 1 FROM pragma_index_list(:table) AS i, pragma_index_xinfo(i.name) AS x"  # noqa: S608 - a constant
    f" WHERE upper(x.coll) NOT IN {_COLLATIONS} LIMIT 1"
)
_AFFINITIES = (  # the first that stands in a declared type, as SQLite documents it
    ("INTEGER", ("int",)),
    ("TEXT", ("char", "clob", "text")),
    ("BLOB", ("blob",)),
    ("REAL", ("real", "floa", "doub")),
)


class SqliteType(ServerType):
    """A column of SQLite may hold any value; only a number is made a text by some, and a text a number by others."""

    cache_ok = True

    def may_hold(self, value: Any) -> bool:
        affinity = _affinity(self.declared)
        if isinstance(value, str) and affinity in (*INTEGERS, "REAL"):
            return not _is_number(value)
        return affinity != "TEXT" or not isinstance(value, int | float)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


@cache
def _shared() -> tuple[sa.Dialect, Any]:
    """SQLAlchemy's dialect, which has learnt what the library can, and the statements that it has compiled."""
    engine = sa.create_engine(_NOWHERE)
    sa.event.listen(engine, "do_execute", sqlite_text.execute)
    sa.event.listen(engine, "do_executemany", sqlite_text.execute_many)
    with engine.connect():
        pass
    engine.dispose()
    return engine.dialect, sa.util.LRUCache(_STATEMENTS)


def _engine(pool: sa.Pool) -> sa.Engine:
    # As create_engine makes it, but for the dialect: each run opens its stores anew, and statements that one engine
    # has compiled serve another only if they are of the same dialect.
    dialect, compiled = _shared()
    return sa.Engine(pool, dialect, _NOWHERE, execution_options={"compiled_cache": compiled}, hide_parameters=True)


@cache
def _type(declared: str) -> ServerType:
    return SqliteType(declared)


@lru_cache(maxsize=64)
def _addition(table: sa.Table, dialect: sa.Dialect) -> str:
    """The statement that inserts a row whose primary key is not there yet."""
    return str(insert(table).on_conflict_do_nothing().compile(dialect=dialect))


@cache
def _writer(path: Path) -> AbstractContextManager[bool]:  # noqa: ARG001 - one for each file
    return RLock()


_REFERENCES = sa.text(
    """
    SELECT f.id + 1, NULL, m.name, f.on_delete, f."from", f."to"
    FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f
    WHERE m.type = 'table' AND lower(f."table") = lower(:table) AND coalesce(:schema, 'main') = 'main'
    ORDER BY m.name, f.id, f.seq
    """
)

_DELETE_TRIGGERS = sa.text(
    "SELECT name FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = lower(:table)"
    " AND coalesce(:schema, 'main') = 'main' AND sql LIKE '%DELETE%ON%'"
)

_FILE = sa.text("SELECT file FROM pragma_database_list WHERE name = 'main'")


class SqliteDialect:
    """One database file. A file that is missing is an error, never a new empty database."""

    kind = "sqlite"
    product = "SQLite"
    default_schema: str | None = None
    max_parameters = 30_000
    max_columns = 2_000
    in_process = True
    references = _REFERENCES
    delete_triggers = _DELETE_TRIGGERS
    can_be_cut = True
    row_count: sa.ColumnElement[int] = sa.func.count()

    def __init__(self, url: URL, connections: int = CONNECTIONS, *, left_as_it_is: bool = False) -> None:
        """A file that is `left_as_it_is` is opened for writing only in `writing`."""
        self._file = SqliteFile(url)
        self.path, self._connections = self._file.path, connections
        self._left_as_it_is = left_as_it_is

    @property
    def location(self) -> str:
        return str(self.path)

    @cached_property
    def engine(self) -> sa.Engine:
        mode: Mode = "ro" if self._left_as_it_is else "rw"
        return _engine(sa.QueuePool(self._opener(mode), self._connections, max_overflow=0, dialect=_shared()[0]))

    @cached_property
    def _for_writing(self) -> sa.Engine:
        if not self._left_as_it_is:
            return self.engine
        return _engine(sa.NullPool(self._opener("rw"), dialect=_shared()[0]))

    def _opener(self, mode: Mode) -> Any:  # the driver's connection has more than SQLAlchemy's type of it
        return partial(self._file.connect, mode)

    def is_same_database(self, one: sa.Connection, other: sa.Connection) -> bool:
        """By device and inode: a file has as many names as it likes."""
        mine, theirs = (Path(cx.scalar(_FILE)) for cx in (one, other))
        return mine.samefile(theirs)

    server_clock: sa.ColumnElement[datetime] | None = None

    def ensure_database(self, like: Dialect | None = None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(like, SqliteDialect):
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, like.path.stat().st_mode & 0o777))
        self._file.connect("rwc").close()

    def drop_database(self) -> None:
        self.engine.dispose()
        self.path.unlink(missing_ok=True)

    def beside(self, name: str) -> SqliteDialect:
        """A file of this name in the same folder."""
        url = URL.create("sqlite", database=str(self.path.with_name(f"{name}.db")))
        return SqliteDialect(url, self._connections)

    def reading(self) -> AbstractContextManager[sa.Connection]:
        return self.engine.begin()

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        # The file has one writer at a time. Threads of this process queue here, where waiting is fair and has no end;
        # the driver would poll. IMMEDIATE: what a transaction reads before its first change belongs to it too.
        with _writer(self.path), self._for_writing.begin() as cx:
            cx.exec_driver_sql("BEGIN IMMEDIATE")
            yield cx

    def cut(self, cx: sa.Connection) -> Callable[[], None]:
        driver: Any = cx.connection.driver_connection

        def interrupt() -> None:
            with suppress(sqlite3.ProgrammingError):  # closed by now
                driver.interrupt()

        return interrupt

    def locked(self, query: sa.Select[Any]) -> sa.Select[Any]:
        return query  # `writing` has locked the file

    def lock(self, cx: sa.Connection, column: sa.Column[Any], rows: sa.ColumnElement[bool]) -> None:
        """`locked` does."""

    def advance_counters(self, cx: sa.Connection, table: sa.Table, identity: Collection[str]) -> list[str]:  # noqa: ARG002
        return []  # SQLite itself goes on past any number that was written

    def is_one_file(self, other: Dialect) -> bool:
        return isinstance(other, SqliteDialect) and (
            self.path == other.path or (self.path.exists() and other.path.exists() and self.path.samefile(other.path))
        )

    def read_halves(self) -> bool:
        if not self._file.reads_any_bytes:
            self._file.reads_any_bytes = True
            self.engine.dispose()  # new connections read them
        return True

    def insert_rows(
        self,
        cx: sa.Connection,
        insert: Prepared,
        rows: Sequence[tuple[Any, ...]],
        *,
        identity: bool,  # noqa: ARG002 - SQLite takes explicit values everywhere
        first: bool,  # noqa: ARG002
    ) -> None:
        insert.run(cx, rows)

    def update_rows(
        self,
        cx: sa.Connection,
        update: Prepared,
        rows: Sequence[tuple[Any, ...]],
        *,
        first: bool,  # noqa: ARG002 - a write like any other
    ) -> None:
        update.run(cx, rows)

    def add_rows(self, cx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        send(cx, _addition(table, cx.dialect), driver_rows(table, rows, cx.dialect))

    def find(self, cx: sa.Connection, schema: str | None, table: str) -> Found | None:
        if schema is not None and schema.lower() != "main":
            return None
        name = cx.scalar(_FIND, {"table": table})
        return None if name is None else Found(None, name, alone=bool(cx.scalar(_HAS_ODD_INDEX, {"table": name})))

    def home(self, cx: sa.Connection) -> str | None:  # noqa: ARG002 - a file has no schemas to choose from
        return None

    def columns(self, cx: sa.Connection, schema: str | None, table: str) -> list[Column]:
        found = cx.execute(
            sa.text(
                'SELECT name, type, "notnull", hidden, pk, dflt_value IS NOT NULL'
                " FROM pragma_table_xinfo(:table, coalesce(:schema, 'main'))"
                " WHERE hidden <> 1 ORDER BY cid"
            ),
            {"table": table, "schema": schema},
        ).all()
        indexed = cx.execute(
            sa.text(
                "SELECT x.name, x.coll FROM pragma_index_list(:table, coalesce(:schema, 'main')) AS i,"
                " pragma_index_xinfo(i.name, coalesce(:schema, 'main')) AS x WHERE i.origin = 'pk' AND x.key = 1"
            ),
            {"table": table, "schema": schema},
        )
        collations: dict[str, str] = dict(indexed.all())
        for name, collation in collations.items():
            if collation.upper() not in _COLLATIONS:
                raise SchemaMismatch(
                    f"The key column {name} of {table} is sorted by {collation}, a collation of its application's own.",
                    hint="Only a key sorted by BINARY, NOCASE or RTRIM can be backed up.",
                )
        return [
            Column(
                name=name,
                type=_type(_declared(_plain_key(declared, name, collations), collations.get(name))),
                nullable=not notnull,
                key_position=position or None,
                collation=_named(collations.get(name)),
                computed=hidden in (2, 3),
                defaulted=bool(defaulted),
            )
            for name, declared, notnull, hidden, position, defaulted in found
        ]

    def fitted(
        self,
        cx: sa.Connection,  # noqa: ARG002 - a column's type says all
        columns: Sequence[Column],
        key_names: Sequence[str],  # noqa: ARG002
    ) -> list[Column]:
        return list(columns)

    def has_schema(self, cx: sa.Connection, schema: str) -> bool:
        return sa.inspect(cx).has_schema(schema)

    def content_hash(self, columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
        return content_hash(columns, any_bytes=self._file.reads_any_bytes)

    def bytes_of(self, column: sa.Column[Any]) -> sa.ColumnElement[Any] | None:  # noqa: ARG002 - of any column
        return None

    def bucket(self, key: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any] | None:
        # Of integers alone: a hash costs as much as reading the stamp.
        parts = [column for column in key if _affinity_of(column) in INTEGERS]
        return sa.type_coerce(bucket_of(parts, _number), _INTEGER) if parts else None

    def fingerprints(
        self,
        cx: sa.Connection,
        stamps: StampColumns,
        conditions: Sequence[sa.ColumnElement[bool]],
        bucket: sa.ColumnElement[Any] | None = None,
    ) -> Mapping[Any, Fingerprint] | None:
        affinities = list(map(_affinity_of, [*stamps.key, *stamps.version]))
        return fingerprints(cx, stamps, conditions, affinities, bucket, any_bytes=self._file.reads_any_bytes)

    def largest(
        self,
        cx: sa.Connection,  # noqa: ARG002 - of any query
        table: sa.Table,  # noqa: ARG002
        query: sa.Select[Any],  # noqa: ARG002
        values: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> int | None:
        return None

    def relation(self, source: Column, copy: Column) -> Relation:
        """`same` also for a source with more room: SQLite enforces no size, only the affinity tells."""
        theirs, mine = source.type.declared, copy.type.declared
        room = zip(digits(type_parts(theirs)[1]), digits(type_parts(mine)[1]), strict=True)
        holds = _affinity(theirs) == _affinity(mine) and all(now >= before for now, before in room)
        return "same" if holds else "other"

    def can_alter(self, table: sa.Table, column: Column) -> bool:  # noqa: ARG002 - no column of any table
        return False

    def add(self, table: sa.Table, column: Column) -> str:
        spelled = spelled_column(_SPELLING, table, column.name, column.type)
        return f"ALTER TABLE {spelled_table(_SPELLING, table)} ADD COLUMN {spelled}"

    def alter(self, table: sa.Table, old: Column, new: Column) -> list[str]:  # noqa: ARG002 - whatever the column
        away = spelled_column(_SPELLING, table, f"{table.name}_old")
        return [f"ALTER TABLE {spelled_table(_SPELLING, table)} RENAME TO {away}"]

    def failure(self, error: Exception) -> Failure:
        return self._file.failure(error)


def _number(value: int) -> sa.ColumnElement[Any]:
    return sa.literal_column(str(value), sa.Integer)


def _affinity_of(column: sa.Column[Any]) -> str:
    return _affinity(column.type.declared)  # type: ignore[attr-defined] # a ServerType


def _affinity(declared: str) -> str:
    name = type_parts(declared)[0]
    if not name:
        return "BLOB"
    return next((affinity for affinity, parts in _AFFINITIES if any(part in name for part in parts)), "NUMERIC")


def _declared(declared: str, collation: str | None) -> str:
    plain = re.sub(r"\s*GENERATED ALWAYS.*", "", declared, flags=re.I).strip()
    # A column without a plain type, or of the STRICT type ANY, keeps each value's own type: as if declared with none.
    if plain.upper() == "ANY" or not _PLAIN_TYPE.fullmatch(plain):
        plain = ""
    return f"{plain} COLLATE {collation}" if _named(collation) else plain


def _plain_key(declared: str, name: str, indexed: Mapping[str, str]) -> str:
    """How a copy declares the column: INTEGER alone makes a key the row's number, which cannot be a text. A key with an
    index of its own is none."""
    return "INT" if [*indexed] == [name] and declared.upper() == "INTEGER" else declared


def _named(collation: str | None) -> str | None:
    return None if collation == "BINARY" else collation  # BINARY is what a key without an index of its own has too
