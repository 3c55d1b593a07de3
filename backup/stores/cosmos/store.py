"""A container on Cosmos DB, through the azure-cosmos SDK. A document's identity is (partition key, id)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from math import ceil
from typing import Any

from backup.core.errors import RecordRefused, StoreError
from backup.core.model import (
    WHOLE,
    Action,
    Chunk,
    Fingerprint,
    Image,
    Key,
    Record,
    Run,
    StampRow,
    Stamps,
    Version,
    utc_now,
)
from backup.stores.asked_keys import parts_of, refused
from backup.stores.base import Accept, Fence, Keep, Store
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.cosmos.app_containers import CosmosSibling, utc_text
from backup.stores.cosmos.catalog import CosmosCatalog
from backup.stores.cosmos.chunks import CosmosChunks
from backup.stores.cosmos.conditional import ConditionalWrites
from backup.stores.cosmos.container import CosmosContainer, parts
from backup.stores.cosmos.documents import MARK, json_text, key_from_json, key_to_json, own, texts
from backup.stores.cosmos.queries import Queries, key_in
from backup.stores.cosmos.throttle import Throttle
from backup.stores.cosmos.writes import CosmosWrites
from backup.stores.sibling import Shape, Sibling
from backup.stores.values import Limits, Place, Rules, SideName, Traits, Written

_DOCUMENTS_AT_ONCE = 500  # an account of the least throughput takes some ten seconds for them
_WHOLE_SECONDS = timedelta(seconds=2)
_MAX_ID_CHARACTERS = 1023
_EXPIRES = "It has a ttl, and the backup's container has time to live on, so its copy would delete itself."


class CosmosStore:
    """One container, or those of its documents that the rules' `where` picks.

    The copy of a document is the document without the server's own properties, plus `_backup`: the source's etag and
    ts, when it was copied and by which run.
    """

    def __init__(self, access: CosmosAccess, container: str, rules: Rules, limits: Limits, side: SideName) -> None:
        self.place = Place("cosmos", container, access.label, f"{access.location}/{container}")
        self.traits = Traits(
            keys_are_exact=True,
            in_process=False,
            has_columns=False,
            fingerprint_is_enough=False,  # a document written twice in one second has the same `_ts`
            batch_size=min(limits.batch_size, _DOCUMENTS_AT_ONCE),
        )
        self._access, self._rules = access, rules
        self._limits = replace(limits, batch_size=self.traits.batch_size)
        self._side, self._queries = side, Queries(rules, side)
        self._container = CosmosContainer(access, container, self._queries, self._limits)
        self._chunks = CosmosChunks(self._container, self._queries, self._limits, access.label)
        self._writes = CosmosWrites(access, self._container)
        self._conditional = ConditionalWrites(access, self._container, self._limits.batch_size)
        self._siblings: dict[str, CosmosSibling] = {}

        def open_at(name: str) -> Store:
            return CosmosStore(access, name, rules, limits, side)

        self.catalog = CosmosCatalog(access, self._container, self.place, self._siblings, open_at)

    @property
    def throttle(self) -> Throttle:
        """How fast its account is asked."""
        return self._access.throttle

    @property
    def request_charge(self) -> float | None:
        return self.throttle.charge

    def ping(self) -> None:
        with self._access.once("get an answer"):
            self._container.proxy.read()

    def close(self) -> None:
        self._access.close()
        self._container.forget()

    @property
    def partition_paths(self) -> list[list[str]]:
        """The container's partition key, each path as property names; several when it is hierarchical."""
        return self._container.partition_paths

    def server_time(self) -> datetime | None:
        """By the header `Date`, which has whole seconds; this process's clock is finer, and is taken if it agrees."""
        found, here = self._container.asked_at(), utc_now()
        return here if found is None or abs(here - found) <= _WHOLE_SECONDS else found

    # --- reading ------------------------------------------------------------------------------------------------------

    def count(self) -> int:
        return self._chunks.count(WHOLE)

    def chunks(self, within: Chunk = WHOLE) -> Iterator[Chunk]:
        """Ranges of the document id alone, whatever the partition; what fits into one chunk costs one count."""
        return self._chunks.within(within)

    def fingerprint(self, chunk: Chunk) -> Fingerprint | None:
        return self._chunks.fingerprint(chunk)

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

    def may_hold(self, key: Key) -> bool:  # noqa: ARG002 - ids are texts for ever
        return True

    def left_out(self, record: Record) -> Collection[str]:  # noqa: ARG002 - documents have no columns
        return ()

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

    filled: frozenset[str] = frozenset()

    def content(self, record: Record) -> Mapping[str, str]:
        return {name: json_text(value) for name, value in self.as_original(record).items()}

    def write(
        self,
        records: Sequence[Record],
        keep: Keep | None = None,
        *,
        absent: bool = False,  # noqa: ARG002 - a look is cheap beside the writes
        accept: Accept | None = None,
        replace: bool = False,  # noqa: ARG002 - there are no unique values to exchange
    ) -> Written:
        if accept is not None:
            return self._changed_if(accept, keep, {self.key_of(record): record for record in records}, Action.UPDATED)
        written = Written()
        refused = {self.key_of(record): _EXPIRES for record in records if self._would_expire(record)}
        records = [record for record in records if self.key_of(record) not in refused] if refused else records
        for part in parts(records, self._limits.batch_size):
            keys = [self.key_of(record) for record in part]
            there: set[Key] = set()
            if keep is not None:
                for images in self.images(keys, Action.UPDATED):
                    there.update(image.key for image in images)
                    keep(images, None)
                keep((), None, [key for key in keys if key not in there])
            refused |= self._writes.upsert(part)
            written += Written(frozenset(keys) - there, frozenset(there))
        self._tell("write", refused)
        return written

    def _changed_if(
        self, accept: Accept, keep: Keep | None, wanted: Mapping[Key, Record | None], action: Action
    ) -> Written:
        image = partial(self._image, action=action)
        written, refused = self._conditional.change(accept, keep, wanted, image, deletes=action is Action.DELETED)
        self._tell("change", refused)
        return written

    def _would_expire(self, record: Record) -> bool:
        """Whether the copy would delete itself, since its source says of itself when it is to."""
        if self._side == "source" or self._container.default_ttl is None:
            return False
        seconds = record.get("ttl")
        return isinstance(seconds, int | float) and seconds > 0

    def images(self, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        # A document of another type under such a key would be overwritten too.
        for records in self._container.documents(keys, of_service=False):
            yield [self._image(one, action) for one in records]

    def _image(self, document: Record, action: Action) -> Image:
        version = texts(map(document.get, self._rules.version))
        etag = document.get("_etag") if self._side == "source" else (document.get(MARK) or {}).get("etag")
        where = self._rules.where.items()
        belongs = all(name in document and json_text(document[name]) == json_text(value) for name, value in where)
        return Image(self.key_of(document), action, own(document), version, Version(version, etag) if belongs else None)

    def delete(self, keys: Sequence[Key], keep: Keep | None = None, *, accept: Accept | None = None) -> Written:
        if accept is not None:
            return self._changed_if(accept, keep, dict.fromkeys(keys), Action.DELETED)
        refused: dict[Key, str] = {}
        for part in parts(keys, self._limits.batch_size):
            if keep is not None:
                for images in self.images(part, Action.DELETED):
                    keep(images, None)
            refused |= self._writes.delete(part)
        self._tell("delete", refused)
        return Written(deleted=frozenset(keys))

    def _tell(self, operation: str, refused: Mapping[Key, str]) -> None:
        if not refused:
            return
        key, reason = next(iter(refused.items()))
        raise RecordRefused(
            f"Could not {operation} {len(refused)} documents in the {self.place.label}; all others of the batch were "
            f"done. {json.dumps(key_to_json(key))}: {reason}",
            refused=refused,
        )

    def advance_counters(self) -> Sequence[str]:
        return ()

    def referring(self, keys: Sequence[Key]) -> Mapping[str, int]:  # noqa: ARG002 - documents know no others
        return {}

    def on_delete(self) -> Sequence[str]:
        return ()

    def key_from(self, text: str) -> Key:
        paths = self.partition_paths
        parts = parts_of(text, self.place.label)
        if parts is not None and len(parts) == len(paths) + 1 and isinstance(parts[-1], str):
            return key_from_json(parts)
        found = sorted(self._keys_of_ids([(text,)])) if len(text) <= _MAX_ID_CHARACTERS else []
        if len(found) == 1:
            return found[0]
        known = "; ".join(json.dumps(self.key_to_json(key)) for key in found[:10])
        hint = f"Write [partition key, id] as JSON: {known or 'the recycle bin has it, if the document is gone'}."
        raise refused(text, self.place.label, hint)

    def key_to_json(self, key: Key) -> list[Any]:
        return key_to_json(key)

    def fence_by(self, fence: Fence, beside: Store) -> None:  # noqa: ARG002 - no transaction reaches from here to there
        self._access.check_young = fence.check_young

    def shares_transactions(self, other: Store) -> bool:  # noqa: ARG002 - there are none
        return False

    def sibling(self, shape: Shape) -> Sibling:
        self._siblings[shape.container] = CosmosSibling(self._access, shape)
        return self._siblings[shape.container]
