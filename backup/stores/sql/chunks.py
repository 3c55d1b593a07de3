"""Asks a table for its chunks, their fingerprints and stamps. No statement keeps the server busy for long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from backup.core.errors import SchemaMismatch, StoreError, Undecoded
from backup.core.model import WHOLE, Chunk, Fingerprint, Key, StampRow
from backup.core.retry import Attempt
from backup.stores.chunk_size import ChunkSize
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.rows import small_rows
from backup.stores.sql.table import TableShape
from backup.stores.sql.unread import ReadApart, may_be_of_rows, readable_and_broken_keys, rows_without_keys
from backup.stores.values import Limits

_MANY_RECORDS, _MANY_CHUNKS = 200_000, 4  # of a part of a fingerprint: a list of them is in memory
_KEYS_LOOKED_AT = 1_000  # for one that can be read and be the bound of a chunk


class SqlChunks:
    """The chunks of a table. The time that each statement takes decides how many records the next chunk has."""

    def __init__(self, access: SqlAccess, limits: Limits) -> None:
        self._access, self._limits = access, limits
        self.chunk_size = ChunkSize(limits.chunk_size, limits.max_statement_seconds)
        self._without_keys: set[StampRow] | None = None

    def within(self, shape: TableShape, whole: Chunk) -> Iterator[Chunk]:
        """The chunks of the table from where `whole` begins to where it ends."""
        after = whole.after
        if whole == WHOLE:
            self._refuse_repeated_keys(shape)
            if shape.has_at_most(self.chunk_size.chunk_size):
                yield whole
                return
        while True:
            chunk = self.beginning(shape, Chunk(after, whole.upto), self.chunk_size.chunk_size)
            yield chunk
            if chunk.upto == whole.upto:
                return
            after = chunk.upto

    def beginning(self, shape: TableShape, part: Chunk, records: int) -> Chunk:
        """As `Relational.beginning`."""
        bound = self._bound(shape, part, records)
        return part if bound is None else Chunk(part.after, bound)

    def _bound(self, shape: TableShape, rest: Chunk, records: int) -> Key | None:
        """The key of the record at this place of the chunk, counted from 1; None if the chunk has fewer records."""
        conditions = [*shape.within(rest), *shape.filters]
        query = sa.select(*shape.exact_key).where(*conditions).order_by(*shape.key)
        query = query.offset(records - 1).limit(1)
        try:
            for attempt in self.attempts("find the next chunk", single=True):
                with attempt as cx, self.chunk_size.measuring(records):
                    row = cx.execute(query).first()
        except Undecoded:  # this key is not a text: take the next that is
            keys, _ = readable_and_broken_keys(
                self._access, shape, conditions, start=records - 1, limit=_KEYS_LOOKED_AT
            )
            return keys[0] if keys else None
        return None if row is None else tuple(row)

    def stamp_rows_without_keys(self, shape: TableShape) -> set[StampRow]:
        """The stamps of rows whose key has a NULL; each has an `Unread`. They are read once, and are in no chunk."""
        if self._without_keys is None:
            self._without_keys = rows_without_keys(self._access, shape) if shape.nullable_key else set()
        return self._without_keys

    def _refuse_repeated_keys(self, shape: TableShape) -> None:
        if not shape.key_may_repeat:
            return
        query = sa.select(sa.literal(1)).select_from(shape.table).where(*shape.within(WHOLE), *shape.filters)
        query = query.group_by(*shape.key).having(sa.func.count() > 1).limit(1)
        for attempt in self.attempts("look for keys that stand for several rows"):
            with attempt as cx:
                is_repeated = cx.scalar(query)
        if is_repeated:
            raise SchemaMismatch(
                f"The {self._access.label} has several rows with the same {', '.join(shape.key_names)}, so these "
                "columns are not a key.",
                hint="Name other columns as key in backup.toml, or mend the rows. Nothing was changed.",
            )

    def fingerprints(
        self,
        operation: str,
        shape: TableShape,
        chunk: Chunk,
        bucket: sa.ColumnElement[Any] | None = None,
        at_most: int | None = None,
        *,
        of_content: bool = False,
        but: Sequence[Key] = (),
    ) -> Mapping[Any, Fingerprint] | None:
        """The chunk's fingerprints, as `Dialect.fingerprints` returns them, of its stamps or `of_content`, without the
        rows of the keys in `but`.

        None also if a row cannot be read, and in the first chunk if rows have no key. An open chunk may hold far more
        on one side than on the other: None too where that would take much memory here.
        """
        if chunk.after is None and self.stamp_rows_without_keys(shape):
            return None
        dialect, conditions = self._access.dialect, [*shape.within(chunk), *shape.is_none_of(but), *shape.filters]
        in_parts = at_most is None and dialect.in_process and bucket is None and None in chunk
        if in_parts:
            at_most = max(_MANY_RECORDS, _MANY_CHUNKS * self._limits.chunk_size)
        try:
            for attempt in self.attempts(operation, single=True):
                # A second try may have to hash in another way.
                stamps = shape.contents(dialect) if of_content else shape.stamps(dialect)
                with attempt as cx, self.chunk_size.measuring() as measured:
                    parameters = (stamps, conditions, bucket, at_most)
                    fingerprints = dialect.fingerprints(cx, *parameters, in_parts=in_parts)
                    measured.records = sum(fingerprint.records for fingerprint in (fingerprints or {}).values())
        except StoreError as error:
            if not may_be_of_rows(error):
                raise
            return None  # reading the stamps will say which rows
        return fingerprints

    def stamp_rows(
        self,
        operation: str,
        shape: TableShape,
        conditions: Sequence[sa.ColumnElement[bool]],
        *,
        whole: bool = False,
        few: bool = False,
    ) -> set[StampRow]:
        """The stamps of the service's rows that fulfil the conditions. A row that cannot be read has an `Unread`.

        `whole`: they are all rows of a chunk. Otherwise the server may have looked at far more than it returns, and the
        time says nothing about the next chunk. `few`: no more than a batch has.
        """
        conditions = [*conditions, *shape.filters]
        try:
            for attempt in self.attempts(operation, single=few):
                query = shape.stamp_query(self._access.dialect).where(*conditions)
                with attempt as cx, self.chunk_size.measuring() as measured:
                    rows = small_rows(cx, query, few=few)
                    measured.records = len(rows) if whole else 0
        except StoreError as error:
            if not may_be_of_rows(error):
                raise
            return ReadApart(self._access, self._limits, shape, conditions, error).rows()
        return rows

    def attempts(self, operation: str, *, single: bool = False) -> Iterator[Attempt[sa.Connection]]:
        return self._access.attempts(operation, seconds=self._limits.chunk_call_seconds, single=single)
