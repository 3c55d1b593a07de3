"""Makes the JSON answers about all services: the overview and the calendar. Reads the records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from backup.config.schedule import Schedule
from backup.config.settings import Settings
from backup.core.errors import BadRequest
from backup.core.log import time_text
from backup.entry.answers import told_as_stored
from backup.entry.service_states import WORST_FIRST, ServiceState, ServiceStates, ServiceView
from backup.jobs.job import CLOCKS_DIFFER, Job, State
from backup.jobs.job_queue import JobQueue
from backup.jobs.listing import PAGE_AT_MOST, page_of_jobs
from backup.jobs.run_numbers import percentile

_RANKS = [str(rank) for rank in range(len(WORST_FIRST))]


def shape_overview(
    job_queue: JobQueue,
    settings: Settings,
    names: Sequence[str],
    text: str | None,
    limit: int,
    cursor: str | None,
    of_set: str | None = None,
) -> dict[str, Any]:
    """Returns a row for each service, the worst first, a page at a time; and how many services are in each state. With
    `of_set` those of this set, as far as the records know them; else `names`.

    A service is overdue when its last success is older than its MaxAgeHours, or when it has none: absence alone counts,
    and no error need be on record. Cost: one small read for all services, one for the rows of the page, and one for
    each running job.
    """
    now = job_queue.now().astimezone(UTC)
    states = ServiceStates(settings, job_queue.runs.glances(() if of_set else names), now)
    names = names if of_set is None else states.services_of(of_set) or ()
    at_work = {
        job.request.service.lower(): job
        for job in page_of_jobs(job_queue.keys, state=State.PROCESSING, limit=PAGE_AT_MOST).jobs
    }
    ranks = states.ranks(names)
    wanted = text.lower() if text else ""
    places = [(f"{rank}:{name}", rank, name) for rank, name in zip(ranks, names, strict=True) if wanted in name.lower()]
    if cursor is not None and (cursor[:1] not in _RANKS or cursor[1:2] != ":"):
        raise BadRequest("The cursor is not from a page of services.", hint="Begin again without a cursor.")
    following = sorted(place for place in places if cursor is None or place[0] > cursor)
    page = [states.view(name, rank) for _, rank, name in following[:limit]]
    next_due = _next_due(settings, (view.name for view in page), now)
    lasts = job_queue.runs.last_of_each(
        [name for view in page for name in (view.name, view.success_of, view.trouble_of)]
    )
    rows = [
        _service_row(
            view,
            states.services_of(view.name),
            [lasts[name.lower()] for name in (view.name, view.success_of, view.trouble_of)],
            settings.max_age(view.name),
            now,
            next_due.get(view.name),
            at_work.get(view.name.lower()),
        )
        for view in page
    ]
    totals = Counter(ranks)
    return {
        "now": time_text(now),
        "totals": {
            "services": len(names),
            **{state.value.lower(): totals[rank] for rank, state in enumerate(WORST_FIRST)},
            "running": len(at_work),
        },
        "services": rows,
        "cursor": following[limit - 1][0] if len(following) > limit else None,
    }


def shape_calendar(
    job_queue: JobQueue, settings: Settings, names: Sequence[str], service: str | None, days: int
) -> dict[str, Any]:
    """Returns each of the last `days` days (UTC), today included: runs due and made, changed records, durations.

    Of one service, or of all `names` together. A service counts from its first run on. Cost: one read of the days, and
    one small read for all services.
    """
    now = job_queue.now().astimezone(UTC)
    first = now.date() - timedelta(days=days - 1)
    by_day = job_queue.runs.days(service, first, now.date())
    glances = job_queue.runs.glances(names)
    firsts = {name: glances[name.lower()].first for name in names if name.lower() in glances}
    began = {name: datetime.fromtimestamp(first, UTC) for name, first in firsts.items() if first is not None}
    due = _due_by_day(settings, first, now, began)
    rows = [_day_row(day, by_day.get(day, {}), due.get(day, 0)) for day in (first + timedelta(n) for n in range(days))]
    return {"service": service, "days": rows}


def _service_row(
    view: ServiceView,
    of_set: Sequence[str] | None,
    lasts: Sequence[Mapping[str, Any]],
    allowed: timedelta | None,
    now: datetime,
    due: datetime | None,
    job: Job | None,
) -> dict[str, Any]:
    """The row of a service. `lasts`: its own last runs, those with its last success, and those with its trouble."""
    state = WORST_FIRST[view.rank]
    of_service, of_success, of_trouble = lasts
    success = of_success.get("success")
    return {
        "service": of_service.get("service", view.name),
        "services": None if of_set is None else len(of_set),
        "state": state.value,
        "overdue": state is ServiceState.OVERDUE,
        "lastSuccess": told_as_stored(success),
        "lastSuccessAgeSeconds": _age(success, now),
        "allowedAgeSeconds": round(allowed.total_seconds()) if allowed else None,
        "lastFailure": told_as_stored(of_trouble.get("failure")),
        "records": of_service.get("success", {}).get("records"),
        "versionsProven": told_as_stored(of_service.get("versions")),
        "contentsProven": told_as_stored(of_service.get("contents")),
        "lastVerify": told_as_stored(of_trouble.get("verify")),
        "lastRestoreDrill": told_as_stored(of_trouble.get("drill")),
        "nextOccurrence": time_text(due) if due else None,
        "job": {"jobId": job.job_id, "progress": job.percent or 0, "verb": job.request.verb} if job else None,
    }


def _moment(entry: Mapping[str, Any] | None) -> datetime | None:
    return datetime.fromisoformat(entry["at"]) if entry else None


def _age(entry: Mapping[str, Any] | None, now: datetime) -> int | None:
    """How old the success is; None for one that is still to come, which a wrong clock wrote."""
    moment = _moment(entry)
    return None if moment is None or moment > now + CLOCKS_DIFFER else max(0, round((now - moment).total_seconds()))


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
        start_of_all = max(datetime.combine(first, time(), UTC), min(of_schedule))
        for moment in schedule.times_due(start_of_all, now):
            day = moment.astimezone(UTC).date()
            due[day] = due.get(day, 0) + sum(start <= moment for start in of_schedule)
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
