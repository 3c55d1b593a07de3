"""Looks up a table's records and pages through them, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from backup.core.errors import RecordRefused, Undecoded
from backup.core.model import WHOLE, Action, Chunk, Image, Key, Record
from backup.core.suggestions import quantity
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.batch import SqlBatch, key_batches, keys_without_image
from backup.stores.sql.rows import Rows, first_rows, values_of
from backup.stores.sql.table import TableShape
from backup.stores.values import LeftOut, Limits


class SqlReads:
    """The reads of one table's records. The limits bound each statement."""

    def __init__(self, access: SqlAccess, limits: Limits) -> None:
        self._access, self._limits = access, limits

    def read(self, shape: TableShape, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[Sequence[Record]]:
        """The chunk's records, or those of these keys, a batch at a time; transformed, if they are a source's that has
        a transform. Raises RecordRefused for those that could not be transformed, after the others of their batch."""
        if shape.transformed is None:
            yield from self._rows(shape, keys, chunk)
            return
        for rows in self._rows(shape, keys, chunk):
            records, left_out = shape.transformed.applied(rows)
            del rows  # else memory would hold it beside the next batch
            if records:
                yield records
            del records
            if left_out.failed:
                raise RecordRefused(
                    f"{quantity(len(left_out.failed), 'record')} of the {shape.label} could not be transformed.",
                    refused=left_out.failed,
                )

    def count(self, shape: TableShape, conditions: Sequence[sa.ColumnElement[bool]]) -> int:
        """The number of the table's rows that fulfil these conditions."""
        query = sa.select(self._access.dialect.row_count).select_from(shape.table).where(*conditions)
        for attempt in self._access.attempts("count", single=True):
            with attempt as cx:
                count = cx.scalar(query)
        return int(count or 0)

    def left_out(self, shape: TableShape, keys: Sequence[Key]) -> LeftOut:
        """Which records of these keys the transform leaves out, or fails on. Reads the whole records."""
        left_out = LeftOut()
        if shape.transformed is not None and not shape.transformed.never_fails:
            for rows in self._rows(shape, frozenset(keys), WHOLE):
                left_out += shape.transformed.applied(rows)[1]
                del rows
        return left_out

    def _rows(self, shape: TableShape, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[Rows]:
        # For most of the chunk: page through it in key order. For a few keys: look each up.
        if keys is None or len(keys) * 2 > self._limits.chunk_size:
            yield from self._read_range(shape, keys, chunk)
            return
        for part in key_batches(list(keys), shape, self._access.dialect, self._limits):
            keys_left = list(part)
            while keys_left:
                records, complete = self._batch(shape, [shape.is_one_of(keys_left), *shape.filters])
                row_keys = values_of(records, shape.key_names)
                rows = [row for key, row in zip(row_keys, records.values, strict=True) if key in keys]
                records = Rows(records.names, rows, large=records.large)
                del rows
                yield records
                del records  # else memory would hold it beside the next batch
                read_keys = set(row_keys)
                is_done = complete or read_keys.isdisjoint(keys_left)
                keys_left = [] if is_done else [key for key in keys_left if key not in read_keys]

    def _read_range(self, shape: TableShape, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[Rows]:
        complete = False
        while not complete:
            conditions = [*shape.within(chunk), *shape.filters]
            records, complete = self._batch(shape, conditions, in_order=True)
            if records:
                complete = complete and len(records) < self._limits.batch_size
                row_keys = values_of(records[-1:] if keys is None else records, shape.key_names)
                chunk = Chunk(row_keys[-1], chunk.upto)
                if keys is not None:
                    pairs = zip(row_keys, records.values, strict=True)
                    records = Rows(records.names, [row for key, row in pairs if key in keys], large=records.large)
                    del pairs
                yield records
            del records  # else memory would hold it beside the next batch

    def _batch(
        self, shape: TableShape, conditions: Sequence[sa.ColumnElement[bool]], *, in_order: bool = False
    ) -> tuple[Rows, bool]:
        """The first rows that fulfil the conditions, up to the byte limit, and whether there are no more. `in_order`:
        the first by their keys, no more than a batch."""
        for attempt in self._access.attempts("read records"):
            names, query = shape.reading(self._access.dialect)  # a second try may have to hash in another way
            query = query.where(*conditions)
            if in_order:
                query = query.order_by(*shape.key).limit(self._limits.batch_size)
            with attempt as cx:
                largest = self._access.dialect.largest_row_bytes(cx, shape.table, query)
                fetched = first_rows(cx, query, self._limits.batch_bytes, largest)
        return shape.records(names, fetched.rows, large=fetched.large), fetched.complete

    def matching(self, shape: TableShape, keys: Sequence[Key]) -> set[Key]:
        """The keys that have a row of the service, as the server compares keys. A key with characters that the
        database's encoding lacks has none."""
        matching: set[Key] = set()
        parts = [*key_batches(keys, shape, self._access.dialect, self._limits)]
        while parts:
            part = parts.pop()
            try:
                for attempt in self._access.attempts("look up keys"):
                    with attempt as cx:
                        matching_part = self._batch_on(cx, shape).matching(part, shape.filters)
            except Undecoded:
                middle = len(part) // 2
                parts += [part[:middle], part[middle:]] if middle else []
            else:
                matching |= matching_part
        return matching

    def images(self, shape: TableShape, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        """The records that the server finds under these keys, as images before `action`, a batch at a time."""
        for part in key_batches(keys, shape, self._access.dialect, self._limits):
            keys_left = list(part)
            while keys_left:
                for attempt in self._access.attempts("read records"):
                    with attempt as cx:
                        images, _ = self._batch_on(cx, shape).images(keys_left, action)
                keys_left = keys_without_image(keys_left, images)
                if images:
                    yield images
                del images  # else memory would hold them beside the next ones

    def _batch_on(self, cx: sa.Connection, shape: TableShape) -> SqlBatch:
        return SqlBatch(cx, shape, self._access.dialect, self._limits)
