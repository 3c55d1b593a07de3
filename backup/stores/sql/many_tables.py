"""Many small tables of one side, asked together: one connection, and the catalogue in a handful of statements."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.core.errors import BackupError, TransientStoreError
from backup.core.model import Fingerprint
from backup.stores.base import Store
from backup.stores.sibling import Group, Groups, Shape
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.app_tables import SqlSibling
from backup.stores.sql.catalog import catalog_of
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.described import Described
from backup.stores.sql.engines.snapshot import SnapshotReads
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.indexes import index_plan, shared_columns
from backup.stores.sql.newest import Head, groups_of, heads_of
from backup.stores.sql.table import TableShape
from backup.stores.values import Drift, IndexPlan, Limits, OnNewColumn

SECONDS_FOR_MANY = 30.0
"""After how many seconds a call about many tables is cut: a table that somebody has locked must not hold up the others.
"""

TOGETHER = 20
"""How many tables a statement takes at most. Their lists are in memory together, and one that is refused leaves all of
them to statements of their own."""


class AskedTable(NamedTuple):
    """A table to be asked for its fingerprint, and how many rows it had at most a moment ago; None: nobody knows."""

    shape: TableShape
    rows_at_most: int | None


class ManyTables:
    """The tables of one side, asked together. Not for several threads. Each call is tried once."""

    def __init__(self, access: SqlAccess, limits: Limits) -> None:
        self._access, self._limits = access, limits

    @property
    def dialect(self) -> Dialect:
        """The database of all its tables."""
        return self._access.dialect

    @property
    def snapshot(self) -> SnapshotReads | None:
        """The snapshot in which it reads; None without one."""
        return self._access.snapshot

    def is_same_database(self, other: ManyTables) -> bool:
        """Whether both are in one database, by what the servers say of themselves."""
        operation = "identify the database"
        with self._access.once(operation) as own_cx, other._access.once(operation) as other_cx:
            return self.dialect.is_same_database(own_cx, other_cx)

    def name_of(self, store: Store) -> TableName:
        """The name by which the catalogue may know the store's table. Asks nobody."""
        return catalog_of(store).wanted_name

    def describe(self, names: Sequence[TableName]) -> Sequence[Described | None]:
        """What the catalogue says now of the tables with these names; None of those that it leaves out. Costs a
        handful of statements for all. Raises what a store raises."""
        for attempt in self._access.attempts("read the catalogue"):
            with attempt as cx:
                described = self.dialect.describe_all(cx, names)
        return described

    @staticmethod
    def matched(
        source: Store, backup: Store, in_source: Described, in_backup: Described, on_new_column: OnNewColumn
    ) -> tuple[Drift, AskedTable, AskedTable]:
        """The drift of the stores' tables if the catalogues say this of them, and how the tables are asked then. Raises
        what `Relational.drift` raises."""
        original, copy = catalog_of(source), catalog_of(backup)
        original.know(in_source)
        copy.know(in_backup)
        drift = copy.drift(source, on_new_column)
        return (
            drift,
            AskedTable(original.shape, in_source.rows_at_most),
            AskedTable(copy.shape, in_backup.rows_at_most),
        )

    def fingerprints(self, tables: Sequence[AskedTable]) -> Sequence[Fingerprint | None]:
        """The fingerprint of each table. None of one that has more records than a chunk, that the server refuses to
        read, that cannot be fingerprinted as one piece, or of which there is no answer before the call ends.

        Each is of a moment of its own. Raises what a store raises if the server cannot be asked at all. Costs a
        statement a table, or less where the server takes several together.
        """
        fingerprints: list[Fingerprint | None] = []
        try:
            for attempt in self._access.attempts("read the fingerprints of many tables", single=True):
                with attempt as cx:
                    ends_at = time.monotonic() + SECONDS_FOR_MANY
                    while (part := tables[len(fingerprints) :][:TOGETHER]) and time.monotonic() <= ends_at:
                        # A second try goes on behind the last answer.
                        for asked, fingerprint in zip(part, self._together(cx, part), strict=True):
                            fingerprints.append(fingerprint or self._fingerprint(cx, asked))
        except TransientStoreError:
            if not any(fingerprints):
                raise
        return [*fingerprints, *[None] * (len(tables) - len(fingerprints))]

    def _together(self, cx: sa.Connection, tables: Sequence[AskedTable]) -> Sequence[Fingerprint | None]:
        """The fingerprints of these tables by few statements; None of each that has to be asked for itself."""
        fingerprints: list[Fingerprint | None] = [None] * len(tables)
        places = [i for i, (shape, _) in enumerate(tables) if _is_one_piece(shape) and not shape.filters]
        stamps = [tables[i].shape.stamps(self.dialect) for i in places]
        bounds = [self._bound(tables[i]) for i in places]
        with self._refusals():
            for i, made in zip(places, self.dialect.small_fingerprints(cx, stamps, bounds), strict=True):
                fingerprints[i] = made
        return fingerprints

    def _fingerprint(self, cx: sa.Connection, asked: AskedTable) -> Fingerprint | None:
        shape, bound = asked.shape, self._bound(asked)
        if not _is_one_piece(shape):
            return None
        made = None
        with self._refusals():
            made = self.dialect.fingerprints(cx, shape.stamps(self.dialect), shape.filters, at_most=bound)
        return None if made is None else made[None]

    def _bound(self, asked: AskedTable) -> int | None:
        """How many rows a fingerprint of the table may be of; None for a table that is known to have no more."""
        at_most = self._limits.chunk_size
        is_small = asked.rows_at_most is not None and asked.rows_at_most <= at_most
        return None if is_small else at_most

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Passes over what the server refuses inside, unless it has lost the connection."""
        try:
            yield
        except BackupError:
            return
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise

    def index_plans(
        self, tables: Sequence[AskedTable], source: ManyTables, originals: Sequence[AskedTable]
    ) -> Sequence[IndexPlan]:
        """How the secondary indexes of these tables of a backup differ from those of the `originals` in `source`. Costs
        what `Dialect.indexes` costs, on both sides. Raises what a store raises."""
        in_source, in_backup = source._indexes(originals), self._indexes(tables)
        return [
            index_plan(of_source, of_backup, shared_columns(original, copy), copy.key_names, copy.table.fullname)
            for of_source, of_backup, (original, _), (copy, _) in zip(
                in_source, in_backup, originals, tables, strict=True
            )
        ]

    def _indexes(self, tables: Sequence[AskedTable]) -> Sequence[Sequence[Mapping[str, Any]]]:
        names = [TableName(asked.shape.table.schema, asked.shape.table.name) for asked in tables]
        for attempt in self._access.attempts("list the indexes", single=True):
            with attempt as cx:
                indexes = self.dialect.indexes(cx, names)
        return indexes

    def newest(self, shape: Shape, groups: Groups, values: Sequence[str]) -> list[Group]:
        """The groups of the app's own table beside these tables whose field `by` has one of these values. Costs one
        statement. Raises ColumnMissing for a table of an earlier release, and what a store raises."""
        table, clock = self._sibling(shape).table, self.dialect.server_clock
        for attempt in self._access.attempts(f"read {shape.name}", single=True):
            with attempt as cx:
                newest_groups = [
                    group for part in self._parts(values) for group in groups_of(cx, table, groups, part, clock)
                ]
        return newest_groups

    def add_next(self, shape: Shape, groups: Groups, entries: Sequence[Mapping[str, Any]]) -> set[str]:
        """Inserts those entries whose `order` is the next one of their group, if no entry of the group is counted.
        Returns the keys of the entries that are there now. Costs two statements. Raises what a store raises; then none
        was inserted, unless only the answer was lost."""
        table = self._sibling(shape).table
        for attempt in self._access.attempts(f"write {shape.name}", writes=True, fenced=False):
            with attempt as cx:
                heads: dict[tuple[Any, Any], Head] = {}
                for part in self._parts([entry[groups.by] for entry in entries]):
                    heads |= heads_of(cx, table, groups, part)
                fitting = [
                    entry
                    for entry in entries
                    if (head := heads.get((entry[groups.by], entry[groups.then_by]))) is not None
                    and head == (entry[groups.order] - 1, 0)
                ]
                if fitting:
                    self.dialect.insert_entries(cx, table, fitting)
        return {entry[shape.key] for entry in fitting}

    def _parts(self, values: Sequence[str]) -> list[list[str]]:
        """The values, in lists that a statement can have as parameters."""
        step = self.dialect.max_parameters // 2
        return [list(values[start : start + step]) for start in range(0, len(values), step)]

    def _sibling(self, shape: Shape) -> SqlSibling:
        """The app's own table. For a set it is in the server's default schema."""
        return SqlSibling(self._access, shape, lambda _name: self.dialect.default_schema)

    def close(self) -> None:
        """Gives the connections back."""
        self._access.close()


def _is_one_piece(shape: TableShape) -> bool:
    """Whether one fingerprint tells all of the table: rows without a key are in none, and keys may repeat."""
    return not (shape.nullable_key or shape.key_may_repeat)
