"""Rows of a table: fetched as the driver makes them, in bounded memory, and taken for records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, overload

import sqlalchemy as sa

from backup.core.model import Record
from backup.stores.sql.engines.prepared import LARGE, OTHER_BYTES, Row, lengths, values_at

_SMALL_ROWS_AT_ONCE = 10_000
_ROWS_AT_ONCE = 512
_LARGE_ROW = 4 * 1024 * 1024


class Rows(Sequence[Record]):
    """Records by their values, in the order of `names`. One becomes a mapping when it is looked at: most never are."""

    def __init__(self, names: tuple[str, ...], values: list[Row], *, large: bool = False) -> None:
        """`large`: one of them is, so that a second batch beside is too much."""
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
        """The records with one value more, the same in each."""
        return Rows((*self.names, name), [(*row, value) for row in self.values], large=self.large)


def values_of(records: Sequence[Record], names: Sequence[str]) -> list[Row]:
    """The values of these names of each record, in their order."""
    if not isinstance(records, Rows):
        return values_at(names, records)
    if (*names,) == records.names:
        return records.values
    return values_at([records.names.index(name) for name in names], records.values)


class Fetched(NamedTuple):
    """Rows with their size in bytes, whether they were all of a query, and whether the last of them is large."""

    rows: list[Row]
    size: int
    complete: bool
    large: bool = False


def small_rows(cx: sa.Connection, query: sa.Select[Any]) -> set[Row]:
    """All rows of the query, as tuples of what the driver gives."""
    found: set[Row] = set()
    with _result(cx, query) as fetch:
        while rows := fetch(_SMALL_ROWS_AT_ONCE):
            found.update(rows)
    return found


def first_rows(cx: sa.Connection, query: sa.Select[Any], max_bytes: int, largest: int | None) -> Fetched:
    """The query's rows up to the one with which they have more than `max_bytes`. Holds no other row.

    `largest` is about how many bytes the largest may have, where rows are better fetched many at once; None where one
    by one costs nothing.
    """
    step = 1 if largest is None else max(1, min(_ROWS_AT_ONCE, max_bytes // max(1, largest)))
    found: list[Row] = []
    size = 0
    with _result(cx, query) as fetch:
        while rows := fetch(step):
            size_before, size = size, size + _size(rows)
            if size > max_bytes and len(rows) > 1:
                size = size_before
                for row in rows:
                    found.append(row)
                    size += _size([row])
                    if size > max_bytes:
                        break
            else:
                found += rows
            if size > max_bytes:
                large = _size(found[-1:]) > _LARGE_ROW  # any other leaves the driver with no more than a batch
                if large:
                    is_large(cx)
                return Fetched(found, size, complete=False, large=large)
            if len(rows) < step:  # asking whether there are more would cost a round trip
                break
    return Fetched(found, size, complete=True)


def is_large(cx: sa.Connection) -> None:
    """Notes that much went through the connection, whose driver may hold that for ever."""
    cx.info[LARGE] = True


@contextmanager
def _result(cx: sa.Connection, query: sa.Select[Any]) -> Iterator[Callable[[int], Sequence[Row]]]:
    """Gives what fetches that many more rows, with the driver's own values: columns of server types need no conversion,
    and SQLAlchemy's rows would cost more than they hold. Rows not fetched by the end are given up."""
    result = cx.execute(query.execution_options(stream_results=True))
    ahead = [result.fetchone()]  # SQLAlchemy has fetched it already

    def fetch(rows: int) -> Sequence[Row]:
        if not ahead:
            found: Sequence[Row] = result.cursor.fetchmany(rows)
            # pyodbc's are of a type of its own, which SQLAlchemy would not take as parameters.
            return found if not found or type(found[0]) is tuple else list(map(tuple, found))
        first = ahead.pop()
        return [] if first is None else [tuple(first), *(fetch(rows - 1) if rows > 1 else ())]

    try:
        yield fetch
    except cx.dialect.loaded_dbapi.Error as error:
        raise sa.exc.DBAPIError(None, None, error) from None
    finally:
        result.close()


def _size(rows: Sequence[Row]) -> int:
    """About how many bytes rows have: the lengths of their texts and bytes, and `OTHER_BYTES` for any other value.

    Of many taken by column, which is a tenth of the work.
    """
    if len(rows) == 1:
        return sum([len(value) if type(value) in (str, bytes) else OTHER_BYTES for value in rows[0]])
    size = 0
    for column in zip(*rows, strict=True):
        found = lengths(column)
        size += OTHER_BYTES * len(rows) if found is None else sum(found)
    return size
