"""Tests of the sinks, and the delivery of what waits, as answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from backup.config.settings import Settings
from backup.core.errors import BackupError, ConfigError
from backup.core.model import utc_now
from backup.core.suggestions import quantity
from backup.entry.answers import Answer
from backup.entry.requests import check_no_body, check_query
from backup.jobs.events import TEST, Event, safe
from backup.jobs.job_queue import JobQueue
from backup.jobs.outbox import OUTBOX
from backup.notify.delivery import WAITING_AT_MOST, Delivery, delivery_of, send_now
from backup.notify.sink import Sink
from backup.notify.sink_state import read_state
from backup.notify.sinks import sinks_of
from backup.services.turns import side_by_side

_AT_ONCE = 50


def post_test(settings: Settings, query: Mapping[str, str], body: bytes) -> Answer:
    """Sends a test event to each sink. Takes no parameters and no body."""
    check_query(query)
    check_no_body(body)
    return answer_test(settings)


def answer_test(settings: Settings) -> Answer:
    """Sends a test event to each sink, side by side, past the outbox. 200 when all took it; 207 when some did; else
    503. Raises ConfigError without a sink."""
    sinks = _sinks(settings)
    message = {"message": "This is a test. Whoever gets it is told about backups, too."}
    test = Event(TEST, str(uuid4()), utc_now(), None, message).to_json(settings.notify_source)
    errors = side_by_side(lambda sink: send_now(sink, test), sinks, _AT_ONCE)
    rows = [_row(sink, error) for sink, error in zip(sinks, errors, strict=True)]
    sent = sum(error is None for error in errors)
    status = 200 if sent == len(sinks) else 207 if sent else 503
    summary = f"{sent} of {quantity(len(sinks), 'sink')} took the test event"
    return Answer(status, {"success": status == 200, "message": summary, "sinks": rows})


def answer_delivery(settings: Settings, job_queue: JobQueue) -> Answer:
    """Sends what waits to each sink, without regard to pauses. 200 when nothing waits any more; else 503.

    Raises ConfigError without a sink.
    """
    sinks = _sinks(settings)
    delivery = delivery_of(settings, job_queue)
    rows = side_by_side(lambda sink: _delivered(delivery, job_queue, sink), sinks, _AT_ONCE)
    waiting = sum(row["waiting"] for row in rows)
    body = {"success": waiting == 0, "message": f"{quantity(waiting, 'event')} left to send", "sinks": rows}
    return Answer(503 if waiting else 200, body)


def _delivered(delivery: Delivery, job_queue: JobQueue, sink: Sink) -> dict[str, Any]:
    sent = delivery.deliver_to(sink, at_once=True)
    _, state = read_state(job_queue.keys, sink)
    waiting = len(job_queue.keys.scan(f"{OUTBOX}{sink.name}:", limit=WAITING_AT_MOST))
    numbers = {"sent": sent, "waiting": waiting, "givenUp": state.given_up}
    return {"sink": sink.name, "label": sink.label, **numbers, "error": state.error, "hint": state.hint}


def _row(sink: Sink, error: BackupError | None) -> dict[str, Any]:
    answer = {"error": safe(str(error)), "hint": safe(error.hint) or None} if error else {"error": None, "hint": None}
    return {"sink": sink.name, "label": sink.label, "sent": error is None, **answer}


def _sinks(settings: Settings) -> Sequence[Sink]:
    sinks = sinks_of(settings)
    if not sinks:
        raise ConfigError(
            "No sink is configured: nobody is told when a backup fails.",
            hint="docs/notifications.md says how to set a webhook, a queue, or an address for people.",
        )
    return sinks
