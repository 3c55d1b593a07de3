"""A table on SQL Server, PostgreSQL or SQLite, through SQLAlchemy Core. Columns, key and types come from the catalogue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from typing import Any

import sqlalchemy as sa

from backup.errors import BackupError, ConfigError, SchemaMismatch
from backup.models import Chunk, Key, Record, Run, Stamps, Version
from backup.stores.base import Limits, Rules, Shape, Sibling, Store
from backup.stores.dialects import Dialect
from backup.stores.dialects.base import Column
from backup.stores.sql_access import SqlAccess
from backup.stores.sql_sibling import FIELD_TYPES, SqlSibling

SYNCED_AT = "SyncedAt"
_FETCH_ROWS = 200


class SqlStore:
    """One table. Key columns are its primary key; version and filter columns are named by the rules, whatever their case."""

    def __init__(
        self,
        dialect: Dialect,
        table: str,
        rules: Rules,
        limits: Limits,
        side: str,
        missing: type[BackupError],
    ) -> None:
        self.schema, self.name = split_name(table)
        self.access = SqlAccess(
            dialect, limits.retry, missing, f"{side} ({dialect.product} {dialect.location}, table {table})"
        )
        self.rules = rules
        self._limits = limits

    @property
    def kind(self) -> str:
        return self.access.dialect.kind

    @property
    def label(self) -> str:
        return self.access.label

    @property
    def location(self) -> str:
        dialect = self.access.dialect
        return f"{dialect.product} {dialect.location} {self.schema or dialect.default_schema}.{self.name}".lower()

    def ping(self) -> None:
        self.access.once("ping", lambda cx: cx.scalar(sa.select(1)))

    def close(self) -> None:
        self.access.close()
        self.__dict__.pop("shape", None)

    @cached_property
    def shape(self) -> TableShape:
        """The table as it is now; read once, until `close`."""
        return self.access.run("read the columns", lambda cx: TableShape.reflect(cx, self))

    # --- making and checking the backup -------------------------------------------------------------------------------

    def initialize(self, source: Store) -> None:
        shape = _sql(source).shape
        dialect = self.access.dialect
        self.access.translated("create the database", dialect.ensure_database)
        self.access.run("create the table", lambda cx: self._create(cx, shape))
        self.__dict__.pop("shape", None)
        self.check(source)

    def _create(self, cx: sa.Connection, shape: TableShape) -> None:
        if self.schema:
            self.access.dialect.ensure_schema(cx, self.schema)
        columns = [_declare(column, shape.key_names) for column in shape.columns]
        table = sa.Table(self.name, sa.MetaData(), *columns, schema=self.schema)
        if SYNCED_AT.lower() not in shape.by_lower:
            table.append_column(sa.Column(SYNCED_AT, FIELD_TYPES["time"]))
        table.create(cx, checkfirst=True)

    def check(self, source: Store) -> None:
        mine, theirs = self.shape, _sql(source).shape
        problems = []
        if [n.lower() for n in mine.key_names] != [n.lower() for n in theirs.key_names]:
            problems.append(f"the primary key is {list(mine.key_names)}, in the source {list(theirs.key_names)}")
        for column in theirs.columns:
            copy = mine.by_lower.get(column.name.lower())
            if copy is None:
                problems.append(f"column {column.name} ({column.type.declared}) is missing")
            elif copy.computed:
                problems.append(f"column {column.name} is computed by the server and cannot hold a copy")
            elif not copy.holds(column):
                problems.append(f"column {column.name} is {copy.type.declared}, in the source {column.type.declared}")
            elif column.name in theirs.key_names and (copy.collation or "") != (column.collation or ""):
                problems.append(
                    f"key column {column.name} has collation {copy.collation}, in the source {column.collation}"
                )
        if problems:
            raise SchemaMismatch(
                f"{self.label} does not fit its source: {'; '.join(problems)}. Nothing was changed.",
                hint="Alter the backup table to match, then sync with force so that existing rows get the new values.",
            )
        mine.content = frozenset(theirs.by_lower)

    # --- reading ------------------------------------------------------------------------------------------------------

    def count(self) -> int:
        query = sa.select(sa.func.count()).select_from(self.shape.table).where(*self.shape.filters)
        return int(self.access.run("count", lambda cx: cx.scalar(query)) or 0)

    def chunks(self) -> Iterator[Chunk]:
        shape = self.shape
        self._refuse_null_keys()
        after: Key | None = None
        while True:
            bound = (
                sa.select(*shape.key)
                .where(*within(shape.key, Chunk(after)), *shape.filters)
                .order_by(*shape.key)
                .offset(self._limits.chunk_size - 1)
                .limit(1)
            )
            row = self.access.run("find the next chunk", lambda cx, q=bound: cx.execute(q).first())
            upto = tuple(row) if row else None
            yield Chunk(after, upto)
            if upto is None:
                return
            after = upto

    def _refuse_null_keys(self) -> None:
        nullable = [column for column in self.shape.key if column.nullable]
        if not nullable:
            return
        query = sa.select(sa.literal(1)).where(sa.or_(*(column.is_(None) for column in nullable))).limit(1)
        if self.access.run("look for keys without a value", lambda cx: cx.scalar(query)):
            raise SchemaMismatch(
                f"{self.label} has rows with NULL in their primary key, which nothing can tell apart. Nothing was changed.",
                hint="Give these rows a key, or declare the key columns NOT NULL.",
            )

    def stamps(self, chunk: Chunk) -> Stamps:
        shape = self.shape
        width = len(shape.key)
        rows = sa.select(*shape.key, *shape.version).where(*within(shape.key, chunk), *shape.filters)
        unversioned = shape.select.where(*within(shape.key, chunk), *shape.filters, shape.version[0].is_(None))

        def attempt(cx: sa.Connection) -> Stamps:
            stamps = {row[:width]: Version(row[width:]) for row in map(tuple, _stream(cx, rows))}
            if any(version.value[0] is None for version in stamps.values()):
                # Nothing says when such a row changed, so its whole content is its version.
                for row in _stream(cx, unversioned).mappings():
                    stamps[self.key_of(row)] = Version((None, _digest(row, shape.content)))
            return stamps

        return self.access.run("read the stamps", attempt)

    def read(self, keys: frozenset[Key], chunk: Chunk) -> Iterator[list[Record]]:
        # Most of the chunk: page through it in key order. A few keys: look each up.
        if len(keys) * 2 > self._limits.chunk_size:
            yield from self._read_range(keys, chunk)
            return
        step = self._keys_at_once(self._limits.batch_size)
        wanted = list(keys)
        for start in range(0, len(wanted), step):
            left = wanted[start : start + step]
            while left:
                query = self.shape.select.where(self._is_one_of(left), *self.shape.filters)
                records, complete = self._batch(query)
                yield [record for record in records if self.key_of(record) in keys]
                got = set(map(self.key_of, records))
                left = [] if complete or got.isdisjoint(left) else [key for key in left if key not in got]

    def _read_range(self, keys: frozenset[Key], chunk: Chunk) -> Iterator[list[Record]]:
        shape, complete = self.shape, False
        while not complete:
            page = shape.select.where(*within(shape.key, chunk), *shape.filters).order_by(*shape.key)
            records, complete = self._batch(page.limit(self._limits.batch_size))
            if records:
                complete = complete and len(records) < self._limits.batch_size
                chunk = Chunk(self.key_of(records[-1]), chunk.upto)
                yield [record for record in records if self.key_of(record) in keys]

    def _batch(self, query: sa.Select[Any]) -> tuple[list[Record], bool]:
        """The query's first rows, up to the byte limit, and whether these were all."""

        def attempt(cx: sa.Connection) -> tuple[list[Record], bool]:
            records: list[Record] = []
            size = 0
            for row in _stream(cx, query).mappings():
                records.append(row)
                size += _bytes_of(row.values())
                if size > self._limits.batch_bytes:
                    return records, False
            return records, True

        return self.access.run("read records", attempt)

    def key_of(self, record: Record) -> Key:
        return tuple(record[name] for name in self.shape.key_names)

    def matching(self, keys: Sequence[Key]) -> set[Key]:
        found: set[Key] = set()
        step = self._keys_at_once(self._limits.batch_size)
        for start in range(0, len(keys), step):
            part = keys[start : start + step]
            found |= self.access.run("look up keys", lambda cx, p=part: self._matching(cx, p))
        return found

    def _matching(self, cx: sa.Connection, keys: Sequence[Key]) -> set[Key]:
        shape = self.shape
        asked = set(keys)
        rows = {tuple(row) for row in cx.execute(sa.select(*shape.key).where(self._is_one_of(keys), *shape.filters))}
        if rows <= asked:
            return rows
        # The server has some under another spelling: ask which ones, key by key.
        for key in asked - rows:
            if cx.execute(sa.select(*shape.key).where(self._is_one_of([key]), *shape.filters)).first() is not None:
                rows.add(key)
        return rows & asked

    def _is_one_of(self, keys: Sequence[Key]) -> sa.ColumnElement[bool]:
        columns = self.shape.key
        if len(columns) == 1:
            return columns[0].in_([key[0] for key in keys])
        return sa.or_(
            *(sa.and_(*(column == value for column, value in zip(columns, key, strict=True))) for key in keys)
        )

    def _keys_at_once(self, most: int) -> int:
        width = len(self.shape.key)
        return min(most, self.access.dialect.max_parameters // width, 200 if width > 1 else most)

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, records: Sequence[Record], run: Run, now: datetime) -> None:
        if records:
            rows = [self._row(record, now) for record in records]
            self.access.run("write records", lambda cx: self._write(cx, rows))

    def _row(self, record: Record, now: datetime) -> dict[str, Any]:
        # Milliseconds as text: every column type that may stand for SyncedAt takes it. A SyncedAt of the source's own wins.
        lower = {SYNCED_AT.lower(): now.strftime("%Y-%m-%d %H:%M:%S.") + f"{now.microsecond // 1000:03}"}
        lower |= {name.lower(): value for name, value in record.items()}
        by_lower = self.shape.by_lower
        return {by_lower[name].name: value for name, value in lower.items() if name in by_lower}

    def _write(self, cx: sa.Connection, rows: list[dict[str, Any]]) -> None:
        # Which rows exist is asked inside the transaction and by the server's own equality, so a batch may be repeated
        # and a key that changed only in case meets its old row.
        shape = self.shape
        keys = [self.key_of(row) for row in rows]
        step = self._keys_at_once(len(keys))
        existing = {
            key for start in range(0, len(keys), step) for key in self._matching(cx, keys[start : start + step])
        }
        new = [row for row, key in zip(rows, keys, strict=True) if key not in existing]
        if new:
            self.access.dialect.before_insert(cx, shape.table, bool(shape.identity))
            cx.execute(shape.table.insert(), new)
        old = [
            {name: value for name, value in row.items() if name not in shape.identity}
            | {f"key {name}": value for name, value in zip(shape.key_names, key, strict=True)}
            for row, key in zip(rows, keys, strict=True)
            if key in existing
        ]
        if old:
            its_key = (column == sa.bindparam(f"key {column.name}", type_=column.type) for column in shape.key)
            cx.execute(shape.table.update().where(*its_key), old)

    def delete(self, keys: Sequence[Key]) -> None:
        step = self._keys_at_once(self._limits.batch_size)
        for start in range(0, len(keys), step):
            statement = self.shape.table.delete().where(self._is_one_of(keys[start : start + step]))
            self.access.run("delete records", lambda cx, s=statement: cx.execute(s))

    def sibling(self, shape: Shape) -> Sibling:
        return SqlSibling(self.access, shape, self.schema)


class TableShape:
    """A table's columns, key, version and filter, as its server's catalogue gives them."""

    def __init__(self, columns: list[Column], key_names: tuple[str, ...], store: SqlStore) -> None:
        rules = store.rules
        self.columns, self.key_names = columns, key_names
        self.table = sa.Table(
            store.name,
            sa.MetaData(),
            *(_declare(column, key_names) for column in columns),
            schema=store.schema,
        )
        self.by_lower = {column.name.lower(): column for column in columns}
        if rules.version[0].lower() not in self.by_lower:
            raise SchemaMismatch(
                f"The {store.label} has no column {rules.version[0]}, which tells whether a row changed.",
                hint="Add the column, raise it with every change of a row, then run initialize.",
            )
        self.key = [self.table.c[name] for name in key_names]
        self.version = [self._column(name) for name in rules.version if name.lower() in self.by_lower]
        self.filters = [
            self._column(name) == value for name, value in rules.where.items() if name.lower() in self.by_lower
        ]
        self.identity = {column.name for column in columns if column.identity}
        self.content = frozenset(self.by_lower)
        self.select = sa.select(*self.table.columns)

    def _column(self, name: str) -> sa.Column[Any]:
        return self.table.c[self.by_lower[name.lower()].name]

    @classmethod
    def reflect(cls, cx: sa.Connection, store: SqlStore) -> TableShape:
        """Raises the side's error for a missing table, SchemaMismatch without a key or version."""
        columns = store.access.dialect.columns(cx, store.schema, store.name)
        if not columns:
            raise store.access.missing(f"The {store.label} does not exist.")
        key = sorted((column.key_position, column.name) for column in columns if column.key_position)
        key_names = tuple(name for _, name in key)
        if not key_names:
            raise SchemaMismatch(
                f"The {store.label} has no primary key.",
                hint="Only a table with a primary key can be backed up.",
            )
        return cls(columns, key_names, store)


def split_name(table: str) -> tuple[str | None, str]:
    """`customer.Customers`, `[my schema].[my.table]` or `Customers` → schema and table."""
    parts = [
        bracketed or quoted or plain
        for bracketed, quoted, plain in re.findall(r'\[([^]]+)\]|"([^"]+)"|([^.\[\]"]+)', table)
    ]
    if len(parts) not in (1, 2):
        raise ConfigError(
            f"{table!r} is not a table name.",
            hint="Write schema.table, with brackets where a name has a dot.",
        )
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])


def within(key: Sequence[sa.Column[Any]], chunk: Chunk) -> list[sa.ColumnElement[bool]]:
    """The conditions of a chunk: lexicographic over the key columns, each led by one that seeks on the key's index."""
    conditions = []
    if chunk.after is not None:
        conditions.append(_after(key, chunk.after))
    if chunk.upto is not None:
        conditions.append(_upto(key, chunk.upto))
    return conditions


def _after(key: Sequence[sa.Column[Any]], values: Key) -> sa.ColumnElement[bool]:
    if len(key) == 1:
        return key[0] > values[0]
    return sa.and_(key[0] >= values[0], sa.or_(key[0] > values[0], _after(key[1:], values[1:])))


def _upto(key: Sequence[sa.Column[Any]], values: Key) -> sa.ColumnElement[bool]:
    if len(key) == 1:
        return key[0] <= values[0]
    return sa.and_(key[0] <= values[0], sa.or_(key[0] < values[0], _upto(key[1:], values[1:])))


def _declare(column: Column, key_names: tuple[str, ...]) -> sa.Column[Any]:
    return sa.Column(
        column.name,
        column.type,
        primary_key=column.name in key_names,
        nullable=column.nullable,
        autoincrement=False,
    )


def _stream(cx: sa.Connection, query: sa.Select[Any]) -> sa.CursorResult[Any]:
    """The rows as they come, a few held at a time."""
    return cx.execution_options(stream_results=True, max_row_buffer=_FETCH_ROWS).execute(
        query.execution_options(yield_per=_FETCH_ROWS)
    )


def _bytes_of(values: Iterable[Any]) -> int:
    return sum(len(value) if isinstance(value, str | bytes) else 16 for value in values)


def _digest(row: Record, names: frozenset[str]) -> str:
    content = sorted((name.lower(), value) for name, value in row.items() if name.lower() in names)
    return sha256(repr(content).encode()).hexdigest()


def _sql(store: Store) -> SqlStore:
    if not isinstance(store, SqlStore):
        raise TypeError("the sides of a service are of one kind")
    return store
