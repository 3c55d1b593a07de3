"""Writes and deletes a container's documents; those of one partition key in batches, where the server has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from threading import Lock
from typing import Any, NamedTuple

from azure.core import MatchConditions
from azure.cosmos import ContainerProxy
from azure.cosmos.exceptions import CosmosBatchOperationError, CosmosHttpResponseError, CosmosResourceNotFoundError

from backup.core.model import Key, Record
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.cosmos.addresses import Moves, moves_of, taken_by
from backup.stores.cosmos.container import Address, CosmosContainer, Lying
from backup.stores.cosmos.documents import is_nameable, is_read_alike, partition_value, size_of, with_least_mark
from backup.stores.cosmos.errors import http_status_of, is_missing, is_refusal, is_transient, reason_of

# The server takes 100 operations and 2 MiB at once.
_AT_ONCE = 100
_BYTES_AT_ONCE = 1 << 20
_TOO_LARGE, _CONFLICT, _CHANGED = 413, 409, 412
_IF_UNCHANGED = "if_match_etag"
_UNKNOWN_BATCH = {400, 404, 405, 500, 501}  # how a server without batches may answer; another status does not say that


class _Write(NamedTuple):
    """A key, where its document lies or will lie, and the operation on it as the SDK names it in a batch: its kind, its
    arguments, and maybe its options."""

    key: Key
    address: Address
    operation: tuple[Any, ...]


class CosmosWrites:
    """Upserts and deletes, all safe to repeat, for any number of threads; as many at once as the account takes.

    A transactional batch saves requests, not request units. A batch that fails has changed nothing: its documents are
    then written one by one, each with its own retries. After the first answer of a server without batches, no more are
    sent. Under a ceiling of request units none are sent: a single one may cost more than a second allows. But a
    document whose id no address can name always goes in a batch, alone if need be.

    `upsert` and `delete` return why the server refused documents, by key. All others are done by then.
    """

    def __init__(self, access: CosmosAccess, container: CosmosContainer) -> None:
        self._access, self._container = access, container
        self._lock = Lock()
        self._knows_batches: bool | None = None  # None: no batch was sent yet

    def moves(self, documents: Mapping[Key, Record]) -> Moves:
        """As `moves_of`, of this container."""
        return moves_of(self._container, documents)

    def upsert(self, documents: Iterable[Record], moves: Moves | None = None) -> dict[Key, str]:
        """Writes the documents, over those that exist, but for those that the `moves` refuse, which are else asked
        for here."""
        by_key = {self._container.key_of(document): document for document in documents}
        moves = self.moves(by_key) if moves is None else moves
        # A copy that has to move leaves its old address first. If the run ends there, the next one finds it missing and
        # writes it; the other way round there would be two.
        refused = moves.refused | self._carry_out("move documents", map(_leave, moves.old))
        writes = (
            _Write(
                key,
                self._container.address_of(key, document),
                # Another thread may write another document to the same address: then the server refuses the second.
                ("create" if key in moves.new else "upsert", (dict(document),)),
            )
            for key, document in by_key.items()
            if key not in refused
        )
        return refused | self._carry_out("write documents", writes)

    def delete(self, keys: Sequence[Key]) -> dict[Key, str]:
        """Deletes the documents; no error for one that does not exist."""
        addresses: Iterable[tuple[Key, Address]] = ((key, key[:-1]) for key in keys)
        if self._container.has_other_addresses:
            wanted = set(keys)
            addresses = [(copy.key, copy.address) for copy in self._container.lying(wanted) if copy.key in wanted]
        writes = (_Write(key, address, ("delete", (key[-1],))) for key, address in addresses)
        return self._carry_out("delete documents", writes)

    def _carry_out(self, operation: str, writes: Iterable[_Write]) -> dict[Key, str]:
        one_by_one = self._access.throttle.has_ceiling or self._knows_batches is False
        singles: list[_Write] = []
        batches: list[Sequence[_Write]] = []
        for batch in ([write] for write in writes) if one_by_one else _batches(writes):
            if len(batch) > 1 or (self._knows_batches is not False and not is_read_alike(batch[0].address)):
                batches.append(batch)
            else:
                singles += batch
        not_done = self._access.side_by_side(operation, batches, self._as_batch, fenced=True)
        singles += (write for batch in not_done for write in batch)
        reasons = self._access.side_by_side(operation, singles, self._alone, fenced=True)
        return {write.key: reason for write, reason in zip(singles, reasons, strict=True) if reason is not None}

    def _as_batch(self, writes: Sequence[_Write]) -> Sequence[_Write]:
        """Carries out writes of one partition key as a batch. Returns those that were not done."""
        if self._knows_batches is False:
            return writes
        try:
            self._batch(writes)
        except CosmosBatchOperationError:
            return writes
        except CosmosHttpResponseError as error:
            if _may_lack_batches(error):
                self._note_batches(known=False)
            return writes
        return ()

    def _batch(self, writes: Sequence[_Write]) -> None:
        # The app says the partition key here. For a single upsert the SDK reads it from the document.
        partition = partition_value(writes[0].address)
        self._container.proxy.execute_item_batch([write.operation for write in writes], partition)
        self._note_batches(known=True)

    def _note_batches(self, *, known: bool) -> None:
        """Notes whether the server has batches. One batch that was carried out proves it for good."""
        with self._lock:
            self._knows_batches = known or bool(self._knows_batches)

    def _alone(self, write: _Write) -> str | None:
        """Carries out one write. Returns why the server refused it; None if it did not."""
        carry_out = self._by_address if is_nameable(write.key[-1]) else self._in_a_batch
        try:
            return carry_out(write)
        except (CosmosHttpResponseError, CosmosBatchOperationError) as error:
            kind, (document,), *_ = write.operation
            if kind == "create" and http_status_of(error)[0] == _CONFLICT:
                reason = taken_by(self._container, write.key, write.address)  # None: by an earlier try of this write
                return reason or self._alone(write._replace(operation=("upsert", write.operation[1])))
            if kind == "delete" and http_status_of(error)[0] == _CHANGED:
                # Another document is there since an earlier try; or the same one, which somebody has changed.
                copies = self._container.lying([write.key])
                still = [copy for copy in copies if (copy.key, copy.address) == (write.key, write.address)]
                return self._alone(_leave(still[0])) if still else None
            if not is_refusal(error):
                raise
            is_too_large = kind != "delete" and http_status_of(error)[0] == _TOO_LARGE
            smaller = with_least_mark(document) if is_too_large else None
            if smaller is not None:
                return self._alone(write._replace(operation=(kind, (smaller,))))
            return reason_of(error) + ("" if kind == "delete" else f" It has {size_of(document):,} bytes as JSON.")

    def _by_address(self, write: _Write) -> None:
        container = self._container.proxy
        kind, (item,), *options = write.operation
        if kind != "delete":
            (container.create_item if kind == "create" else container.upsert_item)(item, no_response=True)
            return
        unchanged: dict[str, Any] = {}
        if options:
            unchanged = {"etag": options[0][_IF_UNCHANGED], "match_condition": MatchConditions.IfNotModified}
        try:
            container.delete_item(item, partition_key=partition_value(write.address), **unchanged)
        except CosmosResourceNotFoundError as error:  # an earlier attempt may have deleted it …
            if not is_missing(error):
                raise
            container.read()  # … unless the container itself is missing

    def _in_a_batch(self, write: _Write) -> str | None:
        partition = partition_value(write.address)
        try:
            reason = batch_of_one(self._container.proxy, write.operation, partition, known=bool(self._knows_batches))
        except CosmosBatchOperationError as error:
            self._note_batches(known=True)
            if write.operation[0] != "delete" or not is_missing(error):
                raise
            return None
        if reason is None:
            self._note_batches(known=True)
        return reason


def _leave(copy: Lying) -> _Write:
    """Deletes the copy, if it is still as it was. A try that is repeated must not meet the copy that came after it."""
    return _Write(copy.key, copy.address, ("delete", (copy.key[-1],), {_IF_UNCHANGED: copy.etag}))


def batch_of_one(proxy: ContainerProxy, operation: Any, partition: Any, *, known: bool = False) -> str | None:
    """Carries out one operation as a batch. Returns why it was not done if the server seems to have no batches, but
    raises the error if it is `known` to have them."""
    for is_last in (False, True):  # one such answer may be an accident
        try:
            proxy.execute_item_batch([operation], partition)
        except CosmosHttpResponseError as error:
            if known or not _may_lack_batches(error):
                raise
            if is_last:
                return f"Only a batch can name its id, and this server knows none: {reason_of(error)}"
        else:
            break
    return None


def _may_lack_batches(error: CosmosHttpResponseError) -> bool:
    """Whether this may be the answer of a server without batches."""
    status, sub_status = http_status_of(error)
    return status in _UNKNOWN_BATCH and not (sub_status and (is_transient(error) or is_missing(error)))


def _batches(writes: Iterable[_Write]) -> Iterator[list[_Write]]:
    """The writes in batches: each of one partition key, and small enough for the server."""
    for _, group in groupby(sorted(writes, key=lambda write: write.address), lambda write: write.address):
        same_partition = list(group)
        if len(same_partition) == 1:  # a write that goes alone may have any size
            yield same_partition
            continue
        batch: list[_Write] = []
        size = 0
        for write in same_partition:
            write_bytes = size_of(write.operation)
            if batch and (len(batch) == _AT_ONCE or size + write_bytes > _BYTES_AT_ONCE):
                yield batch
                batch, size = [], 0
            batch.append(write)
            size += write_bytes
        yield batch
