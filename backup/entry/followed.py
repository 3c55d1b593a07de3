"""Tells of failures whether their service has succeeded since. Reads the records alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from backup.config.settings import Settings
from backup.entry.service_states import ServiceStates
from backup.jobs.job import CLOCKS_DIFFER
from backup.jobs.job_queue import JobQueue


def followed_by_success(
    settings: Settings, job_queue: JobQueue, failures: Sequence[tuple[str, datetime]]
) -> list[bool]:
    """Returns of each failure, a service and when it failed, whether a sync of it has succeeded since, or one of the
    whole set that it is of. A success that is still to come was written by a wrong clock, and counts for nothing.

    Cost: without failures none, else one small read and one of the last runs of these services.
    """
    if not failures:
        return []
    now = job_queue.now().astimezone(UTC)
    names = {name for service, _ in failures for name in _with_set(service)}
    states = ServiceStates(settings, job_queue.runs.glances(sorted(names)), now)
    success_of = {name: states.view(name, 0).success_of for name in names}
    lasts = job_queue.runs.last_of_each(list(success_of.values()))
    times = {name: lasts[of.lower()].get("success", {}).get("at") for name, of in success_of.items()}
    moments = {name: datetime.fromisoformat(at) for name, at in times.items() if at is not None}
    latest = now + CLOCKS_DIFFER
    return [
        any(failed_at < moments[name] <= latest for name in _with_set(service) if name in moments)
        for service, failed_at in failures
    ]


def _with_set(service: str) -> tuple[str, str]:
    """The service's name in small letters, and that of what stands before a slash in it."""
    return service.lower(), service.lower().partition("/")[0]
