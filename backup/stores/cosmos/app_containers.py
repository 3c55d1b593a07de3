"""The app's own containers beside a store's: sync-history, recycle-bin, the sample's sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
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
from backup.stores.cosmos.document_parts import PART_FIELD, PARTS_FIELD, part_ids, put_together, taken_apart
from backup.stores.cosmos.documents import own
from backup.stores.cosmos.errors import UnlessMissing, is_missing
from backup.stores.cosmos.queries import path_of, select
from backup.stores.sibling import Entry, OneOf, Shape

_PAGE = 1_000
_KEYS_AT_ONCE = 100
_CHANGED_MEANWHILE = 10


def utc_text(value: datetime) -> str:
    """ISO 8601 in UTC with microseconds and Z: sorts as text in the order of time. Refuses naive times."""
    if value.tzinfo is None:
        raise ValueError("a time without a time zone")
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class CosmosSibling:
    """A container of the app's own, in the store's database. Documents have its fields in camelCase, and `id`."""

    def __init__(self, access: CosmosAccess, shape: Shape) -> None:
        self._access, self._shape = access, shape
        self._properties = {name: name[0].lower() + name[1:] for name in shape.fields}

    def create(self) -> None:
        self._access.create_container(self._shape.container, [f"/{self._properties[self._shape.partition]}"])

    def put(self, entries: Sequence[Entry]) -> None:
        self._access.side_by_side(
            f"write {self._shape.container}",
            [self._document(entry) for entry in entries],
            lambda document: self._container.upsert_item(document, no_response=True),
        )

    def add(self, entries: Sequence[Entry], transaction: Any = None) -> None:  # noqa: ARG002 - Cosmos DB has none
        def one(document: Mapping[str, Any]) -> None:
            with suppress(CosmosResourceExistsError):
                self._container.create_item({**document}, no_response=True)

        apart = [self._taken_apart(self._document(entry)) for entry in entries]
        what = f"write {self._shape.container}"
        self._access.side_by_side(what, [part for _, parts in apart for part in parts], one, fenced=True)
        self._access.side_by_side(what, [document for document, _ in apart], one, fenced=True)

    def change(
        self,
        key: str,
        only_if: OneOf,
        fields: Entry,
        transaction: Any = None,  # noqa: ARG002 - Cosmos DB has none
        seconds: float | None = None,
    ) -> bool:
        """As if it were one statement: the document is replaced only if nobody has since it was read."""
        operation = f"write {self._shape.container}"
        if seconds is not None:
            with self._access.once(operation):
                return self._change(key, only_if, fields)
        for attempt in self._access.attempts(operation):
            with attempt:
                changed = self._change(key, only_if, fields)
        return changed

    def _change(self, key: str, only_if: OneOf, fields: Entry) -> bool:
        for _ in range(_CHANGED_MEANWHILE):
            document = self._document_of(key)
            if document is None or not self._is(document, only_if):
                return False
            changed = own(document) | {self._properties[name]: _to_json(value) for name, value in fields.items()}
            with suppress(CosmosAccessConditionFailedError):
                self._container.replace_item(
                    document["id"],
                    changed,
                    etag=document["_etag"],
                    match_condition=MatchConditions.IfNotModified,
                    no_response=True,
                )
                return True
        raise TransientStoreError(f"An entry of {self._shape.container} is written all the time.")

    def holds(self, key: str, only_if: OneOf, transaction: Any = None) -> bool:  # noqa: ARG002 - Cosmos DB has none
        for attempt in self._access.attempts(f"read {self._shape.container}"):
            with attempt:
                document = self._document_of(key)
        return document is not None and self._is(document, only_if)

    def _document_of(self, key: str) -> dict[str, Any] | None:
        query = select("*", f"{self._path(self._shape.key)} = @key")
        found = self._container.query_items(
            query, parameters=[{"name": "@key", "value": key}], enable_cross_partition_query=True
        )
        return next(iter(found), None)

    def _is(self, document: Mapping[str, Any], only_if: OneOf) -> bool:
        return all(document.get(self._properties[name]) in map(_to_json, values) for name, values in only_if.items())

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
        parameters: list[dict[str, Any]] = []
        conditions = self._conditions(where, order_by, above, below, parameters)
        by = self._path(order_by)
        whole = bool(self._shape.parts_with) and (not fields or not set(fields) <= self._short)
        named = [f"{self._path(name)} AS {self._properties[name]}" for name in fields]
        named += [f"c.id, {path_of([PARTS_FIELD])} AS {PARTS_FIELD}"] if fields and whole else []
        what = ", ".join(named) or "*"
        query = f"{select(what, *conditions)} ORDER BY {by}{' DESC' if descending else ''}"
        for attempt in self._access.attempts(f"read {self._shape.container}"):
            with attempt:
                found = self._container.query_items(
                    query, parameters=parameters, max_item_count=min(limit, _PAGE), **self._scope(where)
                )
                documents = list(islice(found, limit))
        return [self._entry(one, fields) for one in (self._put_together(documents) if whole else documents)]

    def count(self, where: Mapping[str, Any], by: str, above: Any, below: Any) -> int:
        parameters: list[dict[str, Any]] = []
        query = select("VALUE COUNT(1)", *self._conditions(where, by, above, below, parameters))
        for attempt in self._access.attempts(f"count {self._shape.container}"):
            with attempt:
                found = self._container.query_items(query, parameters=parameters, enable_cross_partition_query=True)
                counted: Any = next(iter(found))
        return int(counted)

    def _conditions(
        self, where: Mapping[str, Any], by: str, above: Any, below: Any, parameters: list[dict[str, Any]]
    ) -> list[str]:
        """What a query asks for; adds the values to its parameters."""

        def parameter(value: Any) -> str:
            name = f"@v{len(parameters)}"
            parameters.append({"name": name, "value": _to_json(value)})
            return name

        conditions = []
        for name, value in where.items():
            path, values = self._path(name), value if isinstance(value, list) else [value]
            plain = [one for one in values if one is not None]
            found = [f"{path} IN ({', '.join(map(parameter, plain))})"] if len(plain) > 1 else []
            found += [f"{path} = {parameter(plain[0])}"] if len(plain) == 1 else []
            # An entry of an earlier release has not the property at all.
            found += [f"NOT IS_DEFINED({path}) OR IS_NULL({path})"] if None in values else []
            conditions.append(f"({' OR '.join(found) or 'false'})")
        conditions += [f"{self._path(by)} > {parameter(above)}"] if above is not None else []
        conditions += [f"{self._path(by)} < {parameter(below)}"] if below is not None else []
        return conditions

    def delete(self, keys: Sequence[str], partition: str | None = None) -> None:
        def one(of: tuple[str, str]) -> None:
            of_all = partition if partition is not None and self._has_own_partitions else None
            with UnlessMissing():
                self._container.delete_item(of[1], partition_key=of_all or self._partition(*of))

        self._access.side_by_side(
            f"purge {self._shape.container}",
            [part for some in batched(keys, _KEYS_AT_ONCE) for part in self._with_parts(some)],
            one,
        )

    # --- entries in parts ---------------------------------------------------------------------------------------------

    @cached_property
    def _short(self) -> set[str]:
        """The fields whose texts are never long."""
        return {name for name, kind in self._shape.fields.items() if kind not in ("text", "json")}

    def _taken_apart(self, document: dict[str, Any]) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        if not self._shape.parts_with:
            return document, ()
        names = {self._properties[name] for name in (self._shape.partition, *self._shape.parts_with)}
        return taken_apart(document, {name: value for name, value in document.items() if name in names})

    def _put_together(self, documents: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        def piece(of: tuple[str, str]) -> str:
            try:
                text: str = self._container.read_item(of[1], partition_key=self._partition(*of))[PART_FIELD]
            except CosmosResourceNotFoundError as error:
                if is_missing(error):
                    raise StoreError(f"The entry {of[0]} of {self._shape.container} lacks a part.") from None
                raise
            return text

        named = [(document["id"], name) for document in documents for name in part_ids(document)]
        pieces = iter(self._access.side_by_side(f"read {self._shape.container}", named, piece))
        return [put_together(document, list(islice(pieces, len(part_ids(document))))) for document in documents]

    def _with_parts(self, keys: Sequence[str]) -> list[tuple[str, str]]:
        """Entry and id of every document that belongs to these entries."""
        if not self._shape.parts_with:
            return [(key, key) for key in keys]
        key = self._path(self._shape.key)
        names = [f"@k{n}" for n in range(len(keys))]
        query = select(f"{key} AS entry, c.id", f"{key} IN ({', '.join(names)})")
        parameters: list[dict[str, Any]] = [{"name": name, "value": key} for name, key in zip(names, keys, strict=True)]
        for attempt in self._access.attempts(f"read {self._shape.container}"):
            with attempt:
                found = self._container.query_items(query, parameters=parameters, enable_cross_partition_query=True)
                documents = list(found)
        return [(document["entry"], document["id"]) for document in documents]

    def _partition(self, entry: str, document: str) -> str:
        """The partition key of an entry's document, in a container that is partitioned by the key, or by hand."""
        return entry if entry == document or self._has_own_partitions else document

    # --- queries and values -------------------------------------------------------------------------------------------

    @property
    def _container(self) -> ContainerProxy:
        return self._access.container(self._shape.container)

    def _scope(self, where: Mapping[str, Any]) -> dict[str, Any]:
        """Where a query has to look: one partition costs one request, all cost a plan and several."""
        value = where.get(self._shape.partition)
        if isinstance(value, str) and self._has_own_partitions:
            return {"partition_key": value}
        return {"enable_cross_partition_query": True}

    @property
    def default_ttl(self) -> int | None:
        """After how many seconds an entry deletes itself, if it does and if there is the container."""
        for attempt in self._access.attempts("read the container"):
            with attempt:
                seconds: int | None = self._properties_of_container.get("defaultTtl")
        return seconds

    @cached_property
    def _properties_of_container(self) -> dict[str, Any]:
        with UnlessMissing():
            return dict(self._container.read())
        return {}

    @cached_property
    def _has_own_partitions(self) -> bool:
        """Whether the container is partitioned as `create` does it; one made by hand may not be."""
        paths: list[str] = self._container.read()["partitionKey"]["paths"]
        return paths == [f"/{self._properties[self._shape.partition]}"]

    def _path(self, name: str) -> str:
        return path_of([self._properties[name]])

    def _document(self, entry: Entry) -> dict[str, Any]:
        document = {self._properties[name]: _to_json(value) for name, value in entry.items()}
        return {**document, "id": entry[self._shape.key]}

    def _entry(self, document: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
        entry = {}
        for name in fields or self._shape.fields:
            kind = self._shape.fields[name]
            value = document.get(self._properties[name])
            entry[name] = _time(value) if kind == "time" else value
        return entry


def _time(value: Any) -> Any:
    """The time; what is none as it is, and whoever reads it looks."""
    try:
        return datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return value


def _to_json(value: Any) -> Any:
    return utc_text(value) if isinstance(value, datetime) else value
