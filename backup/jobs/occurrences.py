"""Which occurrences of the services' schedules have passed: which are missed, and which have been seen to.

An occurrence is never queued twice because its job's record has the key `once:`. What lies here only says whether there
is anything to queue, so that a look of each minute costs one read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backup.config.schedule import Schedule
from backup.core.errors import ConfigError
from backup.core.log import event
from backup.jobs.key_values import NEW, Change, KeyValues, scan_all
from backup.jobs.record_keys import hashed

_FIRST_NIGHT = timedelta(minutes=10)  # what was due before the app knew of a service or a schedule is not missed


@dataclass(frozen=True)
class Passed:
    """The newest occurrence of a service's schedule that was seen to, the schedule as it was then, and the etag."""

    at: datetime
    schedule: Schedule
    etag: str

    def missed(self, schedule: Schedule, due: datetime, now: datetime) -> datetime | None:
        """Returns the occurrence that needs a job; None if none does. `due` is the newest of the schedule as it is.

        When the schedule was changed, its occurrences before the change are not missed; that of the schedule as it was
        may be. If the clock stood ahead and jumped back, the newest occurrence is returned again; it may have its job.
        """
        if self.at > now:
            return due
        if schedule == self.schedule:
            return due if due > self.at else None
        if due > self.at and (first := first_occurrence(due, now)):
            return first
        try:
            before = self.schedule.last_due(now)
        except ConfigError:  # an expression or a zone that this release does not know
            return None
        return before.astimezone(UTC) if before > self.at else None


def first_occurrence(due: datetime, now: datetime) -> datetime | None:
    """Returns the newest occurrence `due` of a schedule that is new, if it was due just now; else None."""
    return due if due > now - _FIRST_NIGHT else None


def passed_occurrences(keys: KeyValues) -> Mapping[str, Passed]:
    """Returns what was seen to of each service, by its name in small letters. Cost: a read for each thousand.

    Removes a note that cannot be read, such as one of a later release: its service is new then, and the others are
    seen to."""
    passed: dict[str, Passed] = {}
    for item in scan_all(keys, "due:"):
        try:
            at, service = datetime.fromisoformat(item.value["at"]), str(item.value["service"])
            schedule = Schedule(str(item.value["expression"]), str(item.value["zone"]))
            if at.tzinfo is None:
                raise ValueError(at)
        except (ValueError, TypeError, KeyError) as error:
            event("schedule.not_read", level=logging.WARNING, key=item.key, error=type(error).__name__)
            keys.commit([Change(item.key, None, item.etag)])
            continue
        passed[service] = Passed(at, schedule, item.etag)
    return passed


def pass_occurrence(keys: KeyValues, last: Passed | None, service: str, schedule: Schedule, due: datetime) -> None:
    """Notes that the occurrence was seen to. If another call has noted something meanwhile, this changes nothing; the
    next call heals that."""
    name = service.lower()
    value = {
        "service": name,
        "at": due.isoformat(),
        "expression": schedule.expression,
        "zone": schedule.zone_name,
    }
    keys.commit([Change(f"due:{hashed(name)}", value, NEW if last is None else last.etag)])
