"""Sends every parameter to SQL Server with its type and size, so that neither pyodbc nor the driver guesses.

Otherwise they ask the server for a parameter's type (SQLDescribeParam), for each NULL and for arrays. Within a CAST
the answer is wrong or missing. On Babelfish a missing answer silently rolls back what the transaction wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from backup.stores.sql.engines.mssql.types import MssqlType, has_half_a_pair, room
from backup.stores.sql.pool import noted_on

_MAX_ARRAY_BYTES = 32 * 1024 * 1024  # the driver allocates the largest value's size for each cell
_CELL_BYTES = 32  # besides its value, about


_WRITTEN = "written"
"""The mark in the info of a connection whose transaction has written something."""


def forget_writes(cx: Any) -> None:
    """Notes that a transaction begins. A listener of SQLAlchemy's event `begin`."""
    cx.info.pop(_WRITTEN, None)


def _note_write(statement: str, context: Any) -> bool:
    """Whether the transaction had written before this statement. All but SELECT and SET count as writes."""
    info = noted_on(context.root_connection)
    had_written = bool(info.get(_WRITTEN))
    info[_WRITTEN] = had_written or not statement.lstrip()[:7].upper().startswith(("SELECT ", "SET "))
    return had_written


def send_one(cursor: Any, statement: str, values: Sequence[Any], context: Any) -> bool | None:
    """Executes one statement. A listener of SQLAlchemy's event `do_execute`."""
    _note_write(statement, context)
    columns = _columns(context, len(values))
    if columns is None:
        return None
    sent = [_sent(value) for value in values]
    cursor.setinputsizes(_sizes(context.dialect.dbapi, columns, [[value] for value in sent]))
    cursor.execute(statement, _with_nulls(context, sent))
    return True


def send_many(cursor: Any, statement: str, rows: Sequence[Sequence[Any]], context: Any) -> bool | None:
    """Executes an insert or update once for each row. A listener of SQLAlchemy's event `do_executemany`.

    Serves rows that OPENJSON does not take: floats, more than 90 columns, databases of an old level. They go as one
    array. But for an array pyodbc asks the server. So only the first write of a transaction goes as an array, and only
    if it takes little memory. Measured on Babelfish: 18,000 rows a second by OPENJSON, 8,300 in arrays. After the first
    write each row is a round trip.
    """
    had_written = _note_write(statement, context)
    columns = _columns(context, len(rows[0]))
    if columns is None:
        return None
    dbapi = context.dialect.dbapi
    sent = [[_sent(value) for value in row] for row in rows]
    sizes = _sizes(dbapi, columns, list(zip(*sent, strict=True)))
    cursor.setinputsizes(sizes)
    typed = [size for size in sizes if size is not None]
    unbounded = any(size == 0 and sql_type in (dbapi.SQL_WVARCHAR, dbapi.SQL_VARBINARY) for sql_type, size, _ in typed)
    array_bytes = len(sent) * sum(_CELL_BYTES + 2 * size for _, size, _ in typed)
    if unbounded or array_bytes > _MAX_ARRAY_BYTES or had_written or _mixes_kinds(sent):
        sent = [_with_nulls(context, row) for row in sent]
    else:
        cursor.fast_executemany = True
    cursor.executemany(statement, sent)
    return True


def _mixes_kinds(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether a column has both texts and bytes: pyodbc makes no array of those."""
    return any({str, bytes} <= set(map(type, column)) for column in zip(*rows, strict=True))


def _with_nulls(context: Any, values: Sequence[Any]) -> list[Any]:
    """The values with pyodbc's mark for NULL in place of None: for None it would ask the server for the type."""
    return [context.dialect.dbapi.BinaryNull if value is None else value for value in values]


def _columns(context: Any, values: int) -> list[Any] | None:
    """The types of the statement's parameters, in order; None if it has none or SQLAlchemy did not compile it."""
    if (types := context.execution_options.get("types")) is not None:
        return list(types)
    names = getattr(context.compiled, "positiontup", None)
    if not names or not values:
        return None
    lists, types = context._expanded_parameters, list[Any]()  # the values of each list for IN, by its name
    for name in names:
        parameter = context.compiled.binds[name]
        if not (parameter.literal_execute or parameter in context.compiled.literal_execute_params):
            types += [parameter.type] * (len(lists[name]) if parameter.expanding else 1)
    return types if len(types) == values else None


def _sent(value: Any) -> Any:
    if isinstance(value, str):  # half a surrogate pair goes as the server's own bytes
        return value.encode("utf-16-le", "surrogatepass") if has_half_a_pair(value) else value
    return format(value, "f") if isinstance(value, Decimal) else value


def _sizes(dbapi: Any, columns: Sequence[Any], values: Sequence[Sequence[Any]]) -> list[Any]:
    return [_size(dbapi, type_, column) for type_, column in zip(columns, values, strict=True)]


def _size(dbapi: Any, type_: Any, values: Sequence[Any]) -> Any:
    if isinstance(type_, MssqlType):
        return type_.sent_as(dbapi, values)
    if None not in values:  # in the app's own tables the values tell the types
        return None
    match [value for value in values if value is not None]:
        case [datetime(), *_]:
            return (dbapi.SQL_TYPE_TIMESTAMP, 27, 7)
        case [int(), *_]:
            return (dbapi.SQL_BIGINT, 0, 0)
        case [float(), *_]:
            return (dbapi.SQL_DOUBLE, 0, 0)
        case texts:  # or none: all columns of these tables take NULL as text
            return (dbapi.SQL_WVARCHAR, room(texts, 2, 4_000) if texts else 1, 0)
