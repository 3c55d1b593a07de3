"""HTTP connections whose waits can be cut. A server that answers a byte at a time keeps every other time limit."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from backup.stores.calls import end_this_with


class _Connection(HTTPConnection):
    """Says how the call of its thread is cut."""

    def connect(self) -> None:
        super().connect()
        self._end_with_shut()

    def request(self, *request: Any, **options: Any) -> None:
        self._end_with_shut()
        super().request(*request, **options)

    def _new_conn(self) -> socket.socket:  # the server of a tunnel may answer so, too
        made = super()._new_conn()
        end_this_with(lambda: _shut(made))
        return made

    def _end_with_shut(self) -> None:
        made = self.sock
        end_this_with(lambda: _shut(made))


class _SecureConnection(_Connection, HTTPSConnection):
    """As above, with TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class CutAdapter(HTTPAdapter):
    """Makes such connections."""

    def init_poolmanager(self, *sizes: Any, **options: Any) -> None:
        """As requests says."""
        super().init_poolmanager(*sizes, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *proxy: Any, **options: Any) -> Any:
        """As requests says."""
        manager = super().proxy_manager_for(*proxy, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


_POOLS = {"http": _Pool, "https": _SecurePool}


def _shut(made: Any) -> None:
    with suppress(OSError, TypeError):  # it is closed already, or not there yet
        socket.socket.shutdown(made, socket.SHUT_RDWR)  # not TLS's own, which another thread may be in
