"""What triggers declare when the host looks at the app: a queue and schedules. Quick, because it loads no settings."""

from __future__ import annotations

from typing import NamedTuple

from backup.config.environment import own_variables

QUEUE = "backup-jobs"
"""The queue whose messages are ids of jobs."""


class Bound(NamedTuple):
    """A timer's app setting, and its schedule where the setting is missing."""

    setting: str
    default: str


SCHEDULE = Bound("BackupSchedule__CronExpression", "0 0 0 * * *")
RESUME_SCHEDULE = Bound("BackupSchedule__ResumeCronExpression", "0 * * * * *")
TIME_ZONE = "BackupSchedule__TimeZone"


def schedule_binding(timer: Bound) -> str:
    """Returns the schedule that a timer's trigger declares: the name of the app setting.

    If the setting is missing it returns the default, because the host refuses a timer whose setting it cannot find. The
    host knows only UTC. For another time zone the trigger declares every time at which the schedule may be due, and
    the function checks whether it is due. The function also reports settings that cannot be used.
    """
    variables = {variable.lower(): value.strip() for variable, value in own_variables().items() if value.strip()}
    schedule = variables.get(timer.setting.lower())
    zone = variables.get(TIME_ZONE.lower(), "UTC")
    if timer is SCHEDULE and zone.upper() != "UTC" and (times := _in_utc(schedule or timer.default, zone)):
        return times
    return f"%{timer.setting}%" if schedule else timer.default


def _in_utc(schedule: str, zone: str) -> str | None:
    """None for a schedule or a zone that cannot be used."""
    from backup.config.ncrontab import in_utc, time_zone  # few apps have a zone
    from backup.core.errors import ConfigError
    from backup.core.model import utc_now

    try:
        return in_utc(schedule, time_zone(zone), utc_now())
    except ConfigError:
        return None
