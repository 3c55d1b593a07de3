"""How a backup's table must follow its source's: two shapes → a `Drift`, or the reasons against. Runs no statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from types import MappingProxyType

from backup.core.errors import SchemaMismatch
from backup.stores.sql.declared import DELETED_AT, SYNCED_AT, time_type
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.column import Column, type_parts
from backup.stores.sql.masked import SOURCE_STAMP
from backup.stores.sql.table import TableShape
from backup.stores.values import Drift, OnNewColumn


def plan(
    source: TableShape,
    backup: TableShape,
    dialect: Dialect,
    on_new_column: OnNewColumn,
    fitted: Mapping[str, Column] = MappingProxyType({}),
) -> Drift:
    """The drift after which the backup can hold exact copies of the source's rows.

    `fitted` has the source's columns that the backup has to declare differently, as `Dialect.fitted` returns them.
    Raises SchemaMismatch, with the statements to run, if adding columns, widening them and allowing NULL is not enough.
    """
    planning = _Planning(source, backup, dialect, fitted)
    planning.compare_keys()
    declared = () if source.transformed is None else source.transformed.declared
    for column in source.copied:
        copy = backup.find(column.name)
        if copy is not None and column.name in declared:
            planning.take(column, copy)
        elif copy is not None:
            planning.compare(column, copy)
        elif column.name not in source.key_names:
            planning.add(column, on_new_column)
    if source.needs_stamps and backup.own_stamp is None:
        owner = "a masked copy" if source.masked is not None else "a transformed copy"
        planning.add_own(Column(SOURCE_STAMP, dialect.stamp_type, nullable=True), owner)
    if backup.keeps_deleted and (backup.own_deleted is None or source.find_copied(DELETED_AT) is not None):
        planning.add_own(Column(DELETED_AT, time_type(dialect), nullable=True), "a copy that keeps what was deleted")
    planning.refuse_ambiguous_names()
    for copy in backup.columns:
        if source.find_copied(copy.name) is None and copy not in (
            backup.find(SYNCED_AT),
            backup.own_stamp,
            backup.own_deleted,
        ):
            planning.note_removed(copy)
    return planning.drift()


class _Planning:
    """One plan in the making."""

    def __init__(self, source: TableShape, backup: TableShape, dialect: Dialect, fitted: Mapping[str, Column]) -> None:
        self._source, self._backup, self._dialect, self._fitted = source, backup, dialect, fitted
        self._added: dict[str, str] = {}
        self._own: dict[str, str] = {}
        self._altered: list[str] = []
        self._widened: list[str] = []
        self._shared: list[str] = []
        self._removed: list[str] = []
        self._ignored: list[str] = []
        self._problems: list[str] = []
        self._missing: list[str] = []
        self._remedies: list[str] = []
        self._refused: list[str] = []
        # New masks empty every value of a deleted record's copy that a function has made: `MaskedColumns.image`.
        transformed = source.transformed
        may_be_emptied = transformed is not None and transformed.may_leave_out
        self._may_be_emptied = backup.keeps_deleted and source.masked is not None and may_be_emptied

    def compare_keys(self) -> None:
        backup_names, source_names = self._backup.key_names, self._source.key_names
        if [name.lower() for name in backup_names] != [name.lower() for name in source_names]:
            self._problems.append(f"the primary key is {list(backup_names)}, in the source {list(source_names)}")

    def add(self, column: Column, on_new_column: OnNewColumn) -> None:
        """Plans for a column that only the source has."""
        statement = self._dialect.add(self._backup.table, self._fitted.get(column.name, column))
        match on_new_column:
            case "add":
                self._added[column.name] = statement
            case "ignore":
                self._ignored.append(column.name)
            case "fail":
                self._problems.append(f"column {column.name} ({column.type.declared}) is new in the source")
                self._missing.append(statement)

    def add_own(self, column: Column, owner: str) -> None:
        """Plans for a column that the app needs for itself; `owner` says in which copies."""
        if self._backup.find(column.name) is None and self._source.find_copied(column.name) is None:
            self._own[column.name] = self._dialect.add(self._backup.table, column)
        else:
            self._problems.append(f"{owner} needs the column {column.name} for itself, and there is another one")

    def take(self, column: Column, copy: Column) -> None:
        """Plans for a column that a transform declares, and that both sides have. Its type is that of the backup: a
        value that does not fit is refused with its record."""
        self._shared.append(column.name)
        if copy.computed or copy.identity:
            self._problems.append(f"column {copy.name} is filled by the server and cannot hold a copy")
        elif not copy.nullable:
            self._let_be_emptied(copy)

    def compare(self, column: Column, copy: Column) -> None:
        """Plans for a column that both sides have."""
        self._shared.append(column.name)
        in_key, declared = copy.name in self._backup.key_names, column.type.declared
        relation = self._dialect.relation(column, copy)
        fitted = self._fitted.get(column.name, column)
        wanted = replace(copy, type=fitted.type, nullable=copy.nullable or not in_key)
        if copy.computed:
            self._problems.append(f"column {copy.name} is computed by the server and cannot hold a copy")
        elif copy.identity and not in_key:
            self._problems.append(f"column {copy.name} is an identity column, which cannot be overwritten")
        elif relation == "other":
            self._refuse(f"column {copy.name} is {copy.type.declared}, in the source {declared}", copy, wanted)
        elif _sorts_otherwise(column if in_key else fitted, copy, in_key):
            key = "key " if in_key else ""
            text = f"{key}column {copy.name} has collation {copy.collation}, in the source {column.collation}"
            self._refuse(text, copy, wanted)
        elif relation == "wider":
            text = f"column {copy.name} is {copy.type.declared}, in the source {declared}"
            self._alter(copy, wanted, f"key {text}, and a key's column cannot be altered while it is one")
            self._widened.append(column.name)
        elif column.nullable and not copy.nullable and not in_key:
            self._alter(copy, wanted, f"column {copy.name} is NOT NULL, in the source it may be NULL")
        elif not (copy.nullable or in_key):
            self._let_be_emptied(copy)

    def refuse_ambiguous_names(self) -> None:
        names = [copy.name for column in self._source.copied if (copy := self._backup.find(column.name))]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._problems.append(f"column {name} stands for several columns of the source, which differ only in case")

    def note_removed(self, copy: Column) -> None:
        """Plans for a column that only the backup has. New rows have no value for it."""
        self._removed.append(copy.name)
        fills_itself = copy.defaulted or copy.identity or copy.computed
        if not (copy.nullable or fills_itself or copy.name in self._backup.key_names):
            problem = f"column {copy.name} is NOT NULL, and the source no longer has it"
            self._alter(copy, replace(copy, nullable=True), problem)
        elif not (copy.nullable or copy.computed or copy.name in self._backup.key_names):
            self._let_be_emptied(copy)

    def drift(self) -> Drift:
        if self._problems:
            statements = "; ".join(statement for statement, _ in groupby([*self._missing, *self._remedies]))
            first = f"Run on the backup: {statements}. Then" if statements else "Alter the backup table, then"
            raise SchemaMismatch(
                f"The {self._backup.label} does not fit its source: {'; '.join(self._problems)}. Nothing was changed.",
                hint=f"{first} run initialize, and sync with force so that existing rows get the new values.",
                columns=tuple(self._refused),
            )
        return Drift(
            added=tuple(self._added),
            widened=tuple(self._widened),
            removed=tuple(self._removed),
            ignored=tuple(self._ignored),
            statements=(*self._added.values(), *self._own.values(), *self._altered),
            shared=frozenset((*self._shared, *self._added)),
            unversioned=self._source.lacks_version,
            own=tuple(self._own),
        )

    def _let_be_emptied(self, copy: Column) -> None:
        """Plans that a column may be NULL if values of deleted records may have to go. Where the server cannot alter
        it, nothing is refused yet: perhaps no such copy is ever there."""
        if self._may_be_emptied and self._dialect.can_alter(self._backup.table, copy):
            self._altered += self._dialect.alter(self._backup.table, copy, replace(copy, nullable=True))

    def _alter(self, copy: Column, wanted: Column, problem: str) -> None:
        if self._dialect.can_alter(self._backup.table, copy):
            self._altered += self._dialect.alter(self._backup.table, copy, wanted)
        else:
            self._refuse(problem, copy, wanted)

    def _refuse(self, problem: str, copy: Column, wanted: Column) -> None:
        self._problems.append(problem)
        self._refused.append(copy.name)
        self._remedies += self._dialect.alter(self._backup.table, copy, wanted)


def _sorts_otherwise(column: Column, copy: Column, in_key: bool) -> bool:
    """Whether the copy has another collation. For a key's column the effective collation counts, because keys are
    compared by it; for any other column the declared one."""
    source_declares, copy_declares = type_parts(column.type.declared)[2], type_parts(copy.type.declared)[2]
    if copy.collation == column.collation or (copy_declares and copy_declares == source_declares):
        return False
    return in_key or copy_declares != source_declares
