"""The schedules that Azure timers know: NCRONTAB."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from backup.errors import ConfigError

_NCRONTAB_PART = re.compile(r"(\*|(\d+|[a-z]{3})(-(\d+|[a-z]{3}))?)(/\d+)?", re.I)


def next_due(schedule: str, now: datetime) -> datetime:
    """The first time after `now` (aware) that an NCRONTAB expression names, in UTC.

    NCRONTAB has six fields, seconds first, and wants day of month AND day of week to match. Raises
    ConfigError for what it does not know, though other crons do: five fields, L, W, #, ?, 7 for Sunday.
    """
    from croniter import croniter  # a tenth of a cold start

    fields = schedule.split()
    known = all(_NCRONTAB_PART.fullmatch(part) for one in fields for part in one.split(","))
    try:
        if not known or len(fields) != 6 or "7" in fields[5]:
            raise ValueError("it takes six fields, seconds first, as in 0 0 0 * * *")
        times = croniter(schedule, now.astimezone(UTC), second_at_beginning=True, day_or=False)
        due: datetime = times.get_next(datetime)
    except ValueError as error:
        raise ConfigError(f"{schedule!r} is not an NCRONTAB expression: {error}") from error
    return due
