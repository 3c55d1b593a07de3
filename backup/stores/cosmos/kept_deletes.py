"""The copies of deleted documents that stay in a backup's container, marked with the time of their delete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from backup.core.batched import batched
from backup.core.model import Action, Key
from backup.stores.cosmos.container import CosmosContainer
from backup.stores.cosmos.documents import marked
from backup.stores.cosmos.entry_documents import utc_text
from backup.stores.cosmos.queries import Queries
from backup.stores.cosmos.service_documents import ServiceDocuments, raise_refused
from backup.stores.cosmos.writes import CosmosWrites
from backup.stores.keeping import Keep


class CosmosKeptDeletes:
    """The marked copies of one backup."""

    def __init__(
        self,
        container: CosmosContainer,
        queries: Queries,
        documents: ServiceDocuments,
        writes: CosmosWrites,
        batch_size: int,
        label: str,
    ) -> None:
        self._container, self._queries, self._documents, self._writes = container, queries, documents, writes
        self._batch_size, self._label = batch_size, label

    def mark(self, keys: Sequence[Key], keep: Keep, at: datetime) -> None:
        refused: dict[Key, str] = {}
        for part in batched(keys, self._batch_size):
            for documents in self._container.documents(part, of_service=True):
                keep([self._documents.image(document, Action.DELETED) for document in documents], None)
                refused |= self._writes.upsert([marked(document, utc_text(at)) for document in documents])
        raise_refused("mark", refused, self._label)

    def mask(self, check: Callable[[], None]) -> int:
        """As `KeptDeletes.mask`."""
        masked = 0
        for documents in self._container.deleted_documents():
            copies = [copy for document in documents if (copy := self._documents.masked_anew(document)) is not None]
            check()
            raise_refused("mask", self._writes.upsert(copies), self._label)
            masked += len(copies)
        return masked

    def count(self) -> int:
        """As `KeptDeletes.count`; one query."""
        [count] = self._container.numbers([self._queries.deleted("VALUE COUNT(1)")])
        return int(count or 0)
