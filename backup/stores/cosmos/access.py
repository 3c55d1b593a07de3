"""Access to one Cosmos database: its containers, retries, requests side by side, and the app's own errors."""

from __future__ import annotations

import binascii
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from math import inf
from typing import Any, TypeVar

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.cosmos import ContainerProxy, DatabaseProxy, PartitionKey, ThroughputProperties
from azure.cosmos.exceptions import CosmosResourceExistsError

from backup.core import interrupts
from backup.core.errors import (
    BackupError,
    ConfigError,
    NotInitialized,
    StoreError,
    StoreUnavailable,
    TransientStoreError,
)
from backup.core.model import Throughput
from backup.core.retry import Attempt, Retry
from backup.stores.calls import CallEnded, TimedCall
from backup.stores.connection import Cosmos
from backup.stores.cosmos.connection import CosmosConnection
from backup.stores.cosmos.errors import (
    UnlessMissing,
    http_status_of,
    is_missing,
    is_not_verified,
    is_transient,
    reason_of,
    retry_after_seconds,
)
from backup.stores.cosmos.throttle import Throttle

T = TypeVar("T")
Item = TypeVar("Item")


_NOT_VERIFIED_HINT = (
    "The server must prove who it is, so nothing was sent. For a certificate of your own authority, REQUESTS_CA_BUNDLE "
    "names a file with it."
)

_MOVED = "its server moved documents to other partitions, or another container has the name"
_rids = dict[tuple[str, str], str]()  # of containers that this process has read, by database and name
_rids_lock = threading.Lock()


class CosmosAccess:
    """One side's access to its database, for any number of threads. `missing` is the error for a database or container
    that does not exist.

    `units_per_second` is a ceiling for the request units of all requests. For `emulator_hosts` and `max_call_seconds`
    see `CosmosConnection`.
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
        self.throttle = Throttle(units_per_second)
        self.connection = CosmosConnection(where, self.throttle, emulator_hosts, max_call_seconds)
        self._lock = threading.Lock()
        self._properties = dict[str, Mapping[str, Any]]()
        self.missing, self.label = missing, label
        self._where, self._database, self._retry = where, database, retry

    @property
    def location(self) -> str:
        """Account and database, for messages. Without secrets."""
        return f"{self._where.endpoint.rstrip('/')}/{self._database}"

    @property
    def _proxy(self) -> DatabaseProxy:
        """The SDK's object for the database. Asks the server nothing."""
        return self.connection.client.get_database_client(self._database)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.throttle.at_most, thread_name_prefix="cosmos")

    def container(self, name: str) -> ContainerProxy:
        """The SDK's object for the container. Asks the server nothing."""
        return self._proxy.get_container_client(name)

    def properties_of(self, name: str) -> Mapping[str, Any]:
        """What the server says of one of the app's own containers: asked once, unless there is none.

        Raises what the SDK raises."""
        if name not in self._properties:
            self._properties[name] = self.read_container(name)
        return self._properties[name]

    def read_container(self, name: str) -> dict[str, Any]:
        """What the server says of a container. Raises what the SDK raises."""
        properties = dict(self.container(name).read())
        where, rid = (self.location, name), str(properties.get("_rid"))
        with _rids_lock:
            is_another = _rids.setdefault(where, rid) != rid
            _rids[where] = rid
        if is_another:
            self.connection.forget_partitions()
        return properties

    def containers(self) -> list[str]:
        """The names of the database's containers."""
        for attempt in self.attempts("list the containers"):
            with attempt:
                names = [item["id"] for item in self._proxy.list_containers()]
        return names

    def create_database(self, throughput: Throughput | None) -> None:
        """Creates the database where it does not exist. Changes nothing that exists."""
        for attempt in self.attempts("create the database"):
            with attempt:
                self._create_database(throughput)

    def _create_database(self, throughput: Throughput | None) -> None:
        with suppress(CosmosResourceExistsError):  # another process may be creating it at this moment
            self.connection.client.create_database_if_not_exists(self._database, offer_throughput=_offer(throughput))

    def create_container(
        self,
        name: str,
        partition_paths: Sequence[str],
        indexing_policy: Mapping[str, Any] | None = None,
        throughput: Throughput | None = None,
        database_throughput: Throughput | None = None,
    ) -> None:
        """Creates the database and the container where they do not exist. Changes nothing that exists.

        Without an indexing policy or a throughput they have what the account gives.
        """
        of_container = _offer(throughput)
        policy = None if indexing_policy is None else dict(indexing_policy)
        paths: Any = list(partition_paths) if len(partition_paths) > 1 else partition_paths[0]
        key = PartitionKey(paths, kind="MultiHash" if len(partition_paths) > 1 else "Hash")
        for attempt in self.attempts(f"create the container {name}"):
            with attempt:
                with UnlessMissing():
                    self.container(name).read()
                    return
                self._create_database(database_throughput)
                with suppress(CosmosResourceExistsError):
                    self._proxy.create_container_if_not_exists(
                        name, key, indexing_policy=policy, offer_throughput=of_container
                    )

    def drop_container(self, name: str) -> None:
        """Drops the container; no error if it does not exist."""
        self._properties.pop(name, None)
        for attempt in self.attempts(f"drop the container {name}"):
            with attempt, UnlessMissing():
                self._proxy.delete_container(name)

    def attempts(self, operation: str) -> Iterator[Attempt[None]]:
        """The attempts of an operation, as many as the retry rule allows. Use each in a `with`:

            for attempt in access.attempts("read the container"):
                with attempt:
                    properties = container.read()

        The body may run several times. The SDK's errors become the app's own.
        """
        return self._retry.attempts_in(f"{operation}: {self.label}", lambda _: self.once(operation))

    @contextmanager
    def once(self, operation: str, *, is_whole: bool = True) -> Iterator[None]:
        """A context for one attempt: the SDK's errors become the app's own.

        Raises TransientStoreError as well where documents have moved meanwhile: a query may lack some then, or have
        some twice. Not unless it `is_whole`.
        """
        interrupts.check()
        self.connection.begin()
        moves = self.connection.moves
        try:
            # The SDK's own time limit ends requests. A signal does not wait for that.
            with TimedCall(interrupts.seconds_for(inf)) as call, call.in_this_thread():
                yield
            if is_whole and self.connection.moves != moves:
                self.connection.forget_partitions()
                raise TransientStoreError(f"Could not {operation} in the {self.label}: {_MOVED}.")
        except CallEnded:
            interrupts.check()
            raise TransientStoreError(f"Could not {operation} in the {self.label}: there was no answer.") from None
        except binascii.Error:
            raise ConfigError(f"The AccountKey of the {self.label} is not a key: it is not base64.") from None
        except AzureError as error:
            raise self._error(operation, error) from None
        except (AttributeError, LookupError):
            if self.connection.moves == moves:
                raise
            # The SDK has no answer of its own to a second container that has the name, or a second split.
            self.connection.forget_partitions()
            raise TransientStoreError(f"Could not {operation} in the {self.label}: {_MOVED}.") from None
        except RuntimeError as error:
            if "during iteration" not in str(error):
                raise
            # The accident that `_WRITTEN_LATER` of the connection prevents, while the SDK makes an error.
            raise TransientStoreError(
                f"Could not {operation} in the {self.label}: two threads of the SDK disturbed each other."
            ) from None

    def side_by_side(
        self, operation: str, items: Sequence[Item], work: Callable[[Item], T], *, fenced: bool = False
    ) -> list[T]:
        """The results of `work` in the order of the items, as many at once as the account takes. Each is retried alone.

        `fenced` work sends each request only while the run's heartbeat is young (`Fence.check_young`). Never call this
        within such work. Raises the first error, after all work that had started has ended. The rest never starts.
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
            with attempt, self.throttle.slot(), self.connection.fenced(fenced):
                result = work(item)
        return result

    def stream(self, operation: str, items: Iterable[T]) -> Iterator[T]:
        """The items as they come. The SDK's errors become the app's own. Not retried. Where documents have moved
        meanwhile, some may be missing, or come twice."""
        iterator = iter(items)
        end: Any = object()
        while True:
            with self.once(operation, is_whole=False):
                item = next(iterator, end)
            if item is end:
                return
            yield item

    def pieces(
        self, operation: str, open_query: Callable[[], Iterator[Item]], take: Callable[[Iterator[Item]], list[T]]
    ) -> Iterator[list[T]]:
        """Pieces of a query's items. `take` makes each; an empty piece ends the query. Each piece is retried.

        A query that broke off cannot continue. `open_query` then starts another, without the items yielded before.
        """
        items: Iterator[Item] | None = None
        while True:
            for attempt in self.attempts(operation):
                with attempt:
                    current, items = open_query() if items is None else items, None
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
        if is_not_verified(error):
            return StoreUnavailable(message, hint=_NOT_VERIFIED_HINT)
        if is_missing(error) and self.missing is NotInitialized:
            return NotInitialized(f"The {self.label} is not initialized: its database or a container does not exist.")
        if is_missing(error):
            return self.missing(f"{message} The database or container does not exist.")
        if isinstance(error, ClientAuthenticationError) or http_status_of(error)[0] in (401, 403):
            return StoreUnavailable(message, hint="Check the account key, or the identity's Cosmos DB data role.")
        return StoreError(message)

    def close(self) -> None:
        """Gives the connections back. The next use takes them again."""
        pool = self.__dict__.pop("_pool", None)
        if pool is not None:
            pool.shutdown(wait=not interrupts.is_over())
        self.connection.close()


def _offer(throughput: Throughput | None) -> int | ThroughputProperties | None:
    """The throughput as the SDK wants it."""
    if throughput is None:
        return None
    units = throughput.request_units
    return ThroughputProperties(auto_scale_max_throughput=units) if throughput.autoscale else units
