"""When an NCRONTAB schedule of Azure's timers is due, in UTC or by the clock of a time zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any

from backup.config.ncrontab_fields import faults_of
from backup.core.errors import ConfigError
from backup.core.suggestions import meant_by, quoted

_SECOND = timedelta(seconds=1)
_YEARS_AHEAD = 2
_EARLY = timedelta(seconds=2)  # a timer may fire a little early
_LATE = timedelta(seconds=60)  # or late


def next_due(schedule: str, now: datetime, zone: tzinfo = UTC) -> datetime:
    """Returns the first time after `now` (aware) at which the schedule is due by the clock of the zone; in that zone.

    NCRONTAB has six fields, seconds first. Day of month AND day of week must match. When the clock is set forward, a
    time that it skips is due once, right after the gap. When it is set back, a time that it shows twice is due only the
    first time, unless the schedule is for every hour (`*`). Raises ConfigError for expressions that only other crons
    know: five fields, L, W, #, ?, 7 for Sunday.
    """
    now = now.astimezone(zone)
    if _is_hourly(schedule):
        return _next_hourly(schedule, now)
    local = _without_zone(now)
    while True:
        local = _times(schedule, local).get_next(datetime)
        if (due := _moment(local, zone)) > now.astimezone(UTC):
            return due.astimezone(zone)


def last_due(schedule: str, now: datetime, zone: tzinfo = UTC) -> datetime:
    """Returns the last time, `now` included, at which the schedule was due: one of those that `next_due` returns."""
    now = now.astimezone(zone)
    if _is_hourly(schedule):
        return _last_hourly(schedule, now)
    local = _without_zone(now)
    local += max(timedelta(), _offset(local, zone, 0) - _offset(local, zone, 1)) + _SECOND
    while True:
        local = _times(schedule, local).get_prev(datetime)
        if (due := _moment(local, zone)) <= now.astimezone(UTC):
            return due.astimezone(zone)


def in_utc(schedule: str, zone: tzinfo, now: datetime) -> str:
    """Returns an expression that is due in UTC whenever this one is due by the zone's clock, and in other hours too.

    Hosts know only UTC, and no expression in UTC follows a clock that is set. So the result names, for every hour, the
    seconds and minutes at which this one may be due within the coming two years. `was_due` says whether it was.
    """
    next_due(schedule, now, zone)
    second, minute = schedule.split()[:2]
    if minute == "*":
        return f"{second} * * * * *"
    minutes = [int(value) for value in _times(schedule, _without_zone(now)).expanded[0]]
    shifts = {0} if zone is UTC else {int(offset.total_seconds() // 60) for offset in _offsets(zone, now)}
    utc_minutes = {(value - shift) % 60 for value in minutes for shift in shifts}
    if not _is_hourly(schedule):
        utc_minutes |= {change.minute for change in _changes(zone, now.astimezone(UTC).date())}
    return f"{second} {','.join(map(str, sorted(utc_minutes)))} * * * *"


def was_due(schedule: str, zone: tzinfo, now: datetime, last: datetime | None = None) -> bool:
    """Whether the schedule was due since `last`, or else since the last firing of a timer that follows `in_utc`.

    When no firing of that timer was due now, somebody fired it by hand; then it is due.
    """
    now += _EARLY
    if last is None:
        timer = in_utc(schedule, zone, now)
        fired = last_due(timer, now)
        if now - fired > _LATE:
            return True
        last = last_due(timer, fired - _SECOND)
    return next_due(schedule, last, zone) <= now


def time_zone(name: str) -> tzinfo:
    """Returns the zone of an IANA name. Raises ConfigError for a name that this machine does not know."""
    from zoneinfo import ZoneInfo, available_timezones

    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        places = [
            zone for zone in available_timezones() if "/" in zone
        ]  # of two abbreviations, one letter says nothing
        meant = meant_by(name, places)
        question = f"did you mean {meant}?" if meant else "write an IANA name, such as Europe/Berlin."
        raise ConfigError(f"There is no time zone {name!r}: {question}") from None


def _times(schedule: str, start: datetime) -> Any:
    """Returns an iterator over the times of the expression, from `start`, by a clock that nobody sets. Raises
    ConfigError."""
    from croniter import CroniterBadDateError, croniter  # a tenth of a cold start

    try:
        if faults := faults_of(schedule):
            raise ValueError("; ".join(faults))
        times = croniter(schedule, start, second_at_beginning=True, day_or=False)
        times.get_next(datetime)
    except ValueError as error:
        never = isinstance(error, CroniterBadDateError)
        why = "no date has this day of month, month and day of week" if never else str(error)
        raise ConfigError(f"{quoted(schedule)} is not an NCRONTAB expression: {why}") from error
    return croniter(schedule, start, second_at_beginning=True, day_or=False)


def _is_hourly(schedule: str) -> bool:
    return schedule.split()[2:3] == ["*"]


def _next_hourly(schedule: str, now: datetime) -> datetime:
    """Returns the next time of an hourly schedule: it is due in every hour that passes, also when the clock is set."""
    zone, start = now.tzinfo or UTC, now.astimezone(UTC)
    offset = start.astimezone(zone).utcoffset() or timedelta()
    while True:
        local: datetime = _times(schedule, start + offset).get_next(datetime)
        due = local - offset
        offset_at_due = due.astimezone(zone).utcoffset() or timedelta()
        if offset_at_due == offset:
            return due.astimezone(zone)
        # The clock is set before `due`: the time that it shows right then counts too.
        change = _change_between(start, due, zone)
        start, offset = change - _SECOND, change.astimezone(zone).utcoffset() or timedelta()


def _last_hourly(schedule: str, now: datetime) -> datetime:
    """Returns the last time of an hourly schedule, `now` included: what `_next_hourly` returns of the time before."""
    zone, start = now.tzinfo or UTC, now.astimezone(UTC).replace(microsecond=0)
    while True:
        offset = start.astimezone(zone).utcoffset() or timedelta()
        local: datetime = _times(schedule, start + offset + _SECOND).get_prev(datetime)
        due = local - offset
        if due.astimezone(zone).utcoffset() == offset:
            return due.astimezone(zone)
        start = _change_between(due, start, zone) - _SECOND  # the clock was set after `due`


def _without_zone(moment: datetime) -> datetime:
    """What the clock shows, as a time of a clock that nobody sets."""
    return moment.replace(tzinfo=UTC, fold=0)


def _offset(local: datetime, zone: tzinfo, fold: int) -> timedelta:
    return local.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta()


def _moment(local: datetime, zone: tzinfo) -> datetime:
    """When the clock of the zone shows `local`, in UTC: the first of two times, or the end of a gap that skips it.

    It is in UTC because Python compares two times of one zone by what the clock shows.
    """
    before, after = _offset(local, zone, 0), _offset(local, zone, 1)
    return _change_between(local - after - _SECOND, local - before, zone) if before < after else local - before


def _change_between(start: datetime, end: datetime, zone: tzinfo) -> datetime:
    """The first second, in UTC, with another offset than at `start`. The offset must differ at `end`."""
    offset = start.astimezone(zone).utcoffset()
    low, high = 0, int((end - start) / _SECOND) + 1
    while low < high:
        middle = (low + high) // 2
        if (start + middle * _SECOND).astimezone(zone).utcoffset() == offset:
            low = middle + 1
        else:
            high = middle
    return (start + low * _SECOND).replace(microsecond=0)


@lru_cache(maxsize=8)
def _changes(zone: tzinfo, today: date) -> tuple[datetime, ...]:
    """The times, in UTC, at which the zone's clock is set within the coming two years."""
    first, day = datetime(today.year, today.month, today.day, tzinfo=UTC), timedelta(days=1)
    days = [first + number * day for number in range(-1, _YEARS_AHEAD * 366)]
    return tuple(
        _change_between(start, start + day, zone)
        for start in days
        if start.astimezone(zone).utcoffset() != (start + day).astimezone(zone).utcoffset()
    )


def _offsets(zone: tzinfo, now: datetime) -> Iterator[timedelta]:
    yield now.astimezone(zone).utcoffset() or timedelta()
    for change in _changes(zone, now.astimezone(UTC).date()):
        yield change.astimezone(zone).utcoffset() or timedelta()
