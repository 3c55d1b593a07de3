"""The state of a database at one moment, which a transaction holds open until all of it has been read."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from threading import RLock

import sqlalchemy as sa

from backup.core import interrupts
from backup.core.log import event
from backup.stores.calls import TimedCall
from backup.stores.sql.engines.failures import driver_text
from backup.stores.sql.engines.tables import TableName

CLOSE_SECONDS = 5.0
"""How long the end of a snapshot may wait for its server. After that its connection is cut, which ends it as well."""

_LOOK_SECONDS = 0.2


class SnapshotLost(Exception):
    """The transaction that held the snapshot has ended, so nothing can be read in it any more."""


class Snapshot(ABC):
    """A held snapshot, for any number of threads.

    `at` is its moment: when the transaction saw the database, in UTC, by the clock of the database's server.
    `unreadable` are the tables that cannot be read in it, with the reason. `lost` says why nothing can be read in it
    any more; None as long as it is held.
    """

    def __init__(self, cx: sa.Connection, cut: Callable[[], None], at: datetime) -> None:
        """`cx` has the transaction. `cut` ends a wait for the server on it."""
        self.at = at
        self.unreadable: Mapping[TableName, str] = {}
        self.lost: str | None = None
        self._cx, self._cut = cx, cut

    @abstractmethod
    def reading(self, engine: sa.Engine) -> AbstractContextManager[sa.Connection]:
        """A connection that reads in the snapshot; of this engine, unless the snapshot has only one. Raises
        SnapshotLost."""

    def turn(self) -> AbstractContextManager[None]:
        """This thread's turn to read, where only one may read at a time. Enter it before the time of a call counts."""
        return nullcontext()

    def lose(self, reason: str) -> None:
        """Says that the transaction has ended. The first reason stays."""
        if self.lost is None:
            self.lost = reason
            event("snapshot.lost", level=logging.WARNING, at=self.at, reason=reason)

    def close(self) -> None:
        """Ends the transaction, so that the server need not keep what the snapshot shows. Raises nothing: a connection
        that does not answer is cut, and then the server ends the transaction."""
        self.lost = self.lost or "it was closed"
        with suppress(Exception), TimedCall(CLOSE_SECONDS) as call:
            call.end_with(self._cut)
            self._cx.close()


class OneConnection(Snapshot):
    """A snapshot that one connection alone can read: its users take turns."""

    def __init__(
        self,
        cx: sa.Connection,
        cut: Callable[[], None],
        at: datetime,
        is_whole: Callable[[sa.Connection], bool],
    ) -> None:
        """`is_whole` asks whether the connection is still in the same transaction. It may raise the driver's errors."""
        super().__init__(cx, cut, at)
        self._is_whole, self._turn = is_whole, RLock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        while not self._turn.acquire(timeout=_LOOK_SECONDS):
            interrupts.check()
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def reading(self, engine: sa.Engine) -> Iterator[sa.Connection]:  # noqa: ARG002 - it has its own connection
        if self.lost is not None:
            raise SnapshotLost
        try:
            yield self._cx
        except BaseException as error:
            self._look_after(error)
            raise

    def close(self) -> None:
        with self._turn:  # nobody reads any more, unless a reader was left behind: then its error ends it
            super().close()

    def _look_after(self, error: BaseException) -> None:
        """An error may have ended the transaction. The next statement would then begin another one, unnoticed."""
        try:
            if self._is_whole(self._cx):
                return
        except Exception as failed:
            error = failed
        original = getattr(error, "orig", None)
        self.lose(driver_text(original if isinstance(original, Exception) else error))


class SnapshotReads:
    """The reads of one source in a snapshot. For any number of threads.

    Once the snapshot is lost, the source is read as it is now: a run that has begun can still end, and is proven. Then
    `read_as_of` is None and `outside` says why.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.outside: str | None = None

    @property
    def read_as_of(self) -> datetime | None:
        """The moment as of which everything was read; None if something was read outside the snapshot."""
        return self.snapshot.at if self.outside is None else None

    @property
    def current(self) -> Snapshot | None:
        """The snapshot to read in now; None if it is lost: what is read then is outside of it."""
        if self.snapshot.lost is None:
            return self.snapshot
        self.outside = self.outside or self.snapshot.lost
        return None
