"""When runs took place, by their order. A wrong clock changes neither order nor age. No I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from backup.core.model import Run

AHEAD = timedelta(minutes=5)
"""Right clocks differ by less. A time that is further ahead of the present, or behind an earlier one, is wrong."""


class _Span(NamedTuple):
    """Where a run stands in the order. `earliest` is the earliest time it can have; `instead` replaces its times that
    are wrong: all of one that `is_wrong`, else those that lie ahead."""

    number: int
    earliest: datetime
    instead: datetime
    is_wrong: bool


class Timeline:
    """The runs of one service and place in the order of their numbers, with times that follow this order.

    A time ahead of `now` cannot be true: the start of the next run replaces it, or now. Where starts contradict the
    order, the fewest possible are taken for wrong, too late or too early. When a run with a wrong start was, nobody
    knows; it became part of the backup's state at the next run's start at the latest, or by now, and counts from then
    on: so a time before it never shows what it did. All other times stay as they were written.
    """

    def __init__(self, runs: Iterable[Run], now: datetime) -> None:
        self.now = now
        self._spans: dict[str, _Span] = {}
        ordered = sorted(runs, key=lambda run: (run.number or 0, run.started_at))
        true = _in_order([run.started_at for run in ordered], now)
        next_one, instead = now, []
        for place in reversed(range(len(ordered))):
            instead.append(next_one)
            next_one = ordered[place].started_at if place in true else next_one
        earliest = None
        for place, (run, later) in enumerate(zip(ordered, reversed(instead), strict=True)):
            is_behind = earliest is not None and run.started_at < earliest - AHEAD
            is_wrong = place not in true and (is_behind or run.started_at > later + AHEAD)
            began = later if is_wrong else min(run.started_at, now)
            earliest = began if earliest is None else max(earliest, began)
            self._spans[run.sync_id] = _Span(run.number or 0, earliest, max(earliest, later), is_wrong)

    def knows(self, sync_id: str) -> bool:
        """Whether the run is one of them."""
        return sync_id in self._spans

    def number(self, sync_id: str) -> int:
        """Which run of the service it was; 0 for one that is not known."""
        return self._spans[sync_id].number if sync_id in self._spans else 0

    def moment(self, sync_id: str, stamped: datetime) -> datetime:
        """The true time of something that the run stamped with this time."""
        span = self._spans.get(sync_id)
        if span is None:
            return min(stamped, self.now)
        return span.instead if span.is_wrong or stamped > self.now else max(stamped, span.earliest)

    def ended(self, run: Run) -> datetime:
        """When the run ended; now if it has not."""
        return self.moment(run.sync_id, run.completed_at or self.now)


def _in_order(times: Sequence[datetime], now: datetime) -> set[int]:
    """The positions of the longest ascending row of times, none of them ahead of `now`; the first of several such."""
    ages: list[timedelta] = []  # by length of a row: the least age of its first time
    rows: dict[int, int] = {}  # by position: how long a row from there on is
    for place in reversed(range(len(times))):
        if times[place] > now:
            continue
        rows[place] = bisect_right(ages, now - times[place]) + 1
        ages[rows[place] - 1 : rows[place]] = [now - times[place]]
    chosen: set[int] = set()
    after, left = None, len(ages)
    for place in sorted(rows):
        if rows[place] == left and (after is None or times[place] >= after):
            chosen.add(place)
            after, left = times[place], left - 1
    return chosen
