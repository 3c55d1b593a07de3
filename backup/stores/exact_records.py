"""A long record read from its zipped JSON, value by value, so that little more than the record is held."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

_BYTES = '{"$bytes":"'
_LONGEST_ESCAPE = 12  # a character beyond U+FFFF is two escapes of six characters
_DECODER = json.JSONDecoder()


class RecordReader:
    """Reads one JSON object from its pieces. Long texts and bytes are taken piece by piece, other values whole."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._buffer, self._at = "", 0

    def values(self) -> Iterator[tuple[str, Any]]:
        """The object's names and values in order; of bytes the value itself, of all others what JSON says."""
        self._skip("{")
        while not self._next_is("}"):
            name = self._text()
            self._skip(":")
            yield name, self._value()
            if self._next_is(","):
                self._skip(",")

    def _value(self) -> Any:
        if self._next_is('"'):
            return self._text()
        if self._next_is(_BYTES):
            return self._bytes()
        pieces = 1
        while (value := self._decoded()) is None:
            filled = [self._fill() for _ in range(pieces)]
            if not any(filled):
                raise ValueError("the record ends too soon")
            pieces *= 2  # so that a large value is not tried for each of its pieces
        return value[0]

    def _decoded(self) -> tuple[Any] | None:
        """The value that begins here; None if its end is not in the buffer."""
        try:
            value, end = _DECODER.raw_decode(self._buffer, self._at)
        except ValueError:
            return None
        if self._buffer[end : end + 1] not in (",", "}"):  # of a number there may be more
            return None
        self._at = end
        return (value,)

    def _text(self) -> str:
        self._skip('"')
        text = ""
        while True:
            try:
                rest, self._at = scanstring(self._buffer, self._at)
            except ValueError:  # its end is not in the buffer
                text += self._part()  # grows in place
                if not self._fill():
                    raise
                continue
            text += str(rest)  # in place, as above: another text would be as long again
            return text

    def _part(self) -> str:
        """The whole characters of a text that goes on behind the buffer."""
        for cut in range(len(self._buffer), max(self._at, len(self._buffer) - _LONGEST_ESCAPE), -1):
            try:
                part = str(scanstring(self._buffer[self._at : cut] + '"', 0)[0])
            except ValueError:  # within an escape
                continue
            if not part or not "\ud800" <= part[-1] <= "\udbff":  # else the other half may follow
                self._at = cut
                return part
        return ""

    def _bytes(self) -> bytes:
        self._at += len(_BYTES)
        value = BytesIO()
        while (end := self._buffer.find('"', self._at)) < 0:
            whole = len(self._buffer) - (len(self._buffer) - self._at) % 4
            value.write(base64.b64decode(self._buffer[self._at : whole]))
            self._at = whole
            if not self._fill():
                raise ValueError("the record ends too soon")
        value.write(base64.b64decode(self._buffer[self._at : end]))
        self._at = end + 1
        self._skip("}")
        return value.getvalue()  # shares its buffer with the stream, which nobody writes to any more

    def _next_is(self, start: str) -> bool:
        while len(self._buffer) - self._at < len(start) and self._fill():
            pass
        return self._buffer.startswith(start, self._at)

    def _skip(self, start: str) -> None:
        if not self._next_is(start):
            raise ValueError(f"{start} is missing")
        self._at += len(start)

    def _fill(self) -> bool:
        """Adds a piece to what was not read yet; returns whether there was one."""
        piece = next(self._pieces, None)
        self._buffer, self._at = self._buffer[self._at :] + (piece or ""), 0
        return piece is not None
