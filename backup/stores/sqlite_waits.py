"""Connections to SQLite files that wait for the lock of another program, until a signal or the end of their call.

SQLite itself waits in C, where nothing ends it. So it waits a short time only, and is asked again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

from backup.core import interrupts
from backup.stores import calls

T = TypeVar("T")

LOOK_SECONDS = 0.2
"""How long SQLite itself waits: the `timeout` of a connection. Meanwhile it looks at the lock every 1 to 50 ms."""

_WAITED_SECONDS = LOOK_SECONDS / 2
_PAUSE_SECONDS = 0.005


class WaitingConnection(sqlite3.Connection):
    """A connection whose single statements and commits wait `busy_seconds` at most for other programs.

    Then, or once somebody interrupts the connection, they raise SQLite's error as usual. They raise Interrupted as soon
    as the process must end, and CallEnded if their call was cut. `executemany` does not wait: begin a transaction that
    writes with BEGIN IMMEDIATE, which does.
    """

    busy_seconds = 30.0
    was_interrupted = False

    def cursor(self, *_: Any) -> Any:
        return super().cursor(_WaitingCursor)

    def execute(self, *statement: Any) -> Any:
        return self.cursor().execute(*statement)

    def commit(self) -> None:
        self.when_free(super().commit)

    def interrupt(self) -> None:
        self.was_interrupted = True
        super().interrupt()

    def when_free(self, work: Callable[[], T]) -> T:
        """What `work` returns, once no other program's lock stops it. It changes nothing as long as one does."""
        began = time.monotonic()
        while True:
            tried = time.monotonic()
            try:
                return work()
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                # In a transaction SQLite does not wait where that would not help: each of two would wait for the other.
                # Nor where the connection itself still reads what was there before.
                waited = now - tried >= _WAITED_SECONDS
                is_in_vain = self.in_transaction or error.sqlite_errorcode == sqlite3.SQLITE_BUSY_SNAPSHOT
                if not is_busy or (is_in_vain and not waited) or self.was_interrupted:
                    raise
                if now - began >= interrupts.seconds_for(self.busy_seconds):
                    raise
                if not waited:  # as where several programs make a new file keep its changes in a WAL
                    time.sleep(_PAUSE_SECONDS)
            interrupts.check()
            calls.check_this()


class _WaitingCursor(sqlite3.Cursor):
    def execute(self, *statement: Any) -> Any:
        return self.connection.when_free(lambda: super(_WaitingCursor, self).execute(*statement))  # type: ignore[attr-defined]
