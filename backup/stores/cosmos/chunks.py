"""A container's chunks: how many documents they have, where they are cut, and their fingerprints."""

from __future__ import annotations

from collections.abc import Iterator

from backup.core.errors import StoreError
from backup.core.model import Chunk, Fingerprint, Key
from backup.stores.cosmos.container import CosmosContainer
from backup.stores.cosmos.queries import SUM_STEP, Queries
from backup.stores.values import Limits

_EXACT = 1 << 53  # whole numbers up to here are exact in JSON
_MANY = _EXACT >> 31  # so many times of 31 bits may be summed


class CosmosChunks:
    """The chunks of one service's documents in a container."""

    def __init__(self, container: CosmosContainer, queries: Queries, limits: Limits, label: str) -> None:
        self._container, self._queries, self._limits, self._label = container, queries, limits, label

    def count(self, chunk: Chunk) -> int:
        """The documents in it; one query."""
        [found] = self._container.numbers([self._queries.count(chunk)])
        if found is None:
            raise StoreError(f"The {self._label} did not say how many documents it has.")
        return int(found)

    def within(self, within: Chunk) -> Iterator[Chunk]:
        """Ranges of the document id alone, whatever the partition."""
        after = within.after
        if self.count(within) > self._limits.chunk_size:
            for bound in self._bounds(within):
                yield Chunk(after, bound)
                after = bound
        yield Chunk(after, within.upto)

    def _bounds(self, within: Chunk) -> Iterator[Key]:
        # Bounds have no character from U+D800 on, where servers and Python order text differently.
        since = 0
        for name in self._container.one_by_one("list ids", self._queries.ids(within)):
            since += 1
            if since >= self._limits.chunk_size and max(name, default="") < "\ud800":
                since = 0
                yield (name,)

    def fingerprint(self, chunk: Chunk) -> Fingerprint | None:
        """Number of documents and sum of their times of last write: `_ts` here, the source's as noted in a copy there.

        These times only grow, so what one change adds to the sum no other takes away; but they have whole seconds: a
        change within the second of the last copy does not show. A copy without its note makes the sums differ. Costs
        two queries side by side (more from four million documents on), which a range index may answer.
        """
        count, *sums = self._container.numbers([self._queries.count(chunk), *self._queries.sums(chunk, many=False)])
        if count is None:
            return None
        if count >= _MANY:
            sums = self._container.numbers(self._queries.sums(chunk, many=True))
        exact = [value or 0 for value in sums]  # of no documents, or none with a time, some servers give no sum
        if any(value > _EXACT or value != int(value) for value in exact):
            return None
        total = sum(int(value) * of for value, of in zip(exact, (1, SUM_STEP), strict=False))
        return Fingerprint("count and sum of _ts", int(count), (0, total))
