"""How many records a chunk may have, so that a statement about it takes no longer than allowed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

_AT_LEAST = 1_000  # records: of fewer, what a statement costs by itself would be taken for their time
_FORGETTING = 0.8  # each statement lets the longest time count for less, so that one slow moment is forgotten


@dataclass
class Measured:
    """A statement that is being measured, and the number of records it was about."""

    records: int = 0


class ChunkSize:
    """The size of the next chunk: at most `chunk_size`, and such that a statement takes half of `max_seconds`.

    It is estimated from the statements before. Several threads may use it at once; the last one wins, which is good
    enough for an estimate.
    """

    def __init__(self, chunk_size: int, max_seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._largest, self._max_seconds, self._clock = chunk_size, max_seconds, clock
        self._seconds_per_record, self._lock = 0.0, Lock()

    @property
    def chunk_size(self) -> int:
        """Records of the next chunk."""
        seconds_per_record, seconds = self._seconds_per_record, self._max_seconds / 2
        if seconds_per_record * self._largest <= seconds:
            return self._largest
        return min(self._largest, max(_AT_LEAST, int(seconds / seconds_per_record)))

    @property
    def at_once(self) -> int:
        """Records of a statement that probably takes half of `max_seconds`, be they many chunks. 0 before one was
        measured."""
        return int(self._max_seconds / 2 / self._seconds_per_record) if self._seconds_per_record else 0

    def suffices_for(self, records: int) -> bool:
        """Whether a statement about so many records probably takes no longer than `max_seconds`. False before one was
        measured. A chunk goes through an index, so it is the dearer one."""
        return 0 < self._seconds_per_record * records <= self._max_seconds

    def spans(self, records: int, seconds: float) -> bool:
        """Whether so many records are several chunks, and so many seconds are no longer than `max_seconds`."""
        return records > self._largest and seconds <= self._max_seconds

    @contextmanager
    def measuring(self, records: int = 0) -> Iterator[Measured]:
        """Measures the statement that runs inside. The number of records may be set before the end. A statement about
        few records changes nothing."""
        measured, started = Measured(records), self._clock()
        yield measured
        if measured.records >= min(_AT_LEAST, self._largest):
            took = (self._clock() - started) / measured.records
            with self._lock:
                self._seconds_per_record = max(took, self._seconds_per_record * _FORGETTING)
