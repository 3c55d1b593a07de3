"""Rows of a table: fetched as the driver makes them, in bounded memory, and used as records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def small_rows(cx: sa.Connection, query: sa.Select[Any], *, few: bool = False) -> set[Row]:
    """All rows of the query, as tuples of the driver's values. `few`: the driver may hold all of them at once, which
    spares the round trips of a cursor on the server."""
    all_rows: set[Row] = set()
    with _result(cx, query, streamed=not few) as fetching:
        while rows := fetching.many(_SMALL_ROWS_AT_ONCE):
            all_rows.update(rows)
    return all_rows


def rows_in_order(cx: sa.Connection, query: sa.Select[Any], at_most: int) -> Sequence[Row]:
    """All rows of a query that gives so few, in its order. The driver may hold all of them at once."""
    with _result(cx, query, streamed=False) as fetching:
        return fetching.many(at_most)


def each_row(cx: sa.Connection, query: sa.Select[Any], count: int) -> Iterator[Sequence[Row]]:
    """All rows of the query, `count` at a time."""
    with _result(cx, query) as fetching:
        while rows := fetching.many(count):
            yield rows


def first_rows(cx: sa.Connection, query: sa.Select[Any], max_bytes: int, largest: int | None) -> Fetched:
    """The query's rows, up to and with the row that makes them exceed `max_bytes`. Memory holds no other row.

    `largest` is about how many bytes the largest row may have, where fetching many rows at once is faster; None where
    fetching them one by one costs nothing.
    """
    with _result(cx, query) as fetching:
        if largest is None:
            first, size = fetching.within(max_bytes)
        else:
            first, size = _within(fetching, max(1, min(_ROWS_AT_ONCE, max_bytes // max(1, largest))), max_bytes)
    large = size > max_bytes and _size(first[-1:]) > _LARGE_ROW  # after smaller rows, the driver holds but a batch
    if large:
        note_large(cx)
    return Fetched(first, size, complete=size <= max_bytes, large=large)


def _within(fetching: _Fetching, step: int, max_bytes: int) -> tuple[list[Row], int]:
    """As `_Fetching.within`, `step` rows at once."""
    first: list[Row] = []
    size = 0
    while rows := fetching.many(step):
        size_before, size = size, size + _size(rows)
        if size > max_bytes:
            more, size = _up_to(iter(rows), size_before, max_bytes)
            return first + more, size
        first += rows
        if len(rows) < step:  # asking for further rows would cost a round trip
            break
    return first, size


def _up_to(rows: Iterator[Row], size: int, max_bytes: int) -> tuple[list[Row], int]:
    """The rows up to and with the one that makes them exceed `max_bytes` together with the `size` before them; and the
    size of all."""
    first: list[Row] = []
    while size <= max_bytes and (row := next(rows, None)) is not None:
        first.append(row)
        size += _size([row])
    return first, size


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


class _Fetching:
    """Fetches the rows of an open result.

    They have the driver's own values: columns of server types need no conversion, and SQLAlchemy's rows would cost more
    than they hold. pyodbc's rows have a type of their own, which SQLAlchemy would not take as parameters.
    """

    def __init__(self, result: sa.CursorResult[Any]) -> None:
        self._cursor: Any = result.cursor
        self._ahead = [result.fetchone()]  # SQLAlchemy has fetched it already

    def many(self, count: int) -> Sequence[Row]:
        """The next rows, at most `count`; fewer only at the end."""
        if not self._ahead:
            rows: Sequence[Row] = self._cursor.fetchmany(count)
            return rows if not rows or type(rows[0]) is tuple else list(map(tuple, rows))
        first = self._ahead.pop()
        return [] if first is None else [tuple(first), *(self.many(count - 1) if count > 1 else ())]

    def within(self, max_bytes: int) -> tuple[list[Row], int]:
        """The rows up to and with the one that makes them exceed `max_bytes`, and their size. Fetches them one by one,
        but in one call of a driver whose calls go to another thread."""
        if not (first := self.many(1)):
            return [], 0
        size = _size(first)

        def further(cursor: Any) -> tuple[list[Row], int]:
            return _up_to(map(tuple, iter(cursor.fetchone, None)), size, max_bytes)

        in_one_call = getattr(self._cursor, "in_one_call", None)
        rows, size_of_all = further(self._cursor) if in_one_call is None else in_one_call(further)
        return [*first, *rows], size_of_all


@contextmanager
def _result(cx: sa.Connection, query: sa.Select[Any], *, streamed: bool = True) -> Iterator[_Fetching]:
    """Fetches the query's rows. Rows that nobody has fetched by the end are dropped."""
    result = cx.execute(query.execution_options(stream_results=streamed))
    try:
        yield _Fetching(result)
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
