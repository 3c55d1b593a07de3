"""The HTTP API of jobs and runs. Reads the records alone, so it wakes no database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Literal, TypeVar

from pydantic import Field

from backup.config.settings import Settings
from backup.core.errors import BadRequest, Conflict, UnknownJob
from backup.core.run_values import Status, Verb
from backup.core.suggestions import did_you_mean, quoted
from backup.entry.answers import Answer, told_as_stored
from backup.entry.followed import followed_by_success
from backup.entry.job_shapes import shape_day, shape_job, shape_row, shape_stats
from backup.entry.requests import ApiRequest, ChangeLimit, check_no_body, check_query, moment_of, parse_body
from backup.jobs.job import Job, Request, State
from backup.jobs.job_queue import JobQueue
from backup.jobs.listing import page_of_jobs
from backup.services.registry import Registry

_DAYS_AT_MOST = 366
_UNREAD = "A record that cannot be read counts as missing. The log names it (record.not_read, job.not_read)."
Choice = TypeVar("Choice", State, Status, Verb)


class StartRequest(ApiRequest):
    """The body of StartSync."""

    sync_type: str = Field(min_length=1, max_length=300)
    limit: ChangeLimit = None
    dry_run: bool = False
    force_full_sync: bool = False
    allow_mass_delete: bool = False


def post_start(
    job_queue: JobQueue, registry: Registry, query: Mapping[str, str], body: bytes, who: str | None = None
) -> Answer:
    """Queues a sync of one service, or of each service for "all". Answers 202 with the ids of the jobs."""
    check_query(query)
    request = parse_body(StartRequest, body)
    services = registry.directory.chosen_entries(request.sync_type)
    jobs = [
        job_queue.ask(
            Request(
                service,
                "sync",
                force=request.force_full_sync,
                dry_run=request.dry_run,
                allow_mass_delete=request.allow_mass_delete,
                limit=request.limit,
            ),
            "http",
            requested_by=who,
        )
        for service in services
    ]
    kind = request.sync_type.upper()
    where = f"/api/sync/job/{jobs[0].job_id}"
    answer: dict[str, Any] = {
        "success": True,
        "message": f"Sync job queued successfully: {kind}",
        "jobId": jobs[0].job_id,
        "syncType": kind,
        "syncMode": "async",
        "dashboardUrl": f"/api/sync/dashboard/jobs/{jobs[0].job_id}",
    }
    if request.sync_type.lower() == "all":
        answer["jobIds"] = [job.job_id for job in jobs]
    return Answer(202, answer, {"Location": where})


def get_job(job_queue: JobQueue, job_id: str, query: Mapping[str, str]) -> Answer:
    """Answers with a job and its states. 404 without such a job."""
    check_query(query)
    return Answer(200, shape_job(_job(job_queue, job_id)))


def get_job_details(job_queue: JobQueue, job_id: str, query: Mapping[str, str]) -> Answer:
    """Answers with a job, its states, its run and its last log lines. 404 without such a job."""
    check_query(query)
    job = _job(job_queue, job_id)
    run = told_as_stored(job_queue.runs.get(job.sync_id)) if job.sync_id else None
    details = {"run": run, "log": job_queue.records.lines(job.job_id)}
    return Answer(200, {**shape_job(job), **details})


def get_jobs(job_queue: JobQueue, settings: Settings, query: Mapping[str, str]) -> Answer:
    """Answers with a page of jobs, newest first. The query may name a state, a service and a text. Without a state,
    failed jobs come first. Of a failed one it says whether its service has succeeded since."""
    check_query(query, "state", "type", "q", "limit", "cursor")
    page = page_of_jobs(
        job_queue.keys,
        state=_choice(query, "state", State),
        service=query.get("type"),
        text=query.get("q"),
        limit=number_in(query, "limit", 50, 200),
        cursor=query.get("cursor"),
    )
    rows = {job.job_id: shape_row(job) for job in page.jobs}
    failures = {job.job_id: job for job in page.jobs if job.state is State.FAILED}
    ended = [(job.request.service, job.ended_at or job.state_at or job.created_at) for job in failures.values()]
    for job_id, followed in zip(failures, followed_by_success(settings, job_queue, ended), strict=True):
        rows[job_id]["succeededSince"] = followed
    return Answer(200, {"jobs": list(rows.values()), "cursor": page.cursor})


def post_retry(
    job_queue: JobQueue, job_id: str, query: Mapping[str, str], body: bytes, who: str | None = None
) -> Answer:
    """Queues an ended job again. 404 without such a job, 409 for a job that has not ended."""
    check_query(query)
    check_no_body(body)
    job = _job(job_queue, job_id)
    requeued = job_queue.records.requeue(job.job_id, f"Retried by {who or 'request'}.")
    if requeued is None:
        raise Conflict(
            f"Job {job.job_id} is {job.state}: it has not ended. Nothing was changed.",
            hint="Delete it first, or wait for it.",
        )
    job_queue.doorbell.ring(requeued.job_id)
    return Answer(200, {"message": "Job requeued successfully", "jobId": requeued.job_id})


def delete_job(job_queue: JobQueue, job_id: str, query: Mapping[str, str], who: str | None = None) -> Answer:
    """Deletes a job that waits or has ended. Asks a running job to stop at its next batch, and answers 202. 404 without
    such a job."""
    check_query(query)
    job = job_queue.records.cancel(_job(job_queue, job_id).job_id, f"Deleted by {who or 'request'}.")
    if job is None:
        raise UnknownJob(f"There is no job {quoted(job_id)}.")
    stops = job.state is State.PROCESSING
    message = "Job asked to stop" if stops else "Job deleted successfully"
    return Answer(202 if stops else 200, {"message": message, "jobId": job.job_id})


def get_history(job_queue: JobQueue, settings: Settings, query: Mapping[str, str]) -> Answer:
    """Answers with a page of runs of all services, newest first. The query may name a service, a status, a verb, a time
    and a text. Of a failed one it says whether its service has succeeded since."""
    check_query(query, "service", "status", "verb", "from", "to", "q", "limit", "cursor")
    page = job_queue.runs.page(
        service=query.get("service"),
        status=_choice(query, "status", Status),
        verb=_choice(query, "verb", Verb),
        since=moment_of(query["from"]) if "from" in query else None,
        until=moment_of(query["to"]) if "to" in query else None,
        text=query.get("q"),
        limit=number_in(query, "limit", 50, 200),
        cursor=query.get("cursor"),
    )
    rows = list(map(told_as_stored, page.runs))
    failures = [number for number, run in enumerate(page.runs) if run["status"] == Status.FAILED]
    ended = [_end_of(page.runs[number]) for number in failures]
    for number, followed in zip(failures, followed_by_success(settings, job_queue, ended), strict=True):
        rows[number]["succeededSince"] = followed
    return Answer(200, {"runs": rows, "cursor": page.cursor})


def get_summary(job_queue: JobQueue, query: Mapping[str, str]) -> Answer:
    """Answers with the numbers of one day (UTC, default: today), by service too, and the state of the queue now.
    Services come a page at a time."""
    check_query(query, "date", "limit", "cursor")
    day = _day(query.get("date")) or job_queue.now().astimezone(UTC).date()
    return Answer(200, shape_day(job_queue, day, number_in(query, "limit", 20, 200), query.get("cursor")))


def get_stats(job_queue: JobQueue, settings: Settings, registry: Registry, query: Mapping[str, str]) -> Answer:
    """Answers with each service's numbers of the last days (default: 30), a page of services at a time."""
    check_query(query, "days", "limit", "cursor")
    days, limit = number_in(query, "days", 30, _DAYS_AT_MOST), number_in(query, "limit", 10, 50)
    after = query.get("cursor", "")
    names = sorted(name for name in registry.directory.entries if name > after)
    rows = [shape_stats(job_queue, settings, name, days) for name in names[:limit]]
    return Answer(200, {"days": days, "services": rows, "cursor": names[limit - 1] if len(names) > limit else None})


def _end_of(run: Mapping[str, Any]) -> tuple[str, datetime]:
    """The service of the run, and when it ended."""
    return run["service"], datetime.fromisoformat(run.get("completedAt") or run["startedAt"])


def _job(job_queue: JobQueue, job_id: str) -> Job:
    job = job_queue.records.get(job_id)
    if job is None:
        raise UnknownJob(f"There is no job {quoted(job_id)}.", hint=_UNREAD)
    return job


def _choice(query: Mapping[str, str], name: Literal["state", "status", "verb"], kind: type[Choice]) -> Choice | None:
    text = query.get(name)
    if text is None:
        return None
    by_name = {value.value.lower(): value for value in kind}
    if text.lower() not in by_name:
        values = [value.value for value in kind]
        hint = f"Use one of {', '.join(values)}."
        raise BadRequest(f"There is no {name} {quoted(text)}.{did_you_mean(text, values)}", hint=hint)
    return by_name[text.lower()]


def number_in(query: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    """The value of a query parameter that is a whole number from 1 on. Raises BadRequest for any other value."""
    text = query.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= maximum:
        raise BadRequest(f"{name} is {quoted(text)}.", hint=f"Use a number from 1 to {maximum}.")
    return int(text)


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text is not None else None
    except ValueError:
        raise BadRequest(f"{quoted(text or '')} is not a date.", hint="Write it like 2026-11-29.") from None
