"""Entries of the app's own tables as the driver has read them: each value is converted when somebody asks for it.

Who looks at a few values of many entries does not pay for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from backup.stores.sql.engines import Dialect

_Columns = Mapping[str, tuple[int, Callable[[Any], Any] | None]]
"""By its name, the place of a column in a row, and what converts its values; None where they are as they should be."""


class ReadEntry(Mapping[str, Any]):
    """An entry."""

    __slots__ = ("_columns", "_row")

    def __init__(self, columns: _Columns, row: Sequence[Any]) -> None:
        self._columns, self._row = columns, row

    def __getitem__(self, name: str) -> Any:
        place, convert = self._columns[name]
        value = self._row[place]
        return value if value is None or convert is None else convert(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def read_entries(
    cx: sa.Connection, query: sa.Select[Any], values: Mapping[str, Any], dialect: Dialect
) -> list[ReadEntry]:
    """What the query reads. Raises the errors of SQLAlchemy."""
    plain = dialect.read_plainly(cx, query, values)
    result = cx.execute(query, values) if plain is None else None
    cursor: Any = plain if result is None else result.cursor
    kinds = tuple(map(itemgetter(1), cursor.description))
    try:
        rows = cursor.fetchall()
    except cx.dialect.loaded_dbapi.Error as error:
        raise sa.exc.DBAPIError(None, None, error) from None
    finally:
        if result is not None:
            result.close()
    columns = _columns_of(query, cx.dialect, kinds)
    return [ReadEntry(columns, row) for row in rows]


@lru_cache(maxsize=64)
def _columns_of(query: sa.Select[Any], dialect: sa.Dialect, kinds: tuple[Any, ...]) -> _Columns:
    """The query's columns, which the driver reads as values of these kinds."""
    return {
        column.name: (place, column.type.dialect_impl(dialect).result_processor(dialect, kind))
        for place, (column, kind) in enumerate(zip(query.selected_columns, kinds, strict=True))
    }
