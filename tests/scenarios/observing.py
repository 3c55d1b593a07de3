"""Who watches a run: tells a function of its progress."""

from __future__ import annotations

from collections.abc import Callable

from backup.core.run_values import Counts
from backup.runs.outcome import Observer


class Told(Observer):
    """Calls `progress` after every batch."""

    def __init__(self, progress: Callable[[str, Counts], None]) -> None:
        self._progress = progress

    def progress(self, service: str, counts: Counts) -> None:
        self._progress(service, counts)
