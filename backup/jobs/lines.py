"""The last log lines of a job, kept beside its record."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

from backup.core.log import logger, plain_line_of, redact, time_text

LINES_AT_MOST = 200
_CHARACTERS_AT_MOST = 1_000


class JobLines(logging.Handler):
    """Collects log lines while a job runs: lines that name its service or one of its set, and lines of the job's own
    thread.

    Only one run of a service is at work at a time, so lines that name the service belong to the job.
    """

    def __init__(self, service: str, before: Sequence[str] = ()) -> None:
        super().__init__(logging.INFO)
        self._named, self._thread = (f"service={service} ", f"service={service}/"), threading.get_ident()
        self._lines: deque[str] = deque(before, LINES_AT_MOST)

    def __enter__(self) -> JobLines:
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the line if it belongs to the job."""
        line = plain_line_of(record)
        if record.thread == self._thread or any(named in f"{line} " for named in self._named):
            at = datetime.fromtimestamp(record.created, UTC)
            self._lines.append(f"{time_text(at)} {record.levelname} {redact(line)[:_CHARACTERS_AT_MOST]}")

    @property
    def lines(self) -> list[str]:
        """The last lines, oldest first."""
        return list(self._lines)
