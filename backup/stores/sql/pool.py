"""A pool of connections to one SQL database, shared by all threads of the process that use it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from threading import Condition
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from backup.core.model import Now, utc_now
from backup.stores import calls, pools
from backup.stores.logins import ConnectionLogin, Login
from backup.stores.pools import PoolState

_AGE_SECONDS = 600.0
"""An older connection is replaced: its login may have got other settings, or have been made again."""

_WAIT_SECONDS = 30.0
"""How long a thread waits for a connection when as many are open as may be."""

_FIRST_SECONDS = 2.0
"""How long the others wait for the first connection: if the server refuses the login, it is asked once."""

REFUSED_SECONDS = 60.0
"""How long a refused login is not tried again. Servers lock a login after a few wrong passwords."""


_WAS_IDLE = "was idle"


def noted_on(connection: sa.Connection) -> dict[Any, Any]:
    """What is noted on the connection. Nothing, and no note is kept, while SQLAlchemy asks the first one of an engine
    who its server is: that one is not the pool's yet."""
    try:
        return connection.info
    except NotImplementedError:
        return {}


class SharedPool(sa.Pool):
    """Opens connections when there is work for them, gives the one used last first, and closes idle ones.

    A thread that finds no idle connection waits as long as it takes to open another, as measured. Only then it opens
    one. So where statements are short, few connections do for many threads. The first connection is opened alone. A
    login that the server refused is not tried again for a minute; whoever asks meanwhile gets that answer.

    An idle connection is looked at before it is used. If it was lost, a new one takes its place. Whoever gives a
    connection back ends its transaction first (SQLAlchemy's reset), so the next user gets none of its locks.

    After an error that the session may be the reason of, its connection and all older ones are replaced.
    """

    keeps_idle = True

    def __init__(self, creator: Any, **options: Any) -> None:
        """`creator` and `options` are those of SQLAlchemy's pools."""
        super().__init__(creator, **options)
        self.is_usable: Callable[[ConnectionPoolEntry, float], bool] = lambda _entry, _idle_seconds: True
        """Whether a connection that was idle for so long can still be used. It must not wait for a server for long."""
        self.is_session_lost: Callable[[Exception, bool], bool] = lambda _error, _was_idle: False
        """Whether the session may be the reason of a statement's error. True as the second argument: the connection was
        idle before, so its login or its database may have been made again meanwhile."""
        self.is_login_refused: Callable[[Exception], bool] = lambda _error: False
        """Whether a connection was not made because the server refuses this login, as with a wrong password."""
        self.cut: Callable[[Any], Callable[[], None] | None] = lambda _connection: None
        """Makes what ends a wait for the server on a connection of the driver."""
        self.engine: sa.Engine | None = None
        """The engine over the pool, which all its users share: so the server is asked once what it is."""
        self.login: Login = ConnectionLogin()
        self.now: Now = utc_now
        self.clock: Callable[[], float] = time.monotonic
        self._changed = Condition()
        self._idle: list[tuple[ConnectionPoolEntry, float]] = []
        self._open, self._limit, self._connect_seconds = 0, 0, 0.0
        self._connecting = 0
        self._refused: tuple[Exception, float] | None = None
        self._has_lost, self._reconnects, self._lost = False, 0, 0
        self._last_used_at: datetime | None = None
        sa.event.listen(self, "invalidate", self._note_lost)
        # The first of these listeners: the others ask the server.
        sa.event.listen(self, "connect", lambda connection, _: calls.end_this_with(self.cut(connection)))

    def over(self, engine: sa.Engine) -> None:
        """Makes `engine`, which was made with this pool, the engine of all users."""
        self.engine = engine
        sa.event.listen(engine, "handle_error", self._drop_lost)

    def _drop_lost(self, context: sa.ExceptionContext) -> None:
        if context.connection is None or context.is_disconnect:  # it was never open, or the driver says it itself
            return
        error = context.original_exception
        was_idle = bool(noted_on(context.connection).get(_WAS_IDLE))
        if isinstance(error, Exception) and self.is_session_lost(error, was_idle):
            context.is_disconnect = True  # SQLAlchemy then closes it, and those that were made before

    @property
    def lost_connections(self) -> int:
        """How many connections were seen to be lost so far."""
        with self._changed:
            return self._lost

    def _note_lost(self, _connection: Any, _entry: Any, error: BaseException | None) -> None:
        if error is not None:
            with self._changed:
                self._has_lost = True
                self._lost += 1

    # --- what SQLAlchemy calls ----------------------------------------------------------------------------------------

    def _do_get(self) -> ConnectionPoolEntry:
        since = self.clock()
        refused: Exception | None = None
        while True:
            idle = self._idle_or_none(since, refused)
            if idle is None:
                try:
                    return self._new()
                except Exception as error:
                    if refused is not None or self._open == 0:
                        raise
                    refused = error  # the server may give this login no further one, and those that are open do as well
                    continue
            entry, idle_since = idle
            calls.end_this_with(self.cut(entry.dbapi_connection))
            made_at = getattr(entry, "last_connect_time", 0.0)
            is_young = time.time() - made_at < _AGE_SECONDS
            # What was made before another one was lost may be lost as well.
            is_unknown = made_at > self._invalidate_time
            is_usable = is_unknown and self.is_usable(entry, self.clock() - idle_since)
            if is_young and is_usable:
                entry.info[_WAS_IDLE] = True
                return entry
            with self._changed:
                self._has_lost |= is_young
                self._lost += is_unknown and not is_usable
            self._discard(entry)
            refused = None  # there may be room for another now

    def _idle_or_none(self, since: float, refused: Exception | None) -> tuple[ConnectionPoolEntry, float] | None:
        """An idle connection and since when it is idle. None: open another one; there is room for it, and none was
        `refused` to this thread, which waits `since` then, while others were open. Raises CallEnded if this thread's
        call was cut meanwhile."""
        calls.end_this_with(self._wake)
        with self._changed:
            self._last_used_at = self.now()
            while True:
                calls.check_this()
                now, has_room = self.clock(), refused is None and self._open < self._limit
                is_first = self._open == self._connecting
                opens_at = since + (_FIRST_SECONDS if is_first else self._connect_seconds)
                leaves_idle = has_room and len(self._idle) == 1 and calls.is_long_here()
                if self._idle and not leaves_idle:
                    return self._idle.pop()
                if self._open == 0 or leaves_idle or (has_room and now >= opens_at):
                    self._open += 1
                    self._connecting += 1
                    return None
                if not has_room and now >= since + _WAIT_SECONDS:
                    raise refused or sa.exc.TimeoutError("no connection was free")
                self._changed.wait((opens_at if has_room else since + _WAIT_SECONDS) - now)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _new(self) -> ConnectionPoolEntry:
        started = self.clock()
        try:
            self._refuse_again()
            entry = self._create_connection()
        except BaseException as error:
            with self._changed:
                self._connecting -= 1
                if self._refused is None and isinstance(error, Exception) and self.is_login_refused(error):
                    self._refused = error, self.clock()
            self._gone()
            if isinstance(self.login, ConnectionLogin):
                self.login.failed()
            raise
        if isinstance(self.login, ConnectionLogin):
            self.login.succeeded()
        with self._changed:
            self._connecting -= 1
            self._connect_seconds = self.clock() - started
            self._reconnects += self._has_lost
            self._has_lost = False
            self._changed.notify_all()  # those that wait for the first
        return entry

    def _refuse_again(self) -> None:
        """Raises what the server said, if it has refused the login in the last minute."""
        with self._changed:
            if self._refused is None:
                return
            error, at = self._refused
            seconds = self.clock() - at
            if seconds >= REFUSED_SECONDS:
                self._refused = None
                return
        first, *others = str(error.args[-1]).splitlines() or [""]
        ago = f"{first} (so it said {seconds:.0f} s ago; it is asked again after {REFUSED_SECONDS:.0f} s)"
        raise type(error)(*error.args[:-1], "\n".join([ago, *others]))

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if record.dbapi_connection is None:  # it was lost, or closed
            self._gone()
            return
        with self._changed:
            is_kept = self.keeps_idle or self._limit > 0
            if is_kept:
                self._idle.append((record, self.clock()))
                self._changed.notify()
        if is_kept:
            pools.watch()
        else:
            self._discard(record)

    def dispose(self) -> None:
        """Closes the idle connections."""
        self.close_idle(0)

    def recreate(self) -> SharedPool:
        """Itself: a pool that was disposed of can be used on."""
        return self

    def status(self) -> str:
        """For SQLAlchemy's log."""
        return f"{self._open} open, {len(self._idle)} idle"

    # --- what the pools of the process call ---------------------------------------------------------------------------

    def widen(self, connections: int) -> None:
        """As `Pool` says."""
        with self._changed:
            self._limit += connections
            self._changed.notify_all()

    def close_idle(self, seconds: float) -> None:
        """As `Pool` says."""
        with self._changed:
            before = self.clock() - seconds
            old = [entry for entry, since in self._idle if since <= before]
            self._idle = [(entry, since) for entry, since in self._idle if since > before]
        for entry in old:
            self._discard(entry)

    @property
    def is_empty(self) -> bool:
        """As `Pool` says."""
        return self._open == 0

    def state(self, kind: str, server: str) -> PoolState:
        """As `Pool` says."""
        login = self.login.state()
        with self._changed:
            return PoolState(kind, server, self._open, len(self._idle), self._reconnects, self._last_used_at, login)

    def _discard(self, entry: ConnectionPoolEntry) -> None:
        with suppress(Exception):  # it may be lost already
            entry.close()
        self._gone()

    def _gone(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify()
