"""A schedule as a value: an NCRONTAB expression and the time zone whose clock it follows. Reads no settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator

from backup.config.ncrontab import last_due, next_due, time_zone
from backup.core.errors import ConfigError
from backup.core.model import utc_now

_TIMES_AT_MOST = 10_000


@lru_cache(maxsize=64)  # an expression that is wrong now stays wrong
def _fault_of(expression: str) -> str | None:
    try:
        next_due(expression, utc_now())
    except ConfigError as error:
        return str(error)
    return None


def _expression(value: str) -> str:
    if fault := _fault_of(value):
        raise ValueError(fault)
    return value


def _zone_name(value: str) -> str:
    try:
        time_zone(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return value


CronText = Annotated[str, AfterValidator(_expression)]
"""An NCRONTAB expression that is due some day."""

ZoneName = Annotated[str, AfterValidator(_zone_name)]
"""The IANA name of a time zone that this machine knows."""


@dataclass(frozen=True)
class Schedule:
    """When something is due: an NCRONTAB expression, by the clock of the zone of this name."""

    expression: str
    zone_name: str = "UTC"

    def next_due(self, after: datetime) -> datetime:
        """Returns the first time after that time at which the schedule is due, by the clock of its zone."""
        return _fixed(next_due(self.expression, after, time_zone(self.zone_name)))

    def last_due(self, now: datetime) -> datetime:
        """Returns the last time, `now` included, at which the schedule was due, by the clock of its zone."""
        return _fixed(last_due(self.expression, now, time_zone(self.zone_name)))

    def times_due(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yields the times at which it was due from `start` to `end`, both included; at most 10,000."""
        moment = start.astimezone(UTC) - timedelta(seconds=1)
        for _ in range(_TIMES_AT_MOST):
            moment = self.next_due(moment)
            if moment > end:
                return
            yield moment


def _fixed(moment: datetime) -> datetime:
    """The same time with a fixed offset: a minute before is then a minute before, also where the clock was set."""
    return moment.replace(tzinfo=timezone(moment.utcoffset() or timedelta()))
