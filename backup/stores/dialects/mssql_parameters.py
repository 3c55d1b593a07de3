"""How values get to SQL Server: every parameter with its type and size, so that neither pyodbc nor the driver guesses.

Left alone they ask the server what a parameter is (SQLDescribeParam) for each NULL and for arrays, behind a CAST get a wrong
answer or none, and on some servers a question without an answer silently rolls back what the transaction has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backup.stores.dialects.mssql_types import MssqlType

_MAX_ARRAY_BYTES = 32 * 1024 * 1024
_CELL_BYTES = 32


def send_one(cursor: Any, statement: str, values: Sequence[Any], context: Any) -> bool | None:
    """Executes one statement, which may insert many rows; as SQLAlchemy's event `do_execute` wants it."""
    columns = _columns(context, len(values))
    if columns is None:
        return None
    rows = len(values) // len(columns)
    dbapi = context.dialect.dbapi
    cursor.setinputsizes(_sizes(dbapi, columns, [values[i :: len(columns)] for i in range(len(columns))]) * rows)
    cursor.execute(statement, [dbapi.BinaryNull if value is None else value for value in values])
    return True


def send_many(cursor: Any, statement: str, rows: Sequence[Sequence[Any]], context: Any) -> bool | None:
    """Executes an update once a row; as SQLAlchemy's event `do_executemany` wants it.

    Rows go in one array, for which the server is asked what the parameters are. So that is the first thing a transaction
    does; and where an array would take too much memory, they go one by one.
    """
    columns = _columns(context, len(rows[0]))
    if columns is None:
        return None
    dbapi = context.dialect.dbapi
    sizes = _sizes(dbapi, columns, list(zip(*rows, strict=True)))
    cursor.setinputsizes(sizes)
    unbounded = any(size == 0 and sql_type in (dbapi.SQL_WVARCHAR, dbapi.SQL_VARBINARY) for sql_type, size, _ in sizes)
    if unbounded or len(rows) * sum(_CELL_BYTES + 2 * size for _, size, _ in sizes) > _MAX_ARRAY_BYTES:
        rows = [[dbapi.BinaryNull if value is None else value for value in row] for row in rows]
    else:
        cursor.fast_executemany = True
    cursor.executemany(statement, rows)
    return True


def _columns(context: Any, values: int) -> list[Any] | None:
    """The types of the statement's parameters in order, those of one row; None for a statement without any."""
    names = getattr(context.compiled, "positiontup", None)
    if not names or not values:
        return None
    parameters = [context.compiled.binds[name] for name in names]
    expanded = values - len(parameters) + 1  # at most one list for IN stands in a statement
    return [p.type for p in parameters for _ in range(expanded if p.expanding else 1)]


def _sizes(dbapi: Any, columns: Sequence[Any], values: Sequence[Sequence[Any]]) -> list[Any]:
    return [_size(dbapi, type_, given) for type_, given in zip(columns, values, strict=True)]


def _size(dbapi: Any, type_: Any, values: Sequence[Any]) -> Any:
    if isinstance(type_, MssqlType):
        return type_.sent_as(dbapi, values)
    # The app's own tables: their values tell their types, and NULL as text goes into every column they have.
    return (dbapi.SQL_WVARCHAR, 1, 0) if None in values else None
