"""HTTP connections whose waits can be cut. A server that answers a byte at a time keeps every other time limit."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, ClassVar

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from backup.stores.calls import end_this_with


class CutConnection(HTTPConnection):
    """Says of each wait how the call of its thread is cut."""

    def connect(self) -> None:
        super().connect()
        self.end_with_shut()

    def request(self, *request: Any, **options: Any) -> None:
        self.end_with_shut()
        super().request(*request, **options)

    def end_with_shut(self) -> None:
        """Has a cut shut the socket that it has now."""
        _end_with_shut(self.sock)

    def _new_conn(self) -> socket.socket:  # the server of a tunnel may answer so, too
        made = super()._new_conn()
        _end_with_shut(made)
        return made


class _SecureCutConnection(CutConnection, HTTPSConnection):
    """As above, with TLS."""


class CutPool(HTTPConnectionPool):
    """Such connections to a server. An error of one begins with the server's name and port, and has no more of the
    address."""

    ConnectionCls: type[Any] = CutConnection

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class SecureCutPool(HTTPSConnectionPool):
    """As above, with TLS."""

    ConnectionCls: type[Any] = _SecureCutConnection

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class CutAdapter(HTTPAdapter):
    """Has requests go over such connections."""

    pools: ClassVar[dict[str, type]] = {"http": CutPool, "https": SecureCutPool}

    def init_poolmanager(self, *sizes: Any, **options: Any) -> None:
        """As requests says."""
        super().init_poolmanager(*sizes, **options)
        self.poolmanager.pool_classes_by_scheme = self.pools

    def proxy_manager_for(self, *proxy: Any, **options: Any) -> Any:
        """As requests says."""
        manager = super().proxy_manager_for(*proxy, **options)
        manager.pool_classes_by_scheme = self.pools
        return manager


def _end_with_shut(made: Any) -> None:
    def shut() -> None:
        with suppress(OSError, TypeError):  # it is closed already, or not there yet
            socket.socket.shutdown(made, socket.SHUT_RDWR)  # not TLS's own, which another thread may be in

    end_this_with(shut)
