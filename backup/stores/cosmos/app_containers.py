"""The app's own containers in a store's database: sync-history, recycle-bin, the sample's sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import Any

from azure.core import MatchConditions
from azure.cosmos import ContainerProxy
from azure.cosmos.exceptions import (
    CosmosAccessConditionFailedError,
    CosmosResourceExistsError,
    CosmosResourceNotFoundError,
)

from backup.core.batched import batched
from backup.core.errors import StoreError, TransientStoreError
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.cosmos.document_parts import PART_FIELD, PARTS_FIELD, join_entry, part_ids, split_entry
from backup.stores.cosmos.documents import own
from backup.stores.cosmos.entry_documents import EntryDocuments
from backup.stores.cosmos.errors import UnlessMissing, is_missing
from backup.stores.cosmos.queries import path_of, select
from backup.stores.sibling import Entry, Look, OneOf, Seen, Shape

_PAGE = 1_000
_PARTITIONS_KEPT = 1_000  # partition keys of entries, remembered
_KEYS_AT_ONCE = 100  # parameters of a query
_CHANGE_ATTEMPTS = 10


class CosmosSibling:
    """One of the app's own containers."""

    def __init__(self, access: CosmosAccess, shape: Shape) -> None:
        self._access, self._shape = access, shape
        self._documents = EntryDocuments(shape)
        self._partitions = dict[str, str]()  # of entries that were written or read here, by key

    def create(self) -> None:
        self._access.create_container(self._shape.container, [self._documents.partition_path])

    def put(self, entries: Sequence[Entry], *, new: bool = False) -> None:  # noqa: ARG002 - an upsert asks nothing
        for entry in entries:
            self._note(entry[self._shape.key], entry.get(self._shape.partition))
        self._access.side_by_side(
            f"write {self._shape.container}",
            [self._documents.document(entry) for entry in entries],
            lambda document: self._container.upsert_item(document, no_response=True),
        )

    def add(self, entries: Sequence[Entry], transaction: Any = None) -> None:  # noqa: ARG002 - Cosmos DB has none
        def create(document: Mapping[str, Any]) -> None:
            with suppress(CosmosResourceExistsError):
                self._container.create_item({**document}, no_response=True)

        split = [self._split(self._documents.document(entry)) for entry in entries]
        operation = f"write {self._shape.container}"
        self._access.side_by_side(operation, [part for _, parts in split for part in parts], create, fenced=True)
        self._access.side_by_side(operation, [document for document, _ in split], create, fenced=True)

    def change(
        self,
        key: str,
        only_if: OneOf,
        fields: Entry,
        transaction: Any = None,  # noqa: ARG002 - Cosmos DB has none
        seconds: float | None = None,
    ) -> bool:
        """Replaces the document only if nobody wrote it since it was read; else reads it again. Atomic for others."""
        operation = f"write {self._shape.container}"
        if seconds is not None:
            with self._access.once(operation):
                return self._change(key, only_if, fields)
        for attempt in self._access.attempts(operation):
            with attempt:
                changed = self._change(key, only_if, fields)
        return changed

    def _change(self, key: str, only_if: OneOf, fields: Entry) -> bool:
        for _ in range(_CHANGE_ATTEMPTS):
            document = self._document_of(key)
            if document is None or not self._documents.fulfils(document, only_if):
                return False
            changed = own(document) | self._documents.properties(fields)
            with suppress(CosmosAccessConditionFailedError):
                self._container.replace_item(
                    document["id"],
                    changed,
                    etag=document["_etag"],
                    match_condition=MatchConditions.IfNotModified,
                    no_response=True,
                )
                return True
        raise TransientStoreError(
            f"Could not change an entry of {self._shape.container}: others wrote it {_CHANGE_ATTEMPTS} times meanwhile."
        )

    def holds(self, key: str, only_if: OneOf, transaction: Any = None) -> bool:  # noqa: ARG002 - Cosmos DB has none
        for attempt in self._access.attempts(f"read {self._shape.container}"):
            with attempt:
                document = self._document_of(key)
        return document is not None and self._documents.fulfils(document, only_if)

    def _document_of(self, key: str) -> dict[str, Any] | None:
        """The entry's document: one read where its partition is known, else a query of them all."""
        if key in self._partitions and self._has_own_partitions:
            with UnlessMissing():
                return dict(self._container.read_item(key, partition_key=self._partitions[key]))
        query = select("*", f"{self._documents.path(self._shape.key)} = @key")
        documents = self._container.query_items(
            query, parameters=[{"name": "@key", "value": key}], enable_cross_partition_query=True
        )
        document = next(iter(documents), None)
        if document is not None:
            self._note(key, self._documents.partition_of(document))
        return document

    def _note(self, key: str, partition: Any) -> None:
        if len(self._partitions) >= _PARTITIONS_KEPT:
            self._partitions.clear()
        if isinstance(partition, str):
            self._partitions[key] = partition

    def find(
        self,
        where: Mapping[str, Any],
        *,
        order_by: str,
        limit: int,
        descending: bool = False,
        above: Any = None,
        below: Any = None,
        fields: Sequence[str] = (),
        transaction: Any = None,  # noqa: ARG002 - Cosmos DB has none
        max_bytes: int | None = None,  # noqa: ARG002 - no document is large
    ) -> list[dict[str, Any]]:
        conditions, parameters = self._documents.conditions(where, order_by, above, below)
        by = self._documents.path(order_by)
        with_parts = bool(self._shape.parts_with) and (not fields or not set(fields) <= self._short)
        columns = [self._documents.column(name) for name in fields]
        columns += [f"c.id, {path_of([PARTS_FIELD])} AS {PARTS_FIELD}"] if fields and with_parts else []
        selected = ", ".join(columns) or "*"
        query = f"{select(selected, *conditions)} ORDER BY {by}{' DESC' if descending else ''}"
        for attempt in self._access.attempts(f"read {self._shape.container}"):
            with attempt:
                items = self._container.query_items(
                    query, parameters=parameters, max_item_count=min(limit, _PAGE), **self._scope(where)
                )
                documents = list(islice(items, limit))
        whole = self._join(documents) if with_parts else documents
        return [self._documents.entry(document, fields) for document in whole]

    def look(self, looks: Sequence[Look]) -> Seen:
        return Seen(
            [
                self.find(
                    look.where,
                    order_by=look.order_by,
                    limit=look.limit,
                    descending=look.descending,
                    above=look.above,
                )
                for look in looks
            ]
        )

    def count(self, where: Mapping[str, Any], by: str, above: Any, below: Any) -> int:
        conditions, parameters = self._documents.conditions(where, by, above, below)
        query = select("VALUE COUNT(1)", *conditions)
        for attempt in self._access.attempts(f"count {self._shape.container}"):
            with attempt:
                counts = self._container.query_items(query, parameters=parameters, enable_cross_partition_query=True)
                counted: Any = next(iter(counts))
        return int(counted)

    def delete(self, keys: Sequence[str], partition: str | None = None) -> None:
        def delete(names: tuple[str, str]) -> None:
            shared = partition if partition is not None and self._has_own_partitions else None
            with UnlessMissing():
                self._container.delete_item(names[1], partition_key=shared or self._partition(*names))

        self._access.side_by_side(
            f"purge {self._shape.container}",
            [names for batch in batched(keys, _KEYS_AT_ONCE) for names in self._with_parts(batch)],
            delete,
        )

    # --- entries in parts ---------------------------------------------------------------------------------------------

    @cached_property
    def _short(self) -> set[str]:
        """The fields whose values are never long."""
        return {name for name, kind in self._shape.fields.items() if kind not in ("text", "json")}

    def _split(self, document: dict[str, Any]) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        if not self._shape.parts_with:
            return document, ()
        return split_entry(document, self._documents.of_parts(document))

    def _join(self, documents: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        def read_piece(names: tuple[str, str]) -> str:
            try:
                text: str = self._container.read_item(names[1], partition_key=self._partition(*names))[PART_FIELD]
            except CosmosResourceNotFoundError as error:
                if is_missing(error):
                    raise StoreError(
                        f"The entry {names[0]} of {self._shape.container} lacks a part.",
                        hint="A purge or another program deleted it: this entry cannot be used, all others can.",
                    ) from None
                raise
            return text

        parts = [(document["id"], name) for document in documents for name in part_ids(document)]
        pieces = iter(self._access.side_by_side(f"read {self._shape.container}", parts, read_piece))
        return [join_entry(document, list(islice(pieces, len(part_ids(document))))) for document in documents]

    def _with_parts(self, keys: Sequence[str]) -> list[tuple[str, str]]:
        """The entry's key and the id of every document that belongs to these entries."""
        if not self._shape.parts_with:
            return [(key, key) for key in keys]
        key = self._documents.path(self._shape.key)
        names = [f"@k{n}" for n in range(len(keys))]
        query = select(f"{key} AS entry, c.id", f"{key} IN ({', '.join(names)})")
        parameters: list[dict[str, Any]] = [{"name": name, "value": key} for name, key in zip(names, keys, strict=True)]
        for attempt in self._access.attempts(f"read {self._shape.container}"):
            with attempt:
                items = self._container.query_items(query, parameters=parameters, enable_cross_partition_query=True)
                documents = list(items)
        return [(document["entry"], document["id"]) for document in documents]

    def _partition(self, entry: str, document: str) -> str:
        """The partition key of an entry's document. A container made by hand may be partitioned by document ids."""
        return entry if entry == document or self._has_own_partitions else document

    # --- queries and values -------------------------------------------------------------------------------------------

    @property
    def _container(self) -> ContainerProxy:
        return self._access.container(self._shape.container)

    def _scope(self, where: Mapping[str, Any]) -> dict[str, Any]:
        """The partitions that a query reads: one costs one request, all cost a plan and several requests."""
        value = where.get(self._shape.partition)
        if isinstance(value, str) and self._has_own_partitions:
            return {"partition_key": value}
        return {"enable_cross_partition_query": True}

    @property
    def default_ttl(self) -> int | None:
        """After how many seconds the server deletes an entry; None: never, or there is no container."""
        for attempt in self._access.attempts("read the container"):
            with attempt:
                seconds: int | None = self._properties_of_container.get("defaultTtl")
        return seconds

    @property
    def _properties_of_container(self) -> Mapping[str, Any]:
        with UnlessMissing():
            return self._access.properties_of(self._shape.container)
        return {}

    @cached_property
    def _has_own_partitions(self) -> bool:
        """Whether the container is partitioned as `create` makes it. One made by hand may not be."""
        paths: list[str] = self._access.properties_of(self._shape.container)["partitionKey"]["paths"]
        return paths == [self._documents.partition_path]
