"""Which services have nothing left to do before their schedule's next time, so that no minute wakes their databases.

Reads the records alone. Knows only of runs that stand in them: one that a process with other records began is met at
the schedule's next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from backup.config.settings import Settings
from backup.core.errors import BackupError
from backup.jobs.job import CLOCKS_DIFFER
from backup.jobs.job_queue import JobQueue
from backup.jobs.key_values import Change
from backup.jobs.listing import PAGE_AT_MOST
from backup.jobs.record_keys import hashed
from backup.jobs.stored import moment_in

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

    Cost: a read of all notes, and one of the open runs. Raises what the records raise. A note that cannot be read
    counts for nothing.
    """
    now = job_queue.now()
    notes = {str(item.value.get("service")): item for item in job_queue.keys.scan(_PREFIX, limit=_SERVICES_AT_MOST)}
    noted = {
        name: note.age_by(at, now)
        for name in entries
        if (note := notes.get(name)) is not None
        and (at := moment_in(note.value, "at")) is not None
        and note.value.get("night") == settings.schedule_of(name).last_due(now).isoformat()
    }
    open_runs = job_queue.runs.open_runs(now, PAGE_AT_MOST) if noted else None
    if open_runs is None:  # or more runs are open than one look can tell
        return frozenset()
    return frozenset(
        name
        for name, age in noted.items()
        if not any(run.age - CLOCKS_DIFFER < age for run in open_runs if is_of(run.service, name.lower()))
    )


def is_of(service: str, entry: str) -> bool:
    """Whether the service is this one, or one of this set."""
    return service == entry or service.startswith(f"{entry}/")
