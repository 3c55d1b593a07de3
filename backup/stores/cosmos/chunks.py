"""A container's chunks: their bounds, their numbers of documents and their fingerprints."""

from __future__ import annotations

from collections.abc import Iterator

from backup.core.errors import StoreError
from backup.core.model import Chunk, Fingerprint, Key
from backup.stores.cosmos.container import CosmosContainer
from backup.stores.cosmos.queries import SUM_STEP, Queries
from backup.stores.values import Limits

_EXACT = 1 << 53  # whole numbers up to here are exact in JSON
_MANY = _EXACT >> 31  # this many times of 31 bits add up to less than that


class CosmosChunks:
    """The chunks of one service's documents in a container."""

    def __init__(self, container: CosmosContainer, queries: Queries, limits: Limits, label: str) -> None:
        self._container, self._queries, self._limits, self._label = container, queries, limits, label

    def count(self, chunk: Chunk) -> int:
        """The number of documents in the chunk; one query. Raises StoreError if the server gives no number."""
        [count] = self._container.numbers([self._queries.count(chunk)])
        if count is None:
            raise StoreError(f"The {self._label} did not say how many documents it has.")
        return int(count)

    def within(self, within: Chunk) -> Iterator[Chunk]:
        """Chunks that are ranges of the document id alone, across all partitions."""
        after = within.after
        if self.count(within) > self._limits.chunk_size:
            for bound in self._bounds(within):
                yield Chunk(after, bound)
                after = bound
        yield Chunk(after, within.upto)

    def _bounds(self, within: Chunk) -> Iterator[Key]:
        # No bound has a character from U+D800 on: servers and Python sort such texts differently. And none is less than
        # one before it: the SDK begins again with the ids of a partition that the server splits meanwhile.
        documents, bound = 0, within.after[0] if within.after is not None else ""
        for name in self._container.stream("list ids", self._queries.ids(within)):
            documents += 1
            if documents >= self._limits.chunk_size and name > bound and max(name) < "\ud800":
                documents, bound = 0, name
                yield (name,)

    def fingerprint(self, chunk: Chunk) -> Fingerprint | None:
        """The number of documents and the sum of their times of last write; for copies the times in their notes.

        These times only grow, so no change takes away from the sum what another one adds. But they have whole seconds:
        a change within the second of the last copy does not show. A copy without its note makes the sums differ. None
        if the server gives no exact numbers. Costs two queries side by side, more from four million documents on. A
        range index may answer them.
        """
        count, *sums = self._container.numbers([self._queries.count(chunk), *self._queries.sums(chunk, many=False)])
        if count is None:
            return None
        if count >= _MANY:
            sums = self._container.numbers(self._queries.sums(chunk, many=True))
        exact = [value or 0 for value in sums]  # some servers give no sum where no document has a time
        if any(value > _EXACT or value != int(value) for value in exact):
            return None
        total = sum(int(value) * unit for value, unit in zip(exact, (1, SUM_STEP), strict=False))
        return Fingerprint("count and sum of _ts", int(count), (0, total))
