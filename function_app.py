"""The triggers: what the host hears of each function. What they do lives in backup/entry/functions.py."""

from __future__ import annotations

import logging

import azure.functions as func

from backup.config.bindings import QUEUE, RESUME_SCHEDULE, SCHEDULE, schedule_binding
from backup.core import interrupts
from backup.core.log import quiet_libraries

quiet_libraries()
logging.getLogger("backup").setLevel(logging.INFO)
interrupts.handle_sigterm()

_NONE: func.Context = None  # type: ignore[assignment] # the worker gives one to whoever asks, and takes no other type

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


def _answer(name: str, req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """Answers the request as the function of this name does."""
    from backup.entry import functions  # with the first call: until then the host need not wait for all of the app

    with functions.answering(name, req, context) as call:
        call.answer = call.work(call)
    answer, headers = call.answer, dict(call.answer.headers)
    return func.HttpResponse(answer.content, status_code=answer.status, mimetype=answer.media, headers=headers)


@app.route("backup/sync", methods=["POST"])
def TriggerSync(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/sync: one service or all of them."""
    return _answer("TriggerSync", req, context)


@app.route("backup/sync/customer", methods=["POST"])
def SyncCustomer(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/sync/customer?force=true&dryRun=true&allowMassDelete=true&limit=1000"""
    return _answer("SyncCustomer", req, context)


@app.route("backup/sync/order", methods=["POST"])
def SyncOrder(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/sync/order?force=true&dryRun=true&allowMassDelete=true&limit=1000"""
    return _answer("SyncOrder", req, context)


# A service's name may have slashes, so it is the whole rest of an address. Azure tries longer routes first, and a rest
# may be empty. Without minlength(1) this route would take the requests of TriggerSync.
@app.route("backup/sync/{*service:minlength(1)}", methods=["POST"])
def SyncService(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/sync/{*service}?force=true&dryRun=true&allowMassDelete=true&limit=1000"""
    return _answer("SyncService", req, context)


@app.route("backup/verify/{*service:minlength(1)}", methods=["POST"])
def VerifyBackup(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/verify/{*service}: compares source and backup."""
    return _answer("VerifyBackup", req, context)


@app.route("backup/undo/{*syncId:minlength(1)}", methods=["POST"])
def UndoRun(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/undo/{*syncId}: makes the backup what it was before that run, or before a set's last syncs."""
    return _answer("UndoRun", req, context)


@app.route("backup/restore/{*service:minlength(1)}", methods=["POST"])
def RestoreSource(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/restore/{*service}: writes the backup's state into the source."""
    return _answer("RestoreSource", req, context)


@app.route("backup/initialize", methods=["POST"])
def InitializeBackup(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/initialize: creates what is missing of the backups."""
    return _answer("InitializeBackup", req, context)


@app.route("backup/doctor", methods=["POST"])
def ExamineSetup(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/backup/doctor: examines settings, rights, clocks, storage and jobs, and changes nothing."""
    return _answer("ExamineSetup", req, context)


@app.route("sync/start", methods=["POST"])
def StartSync(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/sync/start: queues a sync."""
    return _answer("StartSync", req, context)


@app.route("sync/job/{jobId}", methods=["GET"])
def GetJob(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/sync/job/{jobId}: a job and its states."""
    return _answer("GetJob", req, context)


@app.route("sync/history", methods=["GET"])
def GetHistory(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/sync/history?service=&status=&verb=&from=&to=&limit=&cursor="""
    return _answer("GetHistory", req, context)


@app.route("sync/dashboard/jobs", methods=["GET"])
def ListJobs(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/sync/dashboard/jobs?state=&type=&q=&limit=&cursor="""
    return _answer("ListJobs", req, context)


@app.route("sync/dashboard/jobs/{id}", methods=["GET"])
def GetJobDetails(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/sync/dashboard/jobs/{id}: with its run and its log."""
    return _answer("GetJobDetails", req, context)


@app.route("sync/dashboard/jobs/{id}/retry", methods=["POST"])
def RetryJob(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/sync/dashboard/jobs/{id}/retry: queues an ended job again."""
    return _answer("RetryJob", req, context)


@app.route("sync/dashboard/jobs/{id}", methods=["DELETE"])
def DeleteJob(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """DELETE /api/sync/dashboard/jobs/{id}: deletes a job, or asks a running job to stop."""
    return _answer("DeleteJob", req, context)


@app.route("sync/dashboard/summary", methods=["GET"])
def GetSummary(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/sync/dashboard/summary?date="""
    return _answer("GetSummary", req, context)


@app.route("sync/dashboard/stats", methods=["GET"])
def GetStats(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/sync/dashboard/stats?days=&limit=&cursor="""
    return _answer("GetStats", req, context)


@app.route("metrics", methods=["GET"])
def GetMetrics(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/metrics: numbers of runs, services and jobs, in the text format of Prometheus."""
    return _answer("GetMetrics", req, context)


@app.route("sync/session/stats", methods=["GET"])
def GetSessionStats(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/sync/session/stats: the logins and connections of this process."""
    return _answer("GetSessionStats", req, context)


@app.route("sync/dashboard/me", methods=["GET"])
def GetCaller(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/sync/dashboard/me: who asks, and whether this caller may write."""
    return _answer("GetCaller", req, context)


@app.route("sync/dashboard/overview", methods=["GET"])
def GetOverview(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/sync/dashboard/overview?q=&set=&limit=&cursor=: a row for each service, the worst first."""
    return _answer("GetOverview", req, context)


@app.route("sync/dashboard/calendar", methods=["GET"])
def GetCalendar(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/sync/dashboard/calendar?service=&days=: runs due and made, changes and durations by day."""
    return _answer("GetCalendar", req, context)


@app.route("sync/dashboard/runs/{id}", methods=["GET"])
def GetRun(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/sync/dashboard/runs/{id}: the summary of a run."""
    return _answer("GetRun", req, context)


@app.route("sync/dashboard/runs/{id}/changes", methods=["GET"])
def GetRunChanges(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/sync/dashboard/runs/{id}/changes?only=&limit=&cursor=: what a run did to records."""
    return _answer("GetRunChanges", req, context)


@app.route("sync/dashboard/runs/{id}/changes/record", methods=["GET"])
def GetChangedRecord(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/sync/dashboard/runs/{id}/changes/record?key=: one record before and after a run."""
    return _answer("GetChangedRecord", req, context)


@app.route("sync/dashboard/runs/{id}/restore", methods=["POST"])
def RestoreOfRun(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/sync/dashboard/runs/{id}/restore: writes records that a run changed back into the source."""
    return _answer("RestoreOfRun", req, context)


@app.route("sync/dashboard/runs/{id}/undo", methods=["POST"])
def UndoOfRun(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/sync/dashboard/runs/{id}/undo: makes the backup what it was before a run."""
    return _answer("UndoOfRun", req, context)


@app.route("sync/dashboard/verify", methods=["POST"])
def StartVerify(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/sync/dashboard/verify: queues a verify or a restore drill."""
    return _answer("StartVerify", req, context)


@app.route("sync/dashboard/jobs/bulk", methods=["POST"])
def ChangeJobs(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/sync/dashboard/jobs/bulk: retries or deletes many jobs."""
    return _answer("ChangeJobs", req, context)


@app.route("sync/dashboard/notify/test", methods=["POST"])
def TestNotifications(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """POST /api/sync/dashboard/notify/test: sends a test event to each sink."""
    return _answer("TestNotifications", req, context)


@app.queue_trigger(arg_name="message", queue_name=QUEUE, connection="AzureWebJobsStorage")
def WorkOnJob(message: func.QueueMessage, context: func.Context = _NONE) -> None:
    """Works on a waiting job. Fails when the job has failed for good; its record says so before."""
    from backup.entry import functions

    functions.work_on_job(message.get_body(), context)


@app.queue_trigger(arg_name="message", queue_name=f"{QUEUE}-poison", connection="AzureWebJobsStorage")
def PoisonedJob(message: func.QueueMessage) -> None:
    """Logs a message that the host gave up. Its job is still in the records, and the sweeper rings again for it."""
    from backup.entry import functions

    functions.poisoned_job(message.get_body())


@app.route("health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def HealthCheck(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/health?deep=true"""
    return _answer("HealthCheck", req, context)


@app.route("openapi.json", methods=["GET"])
def GetOpenApi(req: func.HttpRequest, context: func.Context = _NONE) -> func.HttpResponse:
    """GET /api/openapi.json: the description of every endpoint."""
    return _answer("GetOpenApi", req, context)


def _file(req: func.HttpRequest, name: str) -> func.HttpResponse:
    """Answers with a file of the page."""
    from backup.entry.dashboard_files import served

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


@app.timer_trigger(arg_name="timer", schedule=schedule_binding(SCHEDULE))
def ScheduledSync(timer: func.TimerRequest, context: func.Context = _NONE) -> None:
    """Queues or syncs every service on the schedule. Fails if an inline sync failed, after all had their turn."""
    status = getattr(timer, "schedule_status", None)  # the library's abstract class does not declare it
    from backup.entry import functions

    functions.scheduled_sync(timer.past_due, status, context)


@app.timer_trigger(arg_name="timer", schedule=schedule_binding(RESUME_SCHEDULE))
def ResumeSync(timer: func.TimerRequest, context: func.Context = _NONE) -> None:
    """Rings for waiting jobs, resumes open syncs, does due purges and verifies."""
    from backup.entry import functions

    functions.resume_sync(context)
