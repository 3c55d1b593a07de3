"""Reads a container's documents: runs the queries of `cosmos.queries`, whole or in parts, retried. Never writes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from hashlib import sha256
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from azure.cosmos import ContainerProxy

from backup.core.batched import batched
from backup.core.errors import NotInitialized, SourceMissing
from backup.core.model import Chunk, Key, Record, StampRow
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.cosmos.documents import partition_part
from backup.stores.cosmos.queries import Queries, Query, key_in
from backup.stores.values import Limits

Item = TypeVar("Item")
Address = tuple[str, ...]
"""The partition key under which a container has a document: the values of its own paths, as JSON texts."""


class Lying(NamedTuple):
    """A document in a container: its key, its address, its etag there, and whether it is marked as deleted."""

    key: Key
    address: Address
    etag: str
    is_deleted: bool


_IDS_AT_ONCE = 100  # parameters of a query
_STAMPS_AT_ONCE = 5_000  # in memory


class CosmosContainer:
    """The documents of one service in a container, for any number of threads."""

    def __init__(
        self, access: CosmosAccess, name: str, queries: Queries, limits: Limits, key_paths: Sequence[str] = ()
    ) -> None:
        """`key_paths`: the partition key of the source, in a backup whose container has another one."""
        self._access, self._name, self._queries, self._limits = access, name, queries, limits
        self._key_paths = _names_in(key_paths)

    @property
    def proxy(self) -> ContainerProxy:
        """The SDK's object for the container. Asks the server nothing."""
        return self._access.container(self._name)

    @cached_property
    def _properties(self) -> dict[str, Any]:
        """What the server says of the container. Asked once, until `forget`."""
        for attempt in self._access.attempts("read the container"):
            with attempt:
                properties = self._access.read_container(self._name)
        return properties

    @cached_property
    def own_paths(self) -> list[list[str]]:
        """The container's partition key, each path as property names; several when it is hierarchical."""
        return _names_in(self._properties["partitionKey"]["paths"])

    @property
    def partition_paths(self) -> list[list[str]]:
        """The partition key that is a part of the documents' keys: that of the source, also in a backup."""
        return self._key_paths or self.own_paths

    @property
    def has_other_addresses(self) -> bool:
        """Whether the container has its documents under another partition key than their keys have."""
        return bool(self._key_paths) and self.partition_paths != self.own_paths

    def address_of(self, key: Key, record: Record) -> Address:
        """Where the container has, or will have, this document."""
        if not self.has_other_addresses:
            return key[:-1]
        return tuple(partition_part(record, path) for path in self.own_paths)

    def lying(self, keys: Collection[Key]) -> list[Lying]:
        """All documents with the ids of these keys, also those of other services."""
        paths, width = [*self.partition_paths, *self.own_paths], len(self.partition_paths)
        queries = [
            self._queries.by_ids(part, self._queries.lying(paths), of_service=False)
            for part in batched(list(keys), _IDS_AT_ONCE)
        ]
        parts = self._access.side_by_side("look up addresses", queries, lambda query: list(self.items(query)))
        keys_and_items = [(key_in(item, len(paths)), item) for items in parts for item in items]
        return [
            Lying((*parts[:width], parts[-1]), parts[width:-1], item["etag"], item.get("deleted") is not None)
            for parts, item in keys_and_items
        ]

    @property
    def named(self) -> str:
        """Which container this is: another text for each that was ever made, and once its settings were changed."""
        return sha256(json.dumps(_resource_in(self._properties)).encode()).hexdigest()[:12]

    def is_another(self) -> bool:
        """Whether another container has its name by now. One request. Raises `missing` of its access for none."""
        for attempt in self._access.attempts("read the container"):
            with attempt:
                now = self._access.read_container(self._name)
        return bool(now.get("_rid") != self._properties.get("_rid"))

    @property
    def indexing_policy(self) -> Mapping[str, Any] | None:
        """Which properties the server indexes; None if it does not say, or indexes nothing."""
        policy: Mapping[str, Any] | None = self._properties.get("indexingPolicy")
        return policy if policy and policy.get("indexingMode") == "consistent" else None

    @property
    def default_ttl(self) -> int | None:
        """After how many seconds the server deletes a document. None: never; -1: only one with a `ttl` of its own."""
        seconds: int | None = self._properties.get("defaultTtl")
        return seconds

    def forget(self) -> None:
        """Forgets what it knows of the container: a new one may have replaced it."""
        for name in ("_properties", "own_paths", "_feed_ranges"):
            self.__dict__.pop(name, None)

    def asked_at(self) -> datetime | None:
        """The server's time when it answers; None if the answer has no time."""
        dates: list[str] = []

        def note_date(headers: Mapping[str, str], *_: Any) -> None:
            dates.extend(value for name, value in headers.items() if name.lower() == "date")

        for attempt in self._access.attempts("ask for the time"):
            with attempt:
                self.proxy.read(response_hook=note_date)
        return parsedate_to_datetime(dates[-1]) if dates else None

    def resource(self) -> tuple[Any, ...] | None:
        """The ids, etag and time that the server gave the container; None if there is no container.

        Containers of two accounts may have equal ids, but never equal etags.
        """
        try:
            with self._access.once("read the container"):
                properties = self.__dict__["_properties"] = self._access.read_container(self._name)
        except (NotInitialized, SourceMissing):
            return None
        return _resource_in(properties)

    def key_of(self, record: Record) -> Key:
        """The key of a whole document."""
        return (*(partition_part(record, path) for path in self.partition_paths), record["id"])

    def has_any(self, query: Query) -> bool:
        """Whether the query gives an item. Reads one."""
        for attempt in self._access.attempts("read a document"):
            with attempt:
                first = next(self.items(query, max_item_count=1), None)
        return first is not None

    def all(self, operation: str, query: Query) -> list[Any]:
        """All items of the query."""
        for attempt in self._access.attempts(operation):
            with attempt:
                items = list(self.items(query))
        return items

    def all_stamps(self, query: Query) -> list[Any]:
        """All items of a query for stamps, in no order. Asks the physical partitions side by side, and retries each
        alone."""
        parts = self._access.side_by_side(
            "read the stamps", self._feed_ranges, lambda range_: list(self.items(query, feed_range=range_))
        )
        return [item for part in parts for item in part]

    @cached_property
    def _feed_ranges(self) -> list[dict[str, Any] | None]:
        """The range of each physical partition; [None], which means everything, where there is only one.

        The SDK itself follows a partition that the server splits later. Asked once, until `forget`.
        """
        for attempt in self._access.attempts("read the feed ranges"):
            with attempt:
                ranges = list(self.proxy.read_feed_ranges())
        return [*ranges] if len(ranges) > 1 else [None]

    def stream(self, operation: str, query: Query) -> Iterator[Any]:
        """The query's items as they come. The SDK retries each page; the query as a whole is not retried."""
        return self._access.stream(operation, self.items(query))

    def numbers(self, queries: Sequence[Query]) -> list[float | None]:
        """The results of queries that count or sum, asked side by side; None where the server gives no number."""

        def number(query: Query) -> float | None:
            parts = [value for value in self.items(query) if isinstance(value, int | float)]
            return sum(parts) if parts else None  # some servers answer with several partial sums

        return self._access.side_by_side("count", queries, number)

    def by_ids(self, operation: str, keys: Sequence[Key], selected: str) -> list[Any]:
        """`selected` of the service's documents with the ids of these keys, in any partition."""
        queries = [self._queries.by_ids(part, selected, of_service=True) for part in batched(keys, _IDS_AT_ONCE)]
        parts = self._access.side_by_side(operation, queries, lambda query: list(self.items(query)))
        return [item for part in parts for item in part]

    def keys_of_ids(self, keys: Sequence[Key]) -> set[Key]:
        """The keys of the service's documents with the ids of these keys, in any partition."""
        items = self.by_ids("look up ids", keys, self._queries.key(self.partition_paths))
        return {key_in(item, len(self.partition_paths)) for item in items}

    def row_in(self, item: Record) -> StampRow:
        """The stamp row in an item of a query for stamps."""
        return self._queries.row_in(item, len(self.partition_paths))

    def documents(self, keys: Sequence[Key], *, of_service: bool) -> Iterator[list[Record]]:
        """The documents of these keys, looked up side by side, in batches of at most `batch_bytes` (`Limits`)."""
        key_sets = [set(part) for part in batched(keys, _IDS_AT_ONCE)]
        while key_sets:
            max_bytes = self._limits.batch_bytes // len(key_sets)

            def look_up(key_set: set[Key], max_bytes: int = max_bytes) -> tuple[list[Record], bool]:
                items = self.items(self._queries.by_ids(key_set, "*", of_service=of_service))
                return _up_to((item for item in items if self.key_of(item) in key_set), len(key_set), max_bytes)

            answers = self._access.side_by_side("read documents", key_sets, look_up)
            if records := [record for documents, _ in answers for record in documents]:
                yield records
            missing_keys = (
                key_set.difference(map(self.key_of, documents))
                for key_set, (documents, is_complete) in zip(key_sets, answers, strict=True)
                if not is_complete
            )
            key_sets = [key_set for key_set in missing_keys if key_set]

    def every_document(self, chunk: Chunk) -> Iterator[list[Record]]:
        """The service's documents in the chunk, by one query, in batches.

        Remembers the keys that it has yielded: a query that broke off starts again and skips them.
        """
        seen: set[Key] = set()

        def open_query() -> Iterator[Record]:
            items = self.items(self._queries.within(chunk, "*"))
            return (item for item in items if self.key_of(item) not in seen)

        def take(items: Iterator[Record]) -> list[Record]:
            return _up_to(items, self._limits.batch_size, self._limits.batch_bytes)[0]

        for records in self._access.pieces("read documents", open_query, take):
            seen.update(map(self.key_of, records))
            yield records

    def deleted_documents(self) -> Iterator[list[Record]]:
        """The copies that are marked as deleted, in batches. A query that broke off starts again from its beginning."""

        def take(items: Iterator[Record]) -> list[Record]:
            return _up_to(items, self._limits.batch_size, self._limits.batch_bytes)[0]

        yield from self._access.pieces(
            "read what is marked as deleted", lambda: self.items(self._queries.deleted("*")), take
        )

    def written_since(self, seconds: int) -> Iterator[list[dict[str, Any]]]:
        """The items of `Queries.since`, each once, in the order of their writes, up to 5,000 at a time.

        A query that broke off starts again at the second that was reached. So the items of that second are remembered.
        """
        paths, reached = self.partition_paths, seconds
        seen: set[tuple[Any, ...]] = set()

        def open_query() -> Iterator[dict[str, Any]]:
            items = self.items(self._queries.since(reached, paths))
            return (item for item in items if self._queries.row_in(item, len(paths)) not in seen)

        def take(items: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
            return list(islice(items, _STAMPS_AT_ONCE))

        for piece in self._access.pieces("read what changed", open_query, take):
            last = piece[-1]["ts"]
            seen = seen if last == reached else set()
            seen = seen | {self._queries.row_in(item, len(paths)) for item in piece if item["ts"] == last}
            reached = last
            yield piece

    def items(
        self, query: Query, feed_range: dict[str, Any] | None = None, max_item_count: int | None = None
    ) -> Iterator[Any]:
        """The query's items as the SDK gives them, from everywhere or from one feed range, so many at a time."""
        where: dict[str, Any] = {"feed_range": feed_range} if feed_range else {"enable_cross_partition_query": True}
        if max_item_count is not None:
            where["max_item_count"] = max_item_count
        return iter(self.proxy.query_items(query.text, parameters=query.parameters, **where))


def _resource_in(properties: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(properties.get(name) for name in ("_rid", "_self", "_etag", "_ts"))


def _names_in(paths: Sequence[str]) -> list[list[str]]:
    return [[part.strip('"') for part in path.strip("/").split("/")] for path in paths]


def _up_to(items: Iterator[Record], max_items: int, max_bytes: int) -> tuple[list[Record], bool]:
    """The first items, up to a number and a size but at least one; and whether no item is left."""
    records: list[Record] = []
    size = 0
    for item in items:
        records.append(item)
        size += len(json.dumps(item))
        if len(records) >= max_items or size > max_bytes:
            return records, False
    return records, True
