"""Standard output and error that may be closed, full, or lose their reader: `| head` is not an error."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO


class _Stream:
    """A stream that drops what is written once its reader has left, or its disk is full. Nothing raises, so the program
    goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: str | None = None
        """Why the stream has not taken all, in the system's words; None if it has, or its reader has left."""

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop_the_rest(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop_the_rest(error)

    def _drop_the_rest(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.failure = error.strerror
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_closed_streams() -> None:
    """Leads each standard stream that is closed (`>&-`) to nowhere. So no database gets its number, and is written into
    by what is meant for a person."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # each takes the first number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - as long as the process


def outlive_readers() -> None:
    """Lets this process go on when a reader of its standard output or error leaves, or a disk of theirs is full."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Stream):
            setattr(sys, name, _Stream(stream))


def flush_streams() -> None:
    """Writes out both streams, for a process that ends with os._exit."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()


def failure_of_output() -> str | None:
    """Returns why standard output has not taken all that was written, in the system's words; None if it has."""
    return sys.stdout.failure if isinstance(sys.stdout, _Stream) else None
