"""A table's place on its server: found by its name, made in another's shape, and brought up to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property

import sqlalchemy as sa

from backup.core.errors import NotInitialized, SourceMissing
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.app_tables import FIELD_TYPES
from backup.stores.sql.drift import plan
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.tables import Found
from backup.stores.sql.missing import suggestion
from backup.stores.sql.table import SYNCED_AT, TableShape, declare, is_mark, loosened
from backup.stores.values import Drift, OnNewColumn, Rules


class SqlPlace:
    """Where a table is, or is to be made. What was found stays found until `forget`."""

    def __init__(self, access: SqlAccess, schema: str | None, name: str, rules: Rules) -> None:
        self.access, self.schema, self.name, self._rules = access, schema, name, rules
        self._copied: TableShape | None = None

    @property
    def spelled(self) -> str:
        """The table with its schema as the server has them; as the settings spell them while there is none."""
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
        return self.access.run("find the table", lambda cx: self.access.dialect.find(cx, self.schema, self.name))

    def _found_or_new(self, like: SqlPlace) -> Found:
        """Where the table is or, if it is missing, has to be made, in a database that is made if that is missing."""
        self.access.create_database(like.access)
        return self._found or Found(self.schema_of(self.name), self.name)

    def schema_of(self, name: str) -> str | None:
        """The schema of a table beside this one: where a name without a schema finds it, else where this one is."""
        dialect = self.access.dialect
        if self.schema is not None or dialect.default_schema is None:
            return self.schema

        def attempt(cx: sa.Connection) -> str | None:
            found = dialect.find(cx, None, name) or dialect.find(cx, None, self.name)
            return found.schema if found is not None else dialect.home(cx)

        return self.access.run("find the schema", attempt)

    @cached_property
    def shape(self) -> TableShape:
        """The table as it is now; read once, until `close`."""
        place, found = self.access, self._found
        dialect = place.dialect

        def attempt(cx: sa.Connection) -> TableShape:
            if found is None:
                near = suggestion(cx, self.name, self.schema or dialect.default_schema)
                hint = f"{place.missing.hint} {dialect.unseen_hint(self.schema, self.name)}".rstrip()
                raise place.missing(f"The {place.label} does not exist{near}", hint=hint)
            return TableShape.reflect(cx, dialect, self._rules, found, place.label, place.missing)

        return place.run("read the columns", attempt)

    def is_same(self, other: SqlPlace) -> bool:
        """Whether both are one table of one database, by what the servers say of themselves; one try."""
        what = "tell two databases apart"
        if self.name.lower() != other.name.lower():  # no two tables are worth telling apart by case alone
            return False
        is_same = self.access.dialect.is_same_database
        with suppress(NotInitialized, SourceMissing):  # what is not there is no other place
            if self.access.once(what, lambda mine: other.access.once(what, lambda cx: is_same(mine, cx))):
                return self.spelled.lower() == other.spelled.lower()
        return False

    def copies_beside(self) -> Sequence[str]:
        """The other tables of its schema with a column SyncedAt."""
        return self.access.run("list the tables", self._copies_beside)

    def _copies_beside(self, cx: sa.Connection) -> list[str]:
        mine, schema = self.spelled, self.schema_of(self.name)
        # SQLite's only schema has no name here.
        found = sa.inspect(cx).get_multi_columns(schema=schema if self.access.dialect.default_schema else None)
        copies = [
            ".".join(part for part in (schema, name) if part)
            for (_, name), columns in found.items()
            if any(column["name"].lower() == SYNCED_AT.lower() for column in columns)
        ]
        return [place for place in copies if place.lower() != mine.lower()]

    def make_backup_of(self, source: SqlPlace) -> None:
        """Makes the table that copies of the source's rows need, where it is missing."""
        theirs = source.shape
        has_place = len(theirs.columns) < self.access.dialect.max_columns and theirs.find(SYNCED_AT) is None
        more = [sa.Column(SYNCED_AT, FIELD_TYPES["time"])] if has_place else []
        found = self._found_or_new(source)
        self.access.create(declare(found, self._fitted(loosened(theirs), theirs), theirs.key_names, *more))
        self.forget()

    def make_like(self, original: SqlPlace, *, copies: bool) -> None:
        """Makes the table in the shape of `original`; with `copies` without what a backup adds to its source's."""
        theirs = original.shape
        mark = FIELD_TYPES["time"].compile(dialect=self.access.dialect.engine.dialect) if copies else None
        columns = [c for c in theirs.columns if not is_mark(c, mark)]
        found = self._found_or_new(original)
        self.access.create(declare(found, self._fitted(columns, theirs), theirs.key_names))
        self.forget()

    def drift(self, source: SqlPlace, on_new_column: OnNewColumn) -> Drift:
        """How this table must follow the source's; from here on both compare the content that they share."""
        self._copied = source.shape
        found = plan(self._copied, self.shape, self.access.dialect, on_new_column, self._fitted_to(self._copied))
        self.shape.match(self._copied)
        return found

    def _fitted_to(self, source: TableShape) -> Mapping[str, Column]:
        """Those of the source's columns that this table sorts otherwise, as they have to be declared here."""
        copies = ((column, self.shape.find(column.name)) for column in source.columns if column.collation)
        unlike = [column for column, copy in copies if copy is None or copy.collation != column.collation]
        return {column.name: column for column in self._fitted(unlike, source)} if unlike else {}

    def _fitted(self, columns: Sequence[Column], original: TableShape) -> list[Column]:
        dialect = self.access.dialect
        return self.access.run("find collations", lambda cx: dialect.fitted(cx, columns, original.key_names))

    def adapt(self, drift: Drift) -> None:
        """Runs the drift's statements."""
        if drift.changes_nothing:
            return
        self.access.alter(self.shape.table, drift)
        self.__dict__.pop("shape", None)
        if self._copied is not None:
            self.shape.match(self._copied)
