"""What SyncHistory says when a run begins, read at once; what the run asks of it follows without the database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backup.core.log import event
from backup.core.model import Now, Run
from backup.core.timeline import AHEAD
from backup.runs.history_entries import VERSION

NEWEST = 30
"""How many of the newest runs an opening holds. What is older is asked for where it matters."""

_TICK = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Opening:
    """The state of a service's runs about one place.

    `newest` are its newest runs, newest first; `is_whole` if there are no others. `open_runs` are those in progress,
    newest first, however old. `next_number` is the next run's. `has_unplaced` says that runs of an earlier release
    began after all of these, and that nobody has looked yet what they are about. `version` is the highest of the
    entries, `times` are when those of the newest runs were last of use.
    """

    newest: Sequence[Run] = ()
    is_whole: bool = True
    open_runs: Sequence[Run] = ()
    next_number: int = 1
    has_unplaced: bool = False
    version: int = VERSION
    times: Sequence[datetime] = ()

    def first(self, fits: Callable[[Run], bool], ask: Callable[[], Run | None]) -> Run | None:
        """The newest run that fits; `ask` finds it in the database where it may be older than what is known."""
        known = next(filter(fits, self.newest), None)
        return known or (None if self.is_whole else ask())

    def after(self, run: Run) -> list[Run] | None:
        """The runs that began after this one, newest first; None where there may be others."""
        if not self.is_whole and run.number not in [known.number for known in self.newest]:
            return None
        return [known for known in self.newest if (known.number or 0) > (run.number or 0)]

    @property
    def bin_may_be_newer(self) -> bool:
        """Whether the recycle bin may hold what no run's end in here is later than: of a run that has not ended, or
        whose entry is missing."""
        return bool(self.open_runs or self.has_unplaced or not self.newest)

    def ahead(self, now: datetime) -> Run | None:
        """The run with the latest time, if that lies ahead: its clock was wrong, or this one is."""
        latest = max(self.newest, key=_synced_at, default=None)
        return latest if latest is not None and _synced_at(latest) > now + AHEAD else None

    def clock(self, now: Now, kept_at: datetime | None) -> Now:
        """A clock that never goes back behind the service's runs: what they did is in the order of its times.

        `kept_at` is the time of the bin's newest entry, for a run that died has no end in here. A time that lies ahead
        of `now` is no time of a run; see `ahead`.
        """
        limit = now() + AHEAD
        # A resumed run may end after one that began after it.
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
    """What a run that begins notes of one whose time lies ahead; it is logged as well."""
    ahead = opening.ahead(now)
    if ahead is None:
        return ()
    at = _synced_at(ahead)
    event("history.ahead", level=logging.WARNING, service=service, sync_id=ahead.sync_id, at=at, now=now)
    return (
        f"The run {ahead.sync_id} is stamped {at:%Y-%m-%d %H:%M:%S %Z}, which lies ahead: its clock was wrong, "
        "or this one is. It is taken for as old as its place among the runs says.",
    )


def _synced_at(run: Run) -> datetime:
    return run.completed_at or run.started_at
