"""The HTTP API of the page: what it shows of services and runs, and what it asks for.

Overview, calendar and run read the records alone, so they wake no database. What looks into a run's records reads the
backup.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from backup.config.settings import Settings
from backup.core.errors import BackupError, BadRequest, UnknownRun
from backup.core.log import time_text
from backup.core.model import Action, Record
from backup.core.run_values import Trigger
from backup.core.suggestions import quoted
from backup.entry.access import OPERATOR, READER, signed_in
from backup.entry.answers import Answer, shape_one, status_of, told_as_stored
from backup.entry.dashboard_shapes import shape_calendar, shape_overview
from backup.entry.job_api import delete_job, number_in, post_retry
from backup.entry.requests import ApiRequest, KeyText, SampleSize, check_query, parse_body
from backup.jobs.job import Request
from backup.jobs.job_queue import JobQueue
from backup.services.named_run import run_named
from backup.services.past_values import ChangedRecord
from backup.services.registry import Registry
from backup.services.service import Options, SyncService
from backup.stores.exact_json import plain_json
from backup.verbs.restore_spec import RestoreSpec

_PAGE_AT_MOST = 500
_JOBS_AT_ONCE = 200
_NAME = Annotated[str, Field(max_length=300)]


class RestoreOfRunRequest(ApiRequest):
    """The body of RestoreOfRun: which records of the run to restore into the source; none named means all.

    Without `confirm`, the service's name, the answer only says what would change.
    """

    keys: list[KeyText] = Field([], max_length=1_000)
    only: Literal["inserted", "updated", "deleted"] | None = None
    overwrite_newer: bool = False
    without_masked: bool = False
    delete_extra: bool = False
    allow_mass_delete: bool = False
    confirm: _NAME | None = None


class UndoOfRunRequest(ApiRequest):
    """The body of UndoOfRun. Without `confirm`, the service's name, the answer only says what would change."""

    through: bool = False
    confirm: _NAME | None = None


class VerifyJobRequest(ApiRequest):
    """The body of StartVerify."""

    service: str = Field(min_length=1, max_length=300)
    full: bool = False
    sample: SampleSize = 0
    drill: bool = False


class BulkRequest(ApiRequest):
    """The body of ChangeJobs."""

    action: Literal["retry", "delete"]
    job_ids: Annotated[list[Annotated[str, Field(max_length=100)]], Field(min_length=1, max_length=_JOBS_AT_ONCE)]


def get_caller(headers: Mapping[str, str], query: Mapping[str, str]) -> Answer:
    """Answers who asks, and whether this caller may write. Without Easy Auth nobody is known, and the key may write."""
    check_query(query)
    principal = signed_in(headers)
    if principal is None:
        return Answer(200, {"name": None, "roles": [], "mayWrite": True})
    roles = [role for role in (READER, OPERATOR) if role in principal.roles]
    return Answer(200, {"name": principal.name, "roles": roles, "mayWrite": principal.may_write})


def get_overview(job_queue: JobQueue, settings: Settings, registry: Registry, query: Mapping[str, str]) -> Answer:
    """Answers with a row for each service, or for each of one set, the worst first, a page at a time."""
    check_query(query, "q", "set", "limit", "cursor")
    limit = number_in(query, "limit", 10, 200)
    of_set = registry.directory.set_named(query["set"]).name if "set" in query else None
    entries, text = registry.directory.entries, query.get("q")
    return Answer(200, shape_overview(job_queue, settings, entries, text, limit, query.get("cursor"), of_set))


def get_calendar(job_queue: JobQueue, settings: Settings, registry: Registry, query: Mapping[str, str]) -> Answer:
    """Answers with each of the last days (default: 30), of one service or of all together."""
    check_query(query, "service", "days")
    days = number_in(query, "days", 30, 366)
    service = registry.directory.chosen_entries(query["service"])[0] if "service" in query else None
    return Answer(
        200, shape_calendar(job_queue, settings, [service] if service else registry.directory.entries, service, days)
    )


def get_run(job_queue: JobQueue, registry: Registry, sync_id: str, query: Mapping[str, str]) -> Answer:
    """Answers with the summary of a run, and whether it is of several services. 404 without one."""
    check_query(query)
    summary = job_queue.runs.get(sync_id)
    if summary is None:
        raise UnknownRun(f"There is no run {quoted(sync_id)}.", hint=_UNREAD)
    return Answer(200, {**told_as_stored(summary), "ofSeveral": registry.directory.is_group(summary["service"])})


def get_run_changes(job_queue: JobQueue, registry: Registry, sync_id: str, query: Mapping[str, str]) -> Answer:
    """Answers with a page of what a run did to records: keys and actions. A page may be empty and have a cursor."""
    check_query(query, "only", "limit", "cursor")
    limit = number_in(query, "limit", 50, _PAGE_AT_MOST)
    only = query.get("only")
    if only is not None and only.title() not in list(Action):
        raise BadRequest(f"only is {quoted(only)}.", hint="Use inserted, updated or deleted.")
    service, run_id = _run_named(job_queue, registry, sync_id)
    page = service.past.changed(run_id, limit, query.get("cursor"), Action(only.title()) if only else None)
    return Answer(
        200,
        {
            "syncId": run_id,
            "service": service.name,
            "changes": [{"key": key, "change": action.value, "side": side} for key, action, side in page.changes],
            "cursor": page.cursor,
            "mayBePurged": page.may_be_purged,
        },
    )


def get_changed_record(job_queue: JobQueue, registry: Registry, sync_id: str, query: Mapping[str, str]) -> Answer:
    """Answers with one record that a run changed, before and after, column by column. 404 if the bin has no image."""
    check_query(query, "key")
    if "key" not in query:
        raise BadRequest(
            "The key of the record is missing.", hint="Write it as ?key=, like the list of changes has it."
        )
    service, run_id = _run_named(job_queue, registry, sync_id)
    return Answer(200, {"service": service.name, **shape_changed(service.past.changed_record(run_id, query["key"]))})


def shape_changed(changed: ChangedRecord) -> dict[str, Any]:
    """Returns a record that a run changed, as JSON values. Values are in the recycle bin's JSON."""
    old, new = _values(changed.old), _values(changed.new)
    names = dict.fromkeys([*(old or {}), *(new or {})])
    return {
        "syncId": changed.run.sync_id,
        "key": changed.key,
        "change": changed.action.value,
        "side": changed.side,
        "changedAt": time_text(changed.at),
        "old": old,
        "new": new,
        "laterRun": changed.later_run,
        "columns": [
            {"name": name, "differs": (old or {}).get(name, _NOTHING) != (new or {}).get(name, _NOTHING)}
            for name in names
        ],
    }


def post_run_restore(
    job_queue: JobQueue, registry: Registry, sync_id: str, query: Mapping[str, str], body: bytes
) -> Answer:
    """Restores records that a run changed into the source. Without `confirm` only answers what would change."""
    check_query(query)
    request = parse_body(RestoreOfRunRequest, body)
    service, run_id = _run_named(job_queue, registry, sync_id)
    writes = _is_confirmed(request.confirm, service)
    spec = RestoreSpec(
        keys=tuple(request.keys),
        overwrite_newer=request.overwrite_newer,
        delete_extra=request.delete_extra,
        run=run_id,
        only=Action(request.only.title()) if request.only else None,
        without_masked=request.without_masked,
    )
    options = Options(dry_run=not writes, allow_mass_delete=request.allow_mass_delete)
    return shape_one(service.restore(spec, options, trigger=Trigger.HTTP))


def post_run_undo(
    job_queue: JobQueue, registry: Registry, sync_id: str, query: Mapping[str, str], body: bytes
) -> Answer:
    """Undoes a run in the backup. Without `confirm` only answers what would change."""
    check_query(query)
    request = parse_body(UndoOfRunRequest, body)
    service, run_id = _run_named(job_queue, registry, sync_id)
    writes = _is_confirmed(request.confirm, service)
    return shape_one(service.undo(run_id, through=request.through, dry_run=not writes, trigger=Trigger.HTTP))


def post_verify_job(
    job_queue: JobQueue, registry: Registry, query: Mapping[str, str], body: bytes, who: str | None = None
) -> Answer:
    """Queues a verify or a restore drill of one service, or of each service for "all". Answers 202."""
    check_query(query)
    request = parse_body(VerifyJobRequest, body)
    verb = "drill" if request.drill else "verify"
    jobs = [
        job_queue.ask(Request(service, verb, full=request.full, sample=request.sample), "http", requested_by=who)
        for service in registry.directory.some_services(request.service)
    ]
    where = f"/api/sync/job/{jobs[0].job_id}"
    job_ids = [job.job_id for job in jobs]
    answer = {"message": f"Job queued successfully: {verb}", "jobId": job_ids[0], "jobIds": job_ids, "verb": verb}
    return Answer(202, answer, {"Location": where})


def post_bulk(job_queue: JobQueue, query: Mapping[str, str], body: bytes, who: str | None = None) -> Answer:
    """Retries or deletes many jobs. Answers what became of each; one that is refused stops no other."""
    check_query(query)
    request = parse_body(BulkRequest, body)
    results = []
    for job_id in dict.fromkeys(request.job_ids):
        try:
            done = (
                post_retry(job_queue, job_id, {}, b"", who)
                if request.action == "retry"
                else delete_job(job_queue, job_id, {}, who)
            )
            results.append({"jobId": done.body["jobId"], "status": done.status, "message": done.body["message"]})
        except BackupError as error:
            results.append({"jobId": job_id, "status": status_of(error), "message": str(error)})
    done_count = sum(result["status"] < 300 for result in results)
    return Answer(
        200, {"action": request.action, "done": done_count, "refused": len(results) - done_count, "jobs": results}
    )


_NOTHING = object()
_UNREAD = "Summaries of runs are kept for 400 days. One that cannot be read is in the log (record.not_read)."


def _values(record: Record | None) -> dict[str, Any] | None:
    return None if record is None else json.loads(plain_json(record))


def _run_named(job_queue: JobQueue, registry: Registry, sync_id: str) -> tuple[SyncService, str]:
    """The run of this id, or whose id begins so, and its service. Reads SyncHistory only of a run without a summary."""
    summary = job_queue.runs.get(sync_id)
    if summary is None:
        return run_named(registry, sync_id)
    return registry.get(summary["service"]), summary["syncId"]


def _is_confirmed(confirm: str | None, service: SyncService) -> bool:
    """Whether the caller has typed the service's name. Raises BadRequest for another name."""
    if confirm is None:
        return False
    if confirm.lower() != service.name.lower():
        raise BadRequest(
            f"confirm is {quoted(confirm)}, but the run is of the service {service.name}. Nothing was changed.",
            hint="Write the service's name, or leave confirm out to see what would change.",
        )
    return True
