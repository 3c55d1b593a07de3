"""The triggers: parse, call, respond. What they do lives in backup/."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import azure.functions as func

from backup.config.settings import Settings, load_settings, schedule_binding
from backup.core import interrupts, spans
from backup.core.log import quiet_libraries
from backup.entry import dashboard_api, doctor_api, http, job_api, notify_api, session_api
from backup.entry.access import permitted
from backup.entry.dashboard_files import served
from backup.entry.job_timer import each_minute, log_poisoned, on_schedule, work_on
from backup.entry.metrics import get_metrics
from backup.entry.requests import parse_service
from backup.entry.telemetry_switch import switch_on
from backup.entry.timer import last_firing
from backup.jobs.desk import Desk, desk_of
from backup.jobs.doorbell import QUEUE
from backup.notify.after_runs import watcher_of
from backup.notify.concerns import concerns_now
from backup.runs.condition import Concern
from backup.runs.runner import foreseen
from backup.services.registry import Registry

quiet_libraries()
logging.getLogger("backup").setLevel(logging.INFO)
interrupts.handle_sigterm()

_NONE: func.Context = None  # type: ignore[assignment] # the worker gives one to whoever asks, and takes no other type

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


def _registry(who: str | None = None) -> Registry:
    return _registry_of(load_settings(), who)


def _registry_of(settings: Settings, who: str | None = None) -> Registry:
    return Registry(settings, watcher=watcher_of(settings, desk_of(settings), who))


def _more_concerns(registry: Registry) -> list[Concern]:
    settings = load_settings()
    return concerns_now(settings, desk_of(settings), registry.directory.entries)


def _desk() -> Desk:
    return desk_of(load_settings())


def _service(req: func.HttpRequest) -> str:
    return parse_service(req.route_params.get("service", ""))


def _job_id(message: func.QueueMessage) -> str:
    """The beginning of the message, which is the whole id of a job unless somebody else has sent it."""
    return message.get_body().decode(errors="replace")[:100]


def _sync_id(req: func.HttpRequest) -> str:
    return parse_service(req.route_params.get("syncId", ""))


def _respond(
    req: func.HttpRequest, verb: Callable[..., http.Answer], *names: str | Callable[[func.HttpRequest], str]
) -> func.HttpResponse:
    """Calls `verb` with the registry, the names of the address, the query and the body; returns its answer."""
    with _answering() as reply:
        registry = _registry(permitted(req.method, req.headers))
        values = [name if isinstance(name, str) else name(req) for name in names]
        reply.answer = verb(registry, *values, req.params, req.get_body())
    return reply.response()


def _look(
    req: func.HttpRequest, look: Callable[[Desk, Settings, Registry, Mapping[str, str]], http.Answer]
) -> func.HttpResponse:
    """Calls `look` with the records, the settings, the services and the query; returns its answer. Reads the settings
    once: with hundreds of services they cost more than the look."""

    def work(_: str | None) -> http.Answer:
        settings = load_settings()
        return look(desk_of(settings), settings, _registry_of(settings), req.params)

    return _answered(req, work)


def _answered(req: func.HttpRequest, work: Callable[[str | None], http.Answer]) -> func.HttpResponse:
    """Calls `work` with the name of who asks and returns its answer, or the answer for its error."""
    with _answering() as reply:
        reply.answer = work(permitted(req.method, req.headers))
    return reply.response()


@dataclass
class _Reply:
    """The answer to a request; None until there is one."""

    answer: http.Answer | None = None

    def response(self) -> func.HttpResponse:
        """The answer as the host wants it."""
        answer = self.answer
        assert answer is not None  # noqa: S101 - for mypy; `_answering` has made it
        headers = dict(answer.headers)
        return func.HttpResponse(answer.content, status_code=answer.status, mimetype=answer.media, headers=headers)


@contextmanager
def _traced(context: func.Context) -> Iterator[None]:
    """Inside, spans of runs are parts of the invocation's, if telemetry is switched on."""
    switch_on(load_settings)
    host = getattr(context, "trace_context", None)
    with spans.under(host and host.trace_parent, host and host.trace_state):
        yield


@contextmanager
def _answering() -> Iterator[_Reply]:
    """Inside, a reply gets its answer; it gets that of an error if one is raised."""
    reply = _Reply()
    try:
        yield reply
    except Exception as error:
        reply.answer = http.error_answer(foreseen(error))


@app.route("backup/sync", methods=["POST"])
def TriggerSync(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/sync: one service or all of them."""
    with _traced(context):
        return _respond(req, http.post_sync)


@app.route("backup/sync/customer", methods=["POST"])
def SyncCustomer(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/sync/customer?force=true&dryRun=true&allowMassDelete=true&limit=1000"""
    with _traced(context):
        return _respond(req, http.post_sync_of, "customer")


@app.route("backup/sync/order", methods=["POST"])
def SyncOrder(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/sync/order?force=true&dryRun=true&allowMassDelete=true&limit=1000"""
    with _traced(context):
        return _respond(req, http.post_sync_of, "order")


# A service's name may have slashes, so it is the whole rest of an address. Azure tries longer routes first, and a rest
# may be empty. Without minlength(1) this route would take the requests of TriggerSync.
@app.route("backup/sync/{*service:minlength(1)}", methods=["POST"])
def SyncService(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/sync/{*service}?force=true&dryRun=true&allowMassDelete=true&limit=1000"""
    with _traced(context):
        return _respond(req, http.post_sync_of, _service)


@app.route("backup/verify/{*service:minlength(1)}", methods=["POST"])
def VerifyBackup(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/verify/{*service}: compares source and backup."""
    with _traced(context):
        return _respond(req, http.post_verify, _service)


@app.route("backup/undo/{*syncId:minlength(1)}", methods=["POST"])
def UndoRun(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/undo/{*syncId}: makes the backup what it was before that run, or before a set's last syncs."""
    with _traced(context):
        return _respond(req, http.post_undo, _sync_id)


@app.route("backup/restore/{*service:minlength(1)}", methods=["POST"])
def RestoreSource(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/restore/{*service}: writes the backup's state into the source."""
    with _traced(context):
        return _respond(req, http.post_restore, _service)


@app.route("backup/initialize", methods=["POST"])
def InitializeBackup(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/backup/initialize: creates what is missing of the backups."""
    return _respond(req, http.post_initialize)


@app.route("backup/doctor", methods=["POST"])
def ExamineSetup(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/backup/doctor: examines settings, rights, clocks, storage and jobs, and changes nothing."""
    return _answered(req, lambda _: doctor_api.post_doctor(load_settings, req.params, req.get_body()))


@app.route("sync/start", methods=["POST"])
def StartSync(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/sync/start: queues a sync."""
    return _answered(req, lambda who: job_api.post_start(_desk(), _registry(), req.params, req.get_body(), who))


@app.route("sync/job/{jobId}", methods=["GET"])
def GetJob(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/sync/job/{jobId}: a job and its states."""
    return _answered(req, lambda _: job_api.get_job(_desk(), req.route_params["jobId"], req.params))


@app.route("sync/history", methods=["GET"])
def GetHistory(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/sync/history?service=&status=&verb=&from=&to=&limit=&cursor="""
    return _answered(req, lambda _: job_api.get_history(_desk(), req.params))


@app.route("sync/dashboard/jobs", methods=["GET"])
def ListJobs(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/sync/dashboard/jobs?state=&type=&q=&limit=&cursor="""
    return _answered(req, lambda _: job_api.get_jobs(_desk(), req.params))


@app.route("sync/dashboard/jobs/{id}", methods=["GET"])
def GetJobDetails(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/sync/dashboard/jobs/{id}: with its run and its log."""
    return _answered(req, lambda _: job_api.get_job_details(_desk(), req.route_params["id"], req.params))


@app.route("sync/dashboard/jobs/{id}/retry", methods=["POST"])
def RetryJob(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/sync/dashboard/jobs/{id}/retry: queues an ended job again."""
    return _answered(
        req, lambda who: job_api.post_retry(_desk(), req.route_params["id"], req.params, req.get_body(), who)
    )


@app.route("sync/dashboard/jobs/{id}", methods=["DELETE"])
def DeleteJob(req: func.HttpRequest) -> func.HttpResponse:
    """DELETE /api/sync/dashboard/jobs/{id}: deletes a job, or asks a running job to stop."""
    return _answered(req, lambda who: job_api.delete_job(_desk(), req.route_params["id"], req.params, who))


@app.route("sync/dashboard/summary", methods=["GET"])
def GetSummary(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/sync/dashboard/summary?date="""
    return _answered(req, lambda _: job_api.get_summary(_desk(), req.params))


@app.route("sync/dashboard/stats", methods=["GET"])
def GetStats(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/sync/dashboard/stats?days=&limit=&cursor="""
    return _look(req, job_api.get_stats)


@app.route("metrics", methods=["GET"])
def GetMetrics(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/metrics: numbers of runs, services and jobs, in the text format of Prometheus."""
    return _look(req, get_metrics)


@app.route("sync/session/stats", methods=["GET"])
def GetSessionStats(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/sync/session/stats: the logins and connections of this process."""
    return _answered(req, lambda _: session_api.get_session_stats(req.params))


@app.route("sync/dashboard/me", methods=["GET"])
def GetCaller(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/sync/dashboard/me: who asks, and whether this caller may write."""
    return _answered(req, lambda _: dashboard_api.get_caller(req.headers, req.params))


@app.route("sync/dashboard/overview", methods=["GET"])
def GetOverview(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/sync/dashboard/overview?q=&limit=&cursor=: a row for each service, the worst first."""
    return _look(req, dashboard_api.get_overview)


@app.route("sync/dashboard/calendar", methods=["GET"])
def GetCalendar(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/sync/dashboard/calendar?service=&days=: runs due and made, changes and durations by day."""
    return _look(req, dashboard_api.get_calendar)


@app.route("sync/dashboard/runs/{id}", methods=["GET"])
def GetRun(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/sync/dashboard/runs/{id}: the summary of a run."""
    return _answered(req, lambda _: dashboard_api.get_run(_desk(), _registry(), req.route_params["id"], req.params))


@app.route("sync/dashboard/runs/{id}/changes", methods=["GET"])
def GetRunChanges(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/sync/dashboard/runs/{id}/changes?only=&limit=&cursor=: what a run did to records."""
    return _answered(
        req, lambda _: dashboard_api.get_run_changes(_desk(), _registry(), req.route_params["id"], req.params)
    )


@app.route("sync/dashboard/runs/{id}/changes/record", methods=["GET"])
def GetChangedRecord(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/sync/dashboard/runs/{id}/changes/record?key=: one record before and after a run."""
    return _answered(
        req, lambda _: dashboard_api.get_changed_record(_desk(), _registry(), req.route_params["id"], req.params)
    )


@app.route("sync/dashboard/runs/{id}/restore", methods=["POST"])
def RestoreOfRun(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/sync/dashboard/runs/{id}/restore: writes records that a run changed back into the source."""
    run_id = req.route_params["id"]
    return _answered(
        req, lambda who: dashboard_api.post_run_restore(_desk(), _registry(who), run_id, req.params, req.get_body())
    )


@app.route("sync/dashboard/runs/{id}/undo", methods=["POST"])
def UndoOfRun(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/sync/dashboard/runs/{id}/undo: makes the backup what it was before a run."""
    run_id = req.route_params["id"]
    return _answered(
        req, lambda who: dashboard_api.post_run_undo(_desk(), _registry(who), run_id, req.params, req.get_body())
    )


@app.route("sync/dashboard/verify", methods=["POST"])
def StartVerify(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/sync/dashboard/verify: queues a verify or a restore drill."""
    return _answered(
        req, lambda who: dashboard_api.post_verify_job(_desk(), _registry(), req.params, req.get_body(), who)
    )


@app.route("sync/dashboard/jobs/bulk", methods=["POST"])
def ChangeJobs(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/sync/dashboard/jobs/bulk: retries or deletes many jobs."""
    return _answered(req, lambda who: dashboard_api.post_bulk(_desk(), req.params, req.get_body(), who))


@app.route("sync/dashboard/notify/test", methods=["POST"])
def TestNotifications(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/sync/dashboard/notify/test: sends a test event to each sink."""
    return _answered(req, lambda _: notify_api.post_test(load_settings(), req.params, req.get_body()))


@app.queue_trigger(arg_name="message", queue_name=QUEUE, connection="AzureWebJobsStorage")
def WorkOnJob(message: func.QueueMessage, context: func.Context = _NONE) -> None:
    """Works on a waiting job. Fails when the job has failed for good; its record says so before."""
    with _traced(context):
        settings = load_settings()
        work_on(settings, desk_of(settings), _job_id(message))


@app.queue_trigger(arg_name="message", queue_name=f"{QUEUE}-poison", connection="AzureWebJobsStorage")
def PoisonedJob(message: func.QueueMessage) -> None:
    """Logs a message that the host gave up. Its job is still in the records, and the sweeper rings again for it."""
    log_poisoned(_desk(), _job_id(message))


@app.route("health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def HealthCheck(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/health?deep=true"""
    with _answering() as reply:
        reply.answer = http.get_health(_registry, req.params, _more_concerns)
    return reply.response()


@app.route("openapi.json", methods=["GET"])
def GetOpenApi(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/openapi.json: the description of every endpoint."""
    from backup.entry.openapi import get_description  # no other function needs the models of answers

    return _answered(req, lambda _: get_description(req.params))


def _file(req: func.HttpRequest, name: str) -> func.HttpResponse:
    file = served(name, req.url, req.headers.get("if-none-match"), req.headers.get("accept-encoding"))
    return func.HttpResponse(file.content, status_code=file.status, headers=file.headers)


@app.route("dashboard", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def Dashboard(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/dashboard: the page. It holds no data; what it asks for needs the key."""
    return _file(req, "")


@app.route("dashboard/{*file:minlength(1)}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def DashboardFile(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/dashboard/{*file}: a file of the page."""
    return _file(req, req.route_params["file"])


@app.timer_trigger(arg_name="timer", schedule=schedule_binding("schedule"))
def ScheduledSync(timer: func.TimerRequest, context: func.Context = _NONE) -> None:
    """Queues or syncs every service on the schedule. Fails if an inline sync failed, after all had their turn."""
    with _traced(context):
        settings = load_settings()
        last = last_firing(getattr(timer, "schedule_status", None))  # the library's abstract class does not declare it
        on_schedule(settings, _registry_of(settings), desk_of(settings), past_due=timer.past_due, last=last)


@app.timer_trigger(arg_name="timer", schedule=schedule_binding("resume_schedule"))
def ResumeSync(timer: func.TimerRequest, context: func.Context = _NONE) -> None:
    """Rings for waiting jobs, resumes open syncs, does due purges and verifies."""
    with _traced(context):
        settings = load_settings()
        each_minute(settings, _registry_of(settings), desk_of(settings))
