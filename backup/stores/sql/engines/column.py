"""Columns as a server's catalogue describes them, their types, and how a statement spells both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name
from sqlalchemy.types import UserDefinedType

from backup.core.model import Key

Relation = Literal["same", "wider", "other"]


class ServerType(UserDefinedType[Any]):
    """A column type under the server's own name. Values pass as the driver gives them, without conversion.

    `declared` is the text for CREATE TABLE. It comes from the server's catalogue, never from a request.
    """

    cache_ok = True

    def __init__(self, declared: str) -> None:
        self.declared = declared

    def get_col_spec(self, **_: Any) -> str:
        return self.declared

    kinds: tuple[type, ...] = (object,)
    """The Python types of the column's values."""

    lowest_open: sa.ColumnElement[Any] | None = None
    """For a column to which the server itself gives a greater value at each write: selects the lowest value that a
    transaction which is open now may still commit. None for any other column."""

    is_row_number = False
    """Whether the column is the number of its row, by which the server keeps all rows in order."""

    @property
    def is_for_integers(self) -> bool:
        """Whether the values are integers, or meant to be."""
        return self.kinds == (int,)

    def may_hold(self, value: Any) -> bool:
        """Whether a column of this type may hold such a value. Looks at its kind, not at its size."""
        return isinstance(value, self.kinds)

    def spells(self, value: Any) -> bool:
        """Whether a column of this type, whose values are `spelled_once`, spells this one so."""
        return self.may_hold(value)

    def spells_like(self, other: ServerType) -> bool:  # noqa: ARG002 - the same for every type
        """Whether a value that goes from a column of the other type into one of this type stays spelled as it is."""
        return True

    def has_one_of(self, column: sa.ColumnElement[Any], values: Sequence[Any]) -> sa.ColumnElement[bool]:
        """The condition that a column of this type has one of the values."""
        return has_one_of(column, values)

    lists_whole_keys = True
    """Whether the server compares several columns at once with the keys that a subquery selects."""

    def may_list(self, values: Sequence[Any]) -> bool:  # noqa: ARG002 - of no type, unless it says so
        """Whether `listed` names keys that have these values in a column of this type."""
        return False

    def listed(self, types: Sequence[ServerType], keys: Sequence[Key]) -> sa.TextClause:
        """A subquery that selects these keys of columns of these types with few parameters. Only where all types
        `may_list` their values."""
        raise NotImplementedError

    def read_exactly(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """How to select a column of this type, so that its values come as they are."""
        return column

    def in_order(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """What the server can compare by order, as this process compares the column's values."""
        return column


@dataclass(frozen=True)
class Column:
    """A column as the server's catalogue describes it.

    `type.declared` is how a backup declares it. For a column that nobody can write (rowversion) that is the plain type
    of the same values. `key_position` counts the primary key's columns from 1. `collation` is the one in force, for
    text. Identity and computed columns refuse ordinary writes in this table. The server fills a `defaulted` column. A
    column that is not `sortable` cannot be in a key: its values' order is not the order of their texts. `leads_index`:
    an index of all rows is known to begin with it. `spelled_once`: values that its server takes for equal are known to
    be the same value in this process, spelled alike.
    """

    name: str
    type: ServerType
    nullable: bool
    key_position: int | None = None
    collation: str | None = None
    identity: bool = False
    computed: bool = False
    defaulted: bool = False
    sortable: bool = True
    leads_index: bool = False
    spelled_once: bool = False


def named_column(columns: Sequence[Column], name: str) -> Column | None:
    """The column with exactly this name; else one whose name differs only in case; else None."""
    alike = [column for column in columns if column.name.lower() == name.lower()]
    return next((column for column in alike if column.name == name), alike[0] if alike else None)


def has_one_of(column: sa.ColumnElement[Any], values: Sequence[Any]) -> sa.ColumnElement[bool]:
    """The condition that the column has one of the values. Its parameter does not bear the column's name: SQLAlchemy
    does not take every name there, such as one with a tab."""
    return column.in_(sa.bindparam("one_of", [*values], type_=column.type, expanding=True, unique=True))


def own_parameter(name: str, value: Any) -> sa.BindParameter[Any]:
    """A parameter of a text. Another one of the statement may have its name: those of a column have the column's."""
    return sa.bindparam(name, value, unique=True)


def type_parts(declared: str) -> tuple[str, tuple[float, ...], str]:
    """`varchar(10) COLLATE x` → ("varchar", (10,), "x"); the size max is infinite, no collation is ""."""
    spelled, _, collation = re.sub(r"\s+collate\s+", "\n", declared.strip(), flags=re.I).partition("\n")
    plain = spelled.lower()
    match = re.fullmatch(r"([^(]*)\(([\d\s,]+|max)\)(.*)", plain)
    if match is None:
        return plain, (), collation
    sizes = tuple(float("inf") if part.strip() == "max" else float(part) for part in match[2].split(","))
    return match[1].strip() + match[3], sizes, collation


def digits(sizes: tuple[float, ...]) -> tuple[float, float]:
    """The digits before and after the point of decimal(p, s); infinite without sizes."""
    if not sizes:
        return float("inf"), float("inf")
    precision, scale = (*sizes, 0.0)[:2]
    return precision - scale, scale


def spelled_table(dialect: sa.Dialect, table: sa.Table) -> str:
    """The table's name for a statement, quoted."""
    return dialect.identifier_preparer.format_table(_always_quoted(table))


def spelled_column(
    dialect: sa.Dialect, table: sa.Table, name: str, type_: ServerType | None = None, *, nullable: bool | None = True
) -> str:
    """The column's quoted name for a statement; with a type, the column's whole declaration in CREATE TABLE. If
    `nullable` is None, the declaration says nothing about NULL."""
    if type_ is None:
        return dialect.identifier_preparer.quote_identifier(name)
    column = sa.Column(quoted_name(name, quote=True), type_, nullable=nullable, autoincrement=False)
    _always_quoted(table, column)
    return str(sa.schema.CreateColumn(column).compile(dialect=dialect))


def _always_quoted(table: sa.Table, *columns: sa.Column[Any]) -> sa.Table:
    schema = quoted_name(table.schema, quote=True) if table.schema else None
    return sa.Table(quoted_name(table.name, quote=True), sa.MetaData(), *columns, schema=schema)
