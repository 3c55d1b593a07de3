"""A snapshot of PostgreSQL: one connection exports it, and any number of others read in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from threading import Event, Thread

import sqlalchemy as sa

from backup.stores.calls import TimedCall, end_this_with
from backup.stores.sql.engines.failures import driver_text
from backup.stores.sql.engines.postgresql.connection import cut
from backup.stores.sql.engines.postgresql.copy import SPELLING
from backup.stores.sql.engines.snapshot import CLOSE_SECONDS, Snapshot, SnapshotLost
from backup.stores.sql.engines.tables import TableName, quoted_parts, send_ddl

_EXPORT = sa.text("SELECT pg_export_snapshot(), clock_timestamp()")
_NAME = re.compile(r"[0-9A-Fa-f-]+")
_SAVEPOINT = "before_locks"
_BEAT_SECONDS = 15.0
"""How often the connection that holds the snapshot is used: the session ends one that rests in a transaction for a
minute, so that a process that was stopped holds no locks."""

# No table is at fault: a wait for a lock that took too long, a deadlock, no room for locks, an end of the session.
_OF_ALL = ("55P03", "40P01", "53", "57", "08")


class ExportedSnapshot(Snapshot):
    """A snapshot that connections of its database take over from the one that holds it."""

    def __init__(self, cx: sa.Connection, end: Callable[[], None], at: datetime, name: str) -> None:
        """`end` ends a wait for the server on `cx`. `name` is what the server calls the snapshot."""
        super().__init__(cx, end, at)
        self._name = name
        self._ended = Event()
        self._thread = Thread(target=self._beat, name="snapshot", daemon=True)
        self._thread.start()

    @contextmanager
    def reading(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        if self.lost is not None:
            raise SnapshotLost
        with engine.connect() as cx:
            _as_of_one_moment(cx)
            with cx.begin():
                try:
                    send_ddl(cx, f"SET TRANSACTION SNAPSHOT '{self._name}'")
                except sa.exc.DBAPIError as error:
                    if error.connection_invalidated:  # its own connection was lost; another one may still read
                        raise
                    self.lose(driver_text(error.orig or error))
                    raise SnapshotLost from None
                yield cx

    def close(self) -> None:
        self._ended.set()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._cut()
        super().close()

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            try:
                with TimedCall(_BEAT_SECONDS) as call:
                    call.end_with(self._cut)
                    self._cx.exec_driver_sql("SELECT 1")
            except Exception as error:
                self.lose(driver_text(getattr(error, "orig", None) or error))
                return


def export(engine: sa.Engine, tables: Sequence[TableName]) -> ExportedSnapshot:
    """Begins a snapshot. Raises the driver's errors; then nothing is held.

    Until it is closed, nobody can truncate, rewrite, alter or drop these tables. A snapshot alone does not keep anybody
    from that, and would then show such a table as empty. So their locks are taken before it begins. A table that cannot
    be locked is `unreadable` in it.
    """
    cx = engine.connect()
    try:
        end = cut(cx.connection.driver_connection)
        end_this_with(end)
        _as_of_one_moment(cx)
        cx.begin()
        unreadable = dict(_locked_out(cx, tables))
        name, at = cx.execute(_EXPORT).one()
        if not _NAME.fullmatch(name):
            raise ValueError("the server gave a snapshot a name that no statement can have")
        snapshot = ExportedSnapshot(cx, end, at, name)
    except BaseException:
        cx.close()
        raise
    snapshot.unreadable = unreadable
    return snapshot


def _as_of_one_moment(cx: sa.Connection) -> None:
    # Not `postgresql_readonly`: the pool would ask a standby for transactions that write, once it has it back.
    cx.execution_options(isolation_level="REPEATABLE READ")


def _locked_out(cx: sa.Connection, tables: Sequence[TableName]) -> Iterator[tuple[TableName, str]]:
    """Locks the tables against all but readers and writers. Yields those that cannot be locked, and why.

    One statement for all; where that is refused, for each half. LOCK reads nothing, so the snapshot begins after it.
    """
    if not tables:
        return
    send_ddl(cx, f"SAVEPOINT {_SAVEPOINT}")
    try:
        names = ", ".join(quoted_parts(SPELLING, table.schema, table.name) for table in tables)
        send_ddl(cx, f"LOCK TABLE {names} IN ACCESS SHARE MODE")
    except sa.exc.DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or ""
        if error.connection_invalidated or not state or state.startswith(_OF_ALL):
            raise
        send_ddl(cx, f"ROLLBACK TO {_SAVEPOINT}")
        send_ddl(cx, f"RELEASE {_SAVEPOINT}")
        if len(tables) == 1:
            yield tables[0], driver_text(error.orig or error)
            return
        middle = len(tables) // 2
        yield from _locked_out(cx, tables[:middle])
        yield from _locked_out(cx, tables[middle:])
    else:
        send_ddl(cx, f"RELEASE {_SAVEPOINT}")  # inside a savepoint the server exports nothing
