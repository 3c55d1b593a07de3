"""Statements and rows as a driver takes them, many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import sqlalchemy as sa

Row = tuple[Any, ...]

OTHER_BYTES = 64
"""About as much memory as a value that is neither text nor bytes takes."""

LARGE = "large"
"""What a connection's info says of one through which more went than a batch shall have."""


def send(cx: sa.Connection, text: str, rows: Sequence[tuple[Any, ...]], **options: Any) -> None:
    """Executes a statement of the driver's own words once for each of the rows."""
    cx.exec_driver_sql(text, rows, execution_options=options)


class Prepared(NamedTuple):
    """An insert or update as the driver takes it: its text, which values of a row are its parameters, and their types.

    A row has a value for each of `names`, the table's columns. The driver gets tuples, many at once: a dict for each
    row, as SQLAlchemy wants it, costs more than the server does.
    """

    table: sa.Table
    names: tuple[str, ...]
    text: str
    values: tuple[int, ...]
    types: tuple[sa.types.TypeEngine[Any], ...]

    @classmethod
    def of(
        cls, statement: sa.Insert | sa.Update, names: tuple[str, ...], places: Mapping[str, int], dialect: sa.Dialect
    ) -> Prepared:
        """The statement for rows of these columns; `places` says where in a row each of its parameters is."""
        compiled: Any = statement.compile(dialect=dialect)
        found = compiled.positiontup
        types = tuple(compiled.binds[name].type for name in found)
        return cls(compiled.statement.table, names, str(compiled), tuple(places[name] for name in found), types)

    def run(self, cx: sa.Connection, rows: Sequence[tuple[Any, ...]], **options: Any) -> None:
        """Executes it once for each of the rows, of which there is at least one."""
        whole = self.values == tuple(range(len(rows[0])))
        send(cx, self.text, rows if whole else values_at(self.values, rows), types=self.types, **options)


def driver_rows(table: sa.Table, rows: Sequence[Mapping[str, Any]], dialect: sa.Dialect) -> list[tuple[Any, ...]]:
    """Rows of one of the app's own tables as the driver takes them."""
    found = values_at([column.name for column in table.columns], rows)
    processes = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in table.columns]
    values = zip(*found, strict=True)
    return list(zip(*(_each(process, column) for process, column in zip(processes, values, strict=True)), strict=True))


def _each(process: Callable[[Any], Any] | None, values: Sequence[Any]) -> Iterable[Any]:
    if process is None:
        return values
    done: list[Any] = []
    last: Any = done
    for value in values:  # many rows have the very same time
        done.append(done[-1] if value is last else process(value))
        last = value
    return done


def values_at(places: Sequence[Any], rows: Iterable[Any]) -> list[tuple[Any, ...]]:
    """What stands at these places, or under these names, of each row."""
    taken = map(itemgetter(*places), rows)
    return list(taken if len(places) > 1 else zip(taken))


def lengths(column: Sequence[Any]) -> list[int] | None:
    """The lengths of a column's texts and bytes, with `OTHER_BYTES` for any other value; None where it has none."""
    kinds = set(map(type, column))
    if kinds.isdisjoint((str, bytes)):
        return None
    if kinds <= {str, bytes}:
        return list(map(len, column))
    return [len(value) if isinstance(value, str | bytes) else OTHER_BYTES for value in column]
