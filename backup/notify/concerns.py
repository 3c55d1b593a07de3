"""What health says by the records alone: silent services, and sinks that do not take their events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from backup.config.settings import Settings
from backup.core.errors import BackupError
from backup.core.suggestions import quantity
from backup.jobs.events import OVERDUE_HINT, hours, safe
from backup.jobs.job_queue import JobQueue
from backup.notify.delivery import delivery_of
from backup.notify.silence import Silence, look_around
from backup.notify.sink import Sink
from backup.notify.sink_state import STATES, SinkState
from backup.runs.condition import Concern

_FAILURES = 3  # a sink that restarts is not a concern
_SHOWN = timedelta(days=7)
_SINKS_AT_MOST = 200


def concerns_now(settings: Settings, job_queue: JobQueue, entries: Sequence[str]) -> list[Concern]:
    """Looks around, starts to deliver what that raised, and returns what is not well. Wakes no database. `entries` are
    the names of services, and of sets.

    Records that cannot be read are a concern too: nobody can tell then whether a service is overdue. So are records
    that cannot be written; they are tried.
    """
    try:
        silences = look_around(settings, job_queue, entries)
        delivery = delivery_of(settings, job_queue)
        delivery.start()
        concerns = [*map(_of_silence, silences), *_of_sinks(job_queue, delivery.sinks)]
    except BackupError as error:
        return [_of_records("The records of runs cannot be used, so nobody can tell whether a sync is overdue.", error)]
    try:
        job_queue.check_written()
    except BackupError as error:
        reason = "The records of jobs and runs cannot be written: no job is queued, and no run is recorded or told."
        concerns.append(_of_records(reason, error))
    return concerns


def _of_records(reason: str, error: BackupError) -> Concern:
    return Concern(reason, error=type(error).__name__, detail=str(error), detail_hint=error.hint)


def _of_silence(silence: Silence) -> Concern:
    error = silence.failure.get("error")
    limit = quantity(hours(silence.limit), "hour")
    return Concern(
        f"No sync has succeeded for longer than {limit} (MaxAgeHours).",
        silence.service,
        since=silence.since,
        detail=f"The last one that failed: {safe(error)}" if error else "",
        detail_hint=OVERDUE_HINT,
    )


def _of_sinks(job_queue: JobQueue, sinks: Sequence[Sink]) -> list[Concern]:
    items = {item.key.removeprefix(STATES): item.value for item in job_queue.keys.scan(STATES, limit=_SINKS_AT_MOST)}
    now = job_queue.now()
    concerns = []
    for sink in sinks:
        if sink.name not in items:
            continue
        state = SinkState.from_json(items[sink.name])
        if state.failures >= _FAILURES and state.label == sink.label:
            reason = f"The sink {sink.name} takes no events. They wait."
            concerns.append(_of_sink(reason, sink, state, state.failing_since))
        if state.given_up_at is not None and now - state.given_up_at < _SHOWN:
            reason = f"Events for the sink {sink.name} were given up. The log names each (notify.given_up)."
            concerns.append(_of_sink(reason, sink, state, state.given_up_at))
    return concerns


def _of_sink(reason: str, sink: Sink, state: SinkState, since: datetime | None) -> Concern:
    hint = state.hint or "`python -m backup notify --test` sends a test event to each sink."
    detail = f"{sink.label}: {state.error}" if state.error else sink.label
    return Concern(reason, since=since, detail=detail, detail_hint=hint)
