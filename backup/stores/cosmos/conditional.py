"""Writes and deletes documents only if nobody changed them since they were read: by etag, and inserts by create."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from azure.core import MatchConditions
from azure.cosmos.exceptions import CosmosBatchOperationError, CosmosHttpResponseError

from backup.core.batched import batched
from backup.core.errors import TransientStoreError
from backup.core.model import Image, Key, Record
from backup.core.suggestions import quantity
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.cosmos.addresses import moves_of
from backup.stores.cosmos.container import Address, CosmosContainer
from backup.stores.cosmos.documents import is_nameable, is_read_alike, partition_value
from backup.stores.cosmos.errors import http_status_of, is_missing, is_refusal, reason_of
from backup.stores.cosmos.writes import batch_of_one
from backup.stores.keeping import Accept, Keep
from backup.stores.values import Written

_READS = 20  # of a document that others keep changing
_OVERTAKEN = {409, 412}
_NOT_WHOLE = "It is not there any more, and its masked properties cannot be restored."

MakeImage = Callable[[Record], Image]


class Conditional(NamedTuple):
    """The new `document` of a key, None to delete it; and the `etag` that it must have now, None for no document.

    `address`: where it will lie, or lies. `moves_from`: where it lies now, if that is another address.
    """

    key: Key
    document: Record | None
    etag: str | None
    address: Address
    moves_from: Address | None = None


class ConditionalWrites:
    """Writes of single documents, side by side.

    A write that is retried may meet its own result. It then counts as overtaken, and the caller reads the document
    again.
    """

    def __init__(self, access: CosmosAccess, container: CosmosContainer, batch_size: int) -> None:
        self._access, self._container, self._batch_size = access, container, batch_size

    def change(
        self,
        accept: Accept,
        keep: Keep | None,
        wanted: Mapping[Key, Record | None],
        make_image: MakeImage,
        merge: Callable[[Record, Record], Record] | None = None,
        *,
        deletes: bool,
    ) -> tuple[Written, dict[Key, str]]:
        """Writes these records, and deletes the keys with None, if `accept` allows it.

        Changes a document only if it still has the etag of the image that was accepted and kept. A document that
        somebody changed meanwhile is read again. Returns what was written, and why the server refused documents, by
        key. Raises TransientStoreError after 20 reads; then no change of others was overwritten.

        With `merge`, a document becomes what `merge` makes of it and the wanted one. Then no document is created, for
        nobody has the rest of it.
        """
        written = Written()
        refused: dict[Key, str] = {}
        for part in batched([*wanted], self._batch_size):
            pending = list(part)
            for _ in range(_READS):
                accepted, not_accepted = self._accepted(accept, keep, pending, make_image)
                etags = {key: document["_etag"] for key, document in accepted.items()}
                settled = etags.keys() | not_accepted
                new = [key for key in pending if key not in settled and wanted[key] is not None]
                if merge is not None:
                    refused |= dict.fromkeys(new, _NOT_WHOLE)
                    new = []
                documents = {key: wanted[key] for key in (*etags, *new)}
                for key, document in accepted.items():
                    if merge is not None and (copy := wanted[key]) is not None:
                        documents[key] = merge(document, copy)
                new_documents = {key: document for key, document in documents.items() if document is not None}
                taken = moves_of(self._container, new_documents).refused
                writes = [
                    self._conditional(key, document, accepted.get(key))
                    for key, document in documents.items()
                    if key not in taken
                ]
                overtaken, reasons = self.carry_out(writes)
                reasons |= taken
                refused |= reasons
                not_done = overtaken | reasons.keys()
                inserted, done = frozenset(new) - not_done, frozenset(etags) - not_done
                if keep is not None:
                    keep((), None, [*inserted])
                changed = Written(inserted, updated=done, not_accepted=frozenset(not_accepted))
                if deletes:
                    changed = Written(deleted=done, not_accepted=frozenset(not_accepted))
                written, pending = written + changed, [*overtaken]
                if not pending:
                    break
            else:
                raise TransientStoreError(
                    f"Could not write {quantity(len(pending), 'document')} of the {self._access.label}: others wrote "
                    "first, each time.",
                    hint="No change of others was overwritten. Try again when fewer programs write to them.",
                )
        return written, refused

    def _conditional(self, key: Key, document: Record | None, existing: Record | None) -> Conditional:
        old = None if existing is None else self._container.address_of(key, existing)
        new = old if document is None else self._container.address_of(key, document)
        etag = None if existing is None else existing["_etag"]
        return Conditional(key, document, etag, new or key[:-1], None if old == new else old)

    def _accepted(
        self, accept: Accept, keep: Keep | None, keys: Sequence[Key], make_image: MakeImage
    ) -> tuple[dict[Key, Record], set[Key]]:
        """The documents that `accept` allows to change, and the keys of the others.

        Keeps the images of the documents that may change.
        """
        accepted: dict[Key, Record] = {}
        not_accepted: set[Key] = set()
        for records in self._container.documents(keys, of_service=False):
            by_key = {self._container.key_of(record): record for record in records}
            images = {key: make_image(record) for key, record in by_key.items()}
            not_accepted |= {key for key, image in images.items() if not accept(image)}
            accepted |= {key: record for key, record in by_key.items() if key not in not_accepted}
            if keep is not None:
                keep([image for key, image in images.items() if key not in not_accepted], None)
        return accepted, not_accepted

    def carry_out(self, writes: Sequence[Conditional]) -> tuple[set[Key], dict[Key, str]]:
        """Carries out the writes. Returns the keys of documents that somebody changed meanwhile, which stay as they
        are; and why the server refused documents, by key."""
        answers = self._access.side_by_side("write documents", writes, self._carry_out, fenced=True)
        reasons = {write.key: reason for write, reason in zip(writes, answers, strict=True) if reason is not None}
        overtaken = {key for key, reason in reasons.items() if not reason}
        return overtaken, {key: reason for key, reason in reasons.items() if reason}

    def _carry_out(self, write: Conditional) -> str | None:
        """Why the write was not done: "" if somebody changed the document meanwhile. None if it was done."""
        if write.moves_from is not None:  # it moves: the old one goes first, so that there are never two
            reason = self._carry_out(Conditional(write.key, None, write.etag, write.moves_from))
            return self._carry_out(write._replace(etag=None, moves_from=None)) if reason is None else reason
        has_address = is_nameable(write.key[-1])
        try:
            if has_address and is_read_alike(write.address):
                self._by_address(write)
            elif reason := self._as_batch(write):
                if not has_address:
                    return reason
                self._by_address(write)
        except (CosmosHttpResponseError, CosmosBatchOperationError) as error:
            if http_status_of(error)[0] in _OVERTAKEN or is_missing(error):
                return ""
            if not is_refusal(error):
                raise
            return reason_of(error)
        return None

    def _by_address(self, write: Conditional) -> None:
        key, document, etag = write[:3]
        if_unchanged: dict[str, Any] = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
        if document is None:
            self._container.proxy.delete_item(key[-1], partition_key=partition_value(write.address), **if_unchanged)
        elif etag is None:
            self._container.proxy.create_item(dict(document), no_response=True)
        else:
            self._container.proxy.replace_item(key[-1], dict(document), no_response=True, **if_unchanged)

    def _as_batch(self, write: Conditional) -> str | None:
        """Carries out the write as a batch: so the app, not the SDK, says the partition key. Returns why it was not
        done, if the server seems to have no batches."""
        key, document, etag = write[:3]
        operation: Any
        if document is None:
            operation = ("delete", (key[-1],), {"if_match_etag": etag})
        elif etag is None:
            operation = ("create", (dict(document),))
        else:
            operation = ("replace", (key[-1], dict(document)), {"if_match_etag": etag})
        return batch_of_one(self._container.proxy, operation, partition_value(write.address))
