"""The pools of this process: one for each server, database, login and way to connect. Knows no driver.

A pool outlives the stores that use it, so that the next run need not connect again. What lies idle is closed after
`IDLE_SECONDS`: a serverless database sleeps only when nobody is connected.
"""

from __future__ import annotations

import hmac
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar, cast

from backup.stores.logins import LoginState

IDLE_SECONDS = 30.0
"""After how many seconds without use a connection is closed."""

_LOOK_SECONDS = 10.0
_UNUSED_AT_MOST = 50  # empty pools that are remembered
_SECRET = secrets.token_bytes(32)


@dataclass(frozen=True)
class PoolKey:
    """What a pool is for. Two keys are equal if they lead to the same server, with the same login and options.

    `server` is for messages. `ways` is a keyed hash of all that decides how a connection is made, its secrets included.
    """

    kind: str
    server: str
    ways: bytes = field(repr=False)

    @classmethod
    def of(cls, kind: str, server: str, *ways: Any) -> PoolKey:
        """The key of a pool; the `repr` of `ways` must tell all that matters."""
        return cls(kind, server, hmac.digest(_SECRET, repr(ways).encode("utf-8", "surrogatepass"), "sha256"))


@dataclass(frozen=True)
class PoolState:
    """A pool now.

    It has so many connections `open`, of which so many are `idle`. `reconnects` counts how often it connected again
    because a connection was lost. `last_used_at` is None for a pool that was never used.
    """

    kind: str
    server: str
    open: int
    idle: int
    reconnects: int
    last_used_at: datetime | None
    login: LoginState


class Pool(Protocol):
    """A pool, for any number of threads."""

    def widen(self, connections: int) -> None:
        """Lets so many more connections be open at once; fewer, for a negative number."""

    def close_idle(self, seconds: float) -> None:
        """Closes the connections that have been idle for so long."""

    def state(self, kind: str, server: str) -> PoolState:
        """The pool now."""

    @property
    def is_empty(self) -> bool:
        """Whether no connection is open."""

    @property
    def keeps_idle(self) -> bool:
        """Whether connections stay open when nobody has a lease on the pool."""


P = TypeVar("P", bound=Pool)


class Lease:
    """A user's hold on a pool, until `release`."""

    def __init__(self, pools: _Pools, entry: _Entry, connections: int) -> None:
        self._pools, self._entry, self._connections = pools, entry, connections

    def release(self) -> None:
        """Gives the pool back; to call it again does nothing."""
        connections, self._connections = self._connections, 0
        if connections:
            self._pools.release(self._entry, connections)


@dataclass
class _Entry:
    key: PoolKey
    pool: Pool
    leases: int = 0


class _Pools:
    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep
        self._lock = threading.Lock()
        self._entries: dict[PoolKey, _Entry] = {}
        self._closer: threading.Thread | None = None

    def lease(self, key: PoolKey, connections: int, make: Callable[[], P]) -> tuple[P, Lease]:
        with self._lock:
            entry = self._entries.pop(key, None) or _Entry(key, make())
            self._entries[key] = entry  # the last one is the one that was used last
            entry.leases += 1
            entry.pool.widen(connections)
            self._forget_unused()
        return cast("P", entry.pool), Lease(self, entry, connections)

    def release(self, entry: _Entry, connections: int) -> None:
        with self._lock:
            entry.leases -= 1
            entry.pool.widen(-connections)
            must_close = entry.leases == 0 and not entry.pool.keeps_idle
        if must_close:
            entry.pool.close_idle(0)

    def _forget_unused(self) -> None:
        unused = [key for key, entry in self._entries.items() if entry.leases == 0 and entry.pool.is_empty]
        for key in unused[: max(0, len(unused) - _UNUSED_AT_MOST)]:
            del self._entries[key]

    def watch(self) -> None:
        """Sees that idle connections are closed in time. A thread does it as long as there are open ones."""
        with self._lock:
            if self._closer is None:
                self._closer = threading.Thread(target=self._close_in_time, name="pools", daemon=True)
                self._closer.start()

    def _close_in_time(self) -> None:
        while True:
            self._sleep(_LOOK_SECONDS)
            self.close_idle(IDLE_SECONDS)
            with self._lock:
                if all(entry.pool.is_empty for entry in self._entries.values()):
                    self._closer = None
                    return

    def close_idle(self, seconds: float) -> None:
        for entry in self._all():
            entry.pool.close_idle(seconds)

    def states(self) -> list[PoolState]:
        return [entry.pool.state(entry.key.kind, entry.key.server) for entry in self._all()]

    def _all(self) -> list[_Entry]:
        with self._lock:
            return list(self._entries.values())


_pools = _Pools()


def lease(key: PoolKey, connections: int, make: Callable[[], P]) -> tuple[P, Lease]:
    """The pool of this key, and a lease on it. `make` makes the pool where there is none yet; it connects nowhere.

    The pool opens as many connections as all its leases allow together, and no more than there is work for.
    """
    return _pools.lease(key, connections, make)


def watch() -> None:
    """Says that a connection is idle from now on. Call it whenever one is given back."""
    _pools.watch()


def close_idle(seconds: float = 0) -> None:
    """Closes all connections that have been idle for so many seconds."""
    _pools.close_idle(seconds)


def states() -> list[PoolState]:
    """Every pool of this process that is in use or was used lately, the one used last at the end. Asks no server."""
    return _pools.states()


_inherited: list[_Pools] = []


def _forget() -> None:
    """Starts again in a forked process. Its parent's connections stay the parent's: closing them here would end them
    there too."""
    global _pools
    _inherited.append(_pools)
    _pools = _Pools()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
