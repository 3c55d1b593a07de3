"""A table's records, looked up and paged through in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from backup.core.model import Action, Chunk, Image, Key, Record
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.batch import SqlBatch, key_batches, rest
from backup.stores.sql.rows import Rows, first_rows, values_of
from backup.stores.sql.table import TableShape
from backup.stores.values import Limits


class SqlReads:
    """The reads of one table's records, each in statements that the limits bound."""

    def __init__(self, access: SqlAccess, limits: Limits) -> None:
        self._access, self._limits = access, limits

    def read(self, shape: TableShape, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[Sequence[Record]]:
        """The chunk's records, or those of these keys, a batch at a time."""
        # Most of the chunk: page through it in key order. A few keys: look each up.
        if keys is None or len(keys) * 2 > self._limits.chunk_size:
            yield from self._read_range(shape, keys, chunk)
            return
        for part in key_batches(list(keys), shape, self._access.dialect, self._limits):
            left = list(part)
            while left:
                query = shape.select.where(shape.is_one_of(left), *shape.filters)
                records, complete = self._batch(shape, query)
                got = values_of(records, shape.key_names)
                found = [row for key, row in zip(got, records.values, strict=True) if key in keys]
                records = Rows(records.names, found, large=records.large)
                del found
                yield records
                del records  # or it would be held beside the next
                met = set(got)
                left = [] if complete or met.isdisjoint(left) else [key for key in left if key not in met]

    def _read_range(self, shape: TableShape, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[Rows]:
        complete = False
        while not complete:
            page = shape.select.where(*shape.within(chunk), *shape.filters).order_by(*shape.key)
            records, complete = self._batch(shape, page.limit(self._limits.batch_size))
            if records:
                complete = complete and len(records) < self._limits.batch_size
                found = values_of(records[-1:] if keys is None else records, shape.key_names)
                chunk = Chunk(found[-1], chunk.upto)
                if keys is not None:
                    pairs = zip(found, records.values, strict=True)
                    records = Rows(records.names, [row for key, row in pairs if key in keys], large=records.large)
                    del pairs
                yield records
            del records  # or it would be held beside the next

    def _batch(self, shape: TableShape, query: sa.Select[Any]) -> tuple[Rows, bool]:
        """The query's first rows, up to the byte limit, and whether these were all."""
        for attempt in self._access.attempts("read records"):
            with attempt as cx:
                largest = self._access.dialect.largest(cx, shape.table, query)
                found = first_rows(cx, query, self._limits.batch_bytes, largest)
        return Rows(shape.names, found.rows, large=found.large), found.complete

    def matching(self, shape: TableShape, keys: Sequence[Key]) -> set[Key]:
        """Those of the keys that the table holds, with key equality as its server sees it."""
        found: set[Key] = set()
        for part in key_batches(keys, shape, self._access.dialect, self._limits):
            for attempt in self._access.attempts("look up keys"):
                with attempt as cx:
                    matched = self._batch_on(cx, shape).matching(part, shape.filters)
            found |= matched
        return found

    def images(self, shape: TableShape, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        """The records that the server finds under these keys, as images before `action`, a batch at a time."""
        for part in key_batches(keys, shape, self._access.dialect, self._limits):
            left = list(part)
            while left:
                for attempt in self._access.attempts("read records"):
                    with attempt as cx:
                        found, _ = self._batch_on(cx, shape).images(left, action)
                left = rest(left, found)
                if found:
                    yield found
                del found  # or it would be held beside the next

    def _batch_on(self, cx: sa.Connection, shape: TableShape) -> SqlBatch:
        return SqlBatch(cx, shape, self._access.dialect, self._limits)
