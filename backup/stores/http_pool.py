"""HTTP connections to one account of Azure, below its SDK: shared by all clients of the process that name it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar
from urllib.parse import urlsplit

import certifi
from azure.core.pipeline.transport import RequestsTransport
from requests import PreparedRequest, Response, Session
from requests.exceptions import RequestException
from urllib3.connection import HTTPSConnection
from urllib3.util.retry import Retry as NoRetry
from urllib3.util.ssl_ import create_urllib3_context

from backup.core.addresses import is_loopback
from backup.core.model import Now, utc_now
from backup.stores import pools
from backup.stores.cut_connections import CutAdapter, CutConnection, CutPool, SecureCutPool
from backup.stores.left_calls import made_in_time
from backup.stores.logins import ConnectionLogin, Login
from backup.stores.pools import PoolState

_SUB_STATUS = "x-ms-substatus"
"""A header of Cosmos DB. A 403 that has it is about the data, and not about the login."""


class _Connection(CutConnection):
    """Opens in time: nothing cuts the look for a server's address."""

    def connect(self) -> None:
        made_in_time(super().connect, lambda _: self.close())
        self.end_with_shut()


class _SecureConnection(_Connection, HTTPSConnection):
    """As above, with TLS."""


class _Pool(CutPool):
    ConnectionCls = _Connection


class _SecurePool(SecureCutPool):
    ConnectionCls = _SecureConnection


class HttpPool(CutAdapter):
    """Keeps the connections of requests open for the next ones. For any number of threads.

    The adapter of the SDKs keeps ten and opens a new one for each further request at once, and one for each client.

    Never retries: errors reach the SDK unchanged. urllib3 looks at an idle connection before it uses it.
    """

    keeps_idle = True
    pools: ClassVar = {"http": _Pool, "https": _SecurePool}

    def __init__(self, connections: int, login: Login | None = None, *, verified: bool = True) -> None:
        """Keeps so many connections. `login` is how the requests log in; None: with a key, which signs each of them.
        Without `verified` it does not check the server's certificate: for emulators."""
        self._verified = verified
        self.login: Login = ConnectionLogin() if login is None else login
        self.now: Now = utc_now
        self.clock: Callable[[], float] = time.monotonic
        self._lock, self._running, self._idle_since = Lock(), 0, 0.0
        self._last_used_at: datetime | None = None
        self._has_answered, self._has_lost, self._reconnects = False, False, 0
        super().__init__(
            pool_maxsize=connections, max_retries=NoRetry(total=False, redirect=False, raise_on_status=False)
        )

    def transport(self, **options: Any) -> RequestsTransport:
        """A transport for an SDK's client, with the SDK's own options. To close it leaves the connections open."""
        session = _Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, self)
        return RequestsTransport(session=session, session_owner=False, **options)

    # --- what requests calls ------------------------------------------------------------------------------------------

    def build_connection_pool_key_attributes(
        self, request: PreparedRequest, verify: bool | str, cert: Any = None
    ) -> tuple[Any, Any]:
        """As requests says. Without a context each connection reads the roots again, which takes 20 ms."""
        address, options = super().build_connection_pool_key_attributes(request, verify, cert)
        options["ssl_context"] = _verifying(_roots(verify)) if self._verified and verify else _unverifying()
        return address, options

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """As requests says."""
        if self._verified and verify:
            conn.cert_reqs, conn.ca_certs, conn.ca_cert_dir = "CERT_REQUIRED", None, None  # the context has the roots
        else:
            super().cert_verify(conn, url, verify, cert)

    def send(self, *request: Any, **options: Any) -> Response:
        """As requests says."""
        with self._lock:
            self._running += 1
            self._last_used_at = self.now()
        try:
            response = super().send(*request, **options)
            if not options.get("stream"):
                response.content  # noqa: B018 - read now, so that it counts as running until then
            self._note(response)
        except RequestException:
            self._has_lost = self._has_answered
            raise
        finally:
            with self._lock:
                self._running -= 1
                self._idle_since = self.clock()
        pools.watch()
        return response

    def _note(self, response: Response) -> None:
        status = response.status_code
        is_refused = status == 401 or (status == 403 and _SUB_STATUS not in response.headers)
        with self._lock:
            self._has_answered = True
            self._reconnects += self._has_lost
            self._has_lost = False
            if isinstance(self.login, ConnectionLogin):
                if is_refused:
                    self.login.failed()
                elif not self.login.state().is_valid:
                    self.login.succeeded()

    # --- what the pools of the process call ---------------------------------------------------------------------------

    def widen(self, connections: int) -> None:
        """As `Pool` says. The SDK's clients limit their requests themselves."""

    def close_idle(self, seconds: float) -> None:
        """As `Pool` says: all of them, once no request has been sent for so long."""
        with self._lock:
            if self._running == 0 and self.clock() - self._idle_since >= seconds:
                self.close()

    @property
    def is_empty(self) -> bool:
        """As `Pool` says."""
        with self._lock:
            return self._running + self._idle() == 0

    def state(self, kind: str, server: str) -> PoolState:
        """As `Pool` says."""
        login = self.login.state()
        with self._lock:
            idle = self._idle()
            return PoolState(kind, server, self._running + idle, idle, self._reconnects, self._last_used_at, login)

    def _idle(self) -> int:
        idle = 0
        for manager in (self.poolmanager, *list(self.proxy_manager.values())):
            for key in manager.pools.keys():  # noqa: SIM118 - the container cannot be iterated over
                with suppress(AttributeError, KeyError):  # another thread has closed it
                    idle += sum(
                        getattr(connection, "sock", None) is not None for connection in manager.pools[key].pool.queue
                    )
        return idle


class _Session(Session):
    """Asks the environment once for the proxy and the roots of each server. For any number of threads. What is for a
    server on this machine goes by no proxy that the environment names: it would leave the machine.

    requests asks at each request, which was a sixth of what a request to Cosmos DB takes in this process.
    """

    def __init__(self) -> None:
        super().__init__()
        self._settings: dict[Hashable, dict[str, Any]] = {}
        # Otherwise requests would look for a .netrc at each request, and replace the SDK's login by what stands there.
        self.auth = lambda request: request

    def merge_environment_settings(self, url: Any, proxies: Any, *options: Any) -> dict[str, Any]:
        """As requests says. `options` are stream, verify and cert."""
        if proxies:  # a caller's own
            return super().merge_environment_settings(url, proxies, *options)
        server = (*urlsplit(url)[:2], *options)
        if (settings := self._settings.get(server)) is None:
            settings = super().merge_environment_settings(url, {}, *options)
            if is_loopback(urlsplit(url).hostname or ""):  # an emulator: nobody verifies it, or it has no TLS
                settings["proxies"] = {}
            self._settings[server] = settings
        return settings | {"proxies": dict(settings["proxies"])}


def _roots(verify: bool | str) -> str:
    """The file or folder of the roots: that which the environment names, else certifi's."""
    return verify if isinstance(verify, str) else certifi.where()


@lru_cache(maxsize=4)
def _verifying(roots: str) -> ssl.SSLContext:
    """A context with these roots alone, read once in a process."""
    context = create_urllib3_context()
    if Path(roots).is_dir():
        context.load_verify_locations(capath=roots)
    else:
        context.load_verify_locations(roots)
    return context


@lru_cache(maxsize=1)
def _unverifying() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
