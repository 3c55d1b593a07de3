"""What SyncHistory says when a run begins. It is read once; later questions of the run need no query."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backup.core.log import event
from backup.core.model import Now
from backup.core.run_values import Run
from backup.core.timeline import AHEAD
from backup.runs.clock import ServerTime
from backup.runs.history_entries import VERSION

NEWEST = 30
"""How many of the newest runs an opening holds. Older runs are read when a question needs them."""

_TICK = timedelta(milliseconds=1)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Opening:
    """The state of a service's runs about one place.

    `newest` are the newest runs, newest first; `is_whole` says that there are no older runs. `open_runs` are those in
    progress, newest first, however old. `next_number` is the number of the next run. `has_unplaced` says that runs of
    an earlier release began after all of these, and do not have a place yet. `version` is the highest version of the
    entries. `times` are the ends of the newest runs, or their starts where they have not ended. `server_time` is the
    time of the backup's server when it answered; None where it did not say. `with_scratch` are those of its runs that
    may have left a scratch place.
    """

    newest: Sequence[Run] = ()
    is_whole: bool = True
    open_runs: Sequence[Run] = ()
    next_number: int = 1
    has_unplaced: bool = False
    version: int = VERSION
    times: Sequence[datetime] = ()
    server_time: ServerTime | None = None
    with_scratch: Sequence[Run] = ()

    def first(self, fits: Callable[[Run], bool], ask: Callable[[], Run | None]) -> Run | None:
        """The newest run that fits, or None. If it may be older than the runs in here, `ask` reads it from the
        database."""
        newest = next(filter(fits, self.newest), None)
        return newest or (None if self.is_whole else ask())

    def after(self, run: Run) -> list[Run] | None:
        """The runs that began after this run, newest first; None if the opening may not have them all."""
        if not self.is_whole and run.number not in [newer.number for newer in self.newest]:
            return None
        return [newer for newer in self.newest if (newer.number or 0) > (run.number or 0)]

    @property
    def bin_may_be_newer(self) -> bool:
        """Whether the recycle bin may hold an image that is newer than the end of every run in here. Its run has not
        ended, or its entry is missing."""
        return bool(self.open_runs or self.has_unplaced or not self.newest)

    def confirmed(self, now: datetime, days: float) -> datetime:
        """The time by which what is older than `days` may be purged: `now`, but no later than half of these days after
        the last run that began over an hour before. So no clock that jumps ahead for a run makes images old at once."""
        begun = max((run.started_at for run in self.newest if run.started_at < now - _HOUR), default=now)
        return min(now, begun + timedelta(days=days) / 2)

    def ahead(self, now: datetime) -> Run | None:
        """The run with the latest time, if that time lies ahead: its clock was wrong, or this clock is. Else None."""
        if max(self.times, default=now) <= now + AHEAD:
            return None  # without a look at each run
        latest = max(self.newest, key=_synced_at, default=None)
        return latest if latest is not None and _synced_at(latest) > now + AHEAD else None

    def clock(self, now: Now, kept_at: datetime | None) -> Now:
        """Returns a clock that is always later than the service's runs, so that its times sort what all runs did.

        `kept_at` is the time of the bin's newest entry, because a run that died has no end in here. Times that lie
        ahead of `now` do not count; see `ahead`.
        """
        limit = now() + AHEAD
        # A resumed run may end after a run that began later.
        times = [time for time in self.times if time < limit]
        times += [] if kept_at is None else [kept_at]
        earliest = max(times) + _TICK if times else now()

        def steady() -> datetime:
            nonlocal earliest
            earliest = max(earliest, now())
            return earliest

        return steady


NOTHING_KNOWN = Opening(is_whole=False)


def note_ahead(opening: Opening, service: str, now: datetime) -> tuple[str, ...]:
    """The note of a run that begins about a run whose time lies ahead; none without such a run. Logs it as well."""
    ahead = opening.ahead(now)
    if ahead is None:
        return ()
    at = _synced_at(ahead)
    event("history.ahead", level=logging.WARNING, service=service, sync_id=ahead.sync_id, at=at, now=now)
    return (
        f"The run {ahead.sync_id} has the time {at:%Y-%m-%d %H:%M:%S %Z}, which lies ahead: its clock was wrong, "
        "or this clock is. Its number among the runs says how old it is.",
    )


def _synced_at(run: Run) -> datetime:
    return run.completed_at or run.started_at
