"""The client of one Cosmos DB account: its connections and login, and what each of its requests passes."""

from __future__ import annotations

import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from azure.cosmos import CosmosClient
from azure.cosmos.exceptions import CosmosClientTimeoutError
from azure.cosmos.http_constants import HttpHeaders

from backup.stores import pools
from backup.stores.calls import check_this
from backup.stores.connection import Cosmos
from backup.stores.cosmos.errors import number_of_header, seconds_to_wait
from backup.stores.cosmos.throttle import Throttle
from backup.stores.http_pool import HttpPool
from backup.stores.identity import IdentityLogin, credential
from backup.stores.pools import Lease, PoolKey

# The SDK writes these headers into the last answer, also into that of another thread, which may be copying its headers.
# A new name makes that copy fail ("mutated during iteration"). A name that exists already does not.
_WRITTEN_LATER = (HttpHeaders.ThrottleRetryCount, HttpHeaders.ThrottleRetryWaitTimeInMs)
_GONE = 410
# A partition was split; another container has the name. The SDK goes on by itself then, but may leave out documents, or
# give some twice.
_MOVED = {(_GONE, "1002"), (400, "1024")}
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 65.0


class CosmosConnection:
    """A client, made at its first use, for any number of threads.

    The certificates of `emulator_hosts`, localhost and 127.0.0.1 are not verified. Each request waits for the
    `throttle`. A request with no answer after `max_call_seconds`, the SDK's own retries included, counts as a lost
    connection.
    """

    def __init__(
        self, where: Cosmos, throttle: Throttle, emulator_hosts: frozenset[str], max_call_seconds: float
    ) -> None:
        self.throttle = throttle
        self.check_young: Callable[[], None] | None = None
        self._where, self._emulator_hosts, self._max_call_seconds = where, emulator_hosts, max_call_seconds
        self._lock, self._call = threading.Lock(), threading.local()

    @property
    def client(self) -> CosmosClient:
        """The SDK's object. Asks the server nothing."""
        with self._lock:
            return self._client

    def begin(self) -> None:
        """Says that the next request of this thread is a new one."""
        self._started = None

    @property
    def moves(self) -> int:
        """How often the server has told this thread that documents are elsewhere by now than the SDK looked for them.
        What a query has given is not to be believed if it did so meanwhile."""
        return getattr(self._call, "moves", 0)

    def forget_partitions(self) -> None:
        """Has the SDK ask anew where documents are: it takes those of one container for those of the next with its
        name, and all clients of the process share what it knows."""
        self.client.client_connection.refresh_routing_map_provider()

    @contextmanager
    def fenced(self, fenced: bool) -> Iterator[None]:
        """A context in which this thread sends each request only after `check_young`, if it is `fenced`."""
        self._call.is_fenced = fenced
        try:
            yield
        finally:
            self._call.is_fenced = False

    @property
    def _host(self) -> str:
        return urlsplit(self._where.endpoint).hostname or ""

    @property
    def _is_emulated(self) -> bool:
        return self._host in self._emulator_hosts | {"localhost", "127.0.0.1"}

    @cached_property
    def _leased(self) -> tuple[HttpPool, Lease]:
        where, at_most, verified = self._where, self.throttle.at_most, not self._is_emulated
        login = IdentityLogin(where.client_id, f"https://{self._host}/.default") if where.key is None else None
        key = PoolKey.of("cosmos", where.endpoint.rstrip("/"), where.key, where.client_id, verified, at_most)
        return pools.lease(key, at_most, lambda: HttpPool(at_most, login, verified=verified))

    @cached_property
    def _client(self) -> CosmosClient:
        where, (pool, _) = self._where, self._leased
        options: dict[str, Any] = {}
        host = self._host
        if host in self._emulator_hosts:
            options["connection_verify"] = False
        if self._is_emulated:
            # An emulator advertises its own address, which this process may not reach.
            options["enable_endpoint_discovery"] = False
            # Said of each request, where nobody is to verify anything.
            warnings.filterwarnings("ignore", f"Unverified HTTPS request is being made to host '{re.escape(host)}'")
        return CosmosClient(
            where.endpoint,
            credential(where.client_id) if where.key is None else where.key,
            user_agent_suffix="backup",
            connection_timeout=min(_CONNECT_SECONDS, self._max_call_seconds),
            read_timeout=min(_READ_SECONDS, self._max_call_seconds),
            # A document may have two megabytes. Without this each character beyond ASCII takes six bytes.
            enable_compact_utf8_item_writes=True,
            # Called for each attempt of each request, also for those that the SDK makes itself.
            raw_request_hook=self._admit,
            raw_response_hook=self._take_in,
            transport=pool.transport(),
            **options,
        )

    def _admit(self, request: Any) -> None:
        check_this()  # the SDK tries again what was cut
        before = time.monotonic()
        kind = _kind_of(request.http_request)
        request.context["kind"], request.context["reserved_units"] = kind, self.throttle.admit(kind)
        now = time.monotonic()
        # The time since the thread's request was first sent. Waiting in `admit` does not count.
        started = self._started + now - before if self._started is not None else now
        self._started = started
        if now - started > self._max_call_seconds:
            self._started = None  # the next request has its whole time again, also in a thread of the SDK
            raise CosmosClientTimeoutError(f"No answer within {self._max_call_seconds:g} s.")  # type: ignore[no-untyped-call]
        if self.check_young is not None and getattr(self._call, "is_fenced", False):
            self._call.is_fenced = False  # the check may send a request itself
            self.check_young()
            self._call.is_fenced = True

    def _take_in(self, response: Any) -> None:
        answer = response.http_response
        context = response.context
        if (answer.status_code, answer.headers.get(HttpHeaders.SubStatus)) in _MOVED:
            self._call.moves = self.moves + 1
        _make_bearable(answer, urlsplit(response.http_request.url).path)
        if answer.status_code < 400:
            self._started = None
        charge = number_of_header(answer.headers.get(HttpHeaders.RequestCharge)) or 0.0
        self.throttle.take_in(
            answer.status_code, charge, context.get("reserved_units") or 0.0, context.get("kind") or ""
        )

    @property
    def _started(self) -> float | None:
        """When this thread first sent the request that still has no good answer; None if there is none."""
        started: float | None = getattr(self._call, "started", None)
        return started

    @_started.setter
    def _started(self, value: float | None) -> None:
        self._call.started = value

    def close(self) -> None:
        """Gives the connections back. The next use takes them again."""
        client, leased = (self.__dict__.pop(name, None) for name in ("_client", "_leased"))
        if client is not None:
            client.__exit__()
        if leased is not None:
            leased[1].release()


def _make_bearable(answer: Any, path: str) -> None:
    """Changes the headers of an answer that the SDK would not survive, before it reads them."""
    headers = answer.headers
    for name in _WRITTEN_LATER:
        headers.setdefault(name, "0")
    if HttpHeaders.RetryAfterInMilliseconds in headers:
        # It waits so long in one piece, and reads nothing but a whole number.
        seconds = seconds_to_wait(headers[HttpHeaders.RetryAfterInMilliseconds], 0.001)
        headers[HttpHeaders.RetryAfterInMilliseconds] = str(int(1000 * (1.0 if seconds is None else seconds)))
    if answer.status_code == _GONE and path.rstrip("/").endswith("/pkranges"):
        # It would ask for the ranges again, under a lock that it holds itself.
        headers.pop(HttpHeaders.SubStatus, None)


def _kind_of(request: Any) -> str:
    """What the requests have in common that cost about the same: what is done, in which container."""
    where = urlsplit(request.url).path.strip("/").split("/")[:5]
    is_query = str(request.headers.get(HttpHeaders.IsQuery) or "").lower() == "true"
    return f"{request.method} {'/'.join(where)}{' query' if is_query else ''}"
