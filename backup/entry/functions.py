"""What the functions of the app do: a table of those that answer HTTP, and what timers and messages start.

function_app.py loads this with the first call, so that the host sees the functions of a cold app at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from backup.entry.record_concerns import concerns_by_records
from backup.entry.requests import parse_service, whole_body, whole_query
from backup.entry.telemetry_switch import switch_on
from backup.entry.timer import last_firing
from backup.jobs.job_queue import JobQueue, job_queue_of
from backup.notify.after_runs import watcher_of
from backup.runs.condition import Concern
from backup.services.registry import Registry


class HostRequest(Protocol):
    """A request, as the host gives it."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> str: ...
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
        return self.open_registry()

    def open_registry(self) -> Registry:
        """Makes what `registry` is, anew."""
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
    """A call of a function that answers HTTP. It works by `call.answer = call.work(call)`."""

    def __init__(self, name: str, request: HostRequest, context: Any, stack: ExitStack) -> None:
        """`stack` ends with the call."""
        self._name, self.request, self._context, self._stack = name, request, context, stack
        self.answer = Answer(500, {})  # until there is another

    @property
    def work(self) -> Callable[[HttpCall], Answer]:
        """What makes the answer. Checks who asks before, unless the function is anonymous. Raises BackupError."""
        if self._name not in ANONYMOUS:
            self.who = permitted(self.request.method, self.request.headers)
        return WORK[self._name]

    @cached_property
    def registry(self) -> Registry:
        """As of any `App`. Who asks for it may run something: from now on the call is traced."""
        self._stack.enter_context(self.traced(self._context))
        return self.open_registry()

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the address. Raises BadRequest for one without a value."""
        return whole_query(self.request.params, self.request.url)

    @property
    def body(self) -> bytes:
        """The body of the request. Raises BadRequest for one that has not arrived."""
        return whole_body(self.request.get_body(), self.request.headers)

    def part(self, name: str) -> str:
        """The part of the address that the route calls so."""
        return self.request.route_params[name]

    def rest(self, name: str) -> str:
        """The rest of the address, which may be empty and may have slashes: a service, a set, a pattern or a run."""
        return parse_service(self.request.route_params.get(name, ""))


@contextmanager
def answering(name: str, request: HostRequest, context: Any) -> Iterator[HttpCall]:
    """Inside, the call gets the answer of the function of this name; it gets that of an error if one is raised."""
    with ExitStack() as stack:
        call = HttpCall(name, request, context, stack)
        try:
            yield call
        except Exception as error:
            call.answer = error_answer(as_backup_error(error))


def _description(query: Mapping[str, str]) -> Answer:
    from backup.entry.openapi import get_description  # no other function needs the models of answers

    return get_description(query)


def _health(call: HttpCall) -> Answer:
    def concerns(registry: Registry) -> Sequence[Concern]:
        return concerns_by_records(call.settings, call.job_queue, registry.directory.entries)

    return http.get_health(call.open_registry, call.query, concerns)


WORK: Mapping[str, Callable[[HttpCall], Answer]] = {
    "TriggerSync": lambda call: http.post_sync(call.registry, call.query, call.body),
    "SyncCustomer": lambda call: http.post_sync_of(call.registry, "customer", call.query, call.body),
    "SyncOrder": lambda call: http.post_sync_of(call.registry, "order", call.query, call.body),
    "SyncService": lambda call: http.post_sync_of(call.registry, call.rest("service"), call.query, call.body),
    "VerifyBackup": lambda call: http.post_verify(call.registry, call.rest("service"), call.query, call.body),
    "UndoRun": lambda call: http.post_undo(call.registry, call.rest("syncId"), call.query, call.body),
    "RestoreSource": lambda call: http.post_restore(call.registry, call.rest("service"), call.query, call.body),
    "InitializeBackup": lambda call: http.post_initialize(call.registry, call.query, call.body),
    "ExamineSetup": lambda call: doctor_api.post_doctor(load_settings, call.query, call.body),
    "StartSync": lambda call: job_api.post_start(call.job_queue, call.registry, call.query, call.body, call.who),
    "GetJob": lambda call: job_api.get_job(call.job_queue, call.part("jobId"), call.query),
    "GetHistory": lambda call: job_api.get_history(call.job_queue, call.settings, call.query),
    "ListJobs": lambda call: job_api.get_jobs(call.job_queue, call.settings, call.query),
    "GetJobDetails": lambda call: job_api.get_job_details(call.job_queue, call.part("id"), call.query),
    "RetryJob": lambda call: job_api.post_retry(call.job_queue, call.part("id"), call.query, call.body, call.who),
    "DeleteJob": lambda call: job_api.delete_job(call.job_queue, call.part("id"), call.query, call.who),
    "GetSummary": lambda call: job_api.get_summary(call.job_queue, call.query),
    "GetStats": lambda call: job_api.get_stats(call.job_queue, call.settings, call.registry, call.query),
    "GetMetrics": lambda call: get_metrics(call.job_queue, call.settings, call.registry, call.query),
    "GetSessionStats": lambda call: session_api.get_session_stats(call.query),
    "GetCaller": lambda call: dashboard_api.get_caller(call.request.headers, call.query),
    "GetOverview": lambda call: dashboard_api.get_overview(call.job_queue, call.settings, call.registry, call.query),
    "GetCalendar": lambda call: dashboard_api.get_calendar(call.job_queue, call.settings, call.registry, call.query),
    "GetRun": lambda call: dashboard_api.get_run(call.job_queue, call.registry, call.part("id"), call.query),
    "GetRunChanges": lambda call: dashboard_api.get_run_changes(
        call.job_queue, call.registry, call.part("id"), call.query
    ),
    "GetChangedRecord": lambda call: dashboard_api.get_changed_record(
        call.job_queue, call.registry, call.part("id"), call.query
    ),
    "RestoreOfRun": lambda call: dashboard_api.post_run_restore(
        call.job_queue, call.registry, call.part("id"), call.query, call.body
    ),
    "UndoOfRun": lambda call: dashboard_api.post_run_undo(
        call.job_queue, call.registry, call.part("id"), call.query, call.body
    ),
    "StartVerify": lambda call: dashboard_api.post_verify_job(
        call.job_queue, call.registry, call.query, call.body, call.who
    ),
    "ChangeJobs": lambda call: dashboard_api.post_bulk(call.job_queue, call.query, call.body, call.who),
    "TestNotifications": lambda call: notify_api.post_test(call.settings, call.query, call.body),
    "HealthCheck": _health,
    "GetOpenApi": lambda call: _description(call.query),
}
"""What makes the answer, by the function's name."""

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
