"""A table as its server knows it: looked up by its name, made in another table's shape, altered to follow it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from backup.core.errors import BackupError, NotInitialized, SourceMissing, TransientStoreError
from backup.core.workers import Begin
from backup.stores.base import Store
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.declared import DELETED_AT, SYNCED_AT, declare, own_column, time_type, wanted_name
from backup.stores.sql.drift import plan
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.described import Described
from backup.stores.sql.engines.tables import TableName, whole_schema
from backup.stores.sql.making import alter, make_table
from backup.stores.sql.masked import SOURCE_STAMP
from backup.stores.sql.missing import suggestion
from backup.stores.sql.shaping import described_shape
from backup.stores.sql.table import TableShape, loosened
from backup.stores.values import Altered, Drift, OnNewColumn, Rules


class SqlCatalog:
    """Where a table is, or where to make it. It is looked up once, and again only after `forget`."""

    def __init__(
        self, access: SqlAccess, schema: str | None, name: str, rules: Rules, open_in: Callable[[Dialect], Store]
    ) -> None:
        """`open_in` opens a table of the same name and rules in the database that a dialect reaches."""
        self.access, self.schema, self.name, self._rules, self._open_in = access, schema, name, rules, open_in
        self._copied: TableShape | None = None
        self._begun: Callable[[], list[Described | None]] | None = None  # waits for what `read_ahead` has begun

    def qualified_name(self) -> str:
        with suppress(self.access.missing):
            if self._existing is not None:
                return self._existing.spelled
        return self.wanted_name.spelled

    @property
    def table_name(self) -> TableName:
        """The table as the server knows it; where there is none, as it would be made."""
        return self._existing or self.wanted_name

    @property
    def wanted_name(self) -> TableName:
        """The table as the settings name it. Asks nobody."""
        return wanted_name(self.access.dialect, self.schema, self.name)

    @property
    def withheld(self) -> Collection[str]:
        """What the masks and the transform of a source name in the settings; nothing for any other store."""
        if not self._rules.is_source:
            return ()
        masking, transform = self._rules.masking, self._rules.transform
        return (*(masking.masks if masking else ()), *(transform.names if transform else ()))

    @property
    def declared(self) -> Collection[str]:
        """The names of the copy's columns that the transform of the service declares; on both sides."""
        return () if self._rules.transform is None else self._rules.transform.types

    def forget(self) -> None:
        """Makes the next use look up the table and read its columns again."""
        self._begun = None
        for name in ("shape", "_described"):
            self.__dict__.pop(name, None)

    def read_ahead(self, begin: Begin) -> None:
        """As `Relational.read_ahead`."""
        self._begun = begin(self._read_once)

    def know(self, described: Described | None) -> None:
        """Makes this what the catalogue says of the table, as somebody has just read it."""
        self.forget()
        self.__dict__["_described"] = described

    @property
    def _existing(self) -> TableName | None:
        """The table that its name stands for; looked up once, so that all statements mean the same table."""
        return None if self._described is None else self._described.table

    @cached_property
    def _described(self) -> Described | None:
        begun, self._begun = self._begun, None
        ahead = [] if begun is None else begun()
        return ahead[0] if ahead else self._read()

    def _read_once(self) -> list[Described | None]:
        """What `_read` returns, by one try; nothing if that fails: who needs it meets the error by tries of its own.
        Nobody waits twice for an answer: where none came, raises that."""
        try:
            with self.access.once("find the table", single=True) as cx:
                return [self.access.dialect.describe(cx, self.schema, self.name)]
        except BackupError as error:
            if isinstance(error, TransientStoreError) and error.unanswered:
                raise
            return []

    def _read(self) -> Described | None:
        for attempt in self.access.attempts("find the table", single=True):
            with attempt as cx:
                described = self.access.dialect.describe(cx, self.schema, self.name)
        return described

    def altered(self) -> Altered:
        """As `Relational.altered`."""
        before = {column.name: column.type.declared for column in self.shape.columns}
        known, described = self._described, self._read()
        if described is None:
            return Altered()  # the next run says so
        if known is not None and described.is_other_than(known):
            return Altered(tuple(column.name for column in self.shape.copied), is_other_table=True)
        now = described.columns if described.columns is not None else self._columns_of(described)
        return Altered(tuple(c.name for c in now if before.get(c.name, c.type.declared) != c.type.declared))

    def _existing_or_new(self, original: SqlCatalog) -> TableName:
        """Where the table is or, if it is missing, where to make it. Makes the database if that is missing."""
        self.access.create_database(original.access)
        return self._existing or TableName(self.schema_of(self.name), self.name)

    def schema_of(self, name: str) -> str | None:
        """The schema of a table of this name beside this one.

        It is the schema in which the server finds such a table. If there is none, it is this table's schema, or the one
        in which this login makes tables.
        """
        dialect = self.access.dialect
        if self.schema is not None or dialect.default_schema is None:
            return self.schema
        for attempt in self.access.attempts("find the schema"):
            with attempt as cx:
                table = dialect.find(cx, None, name) or dialect.find(cx, None, self.name)
                schema = table.schema if table is not None else dialect.login_schema(cx)
        return schema

    @cached_property
    def shape(self) -> TableShape:
        """The table's shape. It is read once, and again only after `forget` or `adapt`."""
        described = self._there()
        if described.columns is None and described.error is None:
            columns = self._columns_of(described)
            if not columns:
                raise self.access.missing(f"The {self.access.label} does not exist.")
            described = Described(described.table, columns)
        return described_shape(self.access.dialect, self._rules, described, self.access.label)

    def check_there(self) -> None:
        self._there()

    def _there(self) -> Described:
        if self._described is None:
            raise self._missing_error()
        return self._described

    def _columns_of(self, described: Described) -> list[Column]:
        for attempt in self.access.attempts("read the columns"):
            with attempt as cx:
                columns = self.access.dialect.columns(cx, described.table.schema, described.table.name)
        return columns

    def _missing_error(self) -> BackupError:
        access, dialect = self.access, self.access.dialect
        for attempt in access.attempts("look for a table of a similar name"):
            with attempt as cx:
                near = suggestion(cx, self.name, self.schema or dialect.default_schema)
        hint = f"{access.missing.hint} {dialect.unseen_hint(self.schema, self.name)}".rstrip()
        return access.missing(f"The {access.label} does not exist{near}", hint=hint)

    def is_same_place(self, other: Store) -> bool:
        other_catalog = catalog_of(other)
        operation = "identify the database"
        kin = self.access.dialect.kin
        # Names that differ only in case count as the same.
        if self.name.lower() != other_catalog.name.lower() and kin is None:
            return False
        with suppress(NotInitialized, SourceMissing):  # a missing database is not the same place
            comparing = f"tell the database apart from that of the {self.access.label}"  # an error may be of either
            with self.access.once(operation) as own_cx, other_catalog.access.once(comparing) as other_cx:
                is_same = self.access.dialect.is_same_database(own_cx, other_cx)
            if not is_same or self.qualified_name().lower() == other_catalog.qualified_name().lower():
                return is_same
            return kin is not None and self._is_kin(kin, other_catalog.table_name)
        return False

    def _is_kin(self, kin: sa.TextClause, other: TableName) -> bool:
        """Whether one of the two tables is a partition, or a child, of the other."""
        own, operation = self.table_name, "tell two tables apart"
        names = {"schema": own.schema, "table": own.name, "other_schema": other.schema, "other_table": other.name}
        with self.access.once(operation) as cx:
            return cx.execute(kin, names).first() is not None

    def is_another(self) -> bool:
        return False

    def copies_beside(self) -> Sequence[str]:
        """The other tables of the schema that have a column SyncedAt."""
        own_name, schema = self.qualified_name(), self.schema_of(self.name)
        for attempt in self.access.attempts("list the tables"):
            with attempt as cx:
                # A server without schemas takes no name of one.
                named = whole_schema(schema) if self.access.dialect.default_schema else None
                columns_by_table = sa.inspect(cx).get_multi_columns(schema=named)
        copies = [
            ".".join(part for part in (schema, name) if part)
            for (_, name), columns in columns_by_table.items()
            if any(column["name"].lower() == SYNCED_AT.lower() for column in columns)
        ]
        return [place for place in copies if place.lower() != own_name.lower()]

    def is_marked(self, source: Store) -> bool:
        return self.shape.find(SYNCED_AT) is not None and catalog_of(source).shape.find_copied(SYNCED_AT) is None

    def make_database(self, source: Store) -> None:
        self.access.create_database(catalog_of(source).access)

    def initialize(self, source: Store) -> None:
        original = catalog_of(source)
        shape = original.shape
        has_place = len(shape.copied) < self.access.dialect.max_columns and shape.find_copied(SYNCED_AT) is None
        own_columns: list[sa.Column[Any]] = [sa.Column(SYNCED_AT, self.access.dialect.utc_time)] if has_place else []
        if self._rules.keeps_deleted and shape.find_copied(DELETED_AT) is None:
            own_columns.append(sa.Column(DELETED_AT, self.access.dialect.utc_time))
        self._make(original, loosened(shape), *own_columns, *_stamp_of(original))
        self.drift(source, "add")

    def make_like(self, other: Store) -> None:
        original = catalog_of(other)
        self._make(original, original.shape.copied, *_stamp_of(original))

    def make_source_of(self, backup: Store) -> None:
        original = catalog_of(backup)
        dialect = self.access.dialect
        shape = original.shape
        synced_at = own_column(shape.columns, SYNCED_AT, time_type(dialect).declared, dialect)
        own = (synced_at, shape.own_stamp, shape.own_deleted)
        self._make(original, [column for column in shape.columns if column not in own])

    def _make(self, original: SqlCatalog, columns: Sequence[Column], *own_columns: sa.Column[Any]) -> None:
        """Makes the table where it is missing: with these columns of the original, its key, and `own_columns`."""
        shape = original.shape
        table = self._existing_or_new(original)
        make_table(self.access, declare(table, self._fitted(columns, shape), shape.key_names, *own_columns))
        self.forget()

    def match(self, source: Store) -> Drift:
        return self.drift(source, "ignore")

    def drift(self, source: Store, on_new_column: OnNewColumn) -> Drift:
        """As `Relational.drift`."""
        self._copied = copied = catalog_of(source).shape
        shape = self.shape
        known = shape.origin.drift_from
        if known is not None and known[0] is copied.origin:
            drift = known[1]
        else:
            drift = plan(copied, shape, self.access.dialect, on_new_column, self._fitted_to(copied))
            if drift.is_followed:  # then it says nothing of new columns
                shape.origin.drift_from = copied.origin, drift
        shape.match(copied)
        return drift

    def _fitted_to(self, source: TableShape) -> Mapping[str, Column]:
        """The source's columns whose collation this table does not have yet, as this database has to declare them."""
        copies = ((column, self.shape.find(column.name)) for column in source.copied)
        differing = [column for column, copy in copies if column.collation != (copy.collation if copy else None)]
        return {column.name: column for column in self._fitted(differing, source)} if differing else {}

    def _fitted(self, columns: Sequence[Column], original: TableShape) -> list[Column]:
        for attempt in self.access.attempts("find collations"):
            with attempt as cx:
                fitted = self.access.dialect.fitted(cx, columns, original.key_names)
        return fitted

    def adapt(self, drift: Drift) -> None:
        """As `Relational.adapt`."""
        if drift.changes_nothing:
            return
        alter(self.access, self.shape.table, drift)
        self.__dict__.pop("shape", None)
        if self._described is not None:
            self.__dict__["_described"] = Described(self._described.table)  # its columns are to be read again
        if self._copied is not None:
            self.shape.match(self._copied)

    def seconds_to_live(self) -> Mapping[str, int]:
        """Rows never delete themselves."""
        return {}

    def beside(self, name: str) -> Store:
        return self._open_in(self.access.dialect.beside(name))

    def drop(self) -> None:
        self.access.drop_database()


def catalog_of(store: Store) -> SqlCatalog:
    """The catalog of a store that is a table."""
    if not isinstance(store.catalog, SqlCatalog):
        raise TypeError("the sides of a service are of one kind")
    return store.catalog


def _stamp_of(source: SqlCatalog) -> Sequence[sa.Column[Any]]:
    """The column that copies of a masked or transformed source need, for what its server makes."""
    return [sa.Column(SOURCE_STAMP, source.access.dialect.stamp_type)] if source.shape.needs_stamps else []
