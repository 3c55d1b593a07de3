"""Makes the JSON answers about all services: the overview and the calendar. Reads the records alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any

from backup.config.schedule import Schedule
from backup.config.settings import Settings
from backup.entry.answers import time_text
from backup.jobs.desk import Desk
from backup.jobs.job import State
from backup.jobs.listing import PAGE_AT_MOST, page_of_jobs
from backup.jobs.run_numbers import percentile

_DUE_AT_MOST = 10_000
_LOOKS = ("sync", "verify", "drill")


class ServiceState(StrEnum):
    """How safe a service is, the worst first."""

    OVERDUE = "Overdue"
    FAILED = "Failed"
    DIFFERS = "Differs"
    SAFE = "Safe"


def shape_overview(
    desk: Desk, settings: Settings, names: Iterable[str], text: str | None, limit: int, cursor: str | None
) -> dict[str, Any]:
    """Returns a row for each service, the worst first, a page at a time; and how many services are in each state.

    A service is overdue when its last success is older than its MaxAgeHours, or when it has none: absence alone counts,
    and no error need be on record. Cost: one read for each thousand services, and one for each running job.
    """
    now = desk.now().astimezone(UTC)
    last = desk.runs.last_of_all()
    at_work = {
        job.request.service.lower(): job
        for job in page_of_jobs(desk.keys, state=State.PROCESSING, limit=PAGE_AT_MOST).jobs
    }
    states = {name: _state_of(last.get(name.lower(), {}), settings.max_age(name), now) for name in names}
    wanted = [name for name in states if not text or text.lower() in name.lower()]
    order = list(ServiceState)
    places = sorted((f"{order.index(states[name])}:{name}", name) for name in wanted)
    following = [(place, name) for place, name in places if cursor is None or place > cursor]
    next_due = _next_due(settings, (name for _, name in following[:limit]), now)
    rows = []
    for _, name in following[:limit]:
        due = next_due.get(name)
        known, allowed, job = last.get(name.lower(), {}), settings.max_age(name), at_work.get(name.lower())
        success = known.get("success")
        rows.append(
            {
                "service": name,
                "state": states[name].value,
                "overdue": states[name] is ServiceState.OVERDUE,
                "lastSuccess": success,
                "lastSuccessAgeSeconds": _age(success, now),
                "allowedAgeSeconds": round(allowed.total_seconds()) if allowed else None,
                "lastFailure": known.get("failure"),
                "records": (success or {}).get("records"),
                "versionsProven": known.get("versions"),
                "contentsProven": known.get("contents"),
                "lastVerify": known.get("verify"),
                "lastRestoreDrill": known.get("drill"),
                "nextOccurrence": time_text(due) if due else None,
                "job": {"jobId": job.job_id, "progress": job.percent or 0, "verb": job.request.verb} if job else None,
            }
        )
    totals = {state.value.lower(): sum(found is state for found in states.values()) for state in order}
    return {
        "now": time_text(now),
        "totals": {"services": len(states), **totals, "running": len(at_work)},
        "services": rows,
        "cursor": following[limit - 1][0] if len(following) > limit else None,
    }


def shape_calendar(
    desk: Desk, settings: Settings, names: Sequence[str], service: str | None, days: int
) -> dict[str, Any]:
    """Returns each of the last `days` days (UTC), today included: runs due and made, changed records, durations.

    Of one service, or of all `names` together. A service counts from its first run on. Cost: two reads; the number of
    services does not matter.
    """
    now = desk.now().astimezone(UTC)
    first = now.date() - timedelta(days=days - 1)
    by_day = desk.runs.days(service, first, now.date())
    last = desk.runs.last_of_all() if service is None else {service.lower(): desk.runs.last(service)}
    began = {
        name: datetime.fromisoformat(last[name.lower()]["first"])
        for name in names
        if "first" in last.get(name.lower(), {})
    }
    due = _due_by_day(settings, first, now, began)
    rows = [_day_row(day, by_day.get(day, {}), due.get(day, 0)) for day in (first + timedelta(n) for n in range(days))]
    return {"service": service, "days": rows}


def _state_of(last: Mapping[str, Any], allowed: timedelta | None, now: datetime) -> ServiceState:
    success, failure = _moment(last.get("success")), last.get("failure")
    if success is None or (allowed is not None and now - success > allowed):
        return ServiceState.OVERDUE
    failed_at = _moment(failure)
    if failure and failed_at and failed_at > success and failure.get("verb", "sync") in _LOOKS:
        return ServiceState.FAILED
    compared = [last[kind] for kind in ("verify", "drill") if kind in last]
    newest: Mapping[str, Any] = max(compared, key=lambda entry: str(entry["at"]), default={})
    return ServiceState.DIFFERS if newest.get("verified") is False else ServiceState.SAFE


def _moment(entry: Mapping[str, Any] | None) -> datetime | None:
    return datetime.fromisoformat(entry["at"]) if entry else None


def _age(entry: Mapping[str, Any] | None, now: datetime) -> int | None:
    moment = _moment(entry)
    return None if moment is None else max(0, round((now - moment).total_seconds()))


def _next_due(settings: Settings, names: Iterable[str], now: datetime) -> dict[str, datetime]:
    """The next occurrence of each service's schedule. Services with one schedule cost one look at it."""
    if not settings.schedule_enabled:
        return {}
    schedules = {name: settings.schedule_of(name) for name in names}
    due = {schedule: schedule.next_due(now) for schedule in set(schedules.values())}
    return {name: due[schedule] for name, schedule in schedules.items()}


def _due_by_day(settings: Settings, first: date, now: datetime, began: Mapping[str, datetime]) -> dict[date, int]:
    """How many runs the schedules wanted on each day: one at each of their times for every service that had begun."""
    starts: dict[Schedule, list[datetime]] = {}
    for name, start in began.items() if settings.schedule_enabled else ():
        starts.setdefault(settings.schedule_of(name), []).append(start)
    due: dict[date, int] = {}
    for schedule, of_schedule in starts.items():
        moment = max(datetime.combine(first, time(), UTC), min(of_schedule)) - timedelta(seconds=1)
        for _ in range(_DUE_AT_MOST):
            moment = schedule.next_due(moment).astimezone(UTC)
            if moment > now:
                break
            due[moment.date()] = due.get(moment.date(), 0) + sum(start <= moment for start in of_schedule)
    return due


def _day_row(day: date, numbers: Mapping[str, Any], due: int) -> dict[str, Any]:
    made = numbers.get("scheduled", 0)
    due = max(due, made)
    durations = [numbers.get("durations", {})]
    return {
        "date": day.isoformat(),
        "runsDue": due,
        "runsMade": made,
        "share": round(made / due, 3) if due else None,
        **{name: numbers.get(name, 0) for name in ("runs", "completed", "failed", "inserted", "updated", "deleted")},
        "medianDurationMs": percentile(durations, 0.5),
        "p95DurationMs": percentile(durations, 0.95),
    }
