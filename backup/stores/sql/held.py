"""A connection that several calls of one thread share: to get one from a pool costs as much as a short question."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

import sqlalchemy as sa


class HeldConnection(AbstractContextManager["HeldConnection"]):
    """A connection from its first use to the end of the block, opened to read; a dialect may write over it, too. An
    error gives it back; then the next use gets another one. So does one that does not lead to the database any more.
    For the thread that made it."""

    def __init__(
        self,
        begin: Callable[[], AbstractContextManager[sa.Connection]],
        leads_there: Callable[[sa.Connection], bool],
    ) -> None:
        self._begin, self._leads_there, self._thread = begin, leads_there, threading.get_ident()
        self._stack = ExitStack()
        self._cx: sa.Connection | None = None

    @property
    def is_of_this_thread(self) -> bool:
        """Whether the caller may use it."""
        return self._thread == threading.get_ident()

    def connection(self) -> sa.Connection:
        """The connection, for one call; `after` has to hear how that ended."""
        if self._cx is not None and not self._leads_there(self._cx):
            self.__exit__(None, None, None)
        if self._cx is None:
            self._cx = self._stack.enter_context(self._begin())
        return self._cx

    def after(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Gives the connection back after an error of a call."""
        if error is not None:
            self.__exit__(kind, error, trace)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cx = None
        self._stack.__exit__(kind, error, trace)
