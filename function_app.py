"""The triggers: parse, call, respond. What they do lives in backup/."""

from __future__ import annotations

import logging
from collections.abc import Callable

import azure.functions as func

from backup.config.settings import load_settings, schedule_binding
from backup.core import interrupts
from backup.core.log import quiet_libraries
from backup.entry import http
from backup.entry.requests import parse_service
from backup.entry.timer import last_firing, resume_open, run_scheduled
from backup.runs.runner import foreseen
from backup.services.registry import Registry

quiet_libraries()
logging.getLogger("backup").setLevel(logging.INFO)
interrupts.handle_sigterm()

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


def _registry() -> Registry:
    return Registry(load_settings())


def _service(req: func.HttpRequest) -> str:
    return parse_service(req.route_params.get("service", ""))


def _respond(work: Callable[[], http.Answer]) -> func.HttpResponse:
    try:
        answer = work()
    except Exception as error:
        answer = http.error_answer(foreseen(error))
    return func.HttpResponse(answer.json, status_code=answer.status, mimetype="application/json")


@app.route("backup/sync", methods=["POST"])
def TriggerSync(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/backup/sync: one service or all of them."""
    return _respond(lambda: http.post_sync(_registry(), req.params, req.get_body()))


@app.route("backup/sync/customer", methods=["POST"])
def SyncCustomer(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/backup/sync/customer?force=true&dryRun=true&allowMassDelete=true"""
    return _respond(lambda: http.post_sync_of(_registry(), "customer", req.params, req.get_body()))


@app.route("backup/sync/order", methods=["POST"])
def SyncOrder(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/backup/sync/order?force=true&dryRun=true&allowMassDelete=true"""
    return _respond(lambda: http.post_sync_of(_registry(), "order", req.params, req.get_body()))


# A service's name may have slashes, so it is all the rest of an address. Azure tries longer routes first, and the rest
# may be empty: without minlength(1) this route would take the requests of TriggerSync.
@app.route("backup/sync/{*service:minlength(1)}", methods=["POST"])
def SyncService(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/backup/sync/{*service}?force=true&dryRun=true&allowMassDelete=true"""
    return _respond(lambda: http.post_sync_of(_registry(), _service(req), req.params, req.get_body()))


@app.route("backup/verify/{*service:minlength(1)}", methods=["POST"])
def VerifyBackup(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/backup/verify/{*service}: compares source and backup."""
    return _respond(lambda: http.post_verify(_registry(), _service(req), req.params, req.get_body()))


@app.route("backup/undo/{syncId}", methods=["POST"])
def UndoRun(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/backup/undo/{syncId}: makes the backup what it was before that run."""
    return _respond(lambda: http.post_undo(_registry(), req.route_params["syncId"], req.params, req.get_body()))


@app.route("backup/restore/{*service:minlength(1)}", methods=["POST"])
def RestoreSource(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/backup/restore/{*service}: writes the backup's state into the source."""
    return _respond(lambda: http.post_restore(_registry(), _service(req), req.params, req.get_body()))


@app.route("backup/initialize", methods=["POST"])
def InitializeBackup(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/backup/initialize: makes what the backups need."""
    return _respond(lambda: http.post_initialize(_registry(), req.params, req.get_body()))


@app.route("health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def HealthCheck(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/health?deep=true"""
    return _respond(lambda: http.get_health(_registry, req.params))


@app.timer_trigger(arg_name="timer", schedule=schedule_binding("schedule"))
def ScheduledSync(timer: func.TimerRequest) -> None:
    """Every service, on the schedule. Fails after all had their turn, so that whoever watches invocations sees it."""
    settings = load_settings()
    last = last_firing(getattr(timer, "schedule_status", None))  # the library's abstract class does not declare it
    run_scheduled(settings, Registry(settings), past_due=timer.past_due, last=last)


@app.timer_trigger(arg_name="timer", schedule=schedule_binding("resume_schedule"))
def ResumeSync(timer: func.TimerRequest) -> None:
    """Syncs that were left open, for their time was up or their process died; purges and verifies that are due."""
    settings = load_settings()
    resume_open(settings, Registry(settings))
