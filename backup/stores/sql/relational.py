"""What only a table of a SQL server has: columns, other tables, triggers, counters, unique values, transactions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import sqlalchemy as sa

from backup.core.errors import NotInitialized, StoreError, StoreUnavailable
from backup.core.key_ranges import KeyRange
from backup.core.model import WHOLE, Action, Chunk, Fingerprint, Key, Record, Stamps
from backup.core.workers import Begin
from backup.stores.base import Store
from backup.stores.codecs import CopyNote
from backup.stores.keeping import Accept, Keep
from backup.stores.sibling import Entry, Groups, ImagesOfKeys, ImagesToWrite, Shape
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.app_tables import SqlSibling
from backup.stores.sql.batch import key_batches
from backup.stores.sql.blocks import SqlBlocks
from backup.stores.sql.catalog import SqlCatalog, catalog_of
from backup.stores.sql.chunks import SqlChunks
from backup.stores.sql.engines.tables import spelled_name
from backup.stores.sql.foreign_keys import is_of_itself, references_to, referring, triggers_on_delete
from backup.stores.sql.image_writes import SqlImageWrites
from backup.stores.sql.indexes import creation, index_plan, shared_columns
from backup.stores.sql.keys import spelled
from backup.stores.sql.range_deletes import SqlRangeDeletes
from backup.stores.sql.relay import SqlRelay, may_relay
from backup.stores.sql.relayed_back import SqlRelaysBack
from backup.stores.sql.relayed_changes import SqlRelayedChanges
from backup.stores.sql.writable import refuse_unwritable
from backup.stores.sql.writes import SqlWrites
from backup.stores.values import Altered, Drift, IndexPlan, Limits, OnNewColumn, RelayedPart, SecondaryIndex, Written

_CHUNKS_OF_A_PART, _STATEMENTS_OF_ALL = 4, 50  # of a fingerprint in parts: docs/decisions/whole-table.md
_CHUNKS_TO_JOIN = 4  # in a statement, at least: as many go side by side


class SqlRelational:
    """The SQL part of one store: columns, references, triggers, counters and transactions of its table."""

    def __init__(
        self,
        access: SqlAccess,
        catalog: SqlCatalog,
        writes: SqlWrites,
        limits: Limits,
        sibling: Callable[[Shape], SqlSibling],
        chunks: SqlChunks,
    ) -> None:
        """`sibling` opens a table of the app's own beside this one."""
        self._access, self._catalog, self._writes, self._limits = access, catalog, writes, limits
        self._sibling, self._chunks = sibling, chunks
        self._relay = SqlRelay(access, catalog, limits)
        self._relayed_changes = SqlRelayedChanges(access, catalog, limits)
        self._relays_back = SqlRelaysBack(access, catalog, limits)
        self._image_writes = SqlImageWrites(access, catalog, limits)
        self._range_deletes = SqlRangeDeletes(access, catalog, limits)
        self._blocks = SqlBlocks(access, catalog, chunks)

    @property
    def lost_connections(self) -> int:
        return self._access.lost_connections

    def forget(self) -> None:
        self._access.dialect.forget_file()
        self._catalog.forget()

    def altered(self) -> Altered:
        return self._catalog.altered()

    def read_ahead(self, begin: Begin) -> None:
        self._catalog.read_ahead(begin)

    def held(self) -> AbstractContextManager[None]:
        return self._access.held()

    def insert(self, records: Sequence[Record], keep: Keep) -> Written:
        return self._writes.write(records, keep, absent=True)

    def relay(
        self, source: Store, chunk: Chunk, note: CopyNote | None, keep: Keep | None, but: Sequence[Key] = ()
    ) -> Iterator[RelayedPart]:
        return self._relay.insert(catalog_of(source), chunk, note, keep, but)

    def overwrite(
        self, source: Store, chunk: Chunk, note: CopyNote, keep: Keep, *, changed: bool = False
    ) -> Iterator[RelayedPart]:
        return self._relayed_changes.overwrite(catalog_of(source), chunk, note, keep, changed=changed)

    def fingerprint(self, chunk: Chunk, but: Sequence[Key]) -> Fingerprint | None:
        by_bucket = self._chunks.fingerprints("read the fingerprint", self._catalog.shape, chunk, but=but)
        return None if by_bucket is None else by_bucket[None]

    def content_fingerprint(self, chunk: Chunk, but: Sequence[Key] = ()) -> Fingerprint | None:
        shape, operation = self._catalog.shape, "read the fingerprint of the content"
        by_bucket = self._chunks.fingerprints(operation, shape, chunk, of_content=True, but=but)
        return None if by_bucket is None else by_bucket[None]

    def may_leave_out(self, backup: Store, keys: Sequence[Key]) -> bool:
        return self._relays_back.may_leave_out(catalog_of(backup), keys)

    def may_relay(self, backup: Store) -> bool:
        source = catalog_of(backup)
        return may_relay(source, self._access) and self._access.dialect.reaches(source.access.dialect)

    def may_relay_images(self, backup: Store) -> bool:
        return self._relays_back.may_relay_images(catalog_of(backup))

    def relay_changes(self, source: Store, keys: Sequence[Key], note: CopyNote, keep: Keep) -> Iterator[RelayedPart]:
        return self._relayed_changes.write(catalog_of(source), keys, note, keep)

    def relay_new(
        self, backup: Store, keys: Sequence[Key], images: ImagesOfKeys | None = None
    ) -> Iterator[RelayedPart]:
        return self._relays_back.insert(catalog_of(backup), keys, images)

    def relay_over(
        self, backup: Store, stamps: Stamps, keep: Keep, images: ImagesOfKeys | None = None
    ) -> Iterator[RelayedPart]:
        return self._relays_back.update(catalog_of(backup), stamps, keep, images)

    def has_none(self, chunk: Chunk) -> bool:
        shape = self._catalog.shape
        # Not SELECT EXISTS, which T-SQL does not have.
        records = sa.select(*shape.key).where(*shape.within(chunk), *shape.filters).limit(1)
        for attempt in self._access.attempts("look for a record", single=True):
            with attempt as cx:
                row = cx.execute(records).first()
        return row is None

    def write_images(self, images: ImagesToWrite, keep: Keep) -> Iterator[RelayedPart]:
        return self._image_writes.write(images, keep)

    def keys_in(self, ranges: Sequence[KeyRange]) -> list[Key] | None:
        return self._range_deletes.keys_in(ranges)

    def delete_ranges(self, ranges: Sequence[KeyRange], keep: Keep) -> Iterator[tuple[Sequence[KeyRange], int]]:
        return self._range_deletes.delete(ranges, keep)

    @property
    def blocks(self) -> SqlBlocks | None:
        return self._blocks if self._blocks.are_known() else None

    @property
    def answers_beside(self) -> bool:
        return self._access.dialect.opens_quickly

    def may_look_at_once(self, records: int, seconds: float) -> bool:
        shape, dialect, chunk_size = self._catalog.shape, self._access.dialect, self._chunks.chunk_size
        is_quick = chunk_size.suffices_for(records) or chunk_size.spans(records, seconds)
        if not dialect.in_process:
            return is_quick
        if shape.filters or not dialect.reads_in_parts(shape.stamps(dialect)):
            return False
        part = min(records, _CHUNKS_OF_A_PART * self._limits.chunk_size)  # each is a statement of its own
        part = max(part, records // _STATEMENTS_OF_ALL)
        return is_quick or chunk_size.suffices_for(part) or chunk_size.spans(records, seconds * part / max(1, records))

    def records_at_once(self) -> int:
        at_once = 0 if self._access.dialect.in_process else self._chunks.chunk_size.at_once
        return at_once if at_once >= _CHUNKS_TO_JOIN * self._limits.chunk_size else 0

    def beginning(self, part: Chunk, records: int) -> Chunk:
        return self._chunks.beginning(self._catalog.shape, part, records)

    def small_fingerprint(self) -> Fingerprint | None:
        shape, at_most = self._catalog.shape, self._limits.chunk_size
        bound = None if shape.has_at_most(at_most) else at_most
        by_bucket = self._chunks.fingerprints("read the fingerprint", shape, WHOLE, at_most=bound)
        return None if by_bucket is None else by_bucket[None]

    def add_next(self, shape: Shape, groups: Groups, entry: Entry) -> bool:
        return self._sibling(shape).add_next(groups, entry)

    def exchange(self, records: Sequence[Record], keep: Keep, *, accept: Accept | None = None) -> Written:
        return self._writes.write(records, keep, accept, exchange=True)

    def drift(self, source: Store, on_new_column: OnNewColumn) -> Drift:
        return self._catalog.drift(source, on_new_column)

    def adapt(self, drift: Drift) -> None:
        self._catalog.adapt(drift)

    def take_over(
        self, old: Store, beside: Sequence[Shape], before: Mapping[str, str], after: Mapping[str, str]
    ) -> None:
        old_name, new_name = catalog_of(old).table_name, self._catalog.table_name
        siblings = [self._sibling(shape) for shape in beside]
        for attempt in self._access.attempts("rename the table", writes=True):
            with attempt as cx:
                dialect = self._access.dialect
                if dialect.find(cx, new_name.schema, new_name.name) is not None:
                    break
                if new_name.schema is not None and not dialect.has_schema(cx, new_name.schema):
                    cx.execute(sa.schema.CreateSchema(new_name.schema))
                dialect.rename(cx, old_name, new_name)
                for sibling in siblings:
                    sibling.readdress(cx, before, after)
        self._catalog.forget()

    def index_plan(self, source: Store) -> IndexPlan:
        original = catalog_of(source)
        in_source = self._indexes_of(original)
        columns, key = {column.name: column.name for column in original.shape.copied}, original.shape.key_names
        in_backup: Sequence[Mapping[str, Any]] = []
        with suppress(NotInitialized):
            shape = self._catalog.shape
            columns = dict(shared_columns(original.shape, shape))
            in_backup, key = self._indexes_of(self._catalog), shape.key_names
        return index_plan(in_source, in_backup, columns, key, self._catalog.qualified_name())

    def _indexes_of(self, catalog: SqlCatalog) -> Sequence[Mapping[str, Any]]:
        for attempt in catalog.access.attempts("list the indexes"):
            with attempt as cx:
                [indexes] = catalog.access.dialect.indexes(cx, [catalog.table_name])
        return indexes

    def make_index(self, index: SecondaryIndex) -> None:
        table = self._catalog.table_name
        for attempt in self._access.attempts(f"make the index {index.name}", writes=True):
            with attempt as cx:
                [indexes] = self._access.dialect.indexes(cx, [table])
                if index.name not in {existing["name"] for existing in indexes}:
                    cx.execute(creation(table, index))

    def recognize_deleted(self) -> None:
        self._catalog.shape.recognize_deleted(self._access.dialect)

    def forget_deleted(self) -> None:
        shape = self._catalog.shape
        if shape.marks is None:
            return
        mark = shape.table.c[shape.marks.name]
        for attempt in self._access.attempts("take marks of deletes away", writes=True):
            with attempt as cx:
                cx.execute(shape.table.update().where(mark.is_not(None)).values({mark.name: None}))

    def without_column(self, record: Record) -> Collection[str]:
        return [name for name in record if self._catalog.shape.find(name) is None]

    def spelled(self, key: Key, transaction: Any) -> Key | None:
        return spelled(self._catalog.shape, key, transaction)

    def shares_transactions(self, other: Store) -> bool:
        catalog = other.catalog
        return isinstance(catalog, SqlCatalog) and self._access.dialect.is_one_file(catalog.access.dialect)

    def referring(self, keys: Sequence[Key], *, but: Collection[str] = ()) -> Mapping[str, int]:
        left_out = {name.lower() for name in but}
        shape, dialect = self._catalog.shape, self._access.dialect
        counts: Counter[str] = Counter()
        for part in key_batches(keys, shape, dialect, self._limits):
            for attempt in self._access.attempts("look for rows that refer to records"):
                with attempt as cx:
                    references = references_to(cx, dialect, shape)
                    counts_of_part = {
                        str(reference): referring(cx, reference, dialect, shape, part)
                        for reference in references
                        if not is_of_itself(reference, dialect, shape)
                        and spelled_name(*reference.whole).lower() not in left_out
                    }
            counts.update(counts_of_part)
        return {name: count for name, count in counts.items() if count}

    def refuse_unwritable(self, actions: Collection[Action]) -> None:
        refuse_unwritable(self._access, self._catalog.shape, actions)

    def triggers_on_delete(self) -> Sequence[str]:
        shape = self._catalog.shape
        for attempt in self._access.attempts("look for triggers"):
            with attempt as cx:
                names = triggers_on_delete(cx, shape, self._access.dialect)
        return names

    def advance_counters(self) -> Sequence[str]:
        shape, dialect = self._catalog.shape, self._access.dialect
        try:
            for attempt in self._access.attempts("set the counters of new rows", writes=True):
                with attempt as cx:
                    changes = dialect.advance_counters(cx, shape.table, shape.identity)
        except StoreUnavailable:
            raise
        except StoreError as error:
            return [f"{error} New rows may get keys that exist already. Set the counters by hand."]
        return [f"Set in the {self._access.label}, past the largest key: {change}." for change in changes]
