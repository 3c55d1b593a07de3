"""A store in memory, which passes the contract suite. Its records are a dict; its server compares keys after `fold`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from hashlib import blake2b
from typing import Any

from backup.core.errors import BackupError, NotInitialized, SourceMissing, StoreUnavailable
from backup.core.model import WHOLE, Action, Chunk, Fingerprint, Image, Key, Record, StampRow, Stamps, Version
from backup.stores import Accept, CopyNote, Drift, Fence, Keep, Shape, Sibling, Store, Written
from backup.stores.asked_keys import parts_of, unusable_key, value_of
from backup.stores.values import Place, Traits
from tests.unit.memory_server import Database, MemorySibling, Server, Stored

TABLE = "records"


class MemoryStore:
    """One side. `calls` lists the writes and deletes; `on` has functions to run before calls, by name. They may raise.

    `server` None: the store makes its own server, with its table on it.
    """

    buckets = incremental = kept_deletes = relational = request_charge = transforming = None

    def __init__(
        self,
        side: str,
        records: Sequence[Stored] = (),
        *,
        chunk_size: int = 3,
        batch_size: int = 2,
        batch_bytes: int = 1 << 23,
        fold: Callable[[Any], Any] = lambda value: value,
        server: Server | None = None,
        database: str | None = None,
    ) -> None:
        self.database_name = database or side
        self.place = Place("memory", TABLE, f"{side} of test", self.database_name)
        self.traits = Traits(
            keys_are_exact=True,
            in_process=False,
            has_columns=False,
            fingerprint_is_enough=True,
            batch_size=batch_size,
        )
        self.side, self.fold, self.server = side, fold, server or Server()
        self.chunk_size, self.batch_size, self.batch_bytes = chunk_size, batch_size, batch_bytes
        self.missing: type[BackupError] = SourceMissing if side == "source" else NotInitialized
        self.catalog, self.keys, self.copies = MemoryCatalog(self), MemoryKeys(self.place), MemoryCopies()
        self.calls: list[tuple[str, list[Key]]] = []
        self.on: dict[str, Callable[[], None]] = {}
        self._fence: Fence | None = None
        if server is None:
            self.create()
        for record in records:
            self.put(record)

    # --- past the store -----------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Makes the database and the table where missing."""
        self.server.made(self.database_name).tables.setdefault(TABLE, {})

    @property
    def database(self) -> Database:
        return self.server.database(self.database_name, self.missing)

    @property
    def records(self) -> dict[Any, Stored]:
        """The records by their folded ids."""
        tables = self.database.tables
        if TABLE not in tables:
            raise self.missing(f"The {self.place.label} does not exist.")
        return tables[TABLE]

    def put(self, record: Stored) -> None:
        self.records[self.fold(record["id"])] = record

    def contents(self) -> dict[Any, Stored]:
        """The records by id."""
        return {record["id"]: record for record in self.records.values()}

    def called(self, name: str, keys: list[Key] | None = None) -> None:
        self.on.get(name, lambda: None)()
        if keys is not None:
            self.calls.append((name, keys))

    # --- the store ----------------------------------------------------------------------------------------------------

    def ping(self) -> None:
        self.called("ping")
        if not self.server.answers:
            raise StoreUnavailable(f"The {self.place.label} does not answer.")

    def server_time(self) -> datetime | None:
        return None

    def has_records(self) -> bool:
        return bool(self.records)

    def count(self) -> int:
        return len(self.records)

    def chunks(self, within: Chunk = WHOLE) -> Iterator[Chunk]:
        self.called("chunks")
        keys = sorted(self.fold(record["id"]) for record in self._within(within))
        bounds = [(key,) for key in keys[self.chunk_size - 1 :: self.chunk_size] if (key,) != within.upto]
        for after, upto in zip([within.after, *bounds], [*bounds, within.upto], strict=True):
            yield Chunk(after, upto)

    def fingerprint(self, chunk: Chunk) -> Fingerprint | None:
        self.called("fingerprint")
        rows = [self._row(record) for record in self._within(chunk)]
        digests = [blake2b(repr(row).encode(), digest_size=16).digest() for row in rows]
        sums = (
            sum(int.from_bytes(digest[:8]) for digest in digests),
            sum(int.from_bytes(digest[8:]) for digest in digests),
        )
        return Fingerprint("memory", len(rows), sums)

    def stamp_rows(self, chunk: Chunk) -> set[StampRow]:
        self.called("stamps")
        return set(map(self._row, self._within(chunk)))

    def stamp_rows_of(self, keys: Sequence[Key]) -> set[StampRow]:
        return {row for row in map(self._row, self._within(WHOLE)) if row[:1] in keys}

    def read(self, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[list[Record]]:
        ids = [record["id"] for record in self._within(chunk) if keys is None or (record["id"],) in keys]
        for batch in self._batches(ids, lambda key: self.records.get(self.fold(key))):
            self.called("read")
            yield [dict(record) for _, record in batch]

    def matching(self, keys: Sequence[Key]) -> set[Key]:
        self.called("matching")
        return {key for key in keys if self.fold(key[0]) in self.records}

    def images(self, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        for batch in self._batches(keys, lambda key: self.records.get(self.fold(key[0]))):
            yield [self._image(key, action, record) for key, record in batch]

    def write(self, records: Sequence[Record], keep: Keep | None = None, *, accept: Accept | None = None) -> Written:
        keys = [self.keys.of(record) for record in records]
        self.called("write", keys)
        with self._transaction() as transaction:
            left, existing = self._keep_images(keys, Action.UPDATED, keep, accept, transaction)
            new = [key for key in keys if key not in left and key not in existing]
            for key, record in zip(keys, records, strict=True):
                if key not in left:
                    self.put(dict(record))
            if keep is not None:
                keep([], transaction, new)
        return Written(frozenset(new), frozenset(existing), not_accepted=frozenset(left))

    def delete(self, keys: Sequence[Key], keep: Keep | None = None, *, accept: Accept | None = None) -> Written:
        self.called("delete", list(keys))
        with self._transaction() as transaction:
            left, _ = self._keep_images(keys, Action.DELETED, keep, accept, transaction)
            gone = [key for key in keys if key not in left]
            for key in gone:
                self.records.pop(self.fold(key[0]), None)
        return Written(deleted=frozenset(gone), not_accepted=frozenset(left))

    def fence_by(self, fence: Fence) -> None:
        self._fence = fence

    def sibling(self, shape: Shape) -> Sibling:
        return MemorySibling(self.server, self.database_name, shape)

    def close(self) -> None:
        """Holds nothing open."""

    # --- below --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[Database]:
        """A transaction. If the store has a fence, the fence is its last step."""
        assert self.records is not None
        with self.database.transaction() as transaction:
            yield transaction
            if self._fence is not None:
                beside = self._fence.beside
                is_here = isinstance(beside, MemoryStore) and beside.database is transaction
                self._fence.check_last(transaction if is_here else None, False)

    def _keep_images(
        self, keys: Sequence[Key], action: Action, keep: Keep | None, accept: Accept | None, transaction: Database
    ) -> tuple[set[Key], set[Key]]:
        """Keeps the images of accepted records. Returns the keys of refused records, and the keys of accepted ones."""
        left, existing = set[Key](), set[Key]()
        for images in self.images(keys, action):
            accepted = [image for image in images if accept is None or accept(image)]
            left.update(image.key for image in images if image not in accepted)
            existing.update(image.key for image in accepted)
            if keep is not None:
                keep(accepted, transaction)
        return left, existing

    def _batches(
        self, keys: Iterable[Any], record_of: Callable[[Any], Stored | None]
    ) -> Iterator[list[tuple[Any, Stored]]]:
        batch, size = list[tuple[Any, Stored]](), 0
        for key in keys:
            record = record_of(key)
            if record is None:
                continue
            batch.append((key, record))
            size += len(repr(record))
            if len(batch) == self.batch_size or size > self.batch_bytes:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _row(self, record: Stored) -> StampRow:
        """The stamp of the record. A record without version and etag has its content as version."""
        etag, version = record["etag"], record["version"]
        return record["id"], version, repr(record["content"]) if etag is None and version is None else etag

    def _image(self, key: Key, action: Action, record: Stored) -> Image:
        [stamp] = self.keys.stamps([self._row(record)]).values()
        return Image(key, action, dict(record), (record["version"],), stamp)

    def _within(self, chunk: Chunk) -> list[Stored]:
        def inside(key: Any) -> bool:
            after, upto = chunk
            return (after is None or key > after[0]) and (upto is None or key <= upto[0])

        records = self.records
        return [records[key] for key in sorted(records) if inside(key)]


class MemoryKeys:
    """The keys of a store in memory: the ids of its records. As text, a key is a whole number."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def of(self, record: Record) -> Key:
        return (record["id"],)

    def stamps(self, rows: Iterable[StampRow]) -> Stamps:
        return {(key,): Version((version,), etag) for key, version, etag in rows}

    def may_hold(self, key: Key) -> bool:
        return len(key) == 1

    def from_text(self, text: str) -> Key:
        parts = parts_of(text, self._place.label)
        try:
            [part] = [text] if parts is None else parts
            return (value_of("bigint", part),)
        except (ValueError, ArithmeticError):
            raise unusable_key(text, self._place.label, "Its key is a whole number.") from None

    def in_order(self, keys: Collection[Key]) -> list[Key]:
        return sorted(keys)

    def to_json(self, key: Key) -> list[Any]:
        return list(key)


class MemoryCopies:
    """Copies, which are equal to the source's records."""

    filled: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()

    def of(self, records: Sequence[Record], note: CopyNote) -> list[Record]:
        return list(records)

    def original(self, record: Record) -> Record:
        return record

    def as_it_was(self, record: Record) -> Record:
        return record

    def content(self, record: Record) -> Mapping[str, str]:
        return {name: json.dumps(value) for name, value in record.items()}


class MemoryCatalog:
    """The catalog of a store in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def qualified_name(self) -> str:
        return self._store.place.name

    def is_same_place(self, other: Store) -> bool:
        return isinstance(other, MemoryStore) and other.records is self._store.records

    def is_marked(self, source: Store) -> bool:
        return True

    def is_another(self) -> bool:
        """As `Catalog.is_another`."""
        return False

    def copies_beside(self) -> Sequence[str]:
        return ()

    def make_database(self, source: Store) -> None:
        self._store.called("make_database")

    def initialize(self, source: Store) -> None:
        self._store.called("initialize")
        source.count()
        self._store.create()

    def make_like(self, other: Store) -> None:
        self._store.called("make_like")
        other.count()
        self._store.create()

    def make_source_of(self, backup: Store) -> None:
        self.make_like(backup)

    def match(self, source: Store) -> Drift:
        self._store.called("match")
        source.count()
        self._store.count()
        return Drift()

    def check_there(self) -> None:
        self._store.called("check_there")

    def seconds_to_live(self) -> Mapping[str, int]:
        return {}

    def beside(self, name: str) -> Store:
        store = self._store
        return MemoryStore(
            name,
            chunk_size=store.chunk_size,
            batch_size=store.batch_size,
            batch_bytes=store.batch_bytes,
            fold=store.fold,
            server=store.server,
            database=name,
        )

    def drop(self) -> None:
        self._store.called("drop")
        self._store.server.drop(self._store.database_name)


def record(key: Any, version: Any = 1, etag: str | None = None, content: Any = "content") -> Stored:
    """A record of this version, as a store in memory has it."""
    return {"id": key, "version": version, "etag": etag, "content": content}


def fail_at_call(number: int) -> Callable[[], None]:
    """A function that raises StoreUnavailable at its call number `number`, from 1."""
    calls = 0

    def count_and_fail() -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise StoreUnavailable("the server went away")

    return count_and_fail
