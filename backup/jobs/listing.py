"""Lists jobs page by page. Only reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from backup.core.errors import BadRequest
from backup.jobs.job import Job, State, job_of
from backup.jobs.key_values import Item, KeyValues
from backup.jobs.record_keys import hashed

PAGE_AT_MOST = 200
SCANNED_AT_MOST = 1_000
"""How many records one call reads at most."""

_FIRST_STATES = (State.FAILED,)


class Page(NamedTuple):
    """Jobs of a list, and the cursor of the next page; None at the end. A page may be empty and still have a cursor."""

    jobs: Sequence[Job]
    cursor: str | None


def page_of_jobs(
    keys: KeyValues,
    *,
    state: State | None = None,
    service: str | None = None,
    text: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page:
    """Returns jobs, newest first; without a state, failed jobs before all others.

    Cost: reads the records of the page; with `text` at most 1,000 records. Raises
    BadRequest for a cursor that is not from a page.
    """
    wanted = min(max(1, limit), PAGE_AT_MOST)
    sections = [(state, None)] if state else [*((first, None) for first in _FIRST_STATES), (None, _FIRST_STATES)]
    start, after = _position(cursor, [_prefix(only, service) for only, _ in sections])
    jobs: list[Job] = []
    scanned = 0
    for number, (only, but) in list(enumerate(sections))[start:]:
        prefix = _prefix(only, service)
        while True:
            items = keys.scan(prefix, after=after, limit=wanted + 1)
            for item, job in zip(items, jobs_at(keys, items), strict=True):
                if len(jobs) == wanted or scanned >= SCANNED_AT_MOST:
                    return Page(jobs, f"{number}.{after}")
                scanned, after = scanned + 1, item.key
                if job is not None and _matches(job, only, but, service, text):
                    jobs.append(job)
            if len(items) <= wanted:
                break
        after = ""
    return Page(jobs, None)


def jobs_at(keys: KeyValues, items: Sequence[Item]) -> list[Job | None]:
    """Returns the jobs that these keys of one kind lead to; None for one that has been removed since, or
    that cannot be read."""
    return [None if record is None else job_of(record.value) for record in records_at(keys, items)]


def records_at(keys: KeyValues, items: Sequence[Item]) -> Sequence[Item | None]:
    """Returns the items with the records that these keys of one kind lead to; None for one that has been removed."""
    if not items or items[0].key.startswith("all:"):
        return items
    return keys.get_all([f"all:{item.key.rpartition(':')[2]}" for item in items])


def _prefix(state: State | None, service: str | None) -> str:
    if service is None:
        return f"state:{state}:" if state else "all:"
    return f"of:{hashed(service)}:{state}:" if state else f"type:{hashed(service)}:"


def _position(cursor: str | None, prefixes: Sequence[str]) -> tuple[int, str]:
    """The section where the page begins, and the key after which it begins. The sections have these prefixes."""
    if cursor is None:
        return 0, ""
    number, _, after = cursor.partition(".")
    sections = {str(section): prefix for section, prefix in enumerate(prefixes)}
    is_known = number in sections and (not after or after.startswith(sections[number]))
    if not is_known or not after.isascii() or len(after) > 300:
        raise BadRequest("The cursor is not from a page of these jobs.", hint="Begin again without a cursor.")
    return int(number), after


def _matches(job: Job, only: State | None, but: Sequence[State] | None, service: str | None, text: str | None) -> bool:
    if (only and job.state is not only) or (but and job.state in but):
        return False
    if service and job.request.service.lower() != service.lower():
        return False
    searched = (job.job_id, job.request.service, job.request.verb, job.error or "", job.error_kind or "")
    return not text or any(text.lower() in part.lower() for part in searched)
