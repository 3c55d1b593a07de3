"""Rows that go from one table into another without becoming values of this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import sqlalchemy as sa


class StagedRows(NamedTuple):
    """A temporary table, which ends with its transaction, and how many rows it has. Its columns are in the order of
    `RelayedRows.names`.

    With `put` (`Dialect.overlay`) the table is a query, and the rows are only to be read, or to be written by `put`:
    over the rows with the same keys, and as new rows where there are none. It returns how many it has written.
    """

    table: sa.Table
    number: int
    put: Callable[[sa.Connection], int] | None = None


class Relayed(NamedTuple):
    """How many rows were inserted, and whether the server is known to have changed nothing else meanwhile, as a trigger
    would."""

    number: int
    alone: bool = False


class RelayedRows(NamedTuple):
    """Rows of a source's table, and the columns of a copy's table that take their values.

    - `columns`: each column of the source with the one that takes its values.
    - `mark`: a column of the copy's own, and the text that each row gets there; None without such a column.
    - `conditions`, `key`: which rows, in the order of these columns. Both name the source's table, or the rows that its
      server makes of images.
    - `own_condition`: one of the conditions is a text that somebody wrote, which may name other tables.
    - `reading`: opens a connection to the source for a single statement that reads.
    - `apart`: the transaction that writes them may hold no lock of the source while it does. It has done nothing yet.
    - `identity`: the columns that take values have one that numbers new rows by itself.
    """

    columns: Sequence[tuple[sa.Column[Any], sa.Column[Any]]]
    mark: tuple[sa.Column[Any], str] | None
    conditions: Sequence[sa.ColumnElement[bool]]
    key: Sequence[sa.Column[Any]]
    own_condition: bool
    reading: Callable[[], AbstractContextManager[sa.Connection]]
    apart: bool = False
    identity: bool = False

    @property
    def original(self) -> sa.Table:
        """The source's table, or the bin of whose images the rows are made."""
        table: Any = self.columns[0][0].table
        if isinstance(table, sa.Subquery):
            [table] = table.element.get_final_froms()  # type: ignore[attr-defined] # a SELECT
        assert isinstance(table, sa.Table)  # noqa: S101 - for mypy
        return table

    @property
    def copy(self) -> sa.Table:
        """The copy's table."""
        table = self.columns[0][1].table
        assert isinstance(table, sa.Table)  # noqa: S101 - for mypy
        return table

    @property
    def names(self) -> list[str]:
        """The names of the copy's columns that get a value."""
        marked = [] if self.mark is None else [self.mark[0].name]
        return [*(copy.name for _, copy in self.columns), *marked]
