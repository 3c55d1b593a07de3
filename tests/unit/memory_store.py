"""A store in memory: its records are a dict, its server knows keys as `fold` makes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from backup.core.errors import StoreUnavailable
from backup.core.model import WHOLE, Action, Chunk, Fingerprint, Image, Key, Record, StampRow, Stamps, Version
from backup.stores import Accept, CopyNote, Drift, Fence, Keep, OnNewColumn, Shape, Sibling, Store, Written
from backup.stores.values import Place, Traits

Stored = dict[str, Any]
"""A record: `id`, `version` (a tuple, or None in its first place), `etag` and content."""


class MemoryStore:
    """One side. `calls` are the writes and deletes made; `on` runs before the call of that name and may raise."""

    buckets = incremental = relational = request_charge = None

    def __init__(
        self,
        side: str,
        records: Sequence[Stored] = (),
        *,
        chunk_size: int = 3,
        batch_size: int = 2,
        fold: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        self.place = Place("memory", "records", f"{side} of test", side)
        self.traits = Traits(
            keys_are_exact=True,
            in_process=False,
            has_columns=False,
            fingerprint_is_enough=True,
            batch_size=batch_size,
        )
        self.side, self.chunk_size, self.batch_size, self.fold = side, chunk_size, batch_size, fold
        self.catalog, self.keys, self.copies = MemoryCatalog(self), MemoryKeys(), MemoryCopies()
        self.records: dict[Any, Stored] = {}
        self.calls: list[tuple[str, list[Key]]] = []
        self.on: dict[str, Callable[[], None]] = {}
        for record in records:
            self.put(record)

    def put(self, record: Stored) -> None:
        self.records[self.fold(record["id"])] = record

    def contents(self) -> dict[Any, Stored]:
        """Its records by id."""
        return {record["id"]: record for record in self.records.values()}

    def server_time(self) -> datetime | None:
        return None

    def ping(self) -> None:
        self.called("ping")

    def count(self) -> int:
        return len(self.records)

    def chunks(self, within: Chunk = WHOLE) -> Iterator[Chunk]:
        self.called("chunks")
        known = sorted(self.fold(one["id"]) for one in self._within(within))
        bounds = [(key,) for key in known[self.chunk_size - 1 :: self.chunk_size] if (key,) != within.upto]
        for after, upto in zip([within.after, *bounds], [*bounds, within.upto], strict=True):
            yield Chunk(after, upto)

    def fingerprint(self, chunk: Chunk) -> Fingerprint | None:
        return None

    def stamp_rows(self, chunk: Chunk) -> set[StampRow]:
        self.called("stamps")
        return {(one["id"], one["version"], one["etag"]) for one in self._within(chunk)}

    def stamp_rows_of(self, keys: Sequence[Key]) -> set[StampRow]:
        return {row for row in self.stamp_rows(WHOLE) if row[:1] in keys}

    def read(self, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[list[Record]]:
        wanted = [one for one in self._within(chunk) if keys is None or (one["id"],) in keys]
        for start in range(0, len(wanted), self.batch_size):
            self.called("read")
            yield [dict(one) for one in wanted[start : start + self.batch_size]]

    def matching(self, keys: Sequence[Key]) -> set[Key]:
        self.called("matching")
        return {key for key in keys if self.fold(key[0]) in self.records}

    def images(self, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        found = [(key, self.records[self.fold(key[0])]) for key in keys if self.fold(key[0]) in self.records]
        for start in range(0, len(found), self.batch_size):
            part = found[start : start + self.batch_size]
            yield [Image(key, action, dict(one), one["version"]) for key, one in part]

    def write(
        self,
        records: Sequence[Record],
        keep: Keep | None = None,
        *,
        accept: Accept | None = None,
    ) -> Written:
        keys = [self.keys.of(record) for record in records]
        self.called("write", keys)
        if keep is not None:
            there = [image for images in self.images(keys, Action.UPDATED) for image in images]
            new = set(keys) - {image.key for image in there}
            keep(there, None, [key for key in keys if key in new])
        there_before = self.matching(keys)
        for record in records:
            self.put(dict(record))
        return Written(frozenset(keys) - there_before, frozenset(there_before))

    def delete(self, keys: Sequence[Key], keep: Keep | None = None, *, accept: Accept | None = None) -> Written:
        self.called("delete", list(keys))
        if keep is not None:
            keep([image for images in self.images(keys, Action.DELETED) for image in images], None)
        for key in keys:
            self.records.pop(self.fold(key[0]), None)
        return Written(deleted=frozenset(keys))

    def fence_by(self, fence: Fence) -> None:
        """Has no runs that could be taken over."""

    def sibling(self, shape: Shape) -> Sibling:
        raise NotImplementedError

    def close(self) -> None:
        """Holds nothing open."""

    def _within(self, chunk: Chunk) -> list[Stored]:
        def inside(key: Any) -> bool:
            after, upto = chunk
            return (after is None or key > after[0]) and (upto is None or key <= upto[0])

        return [self.records[key] for key in sorted(self.records) if inside(key)]

    def called(self, name: str, keys: list[Key] | None = None) -> None:
        self.on.get(name, lambda: None)()
        if keys is not None:
            self.calls.append((name, keys))


class MemoryKeys:
    """The keys of a store in memory: the record's id."""

    def of(self, record: Record) -> Key:
        return (record["id"],)

    def stamps(self, rows: Iterable[StampRow]) -> Stamps:
        return {(key,): Version(version, etag) for key, version, etag in rows}

    def may_hold(self, key: Key) -> bool:
        return len(key) == 1

    def from_text(self, text: str) -> Key:
        return (json.loads(text),)

    def to_json(self, key: Key) -> list[Any]:
        return list(key)


class MemoryCopies:
    """Copies that are as their source's records."""

    filled: frozenset[str] = frozenset()

    def of(self, records: Sequence[Record], note: CopyNote) -> list[Record]:
        return list(records)

    def original(self, record: Record) -> Record:
        return record

    def as_it_was(self, record: Record) -> Record:
        return record

    def content(self, record: Record) -> Mapping[str, str]:
        return {name: repr(value) for name, value in record.items()}


class MemoryCatalog:
    """What the server of a store in memory knows of it."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def qualified_name(self) -> str:
        return self._store.place.name

    def is_same_place(self, other: Store) -> bool:
        return self._store is other

    def copies_beside(self) -> Sequence[str]:
        return ()

    def initialize(self, source: Store) -> None:
        self._store.called("initialize")

    def make_like(self, other: Store) -> None:
        self._store.called("make_like")

    def make_source_of(self, backup: Store) -> None:
        self._store.called("make_like")

    def drift(self, source: Store, on_new_column: OnNewColumn) -> Drift:
        self._store.called("drift")
        return Drift()

    def adapt(self, drift: Drift) -> None:
        self._store.called("adapt")

    def seconds_to_live(self) -> Mapping[str, int]:
        return {}

    def beside(self, name: str) -> Store:
        store = self._store
        return MemoryStore(name, chunk_size=store.chunk_size, batch_size=store.batch_size, fold=store.fold)

    def drop(self) -> None:
        self._store.called("drop")
        self._store.records.clear()


def record(key: Any, version: Any = 1, etag: str | None = None, content: Any = "content") -> Stored:
    """A record of this version."""
    return {"id": key, "version": (version,), "etag": etag, "content": content}


def fail_at_call(number: int) -> Callable[[], None]:
    """Raises StoreUnavailable when called for the `number`th time, from 1."""
    calls = 0

    def maybe() -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise StoreUnavailable("the server went away")

    return maybe
