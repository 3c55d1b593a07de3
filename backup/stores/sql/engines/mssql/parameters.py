"""How values get to SQL Server: every parameter with its type and size, so that neither pyodbc nor the driver guesses.

Left alone they ask the server what a parameter is (SQLDescribeParam), for each NULL and for arrays; behind a CAST they
get a wrong answer or none; and on Babelfish a question without an answer silently undoes what the transaction wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from backup.stores.sql.engines.mssql.types import MssqlType, has_half_a_pair

_MAX_ARRAY_BYTES = 32 * 1024 * 1024
_CELL_BYTES = 32


_WRITTEN = "written"
"""What a connection's info says of one whose transaction has written something."""


def forget_writes(cx: Any) -> None:
    """Notes that a transaction begins; as SQLAlchemy's event `begin` wants it."""
    cx.info.pop(_WRITTEN, None)


def _note_write(statement: str, context: Any) -> bool:
    """Whether the transaction had written before this statement. All but a question counts as a write."""
    info = context.root_connection.info
    had_written = bool(info.get(_WRITTEN))
    info[_WRITTEN] = had_written or not statement.lstrip()[:7].upper().startswith(("SELECT ", "SET "))
    return had_written


def send_one(cursor: Any, statement: str, values: Sequence[Any], context: Any) -> bool | None:
    """Executes one statement; as SQLAlchemy's event `do_execute` wants it."""
    _note_write(statement, context)
    columns = _columns(context, len(values))
    if columns is None:
        return None
    sent = [_sent(value) for value in values]
    cursor.setinputsizes(_sizes(context.dialect.dbapi, columns, [[value] for value in sent]))
    cursor.execute(statement, _with_nulls(context, sent))
    return True


def send_many(cursor: Any, statement: str, rows: Sequence[Sequence[Any]], context: Any) -> bool | None:
    """Executes an insert or update once a row; as SQLAlchemy's event `do_executemany` wants it.

    Rows go in one array, but for an array pyodbc does ask. So only the first write of a transaction may be one, and
    only where it takes little memory. It serves what OPENJSON does not take: floats, more than 90 columns, databases of
    an old level. Measured on Babelfish: 18,000 rows a second by OPENJSON, 8,300 in arrays. Beyond the first write each
    row is a round trip of its own.
    """
    had_written = _note_write(statement, context)
    columns = _columns(context, len(rows[0]))
    if columns is None:
        return None
    dbapi = context.dialect.dbapi
    sent = [[_sent(value) for value in row] for row in rows]
    sizes = _sizes(dbapi, columns, list(zip(*sent, strict=True)))
    cursor.setinputsizes(sizes)
    known = [size for size in sizes if size is not None]
    unbounded = any(size == 0 and sql_type in (dbapi.SQL_WVARCHAR, dbapi.SQL_VARBINARY) for sql_type, size, _ in known)
    array_bytes = len(sent) * sum(_CELL_BYTES + 2 * size for _, size, _ in known)
    if unbounded or array_bytes > _MAX_ARRAY_BYTES or had_written or _mixes_kinds(sent):
        sent = [_with_nulls(context, row) for row in sent]
    else:
        cursor.fast_executemany = True
    cursor.executemany(statement, sent)
    return True


def _mixes_kinds(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether a column has both texts and bytes, of which pyodbc makes no array."""
    return any({str, bytes} <= set(map(type, column)) for column in zip(*rows, strict=True))


def _with_nulls(context: Any, values: Sequence[Any]) -> list[Any]:
    """pyodbc's own mark for NULL in place of None, for which it would ask the server; the type is that of the sizes."""
    return [context.dialect.dbapi.BinaryNull if value is None else value for value in values]


def _columns(context: Any, values: int) -> list[Any] | None:
    """The types of the statement's parameters in order; None for a statement that is not compiled here, or has none."""
    if (types := context.execution_options.get("types")) is not None:
        return list(types)
    names = getattr(context.compiled, "positiontup", None)
    if not names or not values:
        return None
    parameters = [context.compiled.binds[name] for name in names]
    parameters = [p for p in parameters if not p.literal_execute and p not in context.compiled.literal_execute_params]
    expanded = values - len(parameters) + 1  # at most one list for IN stands in a statement
    types = [p.type for p in parameters for _ in range(expanded if p.expanding else 1)]
    return types if len(types) == values else None


def _sent(value: Any) -> Any:
    if isinstance(value, str):  # half a surrogate pair goes as the bytes that the server keeps
        return value.encode("utf-16-le", "surrogatepass") if has_half_a_pair(value) else value
    return format(value, "f") if isinstance(value, Decimal) else value


def _sizes(dbapi: Any, columns: Sequence[Any], values: Sequence[Sequence[Any]]) -> list[Any]:
    return [_size(dbapi, type_, given) for type_, given in zip(columns, values, strict=True)]


def _size(dbapi: Any, type_: Any, values: Sequence[Any]) -> Any:
    if isinstance(type_, MssqlType):
        return type_.sent_as(dbapi, values)
    # The app's own tables: their values tell their types, and NULL as text goes into every column they have.
    return (dbapi.SQL_WVARCHAR, 1, 0) if None in values else None
