"""A container on Cosmos DB, through the azure-cosmos SDK. A document's identity is (partition key, id)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import cached_property
from typing import Any

from azure.cosmos import ContainerProxy
from azure.cosmos.exceptions import CosmosResourceNotFoundError
from azure.cosmos.partition_key import NonePartitionKeyValue, NullPartitionKeyValue

from backup.errors import SchemaMismatch, StoreError
from backup.models import WHOLE, Chunk, Key, Record, Run, Stamps, Version
from backup.stores.base import Limits, Rules, Shape, Sibling, Store
from backup.stores.cosmos_access import CosmosAccess, path_of, select
from backup.stores.cosmos_sibling import CosmosSibling, utc_text

MARK = "_backup"
_SYSTEM = {"_rid", "_self", "_etag", "_ts", "_attachments", "_lsn"}
_UNDEFINED = "undefined"  # keys hold partition keys as JSON text, and this is none
_IDS_AT_ONCE = 100
_WRITERS = 8


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
        paths = ["/" + "/".join(path) for path in _cosmos(source).partition_paths]
        self._access.create_container(self.name, paths)
        self.__dict__.pop("partition_paths", None)
        self.check(source)

    def check(self, source: Store) -> None:
        mine, theirs = self.partition_paths, _cosmos(source).partition_paths
        if mine != theirs:
            raise SchemaMismatch(
                f"The {self.label} is partitioned by {_shown(mine)}, its source by {_shown(theirs)}.",
                hint="A partition key cannot be changed: name another BackupOrderDb__ContainerName and run initialize."
                " Nothing was changed.",
            )

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

    def stamps(self, chunk: Chunk) -> Stamps:
        fields = [f"{path_of([name])} AS v{i}" for i, name in enumerate(self._rules.version)]
        etag = "c._etag" if self._side == "source" else path_of([MARK, "etag"])
        conditions, values = self._within(chunk)
        query = select(f"{self._key_fields}, {etag} AS etag, {', '.join(fields)}", *conditions)
        width = len(self._rules.version)

        def attempt() -> Stamps:
            stamps: Stamps = {}
            for item in self._items(query, values):
                if item["id"] in (".", ".."):
                    raise StoreError(
                        f"The {self.label} holds a document with the id {item['id']!r}, which no URL can name.",
                        hint="Give it another id; nothing was changed by this run's step.",
                    )
                value = tuple(None if item.get(f"v{i}") is None else _json(item[f"v{i}"]) for i in range(width))
                stamps[self._key(item)] = Version(value, item.get("etag") or None)
            return stamps

        return self._access.run("read the stamps", attempt)

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

    def read(self, keys: frozenset[Key], chunk: Chunk) -> Iterator[list[Record]]:  # noqa: ARG002 - ids suffice here
        for part in _parts(list(keys), _IDS_AT_ONCE):
            left = set(part)
            while left:
                records = self._batch(left)
                left.difference_update(map(self.key_of, records))
                yield records
                if not records:
                    break

    def _batch(self, keys: set[Key]) -> list[Record]:
        """Documents of these keys up to the byte limit; none when all that are left are gone."""
        query, values = self._by_ids(keys, "*")

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

    def _by_ids(self, keys: Iterable[Key], what: str) -> tuple[str, dict[str, Any]]:
        values = {f"k{i}": name for i, name in enumerate(sorted({key[-1] for key in keys}))}
        names = ", ".join(f"@{name}" for name in values)
        return select(what, *self._where, f"c.id IN ({names})"), {**self._where_values, **values}

    def key_of(self, record: Record) -> Key:
        return (*(_partition_part(record, path) for path in self.partition_paths), record["id"])

    @property
    def _key_fields(self) -> str:
        return ", ".join(["c.id", *(f"{path_of(path)} AS p{i}" for i, path in enumerate(self.partition_paths))])

    def _key(self, item: Record) -> Key:
        """The key in an item that was selected with `_key_fields`."""
        return (*(_partition_part(item, [f"p{i}"]) for i in range(len(self.partition_paths))), item["id"])

    def matching(self, keys: Sequence[Key]) -> set[Key]:
        found: set[Key] = set()
        for part in _parts(keys, _IDS_AT_ONCE):
            query, values = self._by_ids(part, self._key_fields)
            found.update(map(self._key, self._query("look up ids", query, values)))
        return found.intersection(keys)

    def _query(self, operation: str, query: str, values: dict[str, Any]) -> list[Any]:
        return self._access.run(operation, lambda: list(self._items(query, values)))

    def _items(self, query: str, values: dict[str, Any]) -> Iterator[Any]:
        parameters = [{"name": f"@{name}", "value": value} for name, value in values.items()]
        container = self._access.container(self.name)
        return iter(container.query_items(query, parameters=parameters, enable_cross_partition_query=True))

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, records: Sequence[Record], run: Run, now: datetime) -> None:
        copies = [self._copy(record, run, now) for record in records]
        self._side_by_side("write a document", copies, lambda c, copy: c.upsert_item(copy, no_response=True))

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
        return {**{name: value for name, value in record.items() if name not in _SYSTEM}, MARK: mark}

    def delete(self, keys: Sequence[Key]) -> None:
        self._side_by_side("delete a document", keys, _delete)

    def _side_by_side(self, operation: str, items: Sequence[Any], work: Callable[[ContainerProxy, Any], Any]) -> None:
        def one(item: Any) -> None:
            self._access.run(operation, lambda: work(self._access.container(self.name), item))

        with ThreadPoolExecutor(_WRITERS) as pool:
            for _ in pool.map(one, items):
                pass

    def sibling(self, shape: Shape) -> Sibling:
        return CosmosSibling(self._access, shape)


def _delete(container: ContainerProxy, key: Key) -> None:
    try:
        container.delete_item(key[-1], partition_key=_partition_value(key[:-1]))
    except CosmosResourceNotFoundError:  # gone already, for an earlier try may have been carried out …
        container.read()  # … unless it is the container that is gone


def _partition_value(parts: Sequence[str]) -> Any:
    if len(parts) == 1:
        return {_UNDEFINED: NonePartitionKeyValue, "null": NullPartitionKeyValue}.get(parts[0]) or json.loads(parts[0])
    return [{} if part == _UNDEFINED else json.loads(part) for part in parts]  # {} is the wire form of undefined


def _partition_part(record: Record, path: Sequence[str]) -> str:
    value: Any = record
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return _UNDEFINED
        value = value[name]
    return _UNDEFINED if isinstance(value, dict | list) else _json(value)


def _json(value: Any) -> str:
    """One text for equal values: sorted names, and 2.0 as 2, for JSON has one kind of number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _parts(keys: Sequence[Key], size: int) -> Iterator[Sequence[Key]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))


def _shown(paths: list[list[str]]) -> str:
    return ", ".join("/" + "/".join(path) for path in paths)


def _cosmos(store: Store) -> CosmosStore:
    if not isinstance(store, CosmosStore):
        raise TypeError("the sides of a service are of one kind")
    return store
