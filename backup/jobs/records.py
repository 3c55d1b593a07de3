"""The records of jobs: made before anything can fail, claimed by one worker at a time, listed.

A record lies under four kinds of keys, which change together: `job:` has the id and leads to the record, `all:` has the
record in the order of time, newest first; `state:` and `type:` lead to it by its state and by its service. An
`once:` key keeps an occurrence of a schedule from being queued twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import uuid4

from backup.core.errors import BadRequest, StoreUnavailable
from backup.core.model import Now
from backup.jobs.job import OPEN, Job, Request, State
from backup.jobs.key_values import NEW, Change, Item, KeyValues

SILENCE = timedelta(minutes=2)
"""A job whose worker has said nothing for so long is another's."""

PAGE_AT_MOST = 200
_SCANNED_AT_MOST = 1_000
_TRIES = 20
_LAST_MILLISECOND = 10**14
_FIRST_STATES = (State.FAILED,)
_NUMBERS = "numbers"
_ID = frozenset("0123456789abcdef-")


class Page(NamedTuple):
    """Some of a list, and the cursor of what follows; None at its end. A page may be empty and yet have a cursor."""

    jobs: Sequence[Job]
    cursor: str | None


class JobRecords:
    """The records. Several threads and processes may use them at once."""

    def __init__(self, keys: KeyValues, now: Now) -> None:
        self._keys, self._now = keys, now

    def enqueue(
        self,
        request: Request,
        trigger: str,
        *,
        requested_by: str | None = None,
        occurrence: str | None = None,
        owner: str | None = None,
    ) -> Job | None:
        """A new job, waiting in line; with `owner`, at work already.

        With an `occurrence` (of a schedule) it is made once: None where another call has made it.
        """
        now = self._now()
        job_id = str(uuid4())
        order = order_of(now, secrets.token_hex(4))
        job = Job(job_id, order, request, trigger, now, requested_by=requested_by, occurrence=occurrence)
        job = job.became(State.ENQUEUED, now, f"Asked for by {requested_by or trigger}.")
        if owner is not None:
            job = _claimed(job, owner, str(uuid4()), now)
        once = _once(request.service, occurrence) if occurrence is not None else None
        new = [Change(f"job:{job_id}", {"order": order}, NEW), *_written(None, job, NEW)]
        if once is not None:
            new.append(Change(once, {"job": job_id}, NEW))
        for _ in range(_TRIES):
            if self._keys.commit([*new, *self._counted(None, job.state)]) or self.get(job_id) is not None:
                return job  # an answer that was lost may have said so
            if once is not None and self._keys.get(once) is not None:
                return None
        raise _crowded(job_id)

    def get(self, job_id: str) -> Job | None:
        """The job of this id, or of the only id that begins so; None where there is none."""
        item = self._item(job_id)
        return None if item is None else Job.from_json(item.value)

    def claim(self, job_id: str, owner: str) -> Job | None:
        """The job, now the owner's to work on; None where there is nothing to do: it has ended, is not due yet, or
        somebody works on it."""
        claim = str(uuid4())

        def claimed(job: Job) -> Job | None:
            now = self._now()
            waits = job.state is State.ENQUEUED or (job.state is State.SCHEDULED and (job.due_at or now) <= now)
            return _claimed(job, owner, claim, now) if waits or is_silent(job, now) else None

        return self._change(job_id, claimed, lambda job: job.claim == claim)

    def beat(self, job: Job, **progress: Any) -> Job | None:
        """The job with a new heartbeat and its progress; None if the claim is not its own any more."""

        def beaten(current: Job) -> Job | None:
            own = current.claim == job.claim and current.state is State.PROCESSING
            return replace(current, heartbeat_at=self._now(), **progress) if own else None

        return self._change(job.job_id, beaten)

    def leave(self, job: Job, state: State, reason: str = "", **changed: Any) -> Job | None:
        """Ends the work on a job: it is in another state now, with these fields changed. None if the claim is not its
        own any more; then nothing was changed."""

        def left(current: Job) -> Job | None:
            if current.claim != job.claim or current.state is not State.PROCESSING:
                return None
            return current.became(state, self._now(), reason, **{"owner": None, "heartbeat_at": None, **changed})

        return self._change(
            job.job_id, left, done=lambda current: current.claim == job.claim and current.state is state
        )

    def requeue(self, job_id: str, reason: str) -> Job | None:
        """The ended job, in line again with all its retries; None if it has not ended."""

        def again(job: Job) -> Job | None:
            fresh = {"retries": 0, "error": None, "error_kind": None, "hint": None, "cancelled": False}
            gone: dict[str, Any] = {"due_at": None, "claim": None, "percent": None, "counts": {}, "sync_id": None}
            return job.became(State.ENQUEUED, self._now(), reason, **fresh, **gone) if job.state.has_ended else None

        return self._change(job_id, again)

    def cancel(self, job_id: str, reason: str) -> Job | None:
        """Deletes a job that waits or has ended; asks one that is worked on to stop. None where there is none."""

        def cancelled(job: Job) -> Job | None:
            if job.state is State.PROCESSING:
                return replace(job, cancelled=True)
            return job if job.state is State.DELETED else job.became(State.DELETED, self._now(), reason)

        return self._change(job_id, cancelled)

    def lines(self, job_id: str) -> list[str]:
        """The last log lines of the job, oldest first."""
        item = self._keys.get(f"lines:{job_id}")
        return item.value["lines"] if item else []

    def keep_lines(self, job_id: str, lines: Sequence[str]) -> None:
        """Keeps these as the last log lines of the job."""
        self._keys.commit([Change(f"lines:{job_id}", {"lines": list(lines)})])

    def waiting(self, limit: int = PAGE_AT_MOST) -> list[Job]:
        """Jobs that somebody has to look after, oldest first: in line, scheduled and due, or left by their worker."""
        now = self._now()
        found = [job for state in sorted(OPEN) for job in self._of_state(state)]
        due = [job for job in found if job.state is State.ENQUEUED or (job.due_at or now) <= now]
        return sorted(
            (job for job in due if job.state is not State.PROCESSING or is_silent(job, now)),
            key=lambda job: job.order,
            reverse=True,
        )[:limit]

    def services_at_work(self) -> frozenset[str]:
        """The services with jobs that have not ended."""
        return frozenset(job.request.service for state in OPEN for job in self._of_state(state))

    def page(
        self,
        *,
        state: State | None = None,
        service: str | None = None,
        text: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Jobs, newest first; where no state is asked for, those that failed before all others.

        Cost: what is on the page; with `text` or both state and service at most 1,000 records.
        """
        wanted = min(max(1, limit), PAGE_AT_MOST)
        sections = [(state, None)] if state else [*((first, None) for first in _FIRST_STATES), (None, _FIRST_STATES)]
        start, after = _position(cursor, len(sections))
        jobs: list[Job] = []
        scanned = 0
        for number, (only, but) in list(enumerate(sections))[start:]:
            prefix = f"state:{only}:" if only else f"type:{hashed(service)}:" if service else "all:"
            while True:
                items = self._keys.scan(prefix, after=after, limit=wanted + 1)
                for item in items:
                    if len(jobs) == wanted or scanned >= _SCANNED_AT_MOST:
                        return Page(jobs, f"{number}.{after}")
                    scanned, after = scanned + 1, item.key
                    job = self._job(item)
                    if job is not None and _matches(job, only, but, service, text):
                        jobs.append(job)
                if len(items) <= wanted:
                    break
            after = ""
        return Page(jobs, None)

    def numbers(self) -> dict[State, int]:
        """How many jobs there are in each state. Those of today's states are counted as they change."""
        item = self._keys.get(_NUMBERS)
        return {state: (item.value if item else {}).get(state, 0) for state in State}

    def forget(self, before: datetime, limit: int = 20) -> int:
        """Removes the oldest jobs that had ended before that time; returns how many, at most `limit`."""
        edge = order_of(before, "")
        forgotten = 0
        for item in self._keys.scan("all:", after=f"all:{edge}", limit=limit):
            job = Job.from_json(item.value)
            if not job.state.has_ended:
                continue
            gone = [Change(item.key, None, item.etag), Change(f"job:{job.job_id}", None)]
            gone += [Change(key, None) for key in _leading_to(job)]
            gone += self._counted(job.state, None)
            if job.occurrence is not None:
                gone.append(Change(_once(job.request.service, job.occurrence), None))
            forgotten += self._keys.commit(gone)
            self._keys.commit([Change(f"lines:{job.job_id}", None)])  # false where there are none
        return forgotten

    def _of_state(self, state: State) -> Iterable[Job]:
        items = self._keys.scan(f"state:{state}:", limit=_SCANNED_AT_MOST)
        jobs = (self._job(item) for item in items)
        return [job for job in jobs if job is not None and job.state is state]

    def _item(self, job_id: str) -> Item | None:
        if not job_id or not all(character in _ID for character in job_id.lower()):
            return None
        pointers = self._keys.scan(f"job:{job_id.lower()}", limit=2)
        if len(pointers) > 1:
            raise BadRequest(f"Several jobs begin with {job_id}.", hint="Write more of the id.")
        return self._keys.get(f"all:{pointers[0].value['order']}") if pointers else None

    def _job(self, item: Item) -> Job | None:
        """The job that a key leads to."""
        if item.key.startswith("all:"):
            return Job.from_json(item.value)
        record = self._keys.get(f"all:{item.key.rpartition(':')[2]}")
        return None if record is None else Job.from_json(record.value)

    def _change(
        self, job_id: str, change: Callable[[Job], Job | None], done: Callable[[Job], bool] = lambda _: False
    ) -> Job | None:
        """The job as `change` gives it, once that is committed; None where it gives none, or there is no such job.

        `done` tells whether an earlier try, whose answer was lost, has done it.
        """
        for _ in range(_TRIES):
            item = self._item(job_id)
            if item is None:
                return None
            before = Job.from_json(item.value)
            if done(before):
                return before
            after = change(before)
            if after is None or after == before:
                return after
            if self._keys.commit([*_written(before, after, item.etag), *self._counted(before.state, after.state)]):
                return after
        raise _crowded(job_id)

    def _counted(self, before: State | None, after: State | None) -> list[Change]:
        """What a change of state makes of the numbers."""
        if before is after:
            return []
        item = self._keys.get(_NUMBERS)
        numbers = dict(item.value) if item else {}
        for state, by in ((before, -1), (after, 1)):
            if state is not None:
                numbers[state] = max(0, numbers.get(state, 0) + by)
        return [Change(_NUMBERS, numbers, item.etag if item else NEW)]


def is_silent(job: Job, now: datetime) -> bool:
    """Whether the job is worked on by somebody who has said nothing for too long."""
    return job.state is State.PROCESSING and now - (job.heartbeat_at or job.created_at) > SILENCE


def order_of(moment: datetime, mark: str) -> str:
    """A part of a key that puts what is newer first; `mark` tells what is of the same millisecond apart."""
    return f"{_LAST_MILLISECOND - int(moment.timestamp() * 1000):014}{mark}"


def hashed(name: str) -> str:
    """A name as a part of a key."""
    return sha256(name.lower().encode()).hexdigest()[:24]


def _once(service: str, occurrence: str) -> str:
    return f"once:{hashed(service)}:{hashed(occurrence)}"


def _claimed(job: Job, owner: str, claim: str, now: datetime) -> Job:
    taken = {"owner": owner, "claim": claim, "heartbeat_at": now, "attempt": job.attempt + 1, "due_at": None}
    return job.became(State.PROCESSING, now, f"Worked on by {owner}.", started_at=job.started_at or now, **taken)


def _written(before: Job | None, after: Job, only_if: Any) -> list[Change]:
    """The changes of a record and of the keys that lead to it."""
    old = () if before is None else _leading_to(before)
    return [
        Change(f"all:{after.order}", after.to_json(), only_if),
        *(Change(key, None) for key in old if key not in _leading_to(after)),
        *(Change(key, {}) for key in _leading_to(after) if key not in old),
    ]


def _leading_to(job: Job) -> tuple[str, ...]:
    """The keys that lead to the job's record by its state and its service."""
    return f"state:{job.state}:{job.order}", f"type:{hashed(job.request.service)}:{job.order}"


def _crowded(job_id: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"The record of job {job_id} could not be written: too many changed it at once. Nothing was changed.",
        hint="Try again.",
    )


def _position(cursor: str | None, sections: int) -> tuple[int, str]:
    if cursor is None:
        return 0, ""
    number, _, after = cursor.partition(".")
    if not number.isdecimal() or int(number) >= sections or not after.isascii() or len(after) > 300:
        raise BadRequest("The cursor is none that a page has given.")
    return int(number), after


def _matches(job: Job, only: State | None, but: Sequence[State] | None, service: str | None, text: str | None) -> bool:
    if (only and job.state is not only) or (but and job.state in but):
        return False
    if service and job.request.service.lower() != service.lower():
        return False
    sought = (job.job_id, job.request.service, job.request.verb, job.error or "", job.error_kind or "")
    return not text or any(text.lower() in part.lower() for part in sought)
