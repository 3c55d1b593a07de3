"""Documents written to a container and deleted from it; those of one partition key together, where the server can."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from threading import Lock
from typing import Any, NamedTuple

from azure.cosmos import ContainerProxy
from azure.cosmos.exceptions import CosmosBatchOperationError, CosmosHttpResponseError, CosmosResourceNotFoundError

from backup.core.model import Key, Record
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.cosmos.container import CosmosContainer
from backup.stores.cosmos.documents import is_nameable, is_read_alike, partition_value, size_of, with_least_mark
from backup.stores.cosmos.errors import http_status_of, is_about_one, is_missing, is_transient, reason_of

# The server takes 100 operations and 2 MiB at once.
_AT_ONCE = 100
_BYTES_AT_ONCE = 1 << 20
_TOO_LARGE = 413
_UNKNOWN_BATCH = {400, 404, 405, 500, 501}  # what a server may say that knows no batches; all else says nothing of it


class _Write(NamedTuple):
    """What is to be done to the document of a key, as the SDK names it in a batch."""

    key: Key
    what: tuple[str, tuple[Any, ...]]


class CosmosWrites:
    """Upserts and deletes that may all be repeated, for any number of threads; as many at once as the account takes.

    A transactional batch saves requests, no request units. One that fails has done nothing, and is then done document
    by document, each with retries of its own. The first answer of a server that knows no batches ends their use here.
    Under a ceiling of request units there are none: one alone may cost more than a second has. But a document whose id
    no address can name always goes in a batch, if need be of its own.

    Both give why the server does not take single documents, by key; all others are written by then.
    """

    def __init__(self, access: CosmosAccess, container: CosmosContainer) -> None:
        self._access, self._container = access, container
        self._lock = Lock()
        self._knows_batches: bool | None = None  # None: not asked yet

    def upsert(self, documents: Sequence[Record]) -> dict[Key, str]:
        """Writes the documents, whatever is there."""
        writes = (_Write(self._container.key_of(one), ("upsert", (dict(one),))) for one in documents)
        return self._carry_out("write documents", writes)

    def delete(self, keys: Sequence[Key]) -> dict[Key, str]:
        """Deletes the documents; one that is gone already is no error."""
        return self._carry_out("delete documents", (_Write(key, ("delete", (key[-1],))) for key in keys))

    def _carry_out(self, operation: str, writes: Iterable[_Write]) -> dict[Key, str]:
        apart = self._access.throttle.has_ceiling or self._knows_batches is False
        alone: list[_Write] = []
        parts: list[Sequence[_Write]] = []
        for part in ([write] for write in writes) if apart else _together(writes):
            if len(part) > 1 or (self._knows_batches is not False and not is_read_alike(part[0].key[:-1])):
                parts.append(part)
            else:
                alone += part
        left = self._access.side_by_side(operation, parts, self._as_one, fenced=True)
        alone += (write for part in left for write in part)
        reasons = self._access.side_by_side(operation, alone, self._alone, fenced=True)
        return {write.key: reason for write, reason in zip(alone, reasons, strict=True) if reason is not None}

    def _as_one(self, writes: Sequence[_Write]) -> Sequence[_Write]:
        """Carries out writes of one partition key; returns those that are left to be done one by one."""
        if self._knows_batches is False:
            return writes
        try:
            self._batch(writes)
        except CosmosBatchOperationError:
            return writes
        except CosmosHttpResponseError as error:
            if _is_of_no_batches(error):
                self._note_batches(known=False)
            return writes
        return ()

    def _batch(self, writes: Sequence[_Write]) -> None:
        # The partition key is told here; for a single upsert the SDK takes it out of the document.
        partition = partition_value(writes[0].key[:-1])
        self._container.proxy.execute_item_batch([write.what for write in writes], partition)
        self._note_batches(known=True)

    def _note_batches(self, *, known: bool) -> None:
        """Notes what an answer says; a server that has carried out one batch knows them, whatever else it says."""
        with self._lock:
            self._knows_batches = known or bool(self._knows_batches)

    def _alone(self, write: _Write) -> str | None:
        """Carries out one write; returns why the server does not take it, if it does not."""
        one = self._by_address if is_nameable(write.key[-1]) else self._in_a_batch
        try:
            return one(write)
        except (CosmosHttpResponseError, CosmosBatchOperationError) as error:
            if not is_about_one(error):
                raise
            kind, (what,) = write.what
            smaller = with_least_mark(what) if kind == "upsert" and http_status_of(error)[0] == _TOO_LARGE else None
            if smaller is not None:
                return self._alone(_Write(write.key, ("upsert", (smaller,))))
            return reason_of(error) + (f" It has {size_of(what):,} bytes as JSON." if kind == "upsert" else "")

    def _by_address(self, write: _Write) -> None:
        container = self._container.proxy
        kind, (what,) = write.what
        if kind == "upsert":
            container.upsert_item(what, no_response=True)
            return
        try:
            container.delete_item(what, partition_key=partition_value(write.key[:-1]))
        except CosmosResourceNotFoundError as error:  # gone already, for an earlier try may have been carried out …
            if not is_missing(error):
                raise
            container.read()  # … unless it is the container that is gone

    def _in_a_batch(self, write: _Write) -> str | None:
        partition = partition_value(write.key[:-1])
        try:
            reason = batch_of_one(self._container.proxy, write.what, partition, known=bool(self._knows_batches))
        except CosmosBatchOperationError as error:
            self._note_batches(known=True)
            if write.what[0] != "delete" or not is_missing(error):
                raise
            return None
        if reason is None:
            self._note_batches(known=True)
        return reason


def batch_of_one(proxy: ContainerProxy, what: Any, partition: Any, *, known: bool = False) -> str | None:
    """Carries out one operation as a batch; returns why it was not, if the server seems to know no batches, unless it
    is `known` to know them."""
    for last in (False, True):  # one such answer may be an accident
        try:
            proxy.execute_item_batch([what], partition)
        except CosmosHttpResponseError as error:
            if known or not _is_of_no_batches(error):
                raise
            if last:
                return f"Only a batch can name its id, and this server knows none: {reason_of(error)}"
        else:
            break
    return None


def _is_of_no_batches(error: CosmosHttpResponseError) -> bool:
    """Whether a server may say so that knows no batches."""
    status, sub_status = http_status_of(error)
    return status in _UNKNOWN_BATCH and not (sub_status and (is_transient(error) or is_missing(error)))


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
            write_bytes = size_of(write.what)
            if part and (len(part) == _AT_ONCE or size + write_bytes > _BYTES_AT_ONCE):
                yield part
                part, size = [], 0
            part.append(write)
            size += write_bytes
        yield part
