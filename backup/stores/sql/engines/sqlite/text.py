"""Reads and writes TEXT of SQLite that is not valid UTF-8, byte for byte, and writes large texts as bytes.

In Python a text that is not valid is a str with a lone surrogate for each invalid byte (PEP 383). The driver does not
take that. Of a large text, Python would keep the bytes that the driver asked for, as long as the text itself.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from backup.stores.sql.engines.prepared import LARGE, LARGE_BYTES

_PARAMETERS = re.compile(r""""(?:[^"]|"")*"|'(?:[^']|'')*'|\?""")


def text_of(raw: bytes) -> str:
    """The text with these bytes."""
    return raw.decode("utf-8", "surrogateescape")


def execute(cursor: Any, statement: str, values: Sequence[Any], context: Any) -> bool:
    """Executes one statement. A listener of SQLAlchemy's event `do_execute`."""
    _execute(cursor, statement, values, large=_may_be_large(context))
    return True


def execute_many(cursor: Any, statement: str, rows: Sequence[Sequence[Any]], context: Any) -> bool:
    """Executes one statement once for each row. A listener of SQLAlchemy's event `do_executemany`."""
    if _may_be_large(context):
        for row in rows:
            _execute(cursor, statement, row, large=True)
        return True
    last: list[Sequence[Any]] = []
    remaining = iter(rows)

    def each() -> Iterator[Sequence[Any]]:
        for row in remaining:
            last[:] = [row]
            yield row

    while True:
        try:
            cursor.executemany(statement, each())
        except UnicodeEncodeError:  # it is about the last row; those before it are done
            _execute_exactly(cursor, statement, last[0])
        else:
            return True


def forget_large(_connection: Any, record: Any) -> None:
    """Lets who gets the connection next write rows together. A listener of SQLAlchemy's pool event `checkin`."""
    record.info.pop(LARGE, None)


def _may_be_large(context: Any) -> bool:
    return LARGE in context.root_connection.info


def _execute(cursor: Any, statement: str, values: Sequence[Any], *, large: bool) -> None:
    if large and any(map(_is_large, values)):
        _execute_exactly(cursor, statement, values)
        return
    try:
        cursor.execute(statement, values)
    except UnicodeEncodeError:
        _execute_exactly(cursor, statement, values)


def _is_large(value: Any) -> bool:
    """Whether Python would hold a large text twice: of ASCII, its own form is the one that is sent."""
    return isinstance(value, str) and len(value) > LARGE_BYTES and not value.isascii()


def _execute_exactly(cursor: Any, statement: str, values: Sequence[Any]) -> None:
    """Sends each text that is large, or not valid UTF-8, as bytes, which the statement casts to a text."""
    sent = [_sent(cursor, value) for value in values]
    casts = iter(type(bound) is not type(value) for bound, value in zip(sent, values, strict=True))
    spelled = _PARAMETERS.sub(
        lambda match: "CAST(? AS TEXT)" if match[0] == "?" and next(casts) else match[0], statement
    )
    cursor.execute(spelled, sent)


def _sent(cursor: Any, value: Any) -> Any:
    if not isinstance(value, str) or value.isascii():
        return value
    try:
        raw = value.encode()
        if _is_large(value) and _encoding(cursor) == "UTF-8":
            return raw
    except UnicodeEncodeError:
        try:
            raw = value.encode("utf-8", "surrogateescape")
            encoding = _encoding(cursor)
        except UnicodeEncodeError:
            encoding = ""
        if encoding != "UTF-8":
            raise sqlite3.DataError("a text that the database's encoding has no bytes for") from None
        return raw
    return value


def _encoding(cursor: Any) -> str:
    [encoding] = cursor.connection.execute("PRAGMA encoding").fetchone()
    return str(encoding)
