"""TEXT of SQLite that is no UTF-8, carried byte for byte.

Here such a text is a str with a lone surrogate for each byte that is none (PEP 383), which the driver does not take.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

_PLACES = re.compile(r""""(?:[^"]|"")*"|'(?:[^']|'')*'|\?""")


def text_of(raw: bytes) -> str:
    """The text with these bytes."""
    return raw.decode("utf-8", "surrogateescape")


def execute(cursor: Any, statement: str, values: Sequence[Any], _context: Any) -> bool:
    """Executes one statement; as SQLAlchemy's event `do_execute` wants it."""
    try:
        cursor.execute(statement, values)
    except UnicodeEncodeError:
        _execute_exactly(cursor, statement, values)
    return True


def execute_many(cursor: Any, statement: str, rows: Sequence[Sequence[Any]], _context: Any) -> bool:
    """Executes one statement once a row; as SQLAlchemy's event `do_executemany` wants it."""
    taken: list[Sequence[Any]] = []
    left = iter(rows)

    def each() -> Iterator[Sequence[Any]]:
        for row in left:
            taken[:] = [row]
            yield row

    while True:
        try:
            cursor.executemany(statement, each())
        except UnicodeEncodeError:  # of the row taken last; those before it are done
            _execute_exactly(cursor, statement, taken[0])
        else:
            return True


def _execute_exactly(cursor: Any, statement: str, values: Sequence[Any]) -> None:
    """With each text that is no UTF-8 sent as bytes that the server makes a text of."""
    sent = [_sent(cursor, value) for value in values]
    casts = iter(type(now) is not type(was) for now, was in zip(sent, values, strict=True))
    spelled = _PLACES.sub(lambda one: "CAST(? AS TEXT)" if one[0] == "?" and next(casts) else one[0], statement)
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
