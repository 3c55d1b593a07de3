"""The keys under which a job's record lies, and the changes that write it. Values alone; no I/O.

A record lies under five kinds of keys, which change together. `job:` has the id and leads to the record. `all:` has the
record itself, newest first. `state:`, `type:` and `of:` lead to it by its state, by its service, and by both. The app
does not queue an occurrence of a schedule twice, because its key `once:` is there.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256

from backup.jobs.job import Job
from backup.jobs.key_values import Absent, Anything, Change

_LAST_MILLISECOND = 10**14


def order_of(moment: datetime, mark: str) -> str:
    """A part of a key that puts newer keys first. `mark` tells keys of one millisecond apart."""
    return f"{_LAST_MILLISECOND - int(moment.timestamp() * 1000):014}{mark}"


def hashed(name: str) -> str:
    """A name as a part of a key. Case does not count."""
    return sha256(name.lower().encode()).hexdigest()[:24]


def once_key(service: str, occurrence: str) -> str:
    """The key of an occurrence of a service's schedule."""
    return f"once:{hashed(service)}:{hashed(occurrence)}"


def pointer_keys(job: Job) -> tuple[str, ...]:
    """The keys that lead to the job's record by its state, by its service, and by both."""
    service = hashed(job.request.service)
    return (
        f"state:{job.state}:{job.order}",
        f"type:{service}:{job.order}",
        f"of:{service}:{job.state}:{job.order}",
    )


def record_changes(before: Job | None, after: Job, only_if: str | Anything | Absent) -> list[Change]:
    """The changes that write a record and the keys that lead to it. `only_if` is the condition on the record."""
    old_keys = () if before is None else pointer_keys(before)
    new_keys = pointer_keys(after)
    return [
        Change(f"all:{after.order}", after.to_json(), only_if),
        *(Change(key, None) for key in old_keys if key not in new_keys),
        *(Change(key, {}) for key in new_keys if key not in old_keys),
    ]
