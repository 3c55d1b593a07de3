"""One Cosmos database: the client, the retries, what runs side by side, and errors in words."""

from __future__ import annotations

import binascii
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.cosmos import ContainerProxy, CosmosClient, PartitionKey
from azure.cosmos.exceptions import CosmosClientTimeoutError, CosmosResourceExistsError
from azure.cosmos.http_constants import HttpHeaders

from backup.core import interrupts
from backup.core.errors import (
    BackupError,
    ConfigError,
    NotInitialized,
    StoreError,
    StoreUnavailable,
    TransientStoreError,
)
from backup.core.retry import Attempt, Retry
from backup.stores.connection import Cosmos
from backup.stores.cosmos.errors import (
    UnlessMissing,
    http_status_of,
    is_missing,
    is_transient,
    reason_of,
    retry_after_seconds,
)
from backup.stores.cosmos.throttle import Throttle
from backup.stores.cosmos.transport import transport

T = TypeVar("T")
Item = TypeVar("Item")

# The SDK notes these in the headers of whichever answer came last, of any thread, and that thread may be copying them.
# A new name makes the copy fail ("mutated during iteration"); one that is there already does not.
_NOTED_LATER = (HttpHeaders.ThrottleRetryCount, HttpHeaders.ThrottleRetryWaitTimeInMs)
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 65.0


class CosmosAccess:
    """One side's way to its database, for any number of threads. `missing` is the error for a database or container
    that is not there.

    `emulator_hosts` names hosts whose certificate is not verified; localhost and 127.0.0.1 are such by the SDK's own
    rule. `units_per_second` is a ceiling for what all requests cost. No request waits longer for its answer than
    `max_call_seconds`, the SDK's own second tries included; then it counts as a lost connection.
    """

    def __init__(
        self,
        where: Cosmos,
        database: str,
        retry: Retry,
        missing: type[BackupError],
        label: str,
        emulator_hosts: frozenset[str] = frozenset(),
        units_per_second: float | None = None,
        max_call_seconds: float = 600.0,
    ) -> None:
        self._max_call_seconds, self._call = max_call_seconds, threading.local()
        self.check_young: Callable[[], None] | None = None
        self.throttle = Throttle(units_per_second)
        self._lock = threading.Lock()
        self.missing, self.label = missing, label
        self._where, self._database = where, database
        self._retry, self._emulator_hosts = retry, emulator_hosts

    @property
    def location(self) -> str:
        """Account and database."""
        return f"{self._where.endpoint.rstrip('/')}/{self._database}"

    @cached_property
    def _client(self) -> CosmosClient:
        credential: Any = self._where.key
        if credential is None:
            from backup.stores.identity import credential as identity

            credential = identity(self._where.client_id)
        options: dict[str, Any] = {}
        host = urlsplit(self._where.endpoint).hostname or ""
        emulated = host in self._emulator_hosts | {"localhost", "127.0.0.1"}
        if host in self._emulator_hosts:
            options["connection_verify"] = False
        if emulated:
            # An emulator advertises the address it has for itself, which may not lead there from here.
            options["enable_endpoint_discovery"] = False
        return CosmosClient(
            self._where.endpoint,
            credential,
            user_agent_suffix="backup",
            connection_timeout=min(_CONNECT_SECONDS, self._max_call_seconds),
            read_timeout=min(_READ_SECONDS, self._max_call_seconds),
            # Else each character beyond ASCII takes six bytes of the two megabytes that a document may have.
            enable_compact_utf8_item_writes=True,
            # Called for each attempt of any request, those that the SDK makes by itself included.
            raw_request_hook=self._admit,
            raw_response_hook=self._answered,
            transport=transport(self.throttle.at_most, verified=not emulated),
            **options,
        )

    def _admit(self, request: Any) -> None:
        asked = time.monotonic()
        request.context["set_aside"] = self.throttle.admit()
        now = time.monotonic()
        # How long a thread's request has been tried; waiting for one's turn does not count.
        started = self._started + now - asked if self._started is not None else now
        self._started = started
        if now - started > self._max_call_seconds:
            self._started = None  # the next one begins anew, also in a thread of the SDK's own
            raise CosmosClientTimeoutError(f"No answer within {self._max_call_seconds:g} seconds.")  # type: ignore[no-untyped-call]
        if self.check_young is not None and getattr(self._call, "is_fenced", False):
            self._call.is_fenced = False  # it may make a request of its own
            self.check_young()
            self._call.is_fenced = True

    def _answered(self, response: Any) -> None:
        answer = response.http_response
        for name in _NOTED_LATER:
            answer.headers.setdefault(name, "0")
        if answer.status_code < 400:
            self._started = None
        charge = float(answer.headers.get("x-ms-request-charge") or 0)
        self.throttle.answered(answer.status_code, charge, response.context.get("set_aside") or 0.0)

    @property
    def _started(self) -> float | None:
        """When the request of this thread that has had no good answer yet was sent first."""
        started: float | None = getattr(self._call, "started", None)
        return started

    @_started.setter
    def _started(self, value: float | None) -> None:
        self._call.started = value

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.throttle.at_most, thread_name_prefix="cosmos")

    def container(self, name: str) -> ContainerProxy:
        """The container's proxy; asks the server nothing."""
        with self._lock:
            client = self._client
        return client.get_database_client(self._database).get_container_client(name)

    def containers(self) -> list[str]:
        """The names of the database's containers."""
        for attempt in self.attempts("list the containers"):
            with attempt:
                names = [one["id"] for one in self._client.get_database_client(self._database).list_containers()]
        return names

    def create_container(self, name: str, partition_paths: Sequence[str]) -> None:
        """Creates the database and the container where missing; what exists is left as it is."""
        paths: Any = list(partition_paths) if len(partition_paths) > 1 else partition_paths[0]
        key = PartitionKey(paths, kind="MultiHash" if len(partition_paths) > 1 else "Hash")
        for attempt in self.attempts(f"create the container {name}"):
            with attempt:
                with UnlessMissing():
                    self.container(name).read()
                    return
                # Someone else may be creating the same just now.
                with suppress(CosmosResourceExistsError):
                    self._client.create_database_if_not_exists(self._database)
                with suppress(CosmosResourceExistsError):
                    self._client.get_database_client(self._database).create_container_if_not_exists(name, key)

    def drop_container(self, name: str) -> None:
        """Drops the container; one that is gone already is no error."""
        for attempt in self.attempts(f"drop the container {name}"):
            with attempt, UnlessMissing():
                self._client.get_database_client(self._database).delete_container(name)

    def attempts(self, operation: str) -> Iterator[Attempt[None]]:
        """The tries of an operation, as many as the retry rule says, each for `with`:

            for attempt in access.attempts("read the container"):
                with attempt:
                    properties = container.read()

        The body must bear repetition. The SDK's errors become the app's own.
        """
        return self._retry.attempts_in(f"{operation}: {self.label}", lambda _: self.once(operation))

    @contextmanager
    def once(self, operation: str) -> Iterator[None]:
        """The same in one try."""
        interrupts.check()
        self._started = None
        try:
            yield
        except binascii.Error:
            raise ConfigError(f"The AccountKey of the {self.label} is not a key: it is not base64.") from None
        except AzureError as error:
            raise self._error(operation, error) from None
        except RuntimeError as error:
            if "during iteration" not in str(error):
                raise
            # The same accident as at `_NOTED_LATER`, on the SDK's way to tell of an error.
            raise TransientStoreError(f"Could not {operation} in the {self.label}: the SDK's threads met.") from None

    def side_by_side(
        self, operation: str, items: Sequence[Item], work: Callable[[Item], T], *, fenced: bool = False
    ) -> list[T]:
        """The results of `work` in the order of the items, as many at once as the account takes; each is retried for
        itself. Not for use within such work. Where it is `fenced`, each of its requests is made only by a run that goes
        on.

        Raises the first error, when nothing of it is under way any more; what had not begun by then never does.
        """
        if len(items) < 2:
            return [self._in_a_slot(operation, item, work, fenced) for item in items]
        with self._lock:
            pool = self._pool
        futures = [pool.submit(self._in_a_slot, operation, item, work, fenced) for item in items]
        try:
            interrupts.wait_for(futures, or_an_error=True)
        finally:
            for future in futures:
                future.cancel()
            interrupts.wait_for(futures)
        for future in futures:
            if not future.cancelled() and (error := future.exception()):
                raise error
        return [future.result() for future in futures]

    def _in_a_slot(self, operation: str, item: Item, work: Callable[[Item], T], fenced: bool) -> T:
        for attempt in self.attempts(operation):
            with attempt, self.throttle.slot(), self._fenced(fenced):
                done = work(item)
        return done

    @contextmanager
    def _fenced(self, fenced: bool) -> Iterator[None]:
        self._call.is_fenced = fenced
        try:
            yield
        finally:
            self._call.is_fenced = False

    def stream(self, operation: str, items: Iterable[T]) -> Iterator[T]:
        """The items as they come; errors on the way become the app's own. Not retried."""
        iterator = iter(items)
        end: Any = object()
        while True:
            with self.once(operation):
                item = next(iterator, end)
            if item is end:
                return
            yield item

    def pieces(
        self, operation: str, opened: Callable[[], Iterator[Item]], take: Callable[[Iterator[Item]], list[T]]
    ) -> Iterator[list[T]]:
        """What `take` takes from the items of one query, piece by piece, until that is nothing; each piece is retried.

        A query that broke off cannot go on: `opened` is asked for another, without what was yielded before.
        """
        items: Iterator[Item] | None = None
        while True:
            for attempt in self.attempts(operation):
                with attempt:
                    current, items = opened() if items is None else items, None
                    piece = take(current)
                    items = current
            if not piece:
                return
            yield piece

    def _error(self, operation: str, error: AzureError) -> BackupError:
        message = f"Could not {operation} in the {self.label}: {reason_of(error)}"
        if is_transient(error):
            unanswered = "Failed to establish a new connection" in str(error)
            return TransientStoreError(message, retry_after=retry_after_seconds(error), unanswered=unanswered)
        if is_missing(error) and self.missing is NotInitialized:
            return NotInitialized(f"The {self.label} is not initialized: its database or a container does not exist.")
        if is_missing(error):
            return self.missing(f"{message} The database or container does not exist.")
        if isinstance(error, ClientAuthenticationError) or http_status_of(error)[0] in (401, 403):
            return StoreUnavailable(message, hint="Check the account key, or the identity's Cosmos DB data role.")
        return StoreError(message)

    def close(self) -> None:
        """Closes the connections; the next use opens new ones."""
        pool, client = self.__dict__.pop("_pool", None), self.__dict__.pop("_client", None)
        if pool is not None:
            pool.shutdown(wait=not interrupts.is_over())
        if client is not None:
            client.__exit__()
