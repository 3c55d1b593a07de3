"""Documents written to a container and deleted from it; those of one partition key together, where the server can."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from azure.cosmos.exceptions import CosmosBatchOperationError, CosmosHttpResponseError, CosmosResourceNotFoundError

from backup.models import Key, Record
from backup.stores.cosmos_access import CosmosAccess
from backup.stores.cosmos_container import CosmosContainer
from backup.stores.cosmos_documents import is_read_alike, partition_value

# The server takes 100 operations and 2 MiB at once.
_AT_ONCE = 100
_BYTES_AT_ONCE = 1 << 20
_FOR_NOW = {408, 413, 429, 449, 503}  # what says nothing of whether a server knows batches


class _Write(NamedTuple):
    """What is to be done to the document of a key, as the SDK names it in a batch."""

    key: Key
    what: tuple[str, tuple[Any, ...]]


class CosmosWrites:
    """Upserts and deletes that may all be repeated, for any number of threads; as many at once as the account takes.

    A transactional batch saves requests, no request units. One that fails has done nothing, and is then done document
    by document, each with retries of its own. The first answer of a server that knows no batches ends their use here.
    Under a ceiling of request units there are none: one alone may cost more than a second has.
    """

    def __init__(self, access: CosmosAccess, container: CosmosContainer) -> None:
        self._access, self._container = access, container
        self._knows_batches: bool | None = None  # None: not asked yet

    def upsert(self, documents: Sequence[Record]) -> None:
        """Writes the documents, whatever is there."""
        writes = (_Write(self._container.key_of(one), ("upsert", (dict(one),))) for one in documents)
        self._carry_out("write documents", writes)

    def delete(self, keys: Sequence[Key]) -> None:
        """Deletes the documents; one that is gone already is no error."""
        self._carry_out("delete documents", (_Write(key, ("delete", (key[-1],))) for key in keys))

    def _carry_out(self, operation: str, writes: Iterable[_Write]) -> None:
        apart = self._access.pace.has_ceiling or self._knows_batches is False
        parts = ([write] for write in writes) if apart else _together(writes)
        left = self._access.side_by_side(operation, list(parts), self._as_one)
        self._access.side_by_side(operation, [write for part in left for write in part], self._alone)

    def _as_one(self, writes: Sequence[_Write]) -> Sequence[_Write]:
        """Carries out writes of one partition key; returns those that are left to be done one by one."""
        partition = writes[0].key[:-1]
        if len(writes) == 1 and (self._knows_batches is False or is_read_alike(partition)):
            self._alone(writes[0])
            return ()
        if self._knows_batches is False:
            return writes
        try:
            # The partition key is told here; for a single upsert the SDK takes it out of the document.
            self._container.proxy.execute_item_batch([write.what for write in writes], partition_value(partition))
        except CosmosBatchOperationError:
            return writes
        except CosmosHttpResponseError as error:
            if error.status_code not in _FOR_NOW:
                self._knows_batches = bool(self._knows_batches)
            return writes
        self._knows_batches = True
        return ()

    def _alone(self, write: _Write) -> None:
        container = self._container.proxy
        kind, (what,) = write.what
        if kind == "upsert":
            container.upsert_item(what, no_response=True)
            return
        try:
            container.delete_item(what, partition_key=partition_value(write.key[:-1]))
        except CosmosResourceNotFoundError:  # gone already, for an earlier try may have been carried out …
            container.read()  # … unless it is the container that is gone


def _together(writes: Iterable[_Write]) -> Iterator[list[_Write]]:
    """The writes in parts of one partition key that the server takes at once."""
    for _, group in groupby(sorted(writes, key=lambda write: write.key[:-1]), lambda write: write.key[:-1]):
        same = list(group)
        if len(same) == 1:  # the size of what goes alone does not matter
            yield same
            continue
        part: list[_Write] = []
        size = 0
        for write in same:
            write_bytes = len(json.dumps(write.what))
            if part and (len(part) == _AT_ONCE or size + write_bytes > _BYTES_AT_ONCE):
                yield part
                part, size = [], 0
            part.append(write)
            size += write_bytes
        yield part
