"""Which services have nothing left to do before their schedule's next time, so that no minute wakes their databases.

Reads the records alone. Knows only of runs that stand in them: one that a process with other records began is met at
the schedule's next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from backup.config.settings import Settings
from backup.core.errors import BackupError
from backup.core.run_values import Status
from backup.jobs.job import CLOCKS_DIFFER
from backup.jobs.job_queue import JobQueue
from backup.jobs.key_values import Change
from backup.jobs.listing import PAGE_AT_MOST
from backup.jobs.record_keys import hashed

_PREFIX = "rest:"
_SERVICES_AT_MOST = 1_000


def note_rest(job_queue: JobQueue, service: str, night: datetime) -> None:
    """Notes that the service, or set, has nothing left to do of what was due at `night`, its schedule's last time.

    A note that cannot be written is left: the next minute looks again.
    """
    value = {"service": service, "night": night.isoformat(), "at": job_queue.now().isoformat()}
    try:
        job_queue.keys.commit([Change(f"{_PREFIX}{hashed(service)}", value)])
    except BackupError:
        return


def at_rest(settings: Settings, job_queue: JobQueue, entries: Sequence[str]) -> frozenset[str]:
    """Returns those of the services and sets for which nothing has become due since a look found nothing left, and no
    run has begun since that is still open.

    Cost: a read of all notes, and one of the open runs. Raises what the records raise.
    """
    now = job_queue.now()
    notes = {item.value["service"]: item.value for item in job_queue.keys.scan(_PREFIX, limit=_SERVICES_AT_MOST)}
    noted_at = {
        name: datetime.fromisoformat(note["at"]) - CLOCKS_DIFFER
        for name in entries
        if (note := notes.get(name)) and note["night"] == settings.schedule_of(name).last_due(now).isoformat()
    }
    if not noted_at:
        return frozenset()
    page = job_queue.runs.page(status=Status.IN_PROGRESS, since=min(noted_at.values()), limit=PAGE_AT_MOST)
    if page.cursor is not None:  # more runs are open than one look can tell
        return frozenset()
    begun = [(str(run["service"]).lower(), datetime.fromisoformat(run["startedAt"])) for run in page.runs]
    return frozenset(
        name
        for name, at in noted_at.items()
        if not any(begun_at > at for service, begun_at in begun if _is_of(service, name.lower()))
    )


def _is_of(service: str, entry: str) -> bool:
    """Whether the service is this one, or one of this set."""
    return service == entry or service.startswith(f"{entry}/")
