"""Finds what was written lately to a container, by the `_ts` of its documents."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from backup.core.model import StampRow
from backup.stores.cosmos.container import CosmosContainer
from backup.stores.cosmos.queries import Queries


class CosmosIncremental:
    """The latest writes to one service's documents in a container."""

    def __init__(self, container: CosmosContainer, queries: Queries) -> None:
        self._container, self._queries = container, queries

    obstacle = None
    named_all = True

    @property
    def of(self) -> str:
        """As `Incremental.of`. Asks the server nothing that is known."""
        return self._container.named

    def watermark(self) -> str | None:
        """The greatest `_ts` of the service's documents; None if it has no documents."""
        answers = self._container.all("look for the newest", self._queries.newest())
        newest = [value for value in answers if isinstance(value, int | float)]
        return str(int(max(newest))) if newest else None

    def has_fallen(self, since: str, mark: str) -> bool:
        """As `Incremental.has_fallen`."""
        return int(mark) < int(since)

    def recent(self, since: str, overlap_seconds: float) -> Iterator[set[StampRow]]:
        """Stamp rows in the order of `_ts`, up to 5,000 at a time, from `overlap_seconds` before `since` on."""
        width = len(self._container.partition_paths) + 1
        for items in self._container.written_since(int(since) - ceil(overlap_seconds)):
            # A document that is written during the query may come twice. The later row is the current one.
            yield set({row[:width]: row for row in map(self._container.row_in, items)}.values())
