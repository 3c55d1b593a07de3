"""Log lines of the command line, on standard error. On a terminal they come after the results, not among them."""

from __future__ import annotations

import logging
import sys
from logging.handlers import MemoryHandler

from backup.core.log import EventFormatter
from backup.entry.command_line.grid import lines_of
from backup.entry.command_line.terminal import width_of_errors

_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_MAX_LINES = 10_000
"""How many lines wait at most. One more, and all are written."""
_NEVER = logging.CRITICAL + 1


class _LineBreaker(EventFormatter):
    """Breaks log lines between words, at the terminal's width."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(lines_of(super().format(record), width_of_errors(), "  "))


def hold_logs() -> None:
    """Starts logging to standard error. If both streams are a terminal, lines wait for `release_logs`."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    root = logging.getLogger()
    [handler] = root.handlers
    handler.setFormatter(EventFormatter(_FORMAT))
    if sys.stdout.isatty() and sys.stderr.isatty():
        handler.setFormatter(_LineBreaker(_FORMAT))
        root.handlers = [MemoryHandler(_MAX_LINES, _NEVER, handler, flushOnClose=True)]


def release_logs() -> None:
    """Writes the lines that waited; later lines are written at once."""
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, MemoryHandler) and handler.target is not None:
            root.handlers = [handler.target]
            handler.flush()
