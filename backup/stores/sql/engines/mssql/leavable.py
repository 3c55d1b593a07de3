"""Connections of pyodbc whose calls can be left behind: pyodbc cannot end a call that waits for an answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from backup.stores.calls import CallEnded
from backup.stores.left_calls import LeavableCalls

T = TypeVar("T")
_NO_TRANSACTION = "(3903)"
_ROWS_AHEAD = 256
_SIZE_AHEAD = 1 << 16  # characters and bytes
_WRITES = ("INSERT", "UPDATE", "DELETE")


class LeavableConnection:
    """A connection of the driver. Each call that may ask the server runs in a thread that can be left behind.

    After `leave` every call raises the error of a lost connection. If the answer comes later, the connection is closed
    and the server rolls its transaction back.
    """

    isolation_level: str | None = "READ COMMITTED"
    """That of the session; None: nobody knows."""

    def __init__(self, driver: Any, lost: Callable[[], Exception]) -> None:
        """`lost` makes the driver's error of a lost connection."""
        self._driver, self._lost = driver, lost
        self._calls = LeavableCalls(driver.close)

    def leave(self) -> None:
        """Ends the waiting for its answers. Any thread may call it."""
        self._calls.leave()

    def call(self, work: Callable[[], T]) -> T:
        """What `work`, a call of the driver, returns. Raises the error of a lost connection if it was left."""
        try:
            return self._calls.make(work)
        except CallEnded:
            raise self._lost() from None

    def cursor(self) -> LeavableCursor:
        return LeavableCursor(self._driver.cursor(), self)

    def commit(self) -> None:
        self.call(self._driver.commit)

    def rollback(self) -> None:
        """Rolls back. Passes over a transaction that the server has ended by itself, as some do after an error."""
        try:
            self.call(self._driver.rollback)
        except Exception as error:
            if _NO_TRANSACTION not in str(error):
                raise

    def close(self) -> None:
        if not self._calls.were_left:
            self._driver.close()

    @property
    def autocommit(self) -> bool:
        return bool(self._driver.autocommit)

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self.call(lambda: setattr(self._driver, "autocommit", value))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)


class LeavableCursor:
    """A cursor of a `LeavableConnection`."""

    rowcount = -1
    """How many rows the last statement itself wrote; -1 where the server does not say it."""

    def __init__(self, driver: Any, connection: LeavableConnection) -> None:
        self._driver, self._connection = driver, connection
        self._ahead, self._at_once = deque[Any](), 1

    def execute(self, statement: str, *values: Any) -> LeavableCursor:
        self._ahead, self._at_once = deque(), 1
        self._connection.call(lambda: self._execute(statement, *values))
        return self

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._connection.call(lambda: self._execute_many(statement, rows))

    def _execute(self, statement: str, *values: Any) -> None:
        self._driver.execute(statement, *values)
        self._hear_out(statement)

    def _execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if self.fast_executemany:
            self._driver.executemany(statement, rows)
            self._hear_out(statement)
            return
        for row in rows:  # the driver would do the same, but hear only the beginning of each answer
            self._execute(statement, row)

    def _hear_out(self, statement: str) -> None:
        """Reads the answer to its end, unless it has rows to fetch. What triggers do comes first, each of their
        statements with a number of its own. An error behind that is raised only when it is read: else nobody hears
        of it, though the server has rolled the transaction back."""
        self.rowcount, is_write = self._driver.rowcount, statement.lstrip()[:6].upper() in _WRITES
        while (is_write or self._driver.description is None) and self._driver.nextset():
            self.rowcount = self._driver.rowcount

    def fetchone(self) -> Any:
        """The next row. Who reads row by row gets them from ever larger batches, as long as they are small: to change
        threads for each costs ten times what the driver does."""
        if not self._ahead:
            self._connection.call(self._read_ahead)
            self._at_once = min(2 * self._at_once, _ROWS_AHEAD)
        return self._ahead.popleft() if self._ahead else None

    def _read_ahead(self) -> None:
        size = 0
        while len(self._ahead) < self._at_once and size < _SIZE_AHEAD and (row := self._driver.fetchone()) is not None:
            self._ahead.append(row)
            size += sum(len(value) for value in row if isinstance(value, str | bytes))

    def fetchmany(self, size: int | None = None) -> Any:
        wanted = self._driver.arraysize if size is None else size
        ahead = [self._ahead.popleft() for _ in range(min(len(self._ahead), wanted))]
        rest = wanted - len(ahead)
        return ahead + self._connection.call(lambda: self._driver.fetchmany(rest)) if rest else ahead

    def fetchall(self) -> Any:
        ahead, self._ahead = [*self._ahead], deque()
        return ahead + self._connection.call(self._driver.fetchall)

    def in_one_call(self, work: Callable[[Any], T]) -> T:
        """What `work` returns, which gets the driver's cursor. To change threads for each of many short calls costs
        several times what they do. Only while no row is read ahead."""
        assert not self._ahead  # noqa: S101 - else they would be lost
        return self._connection.call(lambda: work(self._driver))

    def nextset(self) -> Any:
        self._ahead, self._at_once = deque(), 1
        return self._connection.call(self._driver.nextset)

    def close(self) -> None:
        self._connection.call(self._driver.close)

    @property
    def fast_executemany(self) -> bool:
        return bool(self._driver.fast_executemany)

    @fast_executemany.setter
    def fast_executemany(self, value: bool) -> None:
        self._driver.fast_executemany = value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)
