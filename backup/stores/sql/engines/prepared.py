"""Statements and rows in the form that a driver takes, for many rows at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import sqlalchemy as sa

Row = tuple[Any, ...]

OTHER_BYTES = 64
"""About how many bytes of memory a value that is neither text nor bytes takes."""

TABLES_KEPT = 2_500
"""Of how many tables a process keeps what the catalogue says and how statements are spelled: of both sides of a set of
a thousand tables. About 10 KB for each."""

LARGE = "large"
"""The mark in the info of a connection that has carried more bytes than a batch may have."""

LARGE_BYTES = 1 << 20
"""From how many characters or bytes on a value is so large that memory should not hold another copy of it."""

HAS_BYTES = "has_bytes"
"""The option of a query that says whether it may read bytes, which a driver may have to ask for in another way."""


def send(cx: sa.Connection, text: str, rows: Sequence[tuple[Any, ...]], **options: Any) -> int:
    """Executes a statement, in the driver's own spelling, once for each row. Returns how many rows it changed."""
    return cx.exec_driver_sql(text, rows, execution_options=options).rowcount


def spelled_once(query: sa.Select[Any], dialect: sa.Dialect) -> tuple[str, tuple[Any, ...]]:
    """The query in the driver's own spelling, and its parameters in order. It must have no list of values."""
    compiled: Any = query.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    return str(compiled), tuple(compiled.params[name] for name in compiled.positiontup or ())


def numbered_union(texts: Mapping[int, str]) -> str:
    """These queries as one, of which each row has the number of its query before its values."""
    return " UNION ALL ".join(f"SELECT {number}, {text.removeprefix('SELECT ')}" for number, text in texts.items())


class Prepared(NamedTuple):
    """An insert or update as the driver takes it: its text, the places in a row of its parameters, and their types.

    A row has a value for each of `names`, columns of the table. The driver gets many tuples at once. SQLAlchemy's dict
    for each row would cost more time than the server takes.
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
        """The statement for rows with the columns `names`. `places` has the place in a row of each parameter."""
        compiled: Any = statement.compile(dialect=dialect)
        parameters = compiled.positiontup
        types = tuple(compiled.binds[name].type for name in parameters)
        return cls(compiled.statement.table, names, str(compiled), tuple(places[name] for name in parameters), types)

    def run(self, cx: sa.Connection, rows: Sequence[tuple[Any, ...]], **options: Any) -> None:
        """Executes it once for each row; there must be at least one."""
        whole = self.values == tuple(range(len(rows[0])))
        send(cx, self.text, rows if whole else values_at(self.values, rows), types=self.types, **options)


def driver_rows(table: sa.Table, rows: Sequence[Mapping[str, Any]], dialect: sa.Dialect) -> list[tuple[Any, ...]]:
    """Rows of one of the app's own tables as the driver takes them."""
    in_order = values_at([column.name for column in table.columns], rows)
    processes = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in table.columns]
    columns = zip(*in_order, strict=True)
    return list(zip(*(_each(process, values) for process, values in zip(processes, columns, strict=True)), strict=True))


def _each(process: Callable[[Any], Any] | None, values: Sequence[Any]) -> Iterable[Any]:
    if process is None:
        return values
    processed: list[Any] = []
    last: Any = processed
    for value in values:  # many rows share one object, for example the time of their run
        processed.append(processed[-1] if value is last else process(value))
        last = value
    return processed


def values_at(places: Sequence[Any], rows: Iterable[Any]) -> list[tuple[Any, ...]]:
    """The values of each row at these places, or under these names."""
    values = map(itemgetter(*places), rows)
    return list(values if len(places) > 1 else zip(values))


def lengths(column: Sequence[Any]) -> list[int] | None:
    """The lengths of a column's texts and bytes, `OTHER_BYTES` for other values; None if it has no text or bytes."""
    kinds = set(map(type, column))
    if kinds.isdisjoint((str, bytes)):
        return None
    if kinds <= {str, bytes}:
        return list(map(len, column))
    return [len(value) if isinstance(value, str | bytes) else OTHER_BYTES for value in column]
