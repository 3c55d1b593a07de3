"""The HTTP functions of the app in one table: routes, parameters, bodies, models. Their description is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backup.core.model import Status, Verb
from backup.entry import answer_models as models
from backup.entry import dashboard_api, job_api, requests
from backup.entry import job_models as jobs
from backup.jobs.job import State

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Operation:
    """One function: its name and route as the host knows them, and the types of its body and of its answers by status.

    `failed` is the type of its answers with one of the `statuses`, which say that it failed. `anonymous`: no key.
    `media`: the type of the content that it answers with; no type of it is known where that is not JSON.
    """

    function: str
    method: str
    route: str
    summary: str
    answers: Mapping[int, Any]
    body: type[requests.ApiRequest] | None = None
    query: Mapping[str, Schema] = field(default_factory=dict)
    statuses: Sequence[int] = (400, 500, 503)
    failed: Any = models.ErrorAnswer
    anonymous: bool = False
    media: str = "application/json"


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": [*values]}


def _number(default: int, maximum: int) -> Schema:
    return {"type": "integer", "minimum": 1, "maximum": maximum, "default": default}


_TEXT: Schema = {"type": "string", "minLength": 1}
_NAME: Schema = {**_TEXT, "description": "The name of a service; case does not count."}
_CURSOR: Schema = {**_TEXT, "description": "The cursor that the page before gave."}
_TIME: Schema = {"type": "string", "format": "date-time"}
_FLAG: Schema = {"type": "boolean", "default": False}
_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": requests.LIMIT_AT_MOST}
_OPTIONS = {"force": _FLAG, "dryRun": _FLAG, "allowMassDelete": _FLAG, "limit": _LIMIT}
_PAGE = {"limit": _number(50, 200), "cursor": _CURSOR}

_LOOKS = (400, 404, 500, 503)
_WORKS = (400, 404, 409, 500, 503)
_RUN = {200: models.RunAnswer, 202: models.RunAnswer}
_RUN_FAILED = models.ErrorAnswer | models.RunAnswer
_SYNCED = models.RunAnswer | models.SyncsAnswer
_SYNCS_FAILED = models.ErrorAnswer | models.SyncsAnswer
_ANY_REST = "{*service:minlength(1)}"

OPERATIONS: Sequence[Operation] = (
    Operation(
        "TriggerSync",
        "POST",
        "backup/sync",
        "Syncs one service, or all of them.",
        {200: models.SyncsAnswer, 202: models.SyncsAnswer, 207: models.SyncsAnswer},
        body=requests.SyncRequest,
        statuses=_WORKS,
        failed=_SYNCS_FAILED,
    ),
    *(
        Operation(
            f"Sync{name.title()}",
            "POST",
            f"backup/sync/{name}",
            f"Syncs the service {name}.",
            _RUN,
            query=_OPTIONS,
            statuses=_WORKS,
            failed=_RUN_FAILED,
        )
        for name in ("customer", "order")
    ),
    Operation(
        "SyncService",
        "POST",
        f"backup/sync/{_ANY_REST}",
        "Syncs any service by its name, or all.",
        {200: _SYNCED, 202: _SYNCED, 207: models.SyncsAnswer},
        query=_OPTIONS,
        statuses=_WORKS,
        failed=_RUN_FAILED | models.SyncsAnswer,
    ),
    Operation(
        "VerifyBackup",
        "POST",
        f"backup/verify/{_ANY_REST}",
        "Compares source and backup, of one service or all.",
        {200: models.VerifyAnswer | models.VerifiesAnswer, 207: models.VerifiesAnswer},
        body=requests.VerifyRequest,
        statuses=_WORKS,
        failed=models.ErrorAnswer | models.VerifyAnswer | models.VerifiesAnswer,
    ),
    Operation(
        "UndoRun",
        "POST",
        "backup/undo/{*syncId:minlength(1)}",
        "Makes the backup what it was before a run, or before the last sync of each service of a set.",
        {200: models.RunAnswer | models.SyncsAnswer, 207: models.SyncsAnswer},
        body=requests.UndoRequest,
        statuses=_WORKS,
        failed=_RUN_FAILED | models.SyncsAnswer,
    ),
    Operation(
        "RestoreSource",
        "POST",
        f"backup/restore/{_ANY_REST}",
        "Writes the backup's state into the source, of one service or of a set.",
        {200: models.RunAnswer | models.SyncsAnswer, 207: models.SyncsAnswer},
        body=requests.RestoreRequest,
        statuses=_WORKS,
        failed=_RUN_FAILED | models.SyncsAnswer,
    ),
    Operation(
        "InitializeBackup",
        "POST",
        "backup/initialize",
        "Creates what is missing of the backups.",
        {200: models.InitializeAnswer, 207: models.InitializeAnswer},
        statuses=_WORKS,
        failed=models.ErrorAnswer | models.InitializeAnswer,
    ),
    Operation(
        "ExamineSetup",
        "POST",
        "backup/doctor",
        "Examines settings, rights, clocks, storage and jobs, and changes nothing.",
        {200: models.DoctorAnswer},
        statuses=(400, 500),
    ),
    Operation(
        "HealthCheck",
        "GET",
        "health",
        "Says whether the app is up; asks every side if `deep`.",
        {200: models.HealthAnswer, 503: models.HealthAnswer},
        query={"deep": _FLAG},
        statuses=(400,),
        anonymous=True,
    ),
    Operation(
        "Dashboard",
        "GET",
        "dashboard",
        "The page. It holds no data.",
        {200: str, 301: None, 304: None},
        statuses=(),
        anonymous=True,
        media="text/html",
    ),
    Operation(
        "DashboardFile",
        "GET",
        "dashboard/{*file:minlength(1)}",
        "A file of the page.",
        {200: str, 304: None, 404: str},
        statuses=(),
        anonymous=True,
        media="*/*",
    ),
    Operation(
        "GetOpenApi",
        "GET",
        "openapi.json",
        "Describes every endpoint, in OpenAPI 3.1.",
        {200: dict[str, Any]},
        statuses=(400,),
    ),
    Operation(
        "StartSync",
        "POST",
        "sync/start",
        "Queues a sync of one service, or of all of them.",
        {202: jobs.StartedAnswer},
        body=job_api.StartRequest,
        statuses=_LOOKS,
    ),
    Operation("GetJob", "GET", "sync/job/{jobId}", "A job and its states.", {200: jobs.JobAnswer}, statuses=_LOOKS),
    Operation(
        "GetHistory",
        "GET",
        "sync/history",
        "Runs of all services, newest first, a page at a time.",
        {200: jobs.RunsAnswer},
        query={
            "service": _NAME,
            "status": _one_of(*Status),
            "verb": _one_of(*Verb),
            "from": _TIME,
            "to": _TIME,
            "q": _TEXT,
            **_PAGE,
        },
    ),
    Operation(
        "ListJobs",
        "GET",
        "sync/dashboard/jobs",
        "Jobs, newest first, a page at a time; failures first where no state is asked for.",
        {200: jobs.JobsAnswer},
        query={"state": _one_of(*State), "type": _NAME, "q": _TEXT, **_PAGE},
    ),
    Operation(
        "GetJobDetails",
        "GET",
        "sync/dashboard/jobs/{id}",
        "A job with its states, its run and its log.",
        {200: jobs.JobDetailsAnswer},
        statuses=_LOOKS,
    ),
    Operation(
        "RetryJob",
        "POST",
        "sync/dashboard/jobs/{id}/retry",
        "Queues an ended job again.",
        {200: jobs.JobDoneAnswer},
        statuses=_WORKS,
    ),
    Operation(
        "DeleteJob",
        "DELETE",
        "sync/dashboard/jobs/{id}",
        "Deletes a job, or asks a running job to stop.",
        {200: jobs.JobDoneAnswer, 202: jobs.JobDoneAnswer},
        statuses=_LOOKS,
    ),
    Operation(
        "ChangeJobs",
        "POST",
        "sync/dashboard/jobs/bulk",
        "Retries or deletes many jobs.",
        {200: jobs.BulkAnswer},
        body=dashboard_api.BulkRequest,
    ),
    Operation(
        "GetSummary",
        "GET",
        "sync/dashboard/summary",
        "The numbers of a day, and the state of the queue.",
        {200: jobs.SummaryAnswer},
        query={"date": {"type": "string", "format": "date"}, "limit": _number(20, 200), "cursor": _CURSOR},
    ),
    Operation(
        "GetStats",
        "GET",
        "sync/dashboard/stats",
        "The numbers of each service, a page at a time.",
        {200: jobs.StatsAnswer},
        query={"days": _number(30, 366), "limit": _number(10, 50), "cursor": _CURSOR},
    ),
    Operation(
        "GetMetrics",
        "GET",
        "metrics",
        "Numbers of runs, services and jobs, in the text format of Prometheus.",
        {200: str},
        media="text/plain",
    ),
    Operation(
        "GetSessionStats",
        "GET",
        "sync/session/stats",
        "The logins and connections of the process that answers.",
        {200: jobs.SessionStatsAnswer},
    ),
    Operation(
        "GetCaller",
        "GET",
        "sync/dashboard/me",
        "Who asks, and whether this caller may write.",
        {200: jobs.CallerAnswer},
        statuses=(400, 500),
    ),
    Operation(
        "GetOverview",
        "GET",
        "sync/dashboard/overview",
        "Every service at a glance, the worst first, a page at a time.",
        {200: jobs.OverviewAnswer},
        query={"q": _TEXT, "limit": _number(10, 200), "cursor": _CURSOR},
    ),
    Operation(
        "GetCalendar",
        "GET",
        "sync/dashboard/calendar",
        "Runs due and made, changed records and durations, by day.",
        {200: jobs.CalendarAnswer},
        query={"service": _NAME, "days": _number(30, 366)},
        statuses=_LOOKS,
    ),
    Operation(
        "GetRun",
        "GET",
        "sync/dashboard/runs/{id}",
        "The summary of a run.",
        {200: jobs.RunDetails},
        statuses=_LOOKS,
    ),
    Operation(
        "GetRunChanges",
        "GET",
        "sync/dashboard/runs/{id}/changes",
        "What a run did to records, a page at a time.",
        {200: jobs.ChangesAnswer},
        query={"only": _one_of("inserted", "updated", "deleted"), "limit": _number(50, 500), "cursor": _CURSOR},
        statuses=_LOOKS,
    ),
    Operation(
        "GetChangedRecord",
        "GET",
        "sync/dashboard/runs/{id}/changes/record",
        "One record before and after a run.",
        {200: jobs.ChangedRecordAnswer},
        query={"key": {**_TEXT, "required": True}},
        statuses=_LOOKS,
    ),
    Operation(
        "RestoreOfRun",
        "POST",
        "sync/dashboard/runs/{id}/restore",
        "Writes records that a run changed back into the source.",
        {200: models.RunAnswer},
        body=dashboard_api.RestoreOfRunRequest,
        statuses=_WORKS,
        failed=_RUN_FAILED,
    ),
    Operation(
        "UndoOfRun",
        "POST",
        "sync/dashboard/runs/{id}/undo",
        "Makes the backup what it was before a run.",
        {200: models.RunAnswer},
        body=dashboard_api.UndoOfRunRequest,
        statuses=_WORKS,
        failed=_RUN_FAILED,
    ),
    Operation(
        "StartVerify",
        "POST",
        "sync/dashboard/verify",
        "Queues a verify or a restore drill.",
        {202: jobs.VerifyStartedAnswer},
        body=dashboard_api.VerifyJobRequest,
        statuses=_LOOKS,
    ),
    Operation(
        "TestNotifications",
        "POST",
        "sync/dashboard/notify/test",
        "Sends a test event to each sink.",
        {200: jobs.SinksAnswer, 207: jobs.SinksAnswer, 503: jobs.SinksAnswer},
        statuses=(400, 500),
    ),
)
