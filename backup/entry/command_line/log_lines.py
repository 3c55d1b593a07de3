"""Log lines of the command line: on standard error, and on a terminal after the results instead of among them."""

from __future__ import annotations

import logging
import sys
from logging.handlers import MemoryHandler

from backup.entry.command_line.grid import lines_of
from backup.entry.command_line.terminal import width_of_errors

_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_MOST = 10_000
"""Lines that are held; with the next one they are all written."""
_NEVER = logging.CRITICAL + 1


class _Broken(logging.Formatter):
    """Breaks lines between words, at the terminal's width."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(lines_of(super().format(record), width_of_errors(), "  "))


def hold_logs() -> None:
    """Has log lines written from here on: where both streams are a terminal, once they are let go, else at once."""
    logging.basicConfig(stream=sys.stderr, format=_FORMAT, level=logging.INFO)
    if sys.stdout.isatty() and sys.stderr.isatty():
        root = logging.getLogger()
        [at_once] = root.handlers
        at_once.setFormatter(_Broken(_FORMAT))
        root.handlers = [MemoryHandler(_MOST, _NEVER, at_once, flushOnClose=True)]


def let_go() -> None:
    """Writes the lines that were held, and those that come at once."""
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, MemoryHandler) and handler.target is not None:
            root.handlers = [handler.target]
            handler.flush()
