"""When runs took place, by their order. A wrong clock changes neither order nor age. No I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from backup.core.run_values import Run

AHEAD = timedelta(minutes=5)
"""Right clocks differ by less. A time that is further ahead of the present, or behind an earlier one, is wrong."""


class _Span(NamedTuple):
    """The place of a run in the order.

    `earliest` is the earliest time that the run can have. `instead` replaces its wrong times. If `is_wrong`, all its
    times are wrong, else only those in the future. `stamped` is the start that its entry says.
    """

    number: int
    stamped: datetime
    earliest: datetime
    instead: datetime
    is_wrong: bool


class Timeline:
    """The runs of one service and place in the order of their numbers, with times that follow this order.

    A time in the future cannot be true: the start of the next run replaces it, or `now` if there is no next run.

    If starts contradict the order, the timeline takes as few of them as possible for wrong: too late or too early.
    Nobody knows when such a run really was, only that it was before the next run started, or before `now`. So it counts
    from that time on. The backup as of an earlier time never shows its changes.

    All other times stay as they were written.
    """

    def __init__(self, runs: Iterable[Run], now: datetime) -> None:
        self.now = now
        self._spans: dict[str, _Span] = {}
        ordered = sorted(runs, key=lambda run: (run.number or 0, run.started_at))
        true = _in_order([run.started_at for run in ordered], now)
        next_start, instead = now, []
        for position in reversed(range(len(ordered))):
            instead.append(next_start)
            next_start = ordered[position].started_at if position in true else next_start
        earliest = None
        for position, (run, later) in enumerate(zip(ordered, reversed(instead), strict=True)):
            is_behind = earliest is not None and run.started_at < earliest - AHEAD
            is_wrong = position not in true and (is_behind or run.started_at > later + AHEAD)
            began = later if is_wrong else min(run.started_at, now)
            earliest = began if earliest is None else max(earliest, began)
            self._spans[run.sync_id] = _Span(run.number or 0, run.started_at, earliest, max(earliest, later), is_wrong)

    def knows(self, sync_id: str) -> bool:
        """Returns whether the run is in this timeline."""
        return sync_id in self._spans

    def number(self, sync_id: str) -> int:
        """Returns the number of the run; 0 if it is not in this timeline."""
        return self._spans[sync_id].number if sync_id in self._spans else 0

    def since(self, sync_id: str) -> list[str]:
        """Returns this run, and those of this timeline after it, in their order."""
        number = self.number(sync_id)
        return [sync_id, *(later for later, span in self._spans.items() if span.number > number)]

    def moment(self, sync_id: str, stamped: datetime) -> datetime:
        """Returns the true time of something that the run wrote with this time."""
        span = self._spans.get(sync_id)
        if span is None:
            return min(stamped, self.now)
        return span.instead if span.is_wrong or stamped > self.now else max(stamped, span.earliest)

    def doubted(self, moment: datetime) -> dict[str, datetime]:
        """Returns the runs that began on the other side of this moment than their order says, by their own times; and
        these."""
        return {
            sync_id: span.stamped
            for sync_id, span in self._spans.items()
            if (span.stamped > moment) != ((span.instead if span.is_wrong else span.earliest) > moment)
        }

    def ended(self, run: Run) -> datetime:
        """Returns when the run ended; `now` if it has not."""
        return self.moment(run.sync_id, run.completed_at or self.now)


def _in_order(times: Sequence[datetime], now: datetime) -> set[int]:
    """Returns the positions of the longest ascending series of times, none of them in the future.

    If several series are the longest, it takes the first.
    """
    ages: list[timedelta] = []  # by length of a series: the least age of its first time
    lengths: dict[int, int] = {}  # by position: the length of the longest series that begins there
    for position in reversed(range(len(times))):
        if times[position] > now:
            continue
        lengths[position] = bisect_right(ages, now - times[position]) + 1
        ages[lengths[position] - 1 : lengths[position]] = [now - times[position]]
    chosen: set[int] = set()
    after, length = None, len(ages)
    for position in sorted(lengths):
        if lengths[position] == length and (after is None or times[position] >= after):
            chosen.add(position)
            after, length = times[position], length - 1
    return chosen
