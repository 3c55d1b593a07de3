"""What the functions of the app do: a table of those that answer HTTP, and what timers and messages start.

function_app.py loads this with the first call, so that the host sees the functions of a cold app at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol

from backup.config.settings import Settings, load_settings
from backup.core import spans
from backup.core.unexpected import as_backup_error
from backup.entry import dashboard_api, doctor_api, http, job_api, notify_api, session_api
from backup.entry.access import permitted
from backup.entry.answers import Answer, error_answer
from backup.entry.job_timer import each_minute, log_poisoned, on_schedule, work_on
from backup.entry.metrics import get_metrics
from backup.entry.requests import parse_service
from backup.entry.telemetry_switch import switch_on
from backup.entry.timer import last_firing
from backup.jobs.job_queue import JobQueue, job_queue_of
from backup.notify.after_runs import watcher_of
from backup.notify.concerns import concerns_now
from backup.runs.condition import Concern
from backup.services.registry import Registry


class HostRequest(Protocol):
    """A request, as the host gives it."""

    @property
    def method(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def params(self) -> Mapping[str, str]: ...
    @property
    def route_params(self) -> Mapping[str, str]: ...
    def get_body(self) -> bytes: ...


class App:
    """The settings, and what is made of them, for one call: read once, when first asked for. With hundreds of services
    reading them costs more than many an answer."""

    who: str | None = None
    """The name of the person who asks; None where nobody is known."""

    @cached_property
    def settings(self) -> Settings:
        """The settings as they are now. Raises ConfigError for those that cannot be used."""
        return load_settings()

    @cached_property
    def job_queue(self) -> JobQueue:
        """The records of jobs."""
        return job_queue_of(self.settings)

    @cached_property
    def registry(self) -> Registry:
        """The services. What they run is in the name of who asks."""
        return Registry(self.settings, watcher=watcher_of(self.settings, self.job_queue, self.who))

    @contextmanager
    def traced(self, context: Any) -> Iterator[None]:
        """Inside, spans of runs are parts of the host's invocation, if telemetry is switched on."""
        switch_on(lambda: self.settings)
        host = getattr(context, "trace_context", None)
        with spans.under(host and host.trace_parent, host and host.trace_state):
            yield


# --- HTTP -------------------------------------------------------------------------------------------------------------


class HttpCall(App):
    """A call of a function that answers HTTP. It works by `call.answer = call.work(*call.arguments)`."""

    def __init__(self, request: HostRequest, work: HttpWork, *, is_anonymous: bool) -> None:
        self.request, self.work, self._takes = request, work.function, work.takes
        self._is_anonymous = is_anonymous
        self.answer = Answer(500, {})  # until there is another

    @property
    def arguments(self) -> list[Any]:
        """What the work takes. Checks who asks before, unless the function is anonymous. Raises BackupError."""
        if not self._is_anonymous:
            self.who = permitted(self.request.method, self.request.headers)
        return [take(self) for take in self._takes]


class HttpWork:
    """What makes a function's answer, and what that takes of the call, in order."""

    def __init__(self, function: Callable[..., Answer], *takes: Callable[[HttpCall], Any]) -> None:
        self.function, self.takes = function, takes


@contextmanager
def answering(name: str, request: HostRequest, context: Any) -> Iterator[HttpCall]:
    """Inside, the call gets the answer of the function of this name; it gets that of an error if one is raised."""
    call = HttpCall(request, WORK[name], is_anonymous=name in ANONYMOUS)
    try:
        if _registry not in WORK[name].takes:
            yield call
            return
        with call.traced(context):  # it may run something
            yield call
    except Exception as error:
        call.answer = error_answer(as_backup_error(error))


def _settings(call: HttpCall) -> Settings:
    return call.settings


def _job_queue(call: HttpCall) -> JobQueue:
    return call.job_queue


def _registry(call: HttpCall) -> Registry:
    return call.registry


def _who(call: HttpCall) -> str | None:
    return call.who


def _query(call: HttpCall) -> Mapping[str, str]:
    return call.request.params


def _body(call: HttpCall) -> bytes:
    return call.request.get_body()


def _service(call: HttpCall) -> str:
    return parse_service(call.request.route_params.get("service", ""))


def _sync_id(call: HttpCall) -> str:
    return parse_service(call.request.route_params.get("syncId", ""))


def _id(call: HttpCall) -> str:
    return call.request.route_params["id"]


def _job_id(call: HttpCall) -> str:
    return call.request.route_params["jobId"]


def _registry_later(call: HttpCall) -> Callable[[], Registry]:
    return lambda: call.registry


def _concerns(call: HttpCall) -> Callable[[Registry], Sequence[Concern]]:
    return lambda registry: concerns_now(call.settings, call.job_queue, registry.directory.entries)


def _description(query: Mapping[str, str]) -> Answer:
    from backup.entry.openapi import get_description  # no other function needs the models of answers

    return get_description(query)


_LOOK = (_job_queue, _settings, _registry, _query)
_RUN = (_job_queue, _registry, _id, _query)

WORK: Mapping[str, HttpWork] = {
    "TriggerSync": HttpWork(http.post_sync, _registry, _query, _body),
    "SyncCustomer": HttpWork(http.post_sync_of, _registry, lambda _: "customer", _query, _body),
    "SyncOrder": HttpWork(http.post_sync_of, _registry, lambda _: "order", _query, _body),
    "SyncService": HttpWork(http.post_sync_of, _registry, _service, _query, _body),
    "VerifyBackup": HttpWork(http.post_verify, _registry, _service, _query, _body),
    "UndoRun": HttpWork(http.post_undo, _registry, _sync_id, _query, _body),
    "RestoreSource": HttpWork(http.post_restore, _registry, _service, _query, _body),
    "InitializeBackup": HttpWork(http.post_initialize, _registry, _query, _body),
    "ExamineSetup": HttpWork(doctor_api.post_doctor, lambda _: load_settings, _query, _body),
    "StartSync": HttpWork(job_api.post_start, _job_queue, _registry, _query, _body, _who),
    "GetJob": HttpWork(job_api.get_job, _job_queue, _job_id, _query),
    "GetHistory": HttpWork(job_api.get_history, _job_queue, _query),
    "ListJobs": HttpWork(job_api.get_jobs, _job_queue, _query),
    "GetJobDetails": HttpWork(job_api.get_job_details, _job_queue, _id, _query),
    "RetryJob": HttpWork(job_api.post_retry, _job_queue, _id, _query, _body, _who),
    "DeleteJob": HttpWork(job_api.delete_job, _job_queue, _id, _query, _who),
    "GetSummary": HttpWork(job_api.get_summary, _job_queue, _query),
    "GetStats": HttpWork(job_api.get_stats, *_LOOK),
    "GetMetrics": HttpWork(get_metrics, *_LOOK),
    "GetSessionStats": HttpWork(session_api.get_session_stats, _query),
    "GetCaller": HttpWork(dashboard_api.get_caller, lambda call: call.request.headers, _query),
    "GetOverview": HttpWork(dashboard_api.get_overview, *_LOOK),
    "GetCalendar": HttpWork(dashboard_api.get_calendar, *_LOOK),
    "GetRun": HttpWork(dashboard_api.get_run, *_RUN),
    "GetRunChanges": HttpWork(dashboard_api.get_run_changes, *_RUN),
    "GetChangedRecord": HttpWork(dashboard_api.get_changed_record, *_RUN),
    "RestoreOfRun": HttpWork(dashboard_api.post_run_restore, *_RUN, _body),
    "UndoOfRun": HttpWork(dashboard_api.post_run_undo, *_RUN, _body),
    "StartVerify": HttpWork(dashboard_api.post_verify_job, _job_queue, _registry, _query, _body, _who),
    "ChangeJobs": HttpWork(dashboard_api.post_bulk, _job_queue, _query, _body, _who),
    "TestNotifications": HttpWork(notify_api.post_test, _settings, _query, _body),
    "HealthCheck": HttpWork(http.get_health, _registry_later, _query, _concerns),
    "GetOpenApi": HttpWork(_description, _query),
}
"""By the function's name."""

ANONYMOUS = frozenset({"HealthCheck"})
"""The functions that anybody may call."""


# --- timers and messages ----------------------------------------------------------------------------------------------


def scheduled_sync(past_due: bool, status: Mapping[str, str] | None, context: Any) -> None:
    """Queues or syncs every service. Raises BackupError if an inline sync failed, after all had their turn.

    `status`: what the host says of the timer's last firing.
    """
    app = App()
    with app.traced(context):
        on_schedule(app.settings, app.registry, app.job_queue, past_due=past_due, last=last_firing(status))


def resume_sync(context: Any) -> None:
    """Rings for waiting jobs, resumes open syncs, does due purges and verifies. Raises as `each_minute`."""
    app = App()
    with app.traced(context):
        each_minute(app.settings, app.registry, app.job_queue)


def work_on_job(message: bytes, context: Any) -> None:
    """Works on a waiting job. Raises BackupError if the job has failed for good; its record says so before."""
    app = App()
    with app.traced(context):
        work_on(app.settings, app.job_queue, _id_in(message))


def poisoned_job(message: bytes) -> None:
    """Logs a message that the host gave up. Its job is still in the records, and the sweeper rings again for it."""
    log_poisoned(App().job_queue, _id_in(message))


def _id_in(message: bytes) -> str:
    """The beginning of the message, which is the whole id of a job unless somebody else has sent it."""
    return message.decode(errors="replace")[:100]
