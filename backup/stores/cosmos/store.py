"""A container on Cosmos DB, through the azure-cosmos SDK. A document's key is (partition key, id)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from backup.core.batched import batched
from backup.core.errors import StoreError
from backup.core.masks import NO_MASKS
from backup.core.model import (
    WHOLE,
    Action,
    Chunk,
    Fingerprint,
    Image,
    Key,
    Record,
    SideName,
    StampRow,
    utc_now,
)
from backup.stores.base import Fence, Store
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.cosmos.app_containers import CosmosSibling
from backup.stores.cosmos.catalog import CosmosCatalog
from backup.stores.cosmos.chunks import CosmosChunks
from backup.stores.cosmos.conditional import ConditionalWrites
from backup.stores.cosmos.container import CosmosContainer
from backup.stores.cosmos.copies import CosmosCopies
from backup.stores.cosmos.incremental import CosmosIncremental
from backup.stores.cosmos.kept_deletes import CosmosKeptDeletes
from backup.stores.cosmos.keys import CosmosKeys
from backup.stores.cosmos.masked import merged, properties_of
from backup.stores.cosmos.queries import Queries
from backup.stores.cosmos.service_documents import ServiceDocuments, raise_refused
from backup.stores.cosmos.throttle import Throttle
from backup.stores.cosmos.transformed import touched_by
from backup.stores.cosmos.writes import CosmosWrites
from backup.stores.keeping import Accept, Keep
from backup.stores.sibling import Shape, Sibling
from backup.stores.values import Limits, Place, Rules, Traits, Written

_DOCUMENTS_AT_ONCE = 500  # an account of the lowest throughput needs about ten seconds for them
_WHOLE_SECONDS = timedelta(seconds=2)
_EXPIRES = "It has a ttl, and the backup's container has time to live on, so its copy would delete itself."


class CosmosStore:
    """One container, or only the documents that the rules' `where` picks.

    The copy of a document is the document without the server's own properties, plus `_backup`: the source's etag and
    ts, the time and the run of the copy.
    """

    def __init__(self, access: CosmosAccess, container: str, rules: Rules, limits: Limits, side: SideName) -> None:
        self.place = Place("cosmos", container, access.label, f"{access.location}/{container}")
        self.traits = Traits(
            keys_are_exact=True,
            in_process=False,
            has_columns=False,
            fingerprint_is_enough=False,  # a document written twice in one second has the same `_ts`
            batch_size=min(limits.batch_size, _DOCUMENTS_AT_ONCE),
            masks=rules.masking.mark if rules.masking else None,
        )
        self._access = access
        self._limits = replace(limits, batch_size=self.traits.batch_size)
        self._side, self._queries = side, Queries(rules, side)
        paths = rules.partition_paths if side == "backup" else None
        key_paths = () if paths is None else paths.source
        self._container = CosmosContainer(access, container, self._queries, self._limits, key_paths)
        self._chunks = CosmosChunks(self._container, self._queries, self._limits, access.label)
        self._writes = CosmosWrites(access, self._container)
        self._conditional = ConditionalWrites(access, self._container, self._limits.batch_size)
        self._siblings: dict[str, CosmosSibling] = {}

        withheld = frozenset[str]()
        if side == "source":
            withheld = properties_of(rules.masking or NO_MASKS)
            withheld |= frozenset() if rules.transform is None else touched_by(rules.transform)

        def open_at(name: str) -> Store:
            return CosmosStore(access, name, rules, limits, side)

        self.keys, self.copies = CosmosKeys(self._container, access.label), CosmosCopies(withheld)
        documents = ServiceDocuments(self._container, self.keys, rules, side, access.label, self.traits.batch_size)
        self._documents = documents
        self.transforming = None if rules.transform is None or side != "source" else documents
        self.kept_deletes = (
            CosmosKeptDeletes(
                self._container, self._queries, documents, self._writes, self.traits.batch_size, access.label
            )
            if rules.keeps_deleted
            else None
        )
        self.incremental = CosmosIncremental(self._container, self._queries)
        self.catalog = CosmosCatalog(access, self._container, self.place, self._siblings, open_at, rules, paths)

    buckets = None  # a GROUP BY would read every document
    relational = None

    @property
    def throttle(self) -> Throttle:
        """The limits of the requests to its account."""
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

    def server_time(self) -> datetime | None:
        """The header `Date`, which has whole seconds. This process's finer clock, if both agree within two seconds."""
        server, here = self._container.asked_at(), utc_now()
        return here if server is None or abs(here - server) <= _WHOLE_SECONDS else server

    # --- reading ------------------------------------------------------------------------------------------------------

    def has_records(self) -> bool:
        return self._container.has_any(self._queries.within(WHOLE, "VALUE c.id"))

    def count(self) -> int:
        return self._chunks.count(WHOLE)

    def chunks(self, within: Chunk = WHOLE) -> Iterator[Chunk]:
        """Chunks that are ranges of the document id alone. A container that fits into one chunk costs one count."""
        return self._chunks.within(within)

    def fingerprint(self, chunk: Chunk) -> Fingerprint | None:
        return self._chunks.fingerprint(chunk)

    def stamp_rows(self, chunk: Chunk) -> set[StampRow]:
        """Rows of partition key and id, version fields, etag; all as text."""
        query = self._queries.within(chunk, self._queries.stamp(self._container.partition_paths))
        return set(map(self._container.row_in, self._container.all_stamps(query)))

    def stamp_rows_of(self, keys: Sequence[Key]) -> set[StampRow]:
        paths, wanted = self._container.partition_paths, set(keys)
        items = self._container.by_ids("read stamps", keys, self._queries.stamp(paths))
        return {row for row in map(self._container.row_in, items) if row[: len(paths) + 1] in wanted}

    def read(self, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[list[Record]]:
        return self._documents.read(keys, chunk)

    def matching(self, keys: Sequence[Key]) -> set[Key]:
        return self._container.keys_of_ids(keys).intersection(keys)

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, records: Sequence[Record], keep: Keep | None = None, *, accept: Accept | None = None) -> Written:
        wanted = {self.keys.of(record): record for record in records}
        if accept is not None:
            return self._change_if(accept, keep, wanted, Action.UPDATED)
        if self.copies.masked:
            raise StoreError(
                f"Masked or transformed properties of the {self.place.label} cannot be restored. Nothing was written."
            )
        written = Written()
        refused = {key: _EXPIRES for key, record in wanted.items() if self._would_expire(record)}
        fitting = [key for key in wanted if key not in refused]
        # Copies that exchange their addresses must be written together.
        at_once = max(1, len(fitting)) if self._container.has_other_addresses else self._limits.batch_size
        for asked in batched(fitting, at_once):
            documents = {key: wanted[key] for key in asked}
            moves = self._writes.moves(documents)
            part = [key for key in asked if key not in moves.refused]
            existing_keys: set[Key] = set()
            if keep is not None:
                for images in self.images(part, Action.UPDATED):
                    existing_keys.update(image.key for image in images)
                    keep(images, None)
                keep((), None, [key for key in part if key not in existing_keys])
            refused |= self._writes.upsert(documents.values(), moves)
            written += Written(frozenset(part) - existing_keys, frozenset(existing_keys))
        raise_refused("write", refused, self.place.label)
        return written

    def _change_if(
        self, accept: Accept, keep: Keep | None, wanted: Mapping[Key, Record | None], action: Action
    ) -> Written:
        make_image = partial(self._documents.image, action=action)
        merge = partial(merged, self.copies.masked) if self.copies.masked else None
        written, refused = self._conditional.change(
            accept, keep, wanted, make_image, merge, deletes=action is Action.DELETED
        )
        raise_refused("change", refused, self.place.label)
        return written

    def _would_expire(self, record: Record) -> bool:
        """Whether the server would delete the copy: the document has a `ttl` and the container has time to live on."""
        if self._side == "source" or self._container.default_ttl is None:
            return False
        seconds = record.get("ttl")
        return isinstance(seconds, int | float) and seconds > 0

    def images(self, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        return self._documents.images(keys, action)

    def delete(self, keys: Sequence[Key], keep: Keep | None = None, *, accept: Accept | None = None) -> Written:
        if accept is not None:
            return self._change_if(accept, keep, dict.fromkeys(keys), Action.DELETED)
        refused: dict[Key, str] = {}
        for part in batched(keys, self._limits.batch_size):
            if keep is not None:
                for images in self.images(part, Action.DELETED):
                    keep(images, None)
            refused |= self._writes.delete(part)
        raise_refused("delete", refused, self.place.label)
        return Written(deleted=frozenset(keys))

    def fence_by(self, fence: Fence) -> None:
        self._access.connection.check_young = fence.check_young

    def sibling(self, shape: Shape) -> Sibling:
        self._siblings[shape.container] = CosmosSibling(self._access, shape)
        return self._siblings[shape.container]
