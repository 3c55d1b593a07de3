"""A table as its server knows it: found by its name, made in another's shape, and brought up to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from backup.core.errors import NotInitialized, SourceMissing
from backup.stores.base import Store
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.app_tables import FIELD_TYPES
from backup.stores.sql.drift import plan
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.tables import Found
from backup.stores.sql.missing import suggestion
from backup.stores.sql.table import SYNCED_AT, TableShape, declare, is_mark, loosened
from backup.stores.values import Drift, OnNewColumn, Rules


class SqlCatalog:
    """Where a table is, or is to be made. What was found stays found until `forget`."""

    def __init__(
        self, access: SqlAccess, schema: str | None, name: str, rules: Rules, open_in: Callable[[Dialect], Store]
    ) -> None:
        """`open_in` opens a table of the same name and rules in the database that a dialect reaches."""
        self.access, self.schema, self.name, self._rules, self._open_in = access, schema, name, rules, open_in
        self._copied: TableShape | None = None

    def qualified_name(self) -> str:
        with suppress(self.access.missing):
            if self._found is not None:
                return self._found.spelled
        return Found(self.schema or self.access.dialect.default_schema, self.name).spelled

    def forget(self) -> None:
        for name in ("shape", "_found"):
            self.__dict__.pop(name, None)

    @cached_property
    def _found(self) -> Found | None:
        """The table that its name stands for; looked for once, so that no two statements mean different ones."""
        for attempt in self.access.attempts("find the table"):
            with attempt as cx:
                found = self.access.dialect.find(cx, self.schema, self.name)
        return found

    def _found_or_new(self, like: SqlCatalog) -> Found:
        """Where the table is or, if it is missing, has to be made, in a database that is made if that is missing."""
        self.access.create_database(like.access)
        return self._found or Found(self.schema_of(self.name), self.name)

    def schema_of(self, name: str) -> str | None:
        """The schema of a table beside this one: where a name without a schema finds it, else where this one is."""
        dialect = self.access.dialect
        if self.schema is not None or dialect.default_schema is None:
            return self.schema
        for attempt in self.access.attempts("find the schema"):
            with attempt as cx:
                found = dialect.find(cx, None, name) or dialect.find(cx, None, self.name)
                schema = found.schema if found is not None else dialect.home(cx)
        return schema

    @cached_property
    def shape(self) -> TableShape:
        """The table as it is now; read once, until `close`."""
        access, found = self.access, self._found
        dialect = access.dialect
        for attempt in access.attempts("read the columns"):
            with attempt as cx:
                if found is None:
                    near = suggestion(cx, self.name, self.schema or dialect.default_schema)
                    hint = f"{access.missing.hint} {dialect.unseen_hint(self.schema, self.name)}".rstrip()
                    raise access.missing(f"The {access.label} does not exist{near}", hint=hint)
                shape = TableShape.reflect(cx, dialect, self._rules, found, access.label, access.missing)
        return shape

    def is_same_place(self, other: Store) -> bool:
        theirs = catalog_of(other)
        what = "tell two databases apart"
        if self.name.lower() != theirs.name.lower():  # no two tables are worth telling apart by case alone
            return False
        with suppress(NotInitialized, SourceMissing):  # what is not there is no other place
            with self.access.once(what) as here, theirs.access.once(what) as there:
                is_same = self.access.dialect.is_same_database(here, there)
            return is_same and self.qualified_name().lower() == theirs.qualified_name().lower()
        return False

    def copies_beside(self) -> Sequence[str]:
        """Tables with a column SyncedAt are such."""
        mine, schema = self.qualified_name(), self.schema_of(self.name)
        for attempt in self.access.attempts("list the tables"):
            with attempt as cx:
                # SQLite's only schema has no name here.
                found = sa.inspect(cx).get_multi_columns(schema=schema if self.access.dialect.default_schema else None)
        copies = [
            ".".join(part for part in (schema, name) if part)
            for (_, name), columns in found.items()
            if any(column["name"].lower() == SYNCED_AT.lower() for column in columns)
        ]
        return [place for place in copies if place.lower() != mine.lower()]

    def initialize(self, source: Store) -> None:
        original = catalog_of(source)
        theirs = original.shape
        has_place = len(theirs.columns) < self.access.dialect.max_columns and theirs.find(SYNCED_AT) is None
        more = [sa.Column(SYNCED_AT, FIELD_TYPES["time"])] if has_place else []
        self._make(original, loosened(theirs), *more)
        self.drift(source, "add")

    def make_like(self, other: Store) -> None:
        original = catalog_of(other)
        self._make(original, original.shape.columns)

    def make_source_of(self, backup: Store) -> None:
        original = catalog_of(backup)
        mark = FIELD_TYPES["time"].compile(dialect=self.access.dialect.engine.dialect)
        self._make(original, [column for column in original.shape.columns if not is_mark(column, mark)])

    def _make(self, original: SqlCatalog, columns: Sequence[Column], *more: sa.Column[Any]) -> None:
        """Makes the table where it is missing, with `columns` of the original's and its key."""
        theirs = original.shape
        found = self._found_or_new(original)
        self.access.create(declare(found, self._fitted(columns, theirs), theirs.key_names, *more))
        self.forget()

    def match(self, source: Store) -> Drift:
        return self.drift(source, "ignore")

    def drift(self, source: Store, on_new_column: OnNewColumn) -> Drift:
        """As `Relational.drift`."""
        self._copied = catalog_of(source).shape
        found = plan(self._copied, self.shape, self.access.dialect, on_new_column, self._fitted_to(self._copied))
        self.shape.match(self._copied)
        return found

    def _fitted_to(self, source: TableShape) -> Mapping[str, Column]:
        """Those of the source's columns that this table sorts otherwise, as they have to be declared here."""
        copies = ((column, self.shape.find(column.name)) for column in source.columns if column.collation)
        unlike = [column for column, copy in copies if copy is None or copy.collation != column.collation]
        return {column.name: column for column in self._fitted(unlike, source)} if unlike else {}

    def _fitted(self, columns: Sequence[Column], original: TableShape) -> list[Column]:
        for attempt in self.access.attempts("find collations"):
            with attempt as cx:
                fitted = self.access.dialect.fitted(cx, columns, original.key_names)
        return fitted

    def adapt(self, drift: Drift) -> None:
        """As `Relational.adapt`."""
        if drift.changes_nothing:
            return
        self.access.alter(self.shape.table, drift)
        self.__dict__.pop("shape", None)
        if self._copied is not None:
            self.shape.match(self._copied)

    def seconds_to_live(self) -> Mapping[str, int]:
        """Rows stay."""
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
