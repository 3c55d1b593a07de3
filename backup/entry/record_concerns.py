"""What health says by the records of runs alone: silence, sinks, verifies that found differences, sets that failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from backup.config.settings import Settings
from backup.core.errors import BackupError
from backup.core.run_values import Verb
from backup.entry.service_states import ServiceStates
from backup.jobs.glances import NOT_SEEN, Glance
from backup.jobs.job_queue import JobQueue
from backup.notify.concerns import concerns_now
from backup.runs.condition import Concern, hint_of

_DIFFERS = "The last verify or restore drill found that source and backup differ."
_DIFFERS_HINT = "`python -m backup verify SERVICE --full` names the records; a sync that completes mends them."
_WORDS = {Verb.VERIFY.value: "verify", Verb.DRILL.value: "restore drill"}


def concerns_by_records(settings: Settings, job_queue: JobQueue, entries: Sequence[str]) -> list[Concern]:
    """Returns what is not well by the records of runs, and starts to deliver what that raised. Wakes no database.
    `entries` are the names of services, and of sets.

    A sync of one service that failed is not here: the backup's own history says that.
    """
    concerns = concerns_now(settings, job_queue, entries)
    try:
        return [*concerns, *_of_states(settings, job_queue, entries)]
    except BackupError:
        return concerns  # which say already that the records cannot be used


def _of_states(settings: Settings, job_queue: JobQueue, entries: Sequence[str]) -> Iterator[Concern]:
    """The concerns about differences, and about failures of what is no sync of one service."""
    glances = job_queue.runs.glances(entries)
    states = ServiceStates(settings, glances, job_queue.now().astimezone(UTC))
    services_of = {name: states.services_of(name) for name in entries}
    members = [service for services in services_of.values() for service in services or ()]
    told = [name for name in (*entries, *members) if _is_told(name, glances, services_of.get(name))]
    lasts = job_queue.runs.last_of_each(told)
    for name in told:
        last, failure = lasts[name.lower()], lasts[name.lower()].get("failure", {})
        shown_name = last.get("service", name)
        if glances[name.lower()].differs:
            yield _of_differences(shown_name, last)
        if glances[name.lower()].failed and (services_of.get(name) is not None or failure.get("verb") in _WORDS):
            yield _of_failure(shown_name, failure)


def _is_told(name: str, glances: Mapping[str, Glance], services: Sequence[str] | None) -> bool:
    """Whether its last runs may be a concern. The failure of a set is none, once each of its services that failed in it
    has succeeded."""
    glance = glances.get(name.lower(), NOT_SEEN)
    is_over = bool(services) and glance.in_parts and not any(glances[service].failed for service in services or ())
    return glance.differs or (glance.failed and not is_over)


def _of_differences(name: str, last: Mapping[str, Any]) -> Concern:
    entries = [last[kind] for kind in ("verify", "drill") if kind in last]
    entry: Mapping[str, Any] = max(entries, key=lambda each: str(each["at"]), default={})
    return Concern(_DIFFERS, name, None, entry.get("syncId"), None, _moment(entry), detail_hint=_DIFFERS_HINT)


def _of_failure(name: str, failure: Mapping[str, Any]) -> Concern:
    kind, verb = failure.get("errorKind"), _WORDS.get(str(failure.get("verb")), "sync of the set")
    return Concern(
        f"The last {verb} has failed.",
        name,
        None,
        failure.get("syncId"),
        kind,
        _moment(failure),
        detail=failure.get("error") or "",
        detail_hint=hint_of(kind) or "The next one that completes clears this.",
    )


def _moment(entry: Mapping[str, Any]) -> datetime | None:
    return datetime.fromisoformat(entry["at"]) if entry.get("at") else None
