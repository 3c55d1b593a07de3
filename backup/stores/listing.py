"""What a catalogue lists: tables and views with their columns and keys, or containers. Values alone, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class ListedColumn:
    """A column, with its type in the server's words."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key of `table`: its columns, and those that they refer to, in the same order. Tables are spelled as in
    `Listed`.

    The actions are SQL's words. `deferrable`: it may be checked at the end of a transaction; `deferred`: it is, unless
    a transaction says otherwise. `match_full`: its columns are NULL together, or not at all. `of_all_rows`: not of a
    partition alone, nor to one.
    """

    name: str
    table: str
    columns: Sequence[str]
    referred: str
    referred_columns: Sequence[str]
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"
    deferrable: bool = False
    deferred: bool = False
    match_full: bool = False
    of_all_rows: bool = True


@dataclass(frozen=True)
class Listed:
    """A table, a view or a container. `name` is what settings write for it, with brackets where it needs them. `kind`
    is `table`, also for a container, or what the server calls another thing that can be read like one.

    `unique_keys`: the columns of each unique index over columns that are never NULL, by the index's name. `row_version`
    is the column that the server changes with every write. `records` is about how many there are; None where the
    catalogue does not know. `foreign_keys` are those that the server enforces. A container has a name alone.
    """

    name: str
    kind: str = "table"
    columns: Sequence[ListedColumn] = ()
    primary_key: Sequence[str] = ()
    unique_keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    row_version: str | None = None
    records: int | None = None
    foreign_keys: Sequence[ForeignKey] = ()

    @property
    def is_view(self) -> bool:
        """Whether it has no key of its own: it is not a table, or one of another server."""
        return self.kind != "table"


@dataclass(frozen=True)
class PassedOver:
    """What a set does not take though a pattern may fit its `name`, what it is (`kind`), and a sentence that says why.
    Names with one reason belong together."""

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class UniqueIndex:
    """A unique index over all rows of a table: its columns in order, and whether it is the primary key's."""

    table: str
    name: str
    columns: Sequence[str]
    is_primary: bool


def with_keys(
    tables: Iterable[Listed], indexes: Iterable[UniqueIndex], foreign_keys: Iterable[ForeignKey]
) -> list[Listed]:
    """Returns the tables with their primary keys, unique keys and foreign keys."""
    of_table: dict[str, list[UniqueIndex]] = {}
    referring: dict[str, list[ForeignKey]] = {}
    for foreign_key in foreign_keys:
        referring.setdefault(foreign_key.table, []).append(foreign_key)
    for index in indexes:
        of_table.setdefault(index.table, []).append(index)
    keyed = []
    for table in tables:
        own = of_table.get(table.name, [])
        always = {column.name for column in table.columns if not column.nullable}
        primary = next((tuple(index.columns) for index in own if index.is_primary), tuple(table.primary_key))
        unique = {index.name: tuple(index.columns) for index in own if always.issuperset(index.columns)}
        refers = tuple(referring.get(table.name, ()))
        keyed.append(replace(table, primary_key=primary, unique_keys=unique, foreign_keys=refers))
    return keyed
