"""A container on Cosmos DB, through the azure-cosmos SDK. A document's identity is (partition key, id)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from math import ceil
from typing import Any

from backup.errors import BadRequest, RecordRefused, SchemaMismatch, StoreError
from backup.models import WHOLE, Action, Chunk, Fingerprint, Image, Key, Record, Run, StampRow, Stamps, Version
from backup.stores.base import Drift, Keep, Limits, OnNewColumn, Rules, Shape, Sibling, SideName, Store
from backup.stores.cosmos_access import CosmosAccess
from backup.stores.cosmos_container import CosmosContainer, parts
from backup.stores.cosmos_documents import MARK, json_text, key_from_json, key_to_json, own, texts
from backup.stores.cosmos_pace import Pace
from backup.stores.cosmos_queries import PART, Queries, key_in
from backup.stores.cosmos_sibling import CosmosSibling, utc_text
from backup.stores.cosmos_writes import CosmosWrites

_DOCUMENTS_AT_ONCE = 500  # an account of the least throughput takes some ten seconds for them
_EXACT = 1 << 53  # whole numbers up to here are exact in JSON
_MANY = _EXACT >> 31  # so many times of 31 bits may be summed


class CosmosStore:
    """One container, or those of its documents that the rules' `where` picks.

    The copy of a document is the document without the server's own properties, plus `_backup`: the source's etag and
    ts, when it was copied and by which run.
    """

    kind = "cosmos"
    fingerprint_is_enough = False  # a document written twice in one second has the same `_ts`

    def __init__(self, access: CosmosAccess, container: str, rules: Rules, limits: Limits, side: SideName) -> None:
        self._access, self.name, self._rules = access, container, rules
        self._limits = replace(limits, batch_size=min(limits.batch_size, _DOCUMENTS_AT_ONCE))
        self._side, self._queries = side, Queries(rules, side)
        self._container = CosmosContainer(access, container, self._queries, self._limits)
        self._writes = CosmosWrites(access, self._container)

    @property
    def label(self) -> str:
        return self._access.label

    @property
    def location(self) -> str:
        return f"{self._access.location}/{self.name}"

    @property
    def place(self) -> str:
        return self.name

    @property
    def pace(self) -> Pace:
        """How fast its account is asked."""
        return self._access.pace

    keys_are_exact = True
    in_process = False

    @property
    def batch_size(self) -> int:
        return self._limits.batch_size

    @property
    def request_charge(self) -> float | None:
        return self.pace.charge

    def ping(self) -> None:
        self._access.once("get an answer", lambda: self._container.proxy.read())

    def close(self) -> None:
        self._access.close()
        self._container.forget()

    @property
    def partition_paths(self) -> list[list[str]]:
        """The container's partition key, each path as property names; several when it is hierarchical."""
        return self._container.partition_paths

    # --- making and checking the backup -------------------------------------------------------------------------------

    def initialize(self, source: Store) -> None:
        self.make_like(source, copies=False)
        self.drift(source, "add")

    def make_like(self, original: Store, *, copies: bool) -> None:  # noqa: ARG002 - a container's shape is its partition key
        paths = ["/" + "/".join(path) for path in _cosmos(original).partition_paths]
        self._access.create_container(self.name, paths)
        self._container.forget()

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
        [found] = self._container.numbers([self._queries.count(chunk)])
        if found is None:
            raise StoreError(f"The {self.label} did not say how many documents it has.")
        return int(found)

    def chunks(self, within: Chunk = WHOLE) -> Iterator[Chunk]:
        """Ranges of the document id alone, whatever the partition; what fits into one chunk costs one count."""
        after = within.after
        if self._count(within) > self._limits.chunk_size:
            for bound in self._bounds(within):
                yield Chunk(after, bound)
                after = bound
        yield Chunk(after, within.upto)

    def _bounds(self, within: Chunk) -> Iterator[Key]:
        # Bounds have no character from U+D800 on, where servers and Python order text differently.
        since = 0
        for name in self._container.one_by_one("list ids", self._queries.ids(within)):
            since += 1
            if since >= self._limits.chunk_size and max(name) < "\ud800":
                since = 0
                yield (name,)

    def fingerprint(self, chunk: Chunk) -> Fingerprint | None:
        """Number of documents and sum of their times of last write: `_ts` here, the source's as noted in a copy there.

        These times only grow, so what one change adds to the sum no other takes away; but they have whole seconds: a
        change within the second of the last copy does not show. A copy without its note makes the sums differ. Costs
        two queries side by side (more from four million documents on), which a range index may answer.
        """
        count, *sums = self._container.numbers([self._queries.count(chunk), *self._queries.sums(chunk, many=False)])
        if count is None:
            return None
        if count >= _MANY:
            sums = self._container.numbers(self._queries.sums(chunk, many=True))
        exact = [value or 0 for value in sums]  # of no documents, or none with a time, some servers give no sum
        if any(value > _EXACT or value != int(value) for value in exact):
            return None
        total = sum(int(value) * of for value, of in zip(exact, (1, PART), strict=False))
        return Fingerprint("count and sum of _ts", int(count), (0, total))

    def watermark(self) -> str | None:
        """The greatest `_ts` of the service's documents; None when there are none."""
        found = self._container.all("look for the newest", self._queries.newest())
        newest = [value for value in found if isinstance(value, int | float)]
        return str(int(max(newest))) if newest else None

    def recent(self, since: str, overlap_seconds: float) -> Iterator[set[StampRow]]:
        """By `_ts`, in its order, up to 5,000 at a time."""
        width = len(self.partition_paths) + 1
        for items in self._container.written_since(int(since) - ceil(overlap_seconds)):
            # A document that is written meanwhile comes twice; what came last is how it is.
            yield set({row[:width]: row for row in map(self._row, items)}.values())

    def buckets(self, chunk: Chunk) -> Mapping[int, Fingerprint] | None:  # noqa: ARG002 - of any; there is no GROUP BY that would not read every document
        return None

    def stamp_rows(self, chunk: Chunk, buckets: Collection[int] | None = None) -> set[StampRow]:  # noqa: ARG002
        """Partition key and id, version fields, etag; all as text."""
        query = self._queries.within(chunk, self._queries.stamp(self.partition_paths))
        return set(map(self._row, self._container.all_by_range("read the stamps", query)))

    def stamp_rows_of(self, keys: Sequence[Key]) -> set[StampRow]:
        width, wanted = len(self.partition_paths) + 1, set(keys)
        what = self._queries.stamp(self.partition_paths)
        found = self._container.by_ids("read stamps", keys, what)
        return {row for row in map(self._row, found) if row[:width] in wanted}

    def _row(self, item: Record) -> StampRow:
        return self._queries.row_in(item, len(self.partition_paths))

    def stamps_of(self, rows: Iterable[StampRow]) -> Stamps:
        width = len(self.partition_paths) + 1
        return {row[:width]: Version(row[width:-1], row[-1]) for row in rows}

    def stamps(self, chunk: Chunk) -> Stamps:
        return self.stamps_of(self.stamp_rows(chunk))

    def read(self, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[list[Record]]:
        if keys is None:
            yield from self._container.every_document(chunk)
            return
        for part in parts(list(keys), self._limits.batch_size):  # of any chunk, for ids suffice
            yield from self._container.documents(part, of_service=True)

    def key_of(self, record: Record) -> Key:
        return self._container.key_of(record)

    def spelled(self, key: Key, transaction: Any) -> Key | None:  # noqa: ARG002 - there are none
        return key if self.matching([key]) else None

    def matching(self, keys: Sequence[Key]) -> set[Key]:
        return self._keys_of_ids(keys).intersection(keys)

    def _keys_of_ids(self, keys: Sequence[Key]) -> set[Key]:
        """The keys of the documents with these ids, whatever their partition."""
        found = self._container.by_ids("look up ids", keys, self._queries.key(self.partition_paths))
        return {key_in(item, len(self.partition_paths)) for item in found}

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

    def write(self, records: Sequence[Record], keep: Keep | None = None, *, absent: bool = False) -> None:  # noqa: ARG002 - a look is cheap beside the writes
        refused: dict[Key, str] = {}
        for part in parts(records, self._limits.batch_size):
            if keep is not None:
                keys = [self.key_of(record) for record in part]
                there: set[Key] = set()
                for images in self.images(keys, Action.UPDATED):
                    there.update(image.key for image in images)
                    keep(images, None)
                keep((), None, [key for key in keys if key not in there])
            refused |= self._writes.upsert(part)
        self._tell("write", refused)

    def images(self, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        # A document of another type under such a key would be overwritten too.
        for records in self._container.documents(keys, of_service=False):
            yield [
                Image(self.key_of(one), action, own(one), texts(map(one.get, self._rules.version))) for one in records
            ]

    def delete(self, keys: Sequence[Key], keep: Keep | None = None) -> None:
        refused: dict[Key, str] = {}
        for part in parts(keys, self._limits.batch_size):
            if keep is not None:
                for images in self.images(part, Action.DELETED):
                    keep(images, None)
            refused |= self._writes.delete(part)
        self._tell("delete", refused)

    def _tell(self, operation: str, refused: Mapping[Key, str]) -> None:
        if not refused:
            return
        key, reason = next(iter(refused.items()))
        raise RecordRefused(
            f"Could not {operation} {len(refused)} documents in the {self.label}; all others of the batch were done. "
            f"{json.dumps(key_to_json(key))}: {reason}",
            refused=refused,
        )

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


def _shown(paths: list[list[str]]) -> str:
    return ", ".join("/" + "/".join(path) for path in paths)


def _cosmos(store: Store) -> CosmosStore:
    if not isinstance(store, CosmosStore):
        raise TypeError("the sides of a service are of one kind")
    return store
