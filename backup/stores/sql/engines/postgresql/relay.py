"""Relays rows from one PostgreSQL server to another: COPY writes them on one side and reads them on the other.

The rows pass this process as blocks of bytes. They are in the servers' binary form where both sides have the same
types, and that form says the same on both. Otherwise they are texts, which each type reads as it writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import array

from backup.stores.sql.engines.column import ServerType, spelled_column, spelled_table, type_parts
from backup.stores.sql.engines.postgresql.copy import SPELLING
from backup.stores.sql.engines.postgresql.types import TextType
from backup.stores.sql.engines.prepared import LARGE, LARGE_BYTES
from backup.stores.sql.engines.relayed import RelayedRows

_BLOCK_BYTES = 64 * 1024
_SENT, _RECEIVED = "relay_sent", "relay_received"
# Types whose binary form is the same on every server of a version: no numbers of the catalogue, no encoding of its own.
_PLAIN = {
    *("smallint", "integer", "bigint", "numeric", "real", "double precision", "boolean", "bytea", "uuid"),
    *("text", "character varying", "character", "json", "jsonb", "bit", "bit varying"),
    *("date", "timestamp without time zone", "timestamp with time zone"),
    *("time without time zone", "time with time zone", "interval"),
    *("inet", "cidr", "macaddr", "macaddr8", "point", "line", "lseg", "box", "path", "polygon", "circle"),
    *("int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange"),
}

Blocks = Iterator[bytes]


class ReadFailed(Exception):
    """The source's server ended its part. `error` is the driver's error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class WriteFailed(Exception):
    """The backup's server ended its part. `error` is SQLAlchemy's error, which the source has nothing to do with."""

    def __init__(self, error: sa.exc.DBAPIError) -> None:
        super().__init__()
        self.error = error


def relay_rows(cx: sa.Connection, rows: RelayedRows, staged: sa.Table | None = None) -> int:
    """Inserts the rows, or puts them into the `staged` table, and returns their number.

    Holds a block of them in memory, or one row if that is larger.
    """
    try:
        return _relay(cx, rows, staged)
    except WriteFailed as failed:  # here, where nobody says any more that the source failed
        raise failed.error from None


def _relay(cx: sa.Connection, rows: RelayedRows, staged: sa.Table | None) -> int:
    with rows.reading() as source_cx:
        # Other versions may write a value in another form.
        versions = [_version(side) for side in (cx, source_cx)]
        is_binary = versions[0] == versions[1] and all(_is_same_in_binary(*pair) for pair in rows.columns)
        mark_type = "text" if rows.mark is None else _declared(rows.mark[0])
        is_binary = is_binary and _is_plain(mark_type)
        values = [_binary(*pair) if is_binary else pair[0] for pair in rows.columns]
        if rows.mark is not None:
            text = sa.cast(sa.literal(rows.mark[1]), sa.Text)
            values.append(sa.cast(text, ServerType(mark_type)) if is_binary else text)
        have_not_changed = [
            _has_its_type(column)
            for column, _ in rows.columns
            if _is_plain(_declared(column)) and not _is_foreign(column)
        ]
        query = sa.select(*values).where(*rows.conditions, *have_not_changed)
        form = "binary" if is_binary else "text"
        table, columns = (rows.copy, rows.names) if staged is None else (staged, staged.columns.keys())
        names = ", ".join(spelled_column(SPELLING, table, name) for name in columns)
        target = f"COPY {spelled_table(SPELLING, table)} ({names}) FROM STDIN (FORMAT {form})"
        relayed = 0

        def insert(blocks: Blocks) -> None:
            nonlocal relayed
            try:
                relayed = cx.exec_driver_sql(target, execution_options={_SENT: blocks}).rowcount
            except sa.exc.DBAPIError as error:
                raise WriteFailed(error) from None

        try:
            source_cx.execute(query, execution_options={_RECEIVED: (form, insert)})
        except ReadFailed as failed:
            raise sa.exc.DBAPIError(None, None, failed.error) from None
    return relayed


def pass_blocks(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
    """Does the two halves of a relay. A listener of SQLAlchemy's event `do_execute`."""
    if (blocks := context.execution_options.get(_SENT)) is not None:
        with cursor.copy(statement) as copy:
            for block in blocks:
                copy.write(block)
        return True
    if (received := context.execution_options.get(_RECEIVED)) is not None:
        form, insert = received
        if not parameters:  # then the driver leaves each doubled % as it is
            statement = statement.replace("%%", "%")
        with cursor.copy(f"COPY ({statement}) TO STDOUT (FORMAT {form})", parameters) as copy:
            info = context.root_connection.info
            insert(_blocks(copy, cursor.connection.Error, lambda: info.update({LARGE: True})))
        return True
    return None


def _blocks(copy: Any, error: type[Exception], note_large: Callable[[], None]) -> Blocks:
    """What the server sends, a row at a time: small rows joined into larger pieces, large ones in pieces."""
    joined = bytearray()
    while True:
        try:
            row = copy.read()
        except error as failed:
            raise ReadFailed(failed) from None
        if not row:
            break
        if len(row) > LARGE_BYTES:
            note_large()
        if len(row) < _BLOCK_BYTES:
            joined += row
        if len(joined) >= _BLOCK_BYTES or len(row) >= _BLOCK_BYTES:
            yield bytes(joined)
            joined.clear()
        if len(row) >= _BLOCK_BYTES:
            yield from (bytes(row[start : start + _BLOCK_BYTES]) for start in range(0, len(row), _BLOCK_BYTES))
        del row  # else memory would hold it beside the next one
    yield bytes(joined)


def _is_same_in_binary(column: sa.Column[Any], copy: sa.Column[Any]) -> bool:
    declared, copied = _declared(column), _declared(copy)
    return declared == copied and not _is_foreign(copy) and _is_plain(declared)


def _is_plain(declared: str) -> bool:
    name = type_parts(declared)[0]
    return name.removesuffix("[]") in _PLAIN


def _binary(column: sa.Column[Any], copy: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """The column's value in its own type, not as the text that this process would read."""
    if _is_foreign(column):
        return sa.cast(column, sa.Text)
    return sa.type_coerce(column, ServerType(_declared(copy)))


def _has_its_type(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """True. But the server takes no such statement if the column's type has changed since its catalogue was read: its
    bytes would be another value, and a cast would round or cut it. NULL makes it a constant."""
    type_, types = ServerType(_declared(column)), ServerType(f"{_declared(column)}[]")
    of_base = sa.func.coalesce(sa.type_coerce(column, type_), sa.cast(sa.null(), type_))  # of a domain: the type below
    return sa.func.pg_catalog.array_larger(array([of_base]), sa.cast(sa.null(), types)).is_(None)


def _is_foreign(column: sa.Column[Any]) -> bool:
    """Whether the type is one that somebody created. It is declared as text."""
    return isinstance(column.type, TextType) and _declared(column) == "text"


def _declared(column: sa.Column[Any]) -> str:
    declared: str = column.type.declared  # type: ignore[attr-defined] # a ServerType
    return declared.split(" COLLATE ")[0]


def _version(cx: sa.Connection) -> int:
    version: Any = cx.dialect.server_version_info
    return int(version[0])
