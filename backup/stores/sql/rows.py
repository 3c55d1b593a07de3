"""Rows of a table: fetched as the driver makes them, in bounded memory, and used as records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, overload

import sqlalchemy as sa

from backup.core.model import Record
from backup.stores.sql.engines.prepared import LARGE, LARGE_BYTES, OTHER_BYTES, Row, lengths, values_at

_SMALL_ROWS_AT_ONCE = 10_000
_ROWS_AT_ONCE = 512
_LARGE_ROW = LARGE_BYTES


class Rows(Sequence[Record]):
    """Records as tuples of values, in the order of `names`. A record becomes a mapping only when someone looks at it,
    which is seldom."""

    def __init__(self, names: tuple[str, ...], values: list[Row], *, large: bool = False) -> None:
        """`large`: one of the records is so large that memory should not hold a second batch beside this one."""
        self.names, self.values, self.large = names, values, large

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> Rows: ...
    def __getitem__(self, place: int | slice) -> Record | Rows:
        if isinstance(place, slice):
            return Rows(self.names, self.values[place], large=self.large)
        return dict(zip(self.names, self.values[place], strict=True))

    def __iter__(self) -> Iterator[Record]:
        return (dict(zip(self.names, row, strict=True)) for row in self.values)

    def with_value(self, name: str, value: Any) -> Rows:
        """The records with a further value, the same in each."""
        return Rows((*self.names, name), [(*row, value) for row in self.values], large=self.large)


def values_of(records: Sequence[Record], names: Sequence[str]) -> list[Row]:
    """The values of these names, in this order, for each record."""
    if not isinstance(records, Rows):
        return values_at(names, records)
    if (*names,) == records.names:
        return records.values
    return values_at([records.names.index(name) for name in names], records.values)


class Fetched(NamedTuple):
    """Rows of a query, their size in bytes, whether the query has no more, and whether the last row is large."""

    rows: list[Row]
    size: int
    complete: bool
    large: bool = False


def small_rows(cx: sa.Connection, query: sa.Select[Any]) -> set[Row]:
    """All rows of the query, as tuples of the driver's values."""
    all_rows: set[Row] = set()
    with _result(cx, query) as fetch:
        while rows := fetch(_SMALL_ROWS_AT_ONCE):
            all_rows.update(rows)
    return all_rows


def each_row(cx: sa.Connection, query: sa.Select[Any], count: int) -> Iterator[Sequence[Row]]:
    """All rows of the query, `count` at a time."""
    with _result(cx, query) as fetch:
        while rows := fetch(count):
            yield rows


def first_rows(cx: sa.Connection, query: sa.Select[Any], max_bytes: int, largest: int | None) -> Fetched:
    """The query's rows, up to and with the row that makes them exceed `max_bytes`. Memory holds no other row.

    `largest` is about how many bytes the largest row may have, where fetching many rows at once is faster; None where
    fetching them one by one costs nothing.
    """
    step = 1 if largest is None else max(1, min(_ROWS_AT_ONCE, max_bytes // max(1, largest)))
    first: list[Row] = []
    size = 0
    with _result(cx, query) as fetch:
        while rows := fetch(step):
            size_before, size = size, size + _size(rows)
            if size > max_bytes and len(rows) > 1:
                size = size_before
                for row in rows:
                    first.append(row)
                    size += _size([row])
                    if size > max_bytes:
                        break
            else:
                first += rows
            if size > max_bytes:
                large = _size(first[-1:]) > _LARGE_ROW  # after smaller rows, the driver holds no more than a batch
                if large:
                    note_large(cx)
                return Fetched(first, size, complete=False, large=large)
            if len(rows) < step:  # asking for further rows would cost a round trip
                break
    return Fetched(first, size, complete=True)


def has_large(records: Sequence[Record]) -> bool:
    """Whether a record is so large that memory should not hold a second batch beside these."""
    if isinstance(records, Rows):
        return records.large
    return any(
        len(value) > _LARGE_ROW for record in records for value in record.values() if isinstance(value, str | bytes)
    )


def note_large(cx: sa.Connection) -> None:
    """Notes on the connection that a large row went through it. Its driver may never free that memory."""
    cx.info[LARGE] = True


@contextmanager
def _result(cx: sa.Connection, query: sa.Select[Any]) -> Iterator[Callable[[int], Sequence[Row]]]:
    """Gives a function that fetches the next rows, at most as many as it is asked for.

    The rows have the driver's own values: columns of server types need no conversion, and SQLAlchemy's rows would cost
    more than they hold. Rows that nobody has fetched by the end are dropped.
    """
    result = cx.execute(query.execution_options(stream_results=True))
    ahead = [result.fetchone()]  # SQLAlchemy has fetched it already

    def fetch(count: int) -> Sequence[Row]:
        if not ahead:
            rows: Sequence[Row] = result.cursor.fetchmany(count)
            # pyodbc's rows have a type of their own, which SQLAlchemy would not take as parameters.
            return rows if not rows or type(rows[0]) is tuple else list(map(tuple, rows))
        first = ahead.pop()
        return [] if first is None else [tuple(first), *(fetch(count - 1) if count > 1 else ())]

    try:
        yield fetch
    except cx.dialect.loaded_dbapi.Error as error:
        raise sa.exc.DBAPIError(None, None, error) from None
    finally:
        result.close()


def _size(rows: Sequence[Row]) -> int:
    """About how many bytes the rows have: the lengths of texts and bytes, and `OTHER_BYTES` for any other value.

    Many rows are measured column by column, which is a tenth of the work.
    """
    if len(rows) == 1:
        return sum([len(value) if type(value) in (str, bytes) else OTHER_BYTES for value in rows[0]])
    size = 0
    for column in zip(*rows, strict=True):
        column_lengths = lengths(column)
        size += OTHER_BYTES * len(rows) if column_lengths is None else sum(column_lengths)
    return size
