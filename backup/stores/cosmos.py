"""A container on Cosmos DB, through the azure-cosmos SDK. A document's identity is (partition key, id)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

from azure.cosmos import ContainerProxy
from azure.cosmos.exceptions import CosmosResourceNotFoundError

from backup.errors import BadRequest, SchemaMismatch, StoreError
from backup.models import WHOLE, Action, Chunk, Fingerprint, Image, Key, Record, Run, StampRow, Stamps, Version
from backup.stores.base import Drift, Keep, Limits, OnNewColumn, Rules, Shape, Sibling, Store
from backup.stores.cosmos_access import CosmosAccess, path_of, select
from backup.stores.cosmos_documents import (
    MARK,
    json_text,
    key_from_json,
    key_to_json,
    own,
    partition_part,
    partition_value,
    texts,
)
from backup.stores.cosmos_sibling import CosmosSibling, utc_text

Item = TypeVar("Item")

_IDS_AT_ONCE = 100


class CosmosStore:
    """One container, or those of its documents that the rules' `where` picks.

    The copy of a document is the document without the server's own properties, plus `_backup`: the source's etag and
    ts, when it was copied and by which run.
    """

    kind = "cosmos"

    def __init__(self, access: CosmosAccess, container: str, rules: Rules, limits: Limits, side: str) -> None:
        self._access, self.name, self._rules, self._limits = access, container, rules, limits
        self._side = side
        self._where = [f"{path_of([name])} = @w{i}" for i, name in enumerate(rules.where)]
        self._where_values = {f"w{i}": value for i, value in enumerate(rules.where.values())}

    @property
    def label(self) -> str:
        return self._access.label

    @property
    def location(self) -> str:
        return f"{self._access.location}/{self.name}"

    def ping(self) -> None:
        self._access.once("get an answer", lambda: self._access.container(self.name).read())

    def close(self) -> None:
        self._access.close()
        self.__dict__.pop("partition_paths", None)

    @cached_property
    def partition_paths(self) -> list[list[str]]:
        """The container's partition key, each path as property names; several when it is hierarchical."""
        properties = self._access.run("read the container", lambda: self._access.container(self.name).read())
        return [
            [part.strip('"') for part in path.strip("/").split("/")] for path in properties["partitionKey"]["paths"]
        ]

    # --- making and checking the backup -------------------------------------------------------------------------------

    def initialize(self, source: Store) -> None:
        self.make_like(source, copies=False)
        self.drift(source, "add")

    def make_like(self, original: Store, *, copies: bool) -> None:  # noqa: ARG002 - a container's shape is its partition key
        paths = ["/" + "/".join(path) for path in _cosmos(original).partition_paths]
        self._access.create_container(self.name, paths)
        self.__dict__.pop("partition_paths", None)

    def drift(self, source: Store, on_new_column: OnNewColumn) -> Drift:  # noqa: ARG002 - documents have no columns
        mine, theirs = self.partition_paths, _cosmos(source).partition_paths
        if mine != theirs:
            raise SchemaMismatch(
                f"The {self.label} is partitioned by {_shown(mine)}, its source by {_shown(theirs)}.",
                hint="A partition key cannot be changed: name another BackupOrderDb__ContainerName and run initialize."
                " Nothing was changed.",
            )
        return Drift()

    def adapt(self, drift: Drift) -> None:
        """Containers take any document."""

    # --- reading ------------------------------------------------------------------------------------------------------

    def count(self) -> int:
        return self._count(WHOLE)

    def _count(self, chunk: Chunk) -> int:
        conditions, values = self._within(chunk)
        return int(self._query("count", select("VALUE COUNT(1)", *conditions), values)[0])

    def chunks(self, within: Chunk = WHOLE) -> Iterator[Chunk]:
        """Ranges of the document id alone, whatever the partition; what fits into one chunk costs one count."""
        after = within.after
        if self._count(within) > self._limits.chunk_size:
            for bound in self._bounds(within):
                yield Chunk(after, bound)
                after = bound
        yield Chunk(after, within.upto)

    def _bounds(self, within: Chunk) -> Iterator[Key]:
        # Not retried as a whole; the SDK retries each of its pages. Bounds have no character from U+D800 on, where
        # servers and Python order text differently.
        conditions, values = self._within(within)
        query = f"{select('VALUE c.id', *conditions)} ORDER BY c.id"
        since = 0
        for name in self._access.stream("list ids", self._items(query, values)):
            since += 1
            if since >= self._limits.chunk_size and max(name) < "\ud800":
                since = 0
                yield (name,)

    def fingerprint(self, chunk: Chunk) -> Fingerprint | None:  # noqa: ARG002 - not yet
        return None

    def stamp_rows(self, chunk: Chunk) -> set[StampRow]:
        """Partition key and id, version fields, etag; all as text."""
        fields = [f"{path_of([name])} AS v{i}" for i, name in enumerate(self._rules.version)]
        etag = "c._etag" if self._side == "source" else path_of([MARK, "etag"])
        conditions, values = self._within(chunk)
        query = select(f"{self._key_fields}, {etag} AS etag, {', '.join(fields)}", *conditions)
        width = len(self._rules.version)

        def attempt() -> set[StampRow]:
            rows: set[StampRow] = set()
            for item in self._items(query, values):
                if item["id"] in (".", ".."):
                    raise StoreError(
                        f"The {self.label} holds a document with the id {item['id']!r}, which no URL can name.",
                        hint="Give it another id; nothing was changed by this run's step.",
                    )
                version = texts(item.get(f"v{i}") for i in range(width))
                rows.add((*self._key(item), *version, item.get("etag") or None))
            return rows

        return self._access.run("read the stamps", attempt)

    def stamps_of(self, rows: Iterable[StampRow]) -> Stamps:
        width = len(self.partition_paths) + 1
        return {row[:width]: Version(row[width:-1], row[-1]) for row in rows}

    def stamps(self, chunk: Chunk) -> Stamps:
        return self.stamps_of(self.stamp_rows(chunk))

    def _within(self, chunk: Chunk) -> tuple[list[str], dict[str, Any]]:
        """The conditions of the service's documents in the chunk, and their parameters."""
        conditions, values = [*self._where], {**self._where_values}
        if chunk.after is not None:
            conditions.append("c.id > @after")
            values["after"] = chunk.after[0]
        if chunk.upto is not None:
            conditions.append("c.id <= @upto")
            values["upto"] = chunk.upto[0]
        return conditions, values

    def read(self, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[list[Record]]:
        if keys is not None:  # then ids suffice
            yield from self._read(keys, self._where)
            return
        left = set(self.stamps(chunk))
        yield from self._read(left, self._where)

    def _read(self, keys: Iterable[Key], where: Sequence[str]) -> Iterator[list[Record]]:
        for part in _parts(list(keys), _IDS_AT_ONCE):
            left = set(part)
            while left:
                records = self._batch(left, where)
                left.difference_update(map(self.key_of, records))
                yield records
                if not records:
                    break

    def _batch(self, keys: set[Key], where: Sequence[str]) -> list[Record]:
        """Documents of these keys up to the byte limit; none when all that are left are gone."""
        query, values = self._by_ids(keys, "*", where)

        def attempt() -> list[Record]:
            records: list[Record] = []
            size = 0
            for item in self._items(query, values):
                if self.key_of(item) in keys:
                    records.append(item)
                    size += len(json.dumps(item))
                    if size > self._limits.batch_bytes:
                        break
            return records

        return self._access.run("read documents", attempt)

    def _by_ids(self, keys: Iterable[Key], what: str, where: Sequence[str]) -> tuple[str, dict[str, Any]]:
        values = {f"k{i}": name for i, name in enumerate(sorted({key[-1] for key in keys}))}
        names = ", ".join(f"@{name}" for name in values)
        return select(what, *where, f"c.id IN ({names})"), {**(self._where_values if where else {}), **values}

    def key_of(self, record: Record) -> Key:
        return (*(partition_part(record, path) for path in self.partition_paths), record["id"])

    @property
    def _key_fields(self) -> str:
        return ", ".join(["c.id", *(f"{path_of(path)} AS p{i}" for i, path in enumerate(self.partition_paths))])

    def _key(self, item: Record) -> Key:
        """The key in an item that was selected with `_key_fields`."""
        return (*(partition_part(item, [f"p{i}"]) for i in range(len(self.partition_paths))), item["id"])

    def matching(self, keys: Sequence[Key]) -> set[Key]:
        found = {key for part in _parts(keys, _IDS_AT_ONCE) for key in self._keys_of_ids(part)}
        return found.intersection(keys)

    def _keys_of_ids(self, keys: Sequence[Key]) -> set[Key]:
        """The keys of the documents with these ids, whatever their partition."""
        query, values = self._by_ids(keys, self._key_fields, self._where)
        return set(map(self._key, self._query("look up ids", query, values)))

    def _query(self, operation: str, query: str, values: dict[str, Any]) -> list[Any]:
        return self._access.run(operation, lambda: list(self._items(query, values)))

    def _items(self, query: str, values: dict[str, Any]) -> Iterator[Any]:
        parameters = [{"name": f"@{name}", "value": value} for name, value in values.items()]
        return iter(self._container.query_items(query, parameters=parameters, enable_cross_partition_query=True))

    # --- writing ------------------------------------------------------------------------------------------------------

    def as_copies(self, records: Sequence[Record], run: Run, now: datetime) -> list[Record]:
        return [self._copy(record, run, now) for record in records]

    def _copy(self, record: Record, run: Run, now: datetime) -> dict[str, Any]:
        if MARK in record:
            raise StoreError(
                f"A document of the source (id {record['id']}) has a property {MARK}, which its copy cannot keep.",
                hint="Rename the property in the source: the backup keeps its own notes under that name.",
            )
        mark = {
            "etag": record.get("_etag"),
            "ts": record.get("_ts"),
            "syncedAt": utc_text(now),
            "syncId": run.sync_id,
        }
        return {**own(record), MARK: mark}

    def as_original(self, record: Record) -> Record:
        return {name: value for name, value in own(record).items() if name != MARK}

    def as_it_was(self, record: Record) -> Record:
        return record

    def content(self, record: Record) -> Mapping[str, str]:
        return {name: json_text(value) for name, value in self.as_original(record).items()}

    def write(self, records: Sequence[Record], keep: Keep | None = None) -> None:
        for part in _parts(records, _IDS_AT_ONCE):
            if keep is not None:
                keys = [self.key_of(record) for record in part]
                there: set[Key] = set()
                for images in self.images(keys, Action.UPDATED):
                    there.update(image.key for image in images)
                    keep(images, None)
                keep([Image(key, Action.INSERTED) for key in keys if key not in there], None)
            self._access.side_by_side(
                "write a document", part, lambda document: self._container.upsert_item(document, no_response=True)
            )

    def images(self, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        for records in self._read(keys, ()):  # a document of another type under such a key would be overwritten too
            yield [
                Image(self.key_of(one), action, own(one), texts(map(one.get, self._rules.version))) for one in records
            ]

    def delete(self, keys: Sequence[Key], keep: Keep | None = None) -> None:
        for part in _parts(keys, _IDS_AT_ONCE):
            if keep is not None:
                for images in self.images(part, Action.DELETED):
                    keep(images, None)
            self._access.side_by_side("delete a document", part, lambda key: _delete(self._container, key))

    @property
    def _container(self) -> ContainerProxy:
        return self._access.container(self.name)

    def key_from(self, text: str) -> Key:
        paths = self.partition_paths
        with suppress(ValueError):
            parts = json.loads(text)
            if isinstance(parts, list) and len(parts) == len(paths) + 1 and isinstance(parts[-1], str):
                return key_from_json(parts)
        found = sorted(self._keys_of_ids([(text,)]))
        if len(found) == 1:
            return found[0]
        known = "; ".join(json.dumps(self.key_to_json(key)) for key in found[:10])
        raise BadRequest(
            f"{text!r} is not one key of the {self.label}.",
            hint=f"Write [partition key, id] as JSON: {known or 'the recycle bin has it, if the document is gone'}.",
        )

    def key_to_json(self, key: Key) -> list[Any]:
        return key_to_json(key)

    def beside(self, name: str) -> Store:
        return CosmosStore(self._access, name, self._rules, self._limits, self._side)

    def drop(self) -> None:
        self._access.drop_container(self.name)

    def sibling(self, shape: Shape) -> Sibling:
        return CosmosSibling(self._access, shape)


def _delete(container: ContainerProxy, key: Key) -> None:
    try:
        container.delete_item(key[-1], partition_key=partition_value(key[:-1]))
    except CosmosResourceNotFoundError:  # gone already, for an earlier try may have been carried out …
        container.read()  # … unless it is the container that is gone


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _shown(paths: list[list[str]]) -> str:
    return ", ".join("/" + "/".join(path) for path in paths)


def _cosmos(store: Store) -> CosmosStore:
    if not isinstance(store, CosmosStore):
        raise TypeError("the sides of a service are of one kind")
    return store
