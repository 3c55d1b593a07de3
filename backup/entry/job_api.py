"""The API of jobs and runs: what a page asks for. Reads the records alone, and wakes no database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, TypeVar

from pydantic import Field

from backup.config.ncrontab import last_due, next_due
from backup.config.settings import Settings
from backup.core.errors import BadRequest, Conflict, UnknownJob
from backup.core.model import Status, Verb
from backup.core.suggestions import did_you_mean, quoted
from backup.entry.answers import Answer, time_text
from backup.entry.requests import ApiRequest, check_no_body, check_query, moment_of, parse_body
from backup.jobs.desk import Desk
from backup.jobs.job import Job, Request, State
from backup.jobs.run_records import percentile
from backup.services.registry import Registry

_DAYS_AT_MOST = 366
Choice = TypeVar("Choice", State, Status, Verb)


class StartRequest(ApiRequest):
    """The body of StartSync. `limit` is the most changes that the sync may make."""

    sync_type: str = Field(min_length=1, max_length=300)
    limit: int | None = Field(None, ge=1)
    dry_run: bool = False
    force_full_sync: bool = False
    allow_mass_delete: bool = False


def post_start(desk: Desk, registry: Registry, query: Mapping[str, str], body: bytes, who: str | None = None) -> Answer:
    """Queues a sync of a service, or of all of them; 202 with the jobs' ids."""
    check_query(query)
    asked = parse_body(StartRequest, body)
    services = registry.chosen(asked.sync_type)
    jobs = [
        desk.ask(
            Request(
                service,
                "sync",
                force=asked.force_full_sync,
                dry_run=asked.dry_run,
                allow_mass_delete=asked.allow_mass_delete,
                limit=asked.limit,
            ),
            "http",
            requested_by=who,
        )
        for service in services
    ]
    kind = asked.sync_type.upper()
    where = f"/api/sync/job/{jobs[0].job_id}"
    told: dict[str, Any] = {
        "success": True,
        "message": f"Sync job queued successfully: {kind}",
        "jobId": jobs[0].job_id,
        "syncType": kind,
        "syncMode": "async",
        "dashboardUrl": f"/api/sync/dashboard/jobs/{jobs[0].job_id}",
    }
    if asked.sync_type.lower() == "all":
        told["jobIds"] = [job.job_id for job in jobs]
    return Answer(202, told, {"Location": where})


def get_job(desk: Desk, job_id: str, query: Mapping[str, str]) -> Answer:
    """How a job stands."""
    check_query(query)
    return Answer(200, shape_job(_job(desk, job_id)))


def get_job_details(desk: Desk, job_id: str, query: Mapping[str, str]) -> Answer:
    """All that is known of a job: its run and its last log lines, too."""
    check_query(query)
    job = _job(desk, job_id)
    run = desk.runs.get(job.sync_id) if job.sync_id else None
    told = {"run": run, "log": desk.records.lines(job.job_id), "hint": job.hint, "errorKind": job.error_kind}
    return Answer(200, {**shape_job(job), **told})


def get_jobs(desk: Desk, query: Mapping[str, str]) -> Answer:
    """A page of jobs: of a state, of a service, with a text; failures first where no state is asked for."""
    check_query(query, "state", "type", "q", "limit", "cursor")
    page = desk.records.page(
        state=_choice(query, "state", State),
        service=query.get("type"),
        text=query.get("q"),
        limit=_number(query, "limit", 50, 200),
        cursor=query.get("cursor"),
    )
    return Answer(200, {"jobs": [_row(job) for job in page.jobs], "cursor": page.cursor})


def post_retry(desk: Desk, job_id: str, query: Mapping[str, str], body: bytes, who: str | None = None) -> Answer:
    """Queues an ended job once more. 409 for one that has not ended."""
    check_query(query)
    check_no_body(body)
    job = _job(desk, job_id)
    again = desk.records.requeue(job.job_id, f"Retried by {who or 'request'}.")
    if again is None:
        raise Conflict(f"Job {job.job_id} is {job.state}: it has not ended.", hint="Delete it first, or wait for it.")
    desk.doorbell.ring(again.job_id)
    return Answer(200, {"message": "Job requeued successfully", "jobId": again.job_id})


def delete_job(desk: Desk, job_id: str, query: Mapping[str, str], who: str | None = None) -> Answer:
    """Deletes a job that waits or has ended; asks a running one to stop at its next batch, which is a 202."""
    check_query(query)
    job = desk.records.cancel(_job(desk, job_id).job_id, f"Deleted by {who or 'request'}.")
    if job is None:
        raise UnknownJob(f"There is no job {quoted(job_id)}.")
    stops = job.state is State.PROCESSING
    message = "Job asked to stop" if stops else "Job deleted successfully"
    return Answer(202 if stops else 200, {"message": message, "jobId": job.job_id})


def get_history(desk: Desk, query: Mapping[str, str]) -> Answer:
    """A page of runs of all services, newest first."""
    check_query(query, "service", "status", "verb", "from", "to", "limit", "cursor")
    page = desk.runs.page(
        service=query.get("service"),
        status=_choice(query, "status", Status),
        verb=_choice(query, "verb", Verb),
        since=moment_of(query["from"]) if "from" in query else None,
        until=moment_of(query["to"]) if "to" in query else None,
        limit=_number(query, "limit", 50, 200),
        cursor=query.get("cursor"),
    )
    return Answer(200, {"runs": list(page.runs), "cursor": page.cursor})


def get_summary(desk: Desk, query: Mapping[str, str]) -> Answer:
    """One day (UTC): jobs and records in numbers, by service too, and how the queue stands now."""
    check_query(query, "date")
    day = _day(query.get("date")) or desk.now().astimezone(UTC).date()
    services = desk.runs.day(day)
    by_type = [
        {
            "syncType": service.upper(),
            "count": numbers.get("runs", 0),
            "success": numbers.get("completed", 0),
            "failed": numbers.get("failed", 0),
            **_records_of(numbers),
        }
        for service, numbers in sorted(services.items())
    ]
    numbers = desk.records.numbers()
    ended = {name: sum(row[name] for row in by_type) for name in ("count", "success", "failed")}
    records = {name: sum(row[name] for row in by_type) for name in ("totalProcessed", "totalSuccess", "totalFailed")}
    running = numbers[State.PROCESSING] if day == desk.now().astimezone(UTC).date() else 0
    queue = {
        "enqueued": numbers[State.ENQUEUED],
        "processing": numbers[State.PROCESSING],
        "succeeded": numbers[State.SUCCEEDED],
        "failed": numbers[State.FAILED],
        "scheduled": numbers[State.SCHEDULED],
        "servers": len(desk.workers()),
    }
    summary = {
        "totalJobs": ended["count"] + running,
        "successJobs": ended["success"],
        "failedJobs": ended["failed"],
        "runningJobs": running,
        **records,
        "successRate": _percent(ended["success"], ended["count"]),
    }
    told = {"date": day.isoformat(), "summary": summary, "byType": by_type, "queueStats": queue, "hangfireStats": queue}
    return Answer(200, told)


def get_stats(desk: Desk, settings: Settings, registry: Registry, query: Mapping[str, str]) -> Answer:
    """Each service over the last days, a page of services at a time."""
    check_query(query, "days", "limit", "cursor")
    days, limit = _number(query, "days", 30, _DAYS_AT_MOST), _number(query, "limit", 10, 50)
    after = query.get("cursor", "")
    names = sorted(name for name in registry.names() if name > after)
    rows = [_stats_of(desk, settings, name, days) for name in names[:limit]]
    return Answer(200, {"days": days, "services": rows, "cursor": names[limit - 1] if len(names) > limit else None})


def shape_job(job: Job) -> dict[str, Any]:
    """A job as callers see it, with its states."""
    history = [
        {"stateName": past.state.value, "createdAt": time_text(past.at), "reason": past.reason} for past in job.history
    ]
    return {**_row(job), "history": history}


def _row(job: Job) -> dict[str, Any]:
    asked = job.request
    return {
        "jobId": job.job_id,
        "state": job.state.value,
        "createdAt": time_text(job.created_at),
        "job": {
            "syncType": asked.service.upper(),
            "service": asked.service,
            "verb": asked.verb,
            "forceFullSync": asked.force,
            "dryRun": asked.dry_run,
            "allowMassDelete": asked.allow_mass_delete,
            "limit": asked.limit,
        },
        "trigger": job.trigger,
        "requestedBy": job.requested_by,
        "stateAt": time_text(job.state_at) if job.state_at else None,
        "dueAt": time_text(job.due_at) if job.due_at else None,
        "startedAt": time_text(job.started_at) if job.started_at else None,
        "endedAt": time_text(job.ended_at) if job.ended_at else None,
        "progress": 100 if job.state is State.SUCCEEDED else job.percent or 0,
        "counts": dict(job.counts),
        "attempt": job.attempt,
        "syncId": job.sync_id,
        "error": job.error,
        "cancelled": job.cancelled,
    }


def _stats_of(desk: Desk, settings: Settings, service: str, days: int) -> dict[str, Any]:
    now = desk.now().astimezone(UTC)
    first = now.date() - timedelta(days=days - 1)
    by_day = desk.runs.days(service, first, now.date())
    last = desk.runs.last(service)
    total = {
        name: sum(numbers.get(name, 0) for numbers in by_day.values())
        for name in ("runs", "completed", "failed", "scheduled", "seconds", *_RECORDS)
    }
    durations = [numbers.get("durations", {}) for numbers in by_day.values()]
    due = _times_due(settings, datetime.combine(first, datetime.min.time(), UTC), now) if by_day else 0
    success = last.get("success")
    age = (now - datetime.fromisoformat(success["at"])).total_seconds() if success else None
    return {
        "service": service,
        "runs": total["runs"],
        "successRate": _percent(total["completed"], total["runs"]),
        "runsMade": total["scheduled"],
        "runsDue": due,
        "sla": _percent(total["scheduled"], due),
        "medianDurationMs": percentile(durations, 0.5),
        "p95DurationMs": percentile(durations, 0.95),
        "recordsPerSecond": round(sum(total[name] for name in _RECORDS) / total["seconds"], 1)
        if total["seconds"]
        else None,
        "changesByDay": [
            {"date": day.isoformat(), **{name: numbers.get(name, 0) for name in ("inserted", "updated", "deleted")}}
            for day, numbers in sorted(by_day.items())
        ],
        "lastSuccess": success,
        "lastSuccessAgeSeconds": round(age) if age is not None else None,
        "lastFailure": last.get("failure"),
        "lastVerify": last.get("verify"),
        "lastRestoreDrill": last.get("drill"),
        "nextOccurrence": time_text(next_due(settings.schedule, now, settings.zone))
        if settings.schedule_enabled
        else None,
    }


_RECORDS = ("inserted", "updated", "deleted", "skipped", "failedRecords")


def _records_of(numbers: Mapping[str, Any]) -> dict[str, int]:
    failed = numbers.get("failedRecords", 0)
    done = sum(numbers.get(name, 0) for name in ("inserted", "updated", "deleted", "skipped"))
    return {"totalProcessed": done + failed, "totalSuccess": done, "totalFailed": failed}


def _times_due(settings: Settings, start: datetime, end: datetime) -> int:
    """How often the schedule was due, up to 10,000 times."""
    due, number = last_due(settings.schedule, end, settings.zone), 0
    while due >= start and number < 10_000:
        number += 1
        due = last_due(settings.schedule, due - timedelta(seconds=1), settings.zone)
    return number


def _job(desk: Desk, job_id: str) -> Job:
    job = desk.records.get(job_id)
    if job is None:
        raise UnknownJob(f"There is no job {quoted(job_id)}.")
    return job


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None


def _choice(query: Mapping[str, str], name: Literal["state", "status", "verb"], kind: type[Choice]) -> Choice | None:
    text = query.get(name)
    if text is None:
        return None
    known = {value.value.lower(): value for value in kind}
    if text.lower() not in known:
        values = [value.value for value in kind]
        hint = f"Use one of {', '.join(values)}."
        raise BadRequest(f"There is no {name} {quoted(text)}.{did_you_mean(text, values)}", hint=hint)
    return known[text.lower()]


def _number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= most:
        raise BadRequest(f"{name} is {quoted(text)}.", hint=f"Use a number from 1 to {most}.")
    return int(text)


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text is not None else None
    except ValueError:
        raise BadRequest(f"The date {quoted(text or '')} is none.", hint="Write 2026-11-29.") from None
