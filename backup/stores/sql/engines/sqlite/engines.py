"""The connections to one SQLite file: how they are opened and shared, and how its writers queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy as copy_of
from functools import cache, cached_property, partial
from pathlib import Path
from threading import TIMEOUT_MAX, RLock
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import URL

from backup.core import interrupts
from backup.stores.calls import CallEnded
from backup.stores.pools import PoolKey
from backup.stores.sql.engines.leased import LeasedEngine
from backup.stores.sql.engines.sqlite import text
from backup.stores.sql.engines.sqlite.connection import (
    Mode,
    OpenFile,
    Replaced,
    SqliteFile,
    begin_anew,
    is_same_file,
)
from backup.stores.sql.engines.sqlite.numbered import HintingCompiler
from backup.stores.sql.engines.sqlite.plainly import asked_plainly
from backup.stores.sql.engines.sqlite.relay import detach
from backup.stores.sql.pool import SharedPool

_NOWHERE = URL.create("sqlite")
_STATEMENTS = 500  # compiled, kept for all tables of a set: the number that SQLAlchemy has for one engine


@cache
def _shared() -> tuple[sa.Dialect, Any]:
    """SQLAlchemy's dialect after its first connection, and the cache of its compiled statements."""
    engine = sa.create_engine(_NOWHERE)
    sa.event.listen(engine, "do_execute", text.execute)
    sa.event.listen(engine, "do_executemany", text.execute_many)
    with engine.connect():
        pass
    engine.dispose()
    engine.dialect.statement_compiler = HintingCompiler
    return engine.dialect, sa.util.LRUCache(_STATEMENTS)


def _engine(pool: sa.Pool) -> sa.Engine:
    # Like create_engine, but with the shared dialect. Each run opens its stores again, and only engines of one dialect
    # can share compiled statements.
    dialect, compiled = _shared()
    return sa.Engine(pool, dialect, _NOWHERE, execution_options={"compiled_cache": compiled}, hide_parameters=True)


@contextmanager
def _transaction(cx: sa.Connection) -> Iterator[sa.Connection]:
    """The driver's transaction over a connection that goes on to read afterwards. What SQLAlchemy takes for the
    connection's transaction is that of all reads, which for the driver is none."""
    try:
        yield cx
        try:
            cx.dialect.do_commit(cx.connection)
        except sqlite3.Error as error:
            raise sa.exc.DBAPIError(None, None, error) from None
    except BaseException:
        cx.dialect.do_rollback(cx.connection)
        raise


@cache
def _writer(path: Path) -> RLock:  # noqa: ARG001 - the cache has one lock for each path
    return RLock()


class SqliteEngines:
    """The engines of one file. Only `writing` opens a file that is `read_only` for writing."""

    def __init__(self, file: SqliteFile, connections: int, *, read_only: bool) -> None:
        self.file, self._read_only = file, read_only
        self._leased = LeasedEngine(connections)
        self._identity: tuple[int, int] | None = None  # of the file that was used first

    @property
    def engine(self) -> sa.Engine:
        return self._leased.get(self._key, self._pool)

    def _key(self) -> PoolKey:
        return PoolKey.of("sqlite", str(self.file.path), self.file.ways, self.mode)

    @property
    def mode(self) -> Mode:
        return "ro" if self._read_only else "rw"

    def _pool(self) -> SharedPool:
        pool = SharedPool(self._opener(self.mode), dialect=_shared()[0])
        # A file costs nothing to open. One that nobody uses must not stay open: whoever puts another file in its place
        # would leave the -wal and -shm of this one beside it.
        pool.keeps_idle = False
        pool.is_usable = lambda entry, _idle_seconds: is_same_file(entry.dbapi_connection, self.file.path)
        sa.event.listen(pool, "checkout", begin_anew)
        sa.event.listen(pool, "checkin", detach)
        sa.event.listen(pool, "checkin", text.forget_large)
        pool.over(_engine(pool))
        return pool

    def close(self) -> None:
        self.forget_file()
        self._leased.release()

    def forget_file(self) -> None:
        """From now on, the file may be another one than before."""
        self._identity = None

    def _refuse_another(self, cx: sa.Connection) -> None:
        """Raises Replaced if the connection is one to another file than the first one was: what a run has seen of one
        says nothing about the other."""
        identity = cast("OpenFile", cx.connection.driver_connection).identity
        if self._identity is None:
            self._identity = identity
        elif identity != self._identity:
            raise Replaced

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        with self.engine.begin() as cx:
            self._refuse_another(cx)
            yield cx

    @property
    def _for_writing(self) -> sa.Engine:
        return self._writing_alone if self._read_only else self.engine

    @cached_property
    def _writing_alone(self) -> sa.Engine:
        return self.alone("rw")

    def alone(self, mode: Mode) -> sa.Engine:
        """An engine that nobody shares: it opens a connection each time."""
        return _engine(sa.NullPool(self._opener(mode), dialect=_shared()[0]))

    def _opener(self, mode: Mode) -> Any:  # SQLAlchemy's type of a connection lacks some of the driver's
        return partial(copy_of(self.file).connect, mode)  # a pool outlives what this dialect learns about its file

    @contextmanager
    def writing(self, held: Callable[[], sa.Connection] | None = None) -> Iterator[sa.Connection]:
        """As `Dialect.writing`, and as `Dialect.writing_over` with `held`."""
        # The file allows one writer at a time. Threads of this process queue here: waiting is fair and has no end.
        # SQLite would poll. While the process ends, they wait only a short time.
        writer, seconds = _writer(self.file.path), interrupts.seconds_for(TIMEOUT_MAX)
        if not writer.acquire(timeout=seconds):
            raise CallEnded
        try:
            interrupts.check()
            shared = None if self._read_only or held is None else held()
            with self._for_writing.begin() if shared is None else _transaction(shared) as cx:
                self._refuse_another(cx)
                # IMMEDIATE: the lock also covers what the transaction reads before its first change.
                asked_plainly(cx, "BEGIN IMMEDIATE")
                yield cx
        finally:
            writer.release()
