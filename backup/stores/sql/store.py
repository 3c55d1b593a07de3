"""A table on SQL Server, PostgreSQL or SQLite, through SQLAlchemy Core. The catalogue gives columns, key and types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa

from backup.core.errors import BackupError, NotInitialized
from backup.core.model import WHOLE, Action, Chunk, Fingerprint, Image, Key, Record, StampRow
from backup.stores.base import Fence, Store
from backup.stores.keeping import Accept, Keep
from backup.stores.sibling import Shape, Sibling
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.app_tables import SqlSibling
from backup.stores.sql.batch import key_batches
from backup.stores.sql.buckets import SqlBuckets
from backup.stores.sql.catalog import SqlCatalog, catalog_of
from backup.stores.sql.chunks import SqlChunks
from backup.stores.sql.copies import SqlCopies
from backup.stores.sql.declared import split_name
from backup.stores.sql.engines import Dialect
from backup.stores.sql.incremental import SqlIncremental
from backup.stores.sql.kept_deletes import SqlKeptDeletes
from backup.stores.sql.keys import SqlKeys
from backup.stores.sql.reads import SqlReads
from backup.stores.sql.relational import SqlRelational
from backup.stores.sql.table import TableShape
from backup.stores.sql.writes import SqlWrites
from backup.stores.values import LeftOut, Limits, Place, Rules, Traits, Written


class SqlStore:
    """One table. Its primary key is the key. The rules name the columns of version and filter, in any case."""

    def __init__(
        self,
        dialect: Dialect,
        table: str,
        rules: Rules,
        limits: Limits,
        side: str,
        missing: type[BackupError],
    ) -> None:
        schema, name = split_name(table)
        label = f"{side} ({dialect.product} {dialect.location}, table {table})"
        home = schema or dialect.default_schema
        location = f"{dialect.product} {dialect.location}, table {f'{home}.' if home else ''}{name}"
        self.place = Place(dialect.kind, name, label, location)
        self.traits = Traits(
            keys_are_exact=False,
            in_process=dialect.in_process,
            has_columns=True,
            fingerprint_is_enough=True,
            batch_size=limits.batch_size,
            masks=rules.masking.mark if rules.masking else None,
            follows_indexes=rules.follows_indexes,
        )
        self.access = SqlAccess(dialect, limits.retry, missing, label, limits.max_call_seconds)
        self.access.hides_values = bool(rules.masking) and rules.is_source
        self.access.names.update(part.lower() for part in (schema, name) if part)
        self._limits, self._of_set = limits, rules.of_set

        def open_in(other_database: Dialect) -> Store:
            return SqlStore(other_database, table, rules, limits, side, NotInitialized)

        self.catalog = SqlCatalog(self.access, schema, name, rules, open_in)
        self.keys = SqlKeys(self.access, self.catalog)
        self.copies = SqlCopies(self.catalog)
        self._chunks = SqlChunks(self.access, limits)
        self._reads = SqlReads(self.access, limits)
        self._writes = SqlWrites(self.access, self.catalog, limits)
        self.buckets = SqlBuckets(self.access, self.catalog, self._chunks)
        self.transforming = SqlTransforming(self) if rules.transform is not None and rules.is_source else None
        self.kept_deletes = (
            SqlKeptDeletes(self.access, self.catalog, self._reads, limits) if rules.keeps_deleted else None
        )
        self._latest = SqlIncremental(self.access, self.catalog, limits, rules.modified_by) if rules.is_source else None
        self.relational = SqlRelational(self.access, self.catalog, self._writes, limits, self._own_table, self._chunks)

    request_charge = None

    @property
    def shape(self) -> TableShape:
        """The table's shape. It is read once, and again only after `close`."""
        return self.catalog.shape

    @property
    def incremental(self) -> SqlIncremental | None:
        """As `Store.incremental`. Reads the table's columns if nobody has yet."""
        return self._latest if self._latest is not None and self._latest.is_usable else None

    @property
    def hashes_content(self) -> bool:
        """Whether records have no version, so that their whole content is hashed. Valid only after `drift`."""
        return not self.shape.version

    def ping(self) -> None:
        with self.access.once("get an answer", single=True) as cx:
            cx.scalar(sa.select(1))

    def server_time(self) -> datetime | None:
        clock = self.access.dialect.server_clock
        if clock is None:
            return None
        for attempt in self.access.attempts("ask for the time", single=True):
            with attempt as cx:
                now: datetime = cx.execute(sa.select(clock)).scalar_one()
        return now

    def has_records(self) -> bool:
        query = self.shape.select.where(*self.shape.filters).limit(1)
        for attempt in self.access.attempts("read a record", single=True):
            with attempt as cx:
                row = cx.execute(query).first()
        return row is not None

    def count(self) -> int:
        return self._reads.count(self.shape, self.shape.filters)

    def chunks(self, within: Chunk = WHOLE) -> Iterator[Chunk]:
        return self._chunks.within(self.shape, within)

    def fingerprint(self, chunk: Chunk) -> Fingerprint | None:
        return self.relational.fingerprint(chunk, ())

    def stamp_rows(self, chunk: Chunk) -> set[StampRow]:
        """Each row's key, its version fields, and a last part: the server's hash of its content if it has no version,
        else None. The first chunk has the rows whose key has a NULL, too."""
        rows = self._chunks.stamp_rows("read the stamps", self.shape, self.shape.within(chunk), whole=True)
        return rows if chunk.after is not None else rows | self._chunks.stamp_rows_without_keys(self.shape)

    def left_out(self, keys: Sequence[Key]) -> LeftOut:
        """As `Transforming.left_out`."""
        return self._reads.left_out(self.shape, keys)

    def stamp_rows_of(self, keys: Sequence[Key]) -> set[StampRow]:
        shape = self.shape
        return {
            row
            for part in key_batches(keys, shape, self.access.dialect, self._limits)
            for row in self._chunks.stamp_rows("look up stamps", shape, [shape.is_one_of(part)], few=True)
        }

    def read(self, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[Sequence[Record]]:
        yield from self._reads.read(self.shape, keys, chunk)

    def matching(self, keys: Sequence[Key]) -> set[Key]:
        return self._reads.matching(self.shape, keys)

    def images(self, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        yield from self._reads.images(self.shape, keys, action)

    def write(self, records: Sequence[Record], keep: Keep | None = None, *, accept: Accept | None = None) -> Written:
        return self._writes.write(records, keep, accept)

    def delete(self, keys: Sequence[Key], keep: Keep | None = None, *, accept: Accept | None = None) -> Written:
        return self._writes.delete(keys, keep, accept)

    def fence_by(self, fence: Fence) -> None:
        own, entry = self.access.dialect, catalog_of(fence.beside).access.dialect
        shares_database = own.is_one_file(entry) or (own.kind, own.location) == (entry.kind, entry.location)
        self.access.fence = lambda cx, again: fence.check_last(cx if shares_database else None, again)

    def sibling(self, shape: Shape) -> Sibling:
        return self._own_table(shape)

    def _own_table(self, shape: Shape) -> SqlSibling:
        return SqlSibling(self.access, shape, self._schema_of)

    def _schema_of(self, name: str) -> str | None:
        return self.access.dialect.default_schema if self._of_set else self.catalog.schema_of(name)

    def close(self) -> None:
        self.access.close()
        self.catalog.forget()


class SqlTransforming:
    """The transform of one source's records."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    @property
    def may_leave_out(self) -> bool:
        transformed = self._store.shape.transformed
        return transformed is not None and transformed.may_leave_out

    def left_out(self, keys: Sequence[Key]) -> LeftOut:
        return self._store.left_out(keys)
