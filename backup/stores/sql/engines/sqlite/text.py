"""Reads and writes TEXT of SQLite that is not valid UTF-8, byte for byte, and writes large texts as bytes.

In Python a text that is not valid is a str with a lone surrogate for each invalid byte (PEP 383). The driver does not
take that. Of a large text, Python would keep the bytes that the driver asked for, as long as the text itself.

Between a file in UTF-16 and the driver, which knows UTF-8 alone, SQLite turns half a surrogate pair, U+FFFE and U+FFFF
into other characters. So texts with these go as bytes in both directions.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from backup.stores.sql.engines.prepared import LARGE, LARGE_BYTES

_LOST_ON_THE_WAY_TO_UTF_16 = re.compile("[\ud800-\udfff\ufffe\uffff]")
_PARAMETERS = re.compile(r""""(?:[^"]|"")*"|'(?:[^']|'')*'|\?""")

UTF_16 = ("UTF-16le", "UTF-16be")
"""The encodings of a file's texts, as SQLite names them, beside UTF-8."""

RAW = os.urandom(16)
"""What precedes the bytes of a text that a query asks for as they are, so that no BLOB is taken for one."""


def text_of(raw: bytes, encoding: str = "UTF-8") -> str:
    """The text with these bytes in a file of this encoding."""
    if encoding in UTF_16:
        return raw[: len(raw) & ~1].decode(encoding, "surrogatepass")  # SQLite, too, ignores half a unit
    return raw.decode("utf-8", "surrogateescape")


def in_utf_8(text: bytes) -> bytes:
    """A list in JSON, from a file of any encoding. It begins with a bracket, and JSON has no NUL."""
    if b"\0" not in text[:2]:
        return text
    return text.decode("utf-16-be" if text.startswith(b"\0") else "utf-16-le").encode()


def exact_row(cursor: Any, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row, with the texts that came as bytes. A row factory of the driver, for files in UTF-16."""
    if not any(type(value) is bytes and value.startswith(RAW) for value in row):
        return row
    return tuple(map(partial(_exact, _encoding(cursor)), row))


def _exact(encoding: str, value: Any) -> Any:
    is_text = type(value) is bytes and value.startswith(RAW)
    return text_of(value[len(RAW) :], encoding) if is_text else value


def execute(cursor: Any, statement: str, values: Sequence[Any], context: Any) -> bool:
    """Executes one statement. A listener of SQLAlchemy's event `do_execute`."""
    _execute(cursor, statement, values, _as_bytes(cursor, context))
    return True


def execute_plainly(cursor: Any, statement: str, values: Sequence[Any]) -> None:
    """Executes one statement with small values, without SQLAlchemy."""
    _execute(cursor, statement, values, _is_lost if _encoding(cursor) in UTF_16 else None)


def execute_many(cursor: Any, statement: str, rows: Sequence[Sequence[Any]], context: Any) -> bool:
    """Executes one statement once for each row. A listener of SQLAlchemy's event `do_executemany`."""
    as_bytes = _as_bytes(cursor, context)
    if as_bytes is not None:
        for row in rows:
            _execute(cursor, statement, row, as_bytes)
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


_AsBytes = Callable[[Any], bool]


def _as_bytes(cursor: Any, context: Any) -> _AsBytes | None:
    """Which values are to be sent as bytes; None for none."""
    if _encoding(cursor) in UTF_16:
        return _is_lost
    return _is_large if LARGE in context.root_connection.info else None


def _execute(cursor: Any, statement: str, values: Sequence[Any], as_bytes: _AsBytes | None) -> None:
    if as_bytes is not None and any(map(as_bytes, values)):
        _execute_exactly(cursor, statement, values)
        return
    try:
        cursor.execute(statement, values)
    except UnicodeEncodeError:
        _execute_exactly(cursor, statement, values)


def _is_large(value: Any) -> bool:
    """Whether Python would hold a large text twice: of ASCII, its own form is the one that is sent."""
    return isinstance(value, str) and len(value) > LARGE_BYTES and not value.isascii()


def _is_lost(value: Any) -> bool:
    """Whether SQLite would store another text in a file of UTF-16."""
    return isinstance(value, str) and _LOST_ON_THE_WAY_TO_UTF_16.search(value) is not None


def _execute_exactly(cursor: Any, statement: str, values: Sequence[Any]) -> None:
    """Sends each text that is large, or not valid UTF-8, as bytes, which the statement casts to a text."""
    sent = [_sent(cursor, value) for value in values]
    casts = iter(type(bound) is not type(value) for bound, value in zip(sent, values, strict=True))
    # A cast alone takes the bytes of a parameter for UTF-8 in any file. || takes them as they are, and copies them.
    cast = "CAST(? || x'' AS TEXT)" if _encoding(cursor) in UTF_16 else "CAST(? AS TEXT)"
    spelled = _PARAMETERS.sub(lambda match: cast if match[0] == "?" and next(casts) else match[0], statement)
    cursor.execute(spelled, sent)


def _sent(cursor: Any, value: Any) -> Any:
    if not isinstance(value, str) or value.isascii():
        return value
    encoding = _encoding(cursor)
    try:
        if encoding in UTF_16:
            return value.encode(encoding, "surrogatepass") if _is_lost(value) else value
        raw = value.encode("utf-8", "surrogateescape")
        return raw if _is_large(value) or not _is_utf_8(raw) else value
    except UnicodeEncodeError:
        raise sqlite3.DataError("a text that the database's encoding has no bytes for") from None


def _is_utf_8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _encoding(cursor: Any) -> str:
    return getattr(cursor.connection, "encoding", "UTF-8")
