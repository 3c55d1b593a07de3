"""Documents written and deleted only while they are as they were looked at: by etag, and inserts by create."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from azure.core import MatchConditions
from azure.cosmos.exceptions import CosmosBatchOperationError, CosmosHttpResponseError

from backup.models import Key, Record
from backup.stores.cosmos_access import CosmosAccess
from backup.stores.cosmos_container import CosmosContainer
from backup.stores.cosmos_documents import is_nameable, is_read_alike, partition_value
from backup.stores.cosmos_errors import is_about_one, is_missing, reason_of, status_of
from backup.stores.cosmos_writes import batch_of_one

_OVERTAKEN = {409, 412}


class Conditional(NamedTuple):
    """What is to become of the document of a key: this one, or none; `etag` is the one it has, None where there is no
    document."""

    key: Key
    document: Record | None
    etag: str | None


class ConditionalWrites:
    """Writes of single documents, side by side. A repeated one meets what it did itself, and then counts as overtaken:
    so whoever asks looks at the document again."""

    def __init__(self, access: CosmosAccess, container: CosmosContainer) -> None:
        self._access, self._container = access, container

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
            if status_of(error)[0] in _OVERTAKEN or is_missing(error):
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
