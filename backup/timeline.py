"""When things happened, by the order of the runs: a clock that was wrong bends neither order nor age. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from backup.models import Run

AHEAD = timedelta(minutes=5)
"""What is further ahead of the present is no difference of clocks that are right."""


class _Span(NamedTuple):
    """Where a run stands in the order, the earliest time that is true of it, and the time for what lies ahead."""

    number: int
    earliest: datetime
    instead: datetime


class Timeline:
    """The runs of one service and place in the order of their numbers, with times that follow this order.

    A time that lies ahead of `now` cannot be true. It is taken for the beginning of the next run, or for now. A time
    before the beginning of an earlier run cannot be true either: it is taken for that beginning. All other times are
    taken as they were written.
    """

    def __init__(self, runs: Iterable[Run], now: datetime) -> None:
        self.now = now
        self._spans: dict[str, _Span] = {}
        ordered = sorted(runs, key=lambda run: (run.number or 0, run.started_at))
        next_one, instead = now, []
        for run in reversed(ordered):
            instead.append(next_one)
            next_one = min(next_one, run.started_at)
        earliest = None
        for run, later in zip(ordered, reversed(instead), strict=True):
            began = later if run.started_at > now else run.started_at
            earliest = began if earliest is None else max(earliest, began)
            self._spans[run.sync_id] = _Span(run.number or 0, earliest, max(earliest, later))

    def knows(self, sync_id: str) -> bool:
        """Whether the run is one of them."""
        return sync_id in self._spans

    def number(self, sync_id: str) -> int:
        """Which run of the service it was; 0 for one that is not known."""
        return self._spans[sync_id].number if sync_id in self._spans else 0

    def moment(self, sync_id: str, stamped: datetime) -> datetime:
        """When that happened which the run stamped with this time."""
        span = self._spans.get(sync_id)
        if span is None:
            return min(stamped, self.now)
        return span.instead if stamped > self.now else max(stamped, span.earliest)

    def began(self, run: Run) -> datetime:
        """When the run began."""
        return self.moment(run.sync_id, run.started_at)

    def ended(self, run: Run) -> datetime:
        """When the run ended; now if it has not."""
        return self.moment(run.sync_id, run.completed_at or self.now)
