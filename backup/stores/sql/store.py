"""A table on SQL Server, PostgreSQL or SQLite, through SQLAlchemy Core. Columns, key and types are the catalogue's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from backup.core.errors import BackupError, ConstraintRefused, NotInitialized, StoreError, StoreUnavailable
from backup.core.model import WHOLE, Action, Chunk, Fingerprint, Image, Key, Record, Run, StampRow, Stamps
from backup.stores.asked_keys import refused
from backup.stores.base import Accept, Fence, Keep, Store
from backup.stores.exact_json import comparable
from backup.stores.sibling import Shape, Sibling
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.app_tables import SqlSibling
from backup.stores.sql.batch import Replacing, SqlBatch, parts
from backup.stores.sql.catalog import SqlCatalog, catalog_of
from backup.stores.sql.chunks import SqlChunks
from backup.stores.sql.engines import Dialect
from backup.stores.sql.reads import SqlReads
from backup.stores.sql.references import is_of_itself, references_to, referring, triggers_on_delete
from backup.stores.sql.rows import Rows, values_of
from backup.stores.sql.table import SYNCED_AT, TableShape, split_name
from backup.stores.values import Limits, Place, Rules, Traits, Written


class SqlStore:
    """One table. Key columns are its primary key; version and filter columns are named by the rules, in any case."""

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
        )
        self.access = SqlAccess(dialect, limits.retry, missing, label, limits.max_call_seconds)
        self.access.names.update(part.lower() for part in (schema, name) if part)
        self._limits = limits

        def open_in(elsewhere: Dialect) -> Store:
            return SqlStore(elsewhere, table, rules, limits, side, NotInitialized)

        self.catalog = SqlCatalog(self.access, schema, name, rules, open_in)
        self._chunks = SqlChunks(self.access, limits)
        self._reads = SqlReads(self.access, limits)

    @property
    def request_charge(self) -> float | None:
        return None

    def ping(self) -> None:
        with self.access.once("get an answer") as cx:
            cx.scalar(sa.select(1))

    def close(self) -> None:
        self.access.close()
        self.catalog.forget()

    @property
    def shape(self) -> TableShape:
        """The table as it is now; read once, until `close`."""
        return self.catalog.shape

    @property
    def hashes_content(self) -> bool:
        """Whether records have no version, so that their whole content is hashed; known once `drift` was asked."""
        return not self.shape.version

    def server_time(self) -> datetime | None:
        clock = self.access.dialect.server_clock
        if clock is None:
            return None
        for attempt in self.access.attempts("ask for the time"):
            with attempt as cx:
                found = cx.execute(sa.select(clock)).scalar_one()
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)

    # --- reading ------------------------------------------------------------------------------------------------------

    def count(self) -> int:
        query = sa.select(self.access.dialect.row_count).select_from(self.shape.table).where(*self.shape.filters)
        for attempt in self.access.attempts("count"):
            with attempt as cx:
                counted = cx.scalar(query)
        return int(counted or 0)

    def chunks(self, within: Chunk = WHOLE) -> Iterator[Chunk]:
        return self._chunks.within(self.shape, within)

    def fingerprint(self, chunk: Chunk) -> Fingerprint | None:
        # Beyond its first or last key the other side may hold anything.
        if self.traits.in_process and None in chunk and self._chunks.is_many(self.shape, chunk):
            return None
        found = self._chunks.fingerprints("read the fingerprint", self.shape, chunk)
        return None if found is None else found[None]

    def buckets(self, chunk: Chunk) -> Mapping[int, Fingerprint] | None:
        bucket = self.access.dialect.bucket(self.shape.key)
        if bucket is None:
            return None
        return self._chunks.fingerprints("read the fingerprints of buckets", self.shape, chunk, bucket)

    def stamp_rows(self, chunk: Chunk, buckets: Collection[int] | None = None) -> set[StampRow]:
        """Key, version fields, and of rows without a version the server's hash of their content, else None."""
        conditions = self.shape.within(chunk)
        if buckets is not None:
            bucket: Any = self.access.dialect.bucket(self.shape.key)  # there is one: `buckets` has named them
            conditions.append(bucket.type.has_one_of(bucket, sorted(buckets)))
        return self._chunks.stamp_rows("read the stamps", self.shape, conditions)

    def watermark(self) -> str | None:
        return None

    def recent(self, since: str, overlap_seconds: float) -> Iterator[set[StampRow]]:  # noqa: ARG002 - all, for there are no watermarks
        return map(self.stamp_rows, self.chunks())

    def stamp_rows_of(self, keys: Sequence[Key]) -> set[StampRow]:
        shape = self.shape
        return {
            row
            for part in parts(keys, shape, self.access.dialect, self._limits)
            for row in self._chunks.stamp_rows("look up stamps", shape, [shape.is_one_of(part)])
        }

    def stamps_of(self, rows: Iterable[StampRow]) -> Stamps:
        return self.shape.stamps_of(rows)

    def stamps(self, chunk: Chunk) -> Stamps:
        return self.stamps_of(self.stamp_rows(chunk))

    def read(self, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[Sequence[Record]]:
        yield from self._reads.read(self.shape, keys, chunk)

    def key_of(self, record: Record) -> Key:
        return self.shape.key_of(record)

    def may_hold(self, key: Key) -> bool:
        types = [column.type for column in self.shape.key]
        return len(key) == len(types) and all(type_.may_hold(part) for type_, part in zip(types, key, strict=True))  # type: ignore[attr-defined] # ServerTypes

    def left_out(self, record: Record) -> Collection[str]:
        return [name for name in record if self.shape.find(name) is None]

    def matching(self, keys: Sequence[Key]) -> set[Key]:
        return self._reads.matching(self.shape, keys)

    def spelled(self, key: Key, transaction: Any) -> Key | None:
        shape = self.shape
        row = transaction.execute(sa.select(*shape.key).where(shape.is_one_of([key]))).first()
        return None if row is None else tuple(row)

    def images(self, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        yield from self._reads.images(self.shape, keys, action)

    def content(self, record: Record) -> Mapping[str, str]:
        names = self.shape.content
        return {names[name]: comparable(value) for name, value in record.items() if name in names}

    @property
    def filled(self) -> frozenset[str]:
        names = self.shape.content
        return frozenset(
            names[column.name] for column in self.shape.columns if column.computed and column.name in names
        )

    # --- writing ------------------------------------------------------------------------------------------------------

    def as_copies(self, records: Sequence[Record], run: Run, now: datetime) -> Sequence[Record]:  # noqa: ARG002 - rows have no place for a run
        mark = self.shape.find(SYNCED_AT)
        names = (*records[0],) if records else ()
        if not records or mark is None or mark in map(self.shape.find, names):
            return records  # a SyncedAt of the source's own wins
        rows = Rows(names, values_of(records, names), large=getattr(records, "large", False))
        return rows.with_value(mark.name, _milliseconds(now))

    def as_original(self, record: Record) -> Record:
        return record  # `write` leaves out what the table has no column for

    def as_it_was(self, record: Record) -> Record:
        return {**dict.fromkeys(self.shape.names), **record}

    def write(
        self,
        records: Sequence[Record],
        keep: Keep | None = None,
        *,
        absent: bool = False,
        accept: Accept | None = None,
        replace: bool = False,
    ) -> Written:
        ways: list[Replacing | None] = [Replacing.EMPTIED, Replacing.DELETED] if replace else [None]
        if absent or accept is not None:  # a record may be there after all, perhaps since a moment ago
            ways.insert(0, ways[0])
        shape = self.shape
        for place, way in enumerate(ways if records else ()):
            try:
                for attempt in self.access.attempts("write records", writes=True):
                    with attempt as cx:
                        batch = SqlBatch(cx, shape, self.access.dialect, self._limits)
                        written = batch.write(records, keep, absent=absent and place == 0, accept=accept, replace=way)
                return written
            except StoreUnavailable:
                raise
            except StoreError as error:
                in_the_way = isinstance(error, ConstraintRefused) and error.unique
                if place == len(ways) - 1 or (way is not None and not in_the_way):
                    raise
        return Written()

    def delete(self, keys: Sequence[Key], keep: Keep | None = None, *, accept: Accept | None = None) -> Written:
        if not keys:
            return Written()
        shape = self.shape
        for attempt in self.access.attempts("delete records", writes=True):
            with attempt as cx:
                deleted = SqlBatch(cx, shape, self.access.dialect, self._limits).delete(keys, keep, accept)
        return deleted

    def advance_counters(self) -> Sequence[str]:
        shape, dialect = self.shape, self.access.dialect
        try:
            for attempt in self.access.attempts("set what numbers new rows", writes=True):
                with attempt as cx:
                    done = dialect.advance_counters(cx, shape.table, shape.identity)
        except StoreUnavailable:
            raise
        except StoreError as error:
            return [f"{error} New rows may get keys that are there already: set it by hand."]
        return [f"Set in the {self.place.label}, past the largest key: {text}." for text in done]

    def referring(self, keys: Sequence[Key]) -> Mapping[str, int]:
        shape, dialect = self.shape, self.access.dialect
        found: Counter[str] = Counter()
        for part in parts(keys, shape, dialect, self._limits):
            for attempt in self.access.attempts("look for what refers to records"):
                with attempt as cx:
                    others = (one for one in references_to(cx, dialect, shape) if not is_of_itself(one, dialect, shape))
                    rows = {str(one): referring(cx, one, dialect, shape, part) for one in others}
            found.update(rows)
        return {name: rows for name, rows in found.items() if rows}

    def on_delete(self) -> Sequence[str]:
        shape = self.shape
        for attempt in self.access.attempts("look for triggers"):
            with attempt as cx:
                names = triggers_on_delete(cx, shape, self.access.dialect)
        return names

    def key_from(self, text: str) -> Key:
        key = self.shape.key_from(text, plain=self.access.dialect.in_process)
        hint = f"Its key has the type {', '.join(self.shape.key_types)}."
        for attempt in self.access.attempts("look up a key"):
            with attempt as cx:
                try:
                    spelled = self.spelled(key, cx)
                except (UnicodeEncodeError, OverflowError):  # the driver's
                    raise refused(text, self.place.label, hint) from None
                except sa.exc.DBAPIError as error:
                    failure = self.access.dialect.failure(error.orig if isinstance(error.orig, Exception) else error)
                    if failure.kind != "refused" or failure.hint is not None:  # as for a right that is missing
                        raise
                    raise refused(text, self.place.label, f"{hint} The server says: {failure.text}") from None
        return spelled or key

    def key_to_json(self, key: Key) -> list[Any]:
        shown = (f"0x{part.hex()}" if isinstance(part, bytes) else part for part in key)
        return [part if isinstance(part, int | str) else str(part) for part in shown]

    def shares_transactions(self, other: Store) -> bool:
        catalog = other.catalog
        return isinstance(catalog, SqlCatalog) and self.access.dialect.is_one_file(catalog.access.dialect)

    def fence_by(self, fence: Fence, beside: Store) -> None:
        mine, theirs = self.access.dialect, catalog_of(beside).access.dialect
        is_here = self.shares_transactions(beside) or (mine.kind, mine.location) == (theirs.kind, theirs.location)
        self.access.fence = lambda cx, again: fence.check_last(cx if is_here else None, again)

    def sibling(self, shape: Shape) -> Sibling:
        return SqlSibling(self.access, shape, self.catalog.schema_of)


def _milliseconds(now: datetime) -> str:
    """As text: every column type that may stand for SyncedAt takes it."""
    return now.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.") + f"{now.microsecond // 1000:03}"
