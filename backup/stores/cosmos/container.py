"""A container's documents, asked for: the queries of `cosmos_queries` run, whole or in parts, retried. Reads only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

from azure.cosmos import ContainerProxy

from backup.core.batched import batched
from backup.core.errors import NotInitialized, SourceMissing
from backup.core.model import Chunk, Key, Record, StampRow
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.cosmos.documents import partition_part
from backup.stores.cosmos.queries import Queries, Query, key_in
from backup.stores.values import Limits

Item = TypeVar("Item")

_IDS_AT_ONCE = 100
_STAMPS_AT_ONCE = 5_000


class CosmosContainer:
    """The documents of one service in a container, for any number of threads."""

    def __init__(self, access: CosmosAccess, name: str, queries: Queries, limits: Limits) -> None:
        self._access, self._name, self._queries, self._limits = access, name, queries, limits

    @property
    def proxy(self) -> ContainerProxy:
        """The SDK's own; asks the server nothing."""
        return self._access.container(self._name)

    @cached_property
    def _properties(self) -> dict[str, Any]:
        """Asked once, until `forget`."""
        for attempt in self._access.attempts("read the container"):
            with attempt:
                properties = dict(self.proxy.read())
        return properties

    @cached_property
    def partition_paths(self) -> list[list[str]]:
        """The container's partition key, each path as property names; several when it is hierarchical."""
        paths: list[str] = self._properties["partitionKey"]["paths"]
        return [[part.strip('"') for part in path.strip("/").split("/")] for path in paths]

    @property
    def default_ttl(self) -> int | None:
        """After how many seconds a document deletes itself: -1 only if it says so itself, None never."""
        found: int | None = self._properties.get("defaultTtl")
        return found

    def forget(self) -> None:
        """Forgets what it knows of the container: it may be another by now."""
        for name in ("_properties", "partition_paths", "_feed_ranges"):
            self.__dict__.pop(name, None)

    def asked_at(self) -> datetime | None:
        """The server's time as it answers; None if it does not say."""
        dates: list[str] = []

        def noted(headers: Mapping[str, str], *_: Any) -> None:
            dates.extend(value for name, value in headers.items() if name.lower() == "date")

        for attempt in self._access.attempts("ask for the time"):
            with attempt:
                self.proxy.read(response_hook=noted)
        return parsedate_to_datetime(dates[-1]) if dates else None

    def resource(self) -> tuple[Any, ...] | None:
        """What the server has given the container when it was made and last changed; None if there is none.

        Resource ids of two accounts may be alike, etags are not.
        """
        try:
            with self._access.once("read the container"):
                properties = self.proxy.read()
        except (NotInitialized, SourceMissing):
            return None
        return tuple(properties.get(name) for name in ("_rid", "_self", "_etag", "_ts"))

    def key_of(self, record: Record) -> Key:
        """The key of a whole document."""
        return (*(partition_part(record, path) for path in self.partition_paths), record["id"])

    def all(self, operation: str, query: Query) -> list[Any]:
        """The query's items."""
        for attempt in self._access.attempts(operation):
            with attempt:
                items = list(self.items(query))
        return items

    def all_by_range(self, operation: str, query: Query) -> list[Any]:
        """The same, in no order: each physical partition asked for itself, side by side, and retried for itself."""
        found = self._access.side_by_side(
            operation, self._feed_ranges, lambda range_: list(self.items(query, feed_range=range_))
        )
        return [item for part in found for item in part]

    @cached_property
    def _feed_ranges(self) -> list[dict[str, Any] | None]:
        """What each physical partition holds; where there is but one, everything (None). One that is split later on is
        then two to the SDK as well.

        Asked once, until `forget`.
        """
        for attempt in self._access.attempts("read the feed ranges"):
            with attempt:
                found = list(self.proxy.read_feed_ranges())
        return [*found] if len(found) > 1 else [None]

    def one_by_one(self, operation: str, query: Query) -> Iterator[Any]:
        """The query's items as they come. Not retried as a whole; the SDK retries each of its pages."""
        return self._access.stream(operation, self.items(query))

    def numbers(self, queries: Sequence[Query]) -> list[float | None]:
        """What counts or sums come to, asked for side by side; None for one that the server does not give."""

        def number(query: Query) -> float | None:
            parts = [value for value in self.items(query) if isinstance(value, int | float)]
            return sum(parts) if parts else None  # some give it in parts

        return self._access.side_by_side("count", queries, number)

    def by_ids(self, operation: str, keys: Sequence[Key], what: str) -> list[Any]:
        """`what` of the service's documents with these ids, whatever their partition."""
        queries = [self._queries.by_ids(part, what, of_service=True) for part in batched(keys, _IDS_AT_ONCE)]
        found = self._access.side_by_side(operation, queries, lambda query: list(self.items(query)))
        return [item for part in found for item in part]

    def keys_of_ids(self, keys: Sequence[Key]) -> set[Key]:
        """The keys of the service's documents with these ids, whatever their partition."""
        items = self.by_ids("look up ids", keys, self._queries.key(self.partition_paths))
        return {key_in(item, len(self.partition_paths)) for item in items}

    def row_in(self, item: Record) -> StampRow:
        """The row of an item that a query for stamps gave."""
        return self._queries.row_in(item, len(self.partition_paths))

    def documents(self, keys: Sequence[Key], *, of_service: bool) -> Iterator[list[Record]]:
        """Those of these keys, looked up side by side; at once no more than the byte limit of a batch."""
        left = [set(part) for part in batched(keys, _IDS_AT_ONCE)]
        while left:
            max_bytes = self._limits.batch_bytes // len(left)

            def one(part: set[Key], max_bytes: int = max_bytes) -> tuple[list[Record], bool]:
                items = self.items(self._queries.by_ids(part, "*", of_service=of_service))
                return _up_to((item for item in items if self.key_of(item) in part), len(part), max_bytes)

            found = self._access.side_by_side("read documents", left, one)
            if records := [record for some, _ in found for record in some]:
                yield records
            cut_short = ((part, some) for part, (some, complete) in zip(left, found, strict=True) if not complete)
            rest = (part.difference(map(self.key_of, some)) for part, some in cut_short)
            left = [part for part in rest if part]

    def every_document(self, chunk: Chunk) -> Iterator[list[Record]]:
        """The service's documents in the chunk, by one query, in batches. Remembers the keys it has given, to go on
        where an answer broke off."""
        seen: set[Key] = set()

        def opened() -> Iterator[Record]:
            items = self.items(self._queries.within(chunk, "*"))
            return (item for item in items if self.key_of(item) not in seen)

        def take(items: Iterator[Record]) -> list[Record]:
            return _up_to(items, self._limits.batch_size, self._limits.batch_bytes)[0]

        for records in self._access.pieces("read documents", opened, take):
            seen.update(map(self.key_of, records))
            yield records

    def written_since(self, seconds: int) -> Iterator[list[dict[str, Any]]]:
        """What `Queries.since` selects, each item once, in the order of their writes, up to 5,000 at a time.

        Goes on where an answer broke off; so it remembers the items of the second that it has reached.
        """
        paths, reached = self.partition_paths, seconds
        seen: set[tuple[Any, ...]] = set()

        def opened() -> Iterator[dict[str, Any]]:
            items = self.items(self._queries.since(reached, paths))
            return (item for item in items if self._queries.row_in(item, len(paths)) not in seen)

        def take(items: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
            return list(islice(items, _STAMPS_AT_ONCE))

        for piece in self._access.pieces("read what changed", opened, take):
            last = piece[-1]["ts"]
            seen = seen if last == reached else set()
            seen = seen | {self._queries.row_in(item, len(paths)) for item in piece if item["ts"] == last}
            reached = last
            yield piece

    def items(self, query: Query, feed_range: dict[str, Any] | None = None) -> Iterator[Any]:
        """The query's items, of everything or of a feed range, as the SDK gives them."""
        where = {"enable_cross_partition_query": True} if feed_range is None else {"feed_range": feed_range}
        return iter(self.proxy.query_items(query.text, parameters=query.parameters, **where))


def _up_to(items: Iterator[Record], most: int, max_bytes: int) -> tuple[list[Record], bool]:
    """The first of the items, at least one, up to a number and a size; and whether these were all."""
    records: list[Record] = []
    size = 0
    for item in items:
        records.append(item)
        size += len(json.dumps(item))
        if len(records) >= most or size > max_bytes:
            return records, False
    return records, True
