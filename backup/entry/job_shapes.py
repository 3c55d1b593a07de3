"""Makes the JSON answers of the API of jobs: a job, a service's numbers, a day's numbers. Reads the records alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from backup.config.settings import Settings
from backup.core.log import time_text
from backup.entry.answers import told_as_stored
from backup.jobs.job import Job, State
from backup.jobs.job_queue import JobQueue
from backup.jobs.run_numbers import percentile

_RECORDS = ("inserted", "updated", "deleted", "skipped", "failedRecords")


def shape_job(job: Job) -> dict[str, Any]:
    """Returns a job with its states, as JSON values."""
    history = [
        {"stateName": change.state.value, "createdAt": time_text(change.at), "reason": change.reason}
        for change in job.history
    ]
    return {**shape_row(job), "history": history}


def shape_row(job: Job) -> dict[str, Any]:
    """Returns a job without its states, as a row of a list."""
    request = job.request
    return {
        "jobId": job.job_id,
        "state": job.state.value,
        "createdAt": time_text(job.created_at),
        "job": {
            "syncType": request.service.upper(),
            "service": request.service,
            "verb": request.verb,
            "forceFullSync": request.force,
            "dryRun": request.dry_run,
            "allowMassDelete": request.allow_mass_delete,
            "full": request.full,
            "sample": request.sample,
            "limit": request.limit,
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
        "errorKind": job.error_kind,
        "hint": job.hint,
        "cancelled": job.cancelled,
    }


def shape_day(job_queue: JobQueue, day: date, limit: int, after: str | None) -> dict[str, Any]:
    """Returns the numbers of one day (UTC), in all and by service, and how many jobs are in each state now.

    By service a page at a time: `limit` services, those behind the service `after`. Cost: that of the page.
    """
    services = job_queue.runs.day(day, after=after, limit=limit + 1)
    names = list(services)[:limit]
    total = job_queue.runs.days(None, day, day).get(day, {})
    by_type = [
        {
            "syncType": service.upper(),
            "count": numbers.get("runs", 0),
            "success": numbers.get("completed", 0),
            "failed": numbers.get("failed", 0),
            **_records_of(numbers),
        }
        for service, numbers in ((name, services[name]) for name in names)
    ]
    numbers = job_queue.records.numbers()
    running = numbers[State.PROCESSING] if day == job_queue.now().astimezone(UTC).date() else 0
    queue = {
        "enqueued": numbers[State.ENQUEUED],
        "processing": numbers[State.PROCESSING],
        "succeeded": numbers[State.SUCCEEDED],
        "failed": numbers[State.FAILED],
        "scheduled": numbers[State.SCHEDULED],
        "servers": len(job_queue.workers()),
    }
    summary = {
        "totalJobs": total.get("runs", 0) + running,
        "successJobs": total.get("completed", 0),
        "failedJobs": total.get("failed", 0),
        "runningJobs": running,
        **_records_of(total),
        "successRate": _percent(total.get("completed", 0), total.get("runs", 0)),
    }
    return {
        "date": day.isoformat(),
        "summary": summary,
        "byType": by_type,
        "cursor": names[-1] if len(services) > limit else None,
        "queueStats": queue,
        "hangfireStats": queue,
    }


def shape_stats(job_queue: JobQueue, settings: Settings, service: str, days: int) -> dict[str, Any]:
    """Returns a service's numbers of the last `days` days (UTC), today included."""
    now = job_queue.now().astimezone(UTC)
    first = now.date() - timedelta(days=days - 1)
    by_day = job_queue.runs.days(service, first, now.date())
    last = job_queue.runs.last(service)
    total = {
        name: sum(numbers.get(name, 0) for numbers in by_day.values())
        for name in ("runs", "completed", "failed", "scheduled", "seconds", *_RECORDS)
    }
    durations = [numbers.get("durations", {}) for numbers in by_day.values()]
    schedule = settings.schedule_of(service)
    began = datetime.combine(first, datetime.min.time(), UTC)
    due = sum(1 for _ in schedule.times_due(began, now)) if by_day else 0
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
        "lastSuccess": told_as_stored(success),
        "lastSuccessAgeSeconds": round(age) if age is not None else None,
        "lastFailure": told_as_stored(last.get("failure")),
        "lastVerify": told_as_stored(last.get("verify")),
        "lastRestoreDrill": told_as_stored(last.get("drill")),
        "nextOccurrence": time_text(schedule.next_due(now)) if settings.schedule_enabled else None,
    }


def _records_of(numbers: Mapping[str, Any]) -> dict[str, int]:
    failed = numbers.get("failedRecords", 0)
    done = sum(numbers.get(name, 0) for name in ("inserted", "updated", "deleted", "skipped"))
    return {"totalProcessed": done + failed, "totalSuccess": done, "totalFailed": failed}


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None
