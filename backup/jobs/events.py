"""Events: what programs and people are told about runs and services, as CloudEvents 1.0. Values alone; no I/O.

An event holds counts, kinds of errors and messages without secrets. It holds no record, and no key of a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from backup.core import errors
from backup.core.log import redact, time_text, visible
from backup.core.run_values import Run, Status

OVERDUE = "backup.sync.overdue"
RECOVERED = "backup.sync.recovered"
GOOD_NIGHT = "backup.night.completed"
DIGEST = "backup.digest"
TEST = "backup.test"

_OF_FAILURES = frozenset({"failed", "guard-tripped", "overdue", "recovered"})
_TEXT_AT_MOST = 2_000
_ENDINGS = {errors.GuardTripped.__name__: "guard-tripped", errors.Cancelled.__name__: "cancelled"}


@dataclass(frozen=True)
class Event:
    """Something that happened at a time (aware UTC), of a service or of none (None). `data` has values of JSON.

    `about` tells events of one type apart; an event about the same always has the same id.
    """

    type: str
    about: str
    time: datetime
    service: str | None
    data: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The event's id. A receiver that has seen it may drop the event."""
        return str(uuid5(NAMESPACE_URL, f"{self.type}/{self.about}"))

    def to_json(self, source: str) -> dict[str, Any]:
        """Returns the event as CloudEvents 1.0 has it in JSON, in structured mode."""
        subject = {} if self.service is None else {"subject": self.service}
        return {
            "specversion": "1.0",
            "id": self.id,
            "source": source,
            "type": self.type,
            **subject,
            "time": time_text(self.time),
            "datacontenttype": "application/json",
            "data": {name: value for name, value in self.data.items() if value is not None},
        }


def is_about_failure(kind: str) -> bool:
    """Whether events of this type say that something failed or is silent, or that this is over."""
    return kind.rpartition(".")[2] in _OF_FAILURES


def event_of(run: Run, job_id: str | None = None, hint: str | None = None) -> Event | None:
    """Returns the event for a run; None for a run that has not ended, and for a dry run: nothing was done."""
    if run.completed_at is None or run.dry_run:
        return None
    if run.status is Status.FAILED:
        ending = _ENDINGS.get(run.error_kind or "", "failed")
    else:
        ending = "failed" if run.only_compares and not run.verified else "completed"
    data = {
        "service": run.service,
        "verb": run.verb.value,
        "trigger": run.trigger.value if run.trigger else None,
        "status": run.status.value,
        "syncId": run.sync_id,
        "jobId": job_id,
        "startedAt": time_text(run.started_at),
        "completedAt": time_text(run.completed_at),
        "durationMs": run.duration_ms,
        "counts": asdict(run.counts),
        "verified": run.verified,
        "error": safe(run.error),
        "errorKind": run.error_kind,
        "hint": safe(hint),
    }
    return Event(f"backup.{run.verb}.{ending}", run.sync_id, run.completed_at, run.service, data)


def recovered(run: Run, silence: Mapping[str, Any]) -> Event:
    """Returns the event for the sync that ended a silence. `silence` is what the records say about it."""
    completed_at = run.completed_at or run.started_at
    data = {
        "service": run.service,
        "syncId": run.sync_id,
        "completedAt": time_text(completed_at),
        "silentSince": silence["since"],
        "overdueSince": silence["at"],
    }
    return Event(RECOVERED, f"{run.service.lower()}/{silence['at']}", completed_at, run.service, data)


def overdue(service: str, since: datetime, now: datetime, limit: timedelta, last: Mapping[str, Any]) -> Event:
    """Returns the event for a service without a successful sync since that time. `last` is what `RunRecords.last`
    returns."""
    failure = failure_since(last)
    data = {
        "service": service,
        "lastSuccess": _at(last.get("success")),
        "silentSince": time_text(since),
        "ageHours": hours(now - since),
        "maxAgeHours": hours(limit),
        "lastFailure": _at(failure),
        "error": safe(failure.get("error")),
        "errorKind": failure.get("errorKind"),
        "hint": OVERDUE_HINT,
    }
    return Event(OVERDUE, f"{service.lower()}/{time_text(now)}", now, service, data)


def failure_since(last: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the last failure of a service if no sync has succeeded after it; else an empty entry."""
    failure: Mapping[str, Any] = last.get("failure") or {}
    success = last.get("success")
    is_over = success and failure and datetime.fromisoformat(failure["at"]) < datetime.fromisoformat(success["at"])
    return {} if is_over else failure


OVERDUE_HINT = (
    "Look whether the app runs, whether its timer fires, and how the last runs ended: `python -m backup health`. A "
    "service that is synced more rarely than each day needs a longer MaxAgeHours."
)


def _at(entry: Mapping[str, Any] | None) -> str | None:
    return time_text(datetime.fromisoformat(entry["at"])) if entry else None


def hours(length: timedelta) -> float:
    """The length in hours, to a tenth."""
    return round(length.total_seconds() / 3600, 1)


def safe(text: str | None) -> str | None:
    """The text without secrets and invisible characters, at most 2,000 characters long."""
    return None if text is None else visible(redact(" ".join(text.split())))[:_TEXT_AT_MOST]
