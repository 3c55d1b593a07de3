"""Reads and writes TEXT of SQLite that is not valid UTF-8, byte for byte.

In Python such a text is a str with a lone surrogate for each invalid byte (PEP 383). The driver does not take that.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

_PARAMETERS = re.compile(r""""(?:[^"]|"")*"|'(?:[^']|'')*'|\?""")


def text_of(raw: bytes) -> str:
    """The text with these bytes."""
    return raw.decode("utf-8", "surrogateescape")


def execute(cursor: Any, statement: str, values: Sequence[Any], _context: Any) -> bool:
    """Executes one statement. A listener of SQLAlchemy's event `do_execute`."""
    try:
        cursor.execute(statement, values)
    except UnicodeEncodeError:
        _execute_exactly(cursor, statement, values)
    return True


def execute_many(cursor: Any, statement: str, rows: Sequence[Sequence[Any]], _context: Any) -> bool:
    """Executes one statement once for each row. A listener of SQLAlchemy's event `do_executemany`."""
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


def _execute_exactly(cursor: Any, statement: str, values: Sequence[Any]) -> None:
    """Sends each text that is not valid UTF-8 as bytes, which the statement casts to a text."""
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
        value.encode()
    except UnicodeEncodeError:
        [encoding] = cursor.connection.execute("PRAGMA encoding").fetchone()
        try:
            raw = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            encoding = ""
        if encoding != "UTF-8":
            raise sqlite3.DataError("a text that the database's encoding has no bytes for") from None
        return raw
    return value
