"""A dialect's engine: over the pool that all users of the same database, login and options share."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import sqlalchemy as sa

from backup.stores import pools
from backup.stores.pools import Lease, PoolKey
from backup.stores.sql.pool import SharedPool


class LeasedEngine:
    """Leases a pool when it is first used, and again after `release`. For any number of threads."""

    def __init__(self, connections: int) -> None:
        """The dialect needs at most so many `connections` at once."""
        self._connections, self._lock = connections, Lock()
        self._leased: tuple[SharedPool, Lease] | None = None

    def get(self, key: Callable[[], PoolKey], make: Callable[[], SharedPool]) -> sa.Engine:
        """The engine of the pool of this key. `make` makes the pool where the process has none."""
        with self._lock:
            if self._leased is None:
                self._leased = pools.lease(key(), self._connections, make)
            engine = self._leased[0].engine
        assert engine is not None  # noqa: S101 - for mypy; whoever makes a pool sets its engine
        return engine

    def close_idle(self) -> None:
        """Closes the pool's idle connections, so that the database can be dropped."""
        with self._lock:
            leased = self._leased
        if leased is not None:
            leased[0].close_idle(0)

    def release(self) -> None:
        """Gives the pool back, with the connections that are open."""
        with self._lock:
            leased, self._leased = self._leased, None
        if leased is not None:
            leased[1].release()
