"""The HTTP functions of the app in one table: routes, parameters, bodies, models. Their description is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backup.core.run_values import Status, Verb
from backup.entry import answer_models as models
from backup.entry import dashboard_api, job_api, requests
from backup.entry import dashboard_models as page
from backup.entry import job_models as jobs
from backup.entry import number_models as numbers
from backup.entry.operation import LISTS, LOOKS, WORKS, Operation, Schema, getting, posting
from backup.jobs.job import State


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": [*values]}


def _number(default: int, maximum: int) -> Schema:
    return {"type": "integer", "minimum": 1, "maximum": maximum, "default": default}


_TEXT: Schema = {"type": "string", "minLength": 1}
_NAME: Schema = {**_TEXT, "description": "The name of a service; case does not count."}
_SET: Schema = {**_TEXT, "description": "The name of a set; case does not count."}
_CURSOR: Schema = {**_TEXT, "description": "The cursor that the page before gave."}
_TIME: Schema = {"type": "string", "format": "date-time"}
_DATE: Schema = {"type": "string", "format": "date"}
_FLAG: Schema = {"type": "boolean", "default": False}
_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": requests.LIMIT_AT_MOST}
_OPTIONS = {"force": _FLAG, "dryRun": _FLAG, "allowMassDelete": _FLAG, "limit": _LIMIT}
_PAGE = {"limit": _number(50, 200), "cursor": _CURSOR}
_RUNS = {"service": _NAME, "status": _one_of(*Status), "verb": _one_of(*Verb), "from": _TIME, "to": _TIME, "q": _TEXT}
_ONLY = _one_of("inserted", "updated", "deleted")

_ANY_SERVICE = "{*service:minlength(1)}"
_RUN, _SYNCS, _VERIFIES = models.RunAnswer, models.SyncsAnswer, models.VerifiesAnswer
_RUN_FAILED = models.ErrorAnswer | _RUN
_SYNCS_FAILED = models.ErrorAnswer | _SYNCS
_EITHER, _EITHER_FAILED = _RUN | _SYNCS, _RUN_FAILED | _SYNCS
_VERIFY = models.VerifyAnswer | _VERIFIES
_INITIALIZED = models.InitializeAnswer


def _post_sync(function: str, route: str, summary: str, answers: Mapping[int, Any], failed: Any) -> Operation:
    return Operation(function, "POST", route, summary, answers, WORKS, query=_OPTIONS, failed=failed)


def _page_file(function: str, route: str, summary: str, answers: Mapping[int, Any], media: str) -> Operation:
    return Operation(function, "GET", route, summary, answers, (), anonymous=True, media=media)


OPERATIONS: Sequence[Operation] = (
    posting(
        "TriggerSync",
        "backup/sync",
        "Syncs one service, or all of them.",
        {200: _SYNCS, 202: _SYNCS, 207: _SYNCS},
        requests.SyncRequest,
        failed=_SYNCS_FAILED,
    ),
    _post_sync(
        "SyncCustomer", "backup/sync/customer", "Syncs the service customer.", {200: _RUN, 202: _RUN}, _RUN_FAILED
    ),
    _post_sync("SyncOrder", "backup/sync/order", "Syncs the service order.", {200: _RUN, 202: _RUN}, _RUN_FAILED),
    _post_sync(
        "SyncService",
        f"backup/sync/{_ANY_SERVICE}",
        "Syncs any service by its name, or all.",
        {200: _EITHER, 202: _EITHER, 207: _SYNCS},
        _EITHER_FAILED,
    ),
    posting(
        "VerifyBackup",
        f"backup/verify/{_ANY_SERVICE}",
        "Compares source and backup, of one service or all.",
        {200: _VERIFY, 207: _VERIFIES},
        requests.VerifyRequest,
        failed=models.ErrorAnswer | _VERIFY,
    ),
    posting(
        "UndoRun",
        "backup/undo/{*syncId:minlength(1)}",
        "Makes the backup what it was before a run, or before the last sync of each service of a set.",
        {200: _EITHER, 207: _SYNCS},
        requests.UndoRequest,
        failed=_EITHER_FAILED,
    ),
    posting(
        "RestoreSource",
        f"backup/restore/{_ANY_SERVICE}",
        "Writes the backup's state into the source, of one service or of a set.",
        {200: _EITHER, 207: _SYNCS},
        requests.RestoreRequest,
        failed=_EITHER_FAILED,
    ),
    posting(
        "InitializeBackup",
        "backup/initialize",
        "Creates what is missing of the backups.",
        {200: _INITIALIZED, 207: _INITIALIZED},
        failed=models.ErrorAnswer | _INITIALIZED,
    ),
    posting(
        "ExamineSetup",
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
        (400,),
        query={"deep": _FLAG},
        anonymous=True,
    ),
    _page_file("Dashboard", "dashboard", "The page. It holds no data.", {200: str, 301: None, 304: None}, "text/html"),
    _page_file(
        "DashboardFile", "dashboard/{*file:minlength(1)}", "A file of the page.", {200: str, 304: None, 404: str}, "*/*"
    ),
    getting("GetOpenApi", "openapi.json", "Describes every endpoint, in OpenAPI 3.1.", dict[str, Any], (400,)),
    posting(
        "StartSync",
        "sync/start",
        "Queues a sync of one service, or of all of them.",
        {202: jobs.StartedAnswer},
        job_api.StartRequest,
        LOOKS,
    ),
    getting("GetJob", "sync/job/{jobId}", "A job and its states.", jobs.JobAnswer, LOOKS),
    getting(
        "GetHistory",
        "sync/history",
        "Runs of all services, newest first, a page at a time.",
        jobs.RunsAnswer,
        query={**_RUNS, **_PAGE},
    ),
    getting(
        "ListJobs",
        "sync/dashboard/jobs",
        "Jobs, newest first, a page at a time; failures first where no state is asked for.",
        jobs.JobsAnswer,
        query={"state": _one_of(*State), "type": _NAME, "q": _TEXT, **_PAGE},
    ),
    getting(
        "GetJobDetails",
        "sync/dashboard/jobs/{id}",
        "A job with its states, its run and its log.",
        jobs.JobDetailsAnswer,
        LOOKS,
    ),
    posting("RetryJob", "sync/dashboard/jobs/{id}/retry", "Queues an ended job again.", {200: jobs.JobDoneAnswer}),
    Operation(
        "DeleteJob",
        "DELETE",
        "sync/dashboard/jobs/{id}",
        "Deletes a job, or asks a running job to stop.",
        {200: jobs.JobDoneAnswer, 202: jobs.JobDoneAnswer},
        LOOKS,
    ),
    posting(
        "ChangeJobs",
        "sync/dashboard/jobs/bulk",
        "Retries or deletes many jobs.",
        {200: jobs.BulkAnswer},
        dashboard_api.BulkRequest,
        LISTS,
    ),
    getting(
        "GetSummary",
        "sync/dashboard/summary",
        "The numbers of a day, and the state of the queue.",
        numbers.SummaryAnswer,
        query={"date": _DATE, "limit": _number(20, 200), "cursor": _CURSOR},
    ),
    getting(
        "GetStats",
        "sync/dashboard/stats",
        "The numbers of each service, a page at a time.",
        numbers.StatsAnswer,
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
    getting(
        "GetSessionStats",
        "sync/session/stats",
        "The logins and connections of the process that answers.",
        numbers.SessionStatsAnswer,
    ),
    getting(
        "GetCaller", "sync/dashboard/me", "Who asks, and whether this caller may write.", page.CallerAnswer, (400, 500)
    ),
    getting(
        "GetOverview",
        "sync/dashboard/overview",
        "Every service at a glance, or those of a set, the worst first, a page at a time.",
        page.OverviewAnswer,
        LOOKS,
        query={"q": _TEXT, "set": _SET, "limit": _number(10, 200), "cursor": _CURSOR},
    ),
    getting(
        "GetCalendar",
        "sync/dashboard/calendar",
        "Runs due and made, changed records and durations, by day.",
        numbers.CalendarAnswer,
        LOOKS,
        {"service": _NAME, "days": _number(30, 366)},
    ),
    getting("GetRun", "sync/dashboard/runs/{id}", "The summary of a run.", jobs.RunDetails, LOOKS),
    getting(
        "GetRunChanges",
        "sync/dashboard/runs/{id}/changes",
        "What a run did to records, a page at a time.",
        page.ChangesAnswer,
        LOOKS,
        {"only": _ONLY, "limit": _number(50, 500), "cursor": _CURSOR},
    ),
    getting(
        "GetChangedRecord",
        "sync/dashboard/runs/{id}/changes/record",
        "One record before and after a run.",
        page.ChangedRecordAnswer,
        LOOKS,
        {"key": {**_TEXT, "required": True}},
    ),
    posting(
        "RestoreOfRun",
        "sync/dashboard/runs/{id}/restore",
        "Writes records that a run changed back into the source.",
        {200: _RUN},
        dashboard_api.RestoreOfRunRequest,
        failed=_RUN_FAILED,
    ),
    posting(
        "UndoOfRun",
        "sync/dashboard/runs/{id}/undo",
        "Makes the backup what it was before a run.",
        {200: _RUN},
        dashboard_api.UndoOfRunRequest,
        failed=_RUN_FAILED,
    ),
    posting(
        "StartVerify",
        "sync/dashboard/verify",
        "Queues a verify or a restore drill.",
        {202: jobs.VerifyStartedAnswer},
        dashboard_api.VerifyJobRequest,
        LOOKS,
    ),
    posting(
        "TestNotifications",
        "sync/dashboard/notify/test",
        "Sends a test event to each sink.",
        {200: page.SinksAnswer, 207: page.SinksAnswer, 503: page.SinksAnswer},
        statuses=(400, 500),
    ),
)
