"""Documents written and deleted only while they are as they were looked at: by etag, and inserts by create."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from azure.core import MatchConditions
from azure.cosmos.exceptions import CosmosBatchOperationError, CosmosHttpResponseError

from backup.core.batched import batched
from backup.core.errors import TransientStoreError
from backup.core.model import Image, Key, Record
from backup.stores.base import Accept, Keep
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.cosmos.container import CosmosContainer
from backup.stores.cosmos.documents import is_nameable, is_read_alike, partition_value
from backup.stores.cosmos.errors import http_status_of, is_about_one, is_missing, reason_of
from backup.stores.cosmos.writes import batch_of_one
from backup.stores.values import Written

_LOOKS = 20  # at a document that others keep changing
_OVERTAKEN = {409, 412}

Imaged = Callable[[Record], Image]


class Conditional(NamedTuple):
    """What is to become of the document of a key: this one, or none; `etag` is the one it has, None where there is no
    document."""

    key: Key
    document: Record | None
    etag: str | None


class ConditionalWrites:
    """Writes of single documents, side by side. A repeated one meets what it did itself, and then counts as overtaken:
    so whoever asks looks at the document again."""

    def __init__(self, access: CosmosAccess, container: CosmosContainer, batch_size: int) -> None:
        self._access, self._container, self._batch_size = access, container, batch_size

    def change(
        self,
        accept: Accept,
        keep: Keep | None,
        wanted: Mapping[Key, Record | None],
        image: Imaged,
        *,
        deletes: bool,
    ) -> tuple[Written, dict[Key, str]]:
        """Writes these records, or deletes where there is None, as far as `accept` lets it: each document as long as it
        has the etag of the image that was accepted and kept. One that was changed meanwhile is looked at again. With
        why the server does not take single ones."""
        written = Written()
        refused: dict[Key, str] = {}
        for part in batched([*wanted], self._batch_size):
            left = list(part)
            for _ in range(_LOOKS):
                etags, alone = self._accepted(accept, keep, left, image)
                new = [key for key in left if key not in etags and key not in alone and wanted[key] is not None]
                writes = [Conditional(key, wanted[key], etags.get(key)) for key in (*etags, *new)]
                overtaken, reasons = self.carry_out(writes)
                refused |= reasons
                not_done = overtaken | reasons.keys()
                inserted, done = frozenset(new) - not_done, frozenset(etags) - not_done
                if keep is not None:
                    keep((), None, [*inserted])
                changed = Written(inserted, updated=done, left=frozenset(alone))
                if deletes:
                    changed = Written(deleted=done, left=frozenset(alone))
                written, left = written + changed, [*overtaken]
                if not left:
                    break
            else:
                raise TransientStoreError(
                    f"{len(left)} documents of the {self._access.label} were changed whenever they were to be written.",
                    hint="Nothing of others was overwritten. Try again when fewer write to them.",
                )
        return written, refused

    def _accepted(
        self, accept: Accept, keep: Keep | None, keys: Sequence[Key], image: Imaged
    ) -> tuple[dict[Key, str], set[Key]]:
        """The etags of the documents that may be changed, whose images are kept now; the keys of those that may not."""
        etags: dict[Key, str] = {}
        refused: set[Key] = set()
        for records in self._container.documents(keys, of_service=False):
            images = {self._container.key_of(one): image(one) for one in records}
            refused |= {key for key, one in images.items() if not accept(one)}
            etags |= {key: one["_etag"] for one in records if (key := self._container.key_of(one)) not in refused}
            if keep is not None:
                keep([one for key, one in images.items() if key not in refused], None)
        return etags, refused

    def carry_out(self, writes: Sequence[Conditional]) -> tuple[set[Key], dict[Key, str]]:
        """Writes them. Returns the keys whose documents are no more as they were looked at, which are left as they are;
        and why the server does not take single ones."""
        found = self._access.side_by_side("write documents", writes, self._one, fenced=True)
        reasons = {write.key: reason for write, reason in zip(writes, found, strict=True) if reason is not None}
        return {key for key, reason in reasons.items() if not reason}, {key: one for key, one in reasons.items() if one}

    def _one(self, write: Conditional) -> str | None:
        """Why the write was not done: "" if the document is no more what it was."""
        named = is_nameable(write.key[-1])
        try:
            if named and is_read_alike(write.key[:-1]):
                self._by_itself(write)
            elif reason := self._as_batch(write):
                if not named:
                    return reason
                self._by_itself(write)
        except (CosmosHttpResponseError, CosmosBatchOperationError) as error:
            if http_status_of(error)[0] in _OVERTAKEN or is_missing(error):
                return ""
            if not is_about_one(error):
                raise
            return reason_of(error)
        return None

    def _by_itself(self, write: Conditional) -> None:
        key, document, etag = write
        while_same: dict[str, Any] = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
        if document is None:
            self._container.proxy.delete_item(key[-1], partition_key=partition_value(key[:-1]), **while_same)
        elif etag is None:
            self._container.proxy.create_item(dict(document), no_response=True)
        else:
            self._container.proxy.replace_item(key[-1], dict(document), no_response=True, **while_same)

    def _as_batch(self, write: Conditional) -> str | None:
        """The partition key is told here; elsewhere the SDK takes it out of the document. Returns why it was not done,
        if the server seems to know no batches."""
        key, document, etag = write
        what: Any
        if document is None:
            what = ("delete", (key[-1],), {"if_match_etag": etag})
        elif etag is None:
            what = ("create", (dict(document),))
        else:
            what = ("replace", (key[-1], dict(document)), {"if_match_etag": etag})
        return batch_of_one(self._container.proxy, what, partition_value(key[:-1]))
