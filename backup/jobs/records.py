"""The records of jobs: written before anything can fail, claimed by one worker at a time, removed when they are old."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from backup.core.errors import BadRequest, StoreUnavailable
from backup.core.model import Now
from backup.jobs.job import OPEN, Job, Request, State, job_of
from backup.jobs.key_values import NEW, Change, Item, KeyValues
from backup.jobs.listing import PAGE_AT_MOST, SCANNED_AT_MOST, records_at
from backup.jobs.record_keys import once_key, order_of, pointer_keys, record_changes
from backup.runs.process import Process

SILENCE = timedelta(minutes=2)
"""Another worker may take a job whose worker has been silent for so long."""

LONGEST_WAIT = timedelta(hours=1)
"""No job waits longer for its time. A record that says more was spoilt."""

_TRIES = 20
_NUMBERS = "numbers:"
_NUMBERS_AT_MOST = 16
_ID = frozenset("0123456789abcdef-")


class JobRecords:
    """The records. Several threads and processes may use them at once.

    Every method raises StoreUnavailable or StoreError when the records cannot be read or written. If only the server's
    answer was lost, a change was made all the same.
    """

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
        """Writes a new job and returns it: Enqueued, or already Processing if it has an `owner`.

        `occurrence` is a time of a schedule. Its job is written once; returns None if another call wrote it.
        """
        now = self._now()
        job_id = str(uuid4())
        order = order_of(now, secrets.token_hex(4))
        job = Job(job_id, order, request, trigger, now, requested_by=requested_by, occurrence=occurrence)
        job = job.became(State.ENQUEUED, now, f"Requested by {requested_by or trigger}.")
        if owner is not None:
            job = _claimed(job, owner, str(uuid4()), now)
        occurrence_key = once_key(request.service, occurrence) if occurrence is not None else None
        changes = [Change(f"job:{job_id}", {"order": order}, NEW), *record_changes(None, job, NEW)]
        if occurrence_key is not None:
            changes.append(Change(occurrence_key, {"job": job_id}, NEW))
        for _ in range(_TRIES):
            # A commit may say no although the job is there: its first answer was lost, and its retry met its own keys.
            if (
                self._keys.commit([*changes, *self._number_changes(job_id, None, job.state)])
                or self.get(job_id) is not None
            ):
                return job
            if occurrence_key is not None and self._keys.get(occurrence_key) is not None:
                return None
        raise _crowded(job_id)

    def get(self, job_id: str) -> Job | None:
        """Returns the job of this id, or of the only id that begins with it; None without one. Raises BadRequest when
        several ids begin with it."""
        item = self._item(job_id)
        return None if item is None else job_of(item.value)

    def claim(self, job_id: str, owner: str) -> Job | None:
        """Gives the job to `owner` to work on and returns it. Returns None for a job that has ended, is not due yet, or
        has a worker."""
        claim = str(uuid4())

        def claimed(job: Job) -> Job:
            return _claimed(job, owner, claim, self._now())

        return self._change(job_id, claimed, lambda job: job.claim == claim, only_free=True)

    def beat(self, job: Job, **progress: Any) -> Job | None:
        """Writes a new heartbeat and the progress; returns the job. Returns None if another worker has claimed it."""

        def beaten(current: Job) -> Job | None:
            is_own = current.claim == job.claim and current.state is State.PROCESSING
            return replace(current, heartbeat_at=self._now(), **progress) if is_own else None

        return self._change(job.job_id, beaten)

    def leave(self, job: Job, state: State, reason: str = "", **changed: Any) -> Job | None:
        """Ends the work on a job: writes its new state and the changed fields, and returns it. Returns None and changes
        nothing if another worker has claimed it."""

        def left(current: Job) -> Job | None:
            if current.claim != job.claim or current.state is not State.PROCESSING:
                return None
            return current.became(state, self._now(), reason, **{"owner": None, "heartbeat_at": None, **changed})

        return self._change(
            job.job_id, left, done=lambda current: current.claim == job.claim and current.state is state
        )

    def requeue(self, job_id: str, reason: str) -> Job | None:
        """Queues an ended job again, with all its retries, and returns it. Returns None if it has not ended."""

        def requeued(job: Job) -> Job | None:
            fresh = {"retries": 0, "error": None, "error_kind": None, "hint": None, "cancelled": False}
            cleared: dict[str, Any] = {"due_at": None, "claim": None, "percent": None, "counts": {}, "sync_id": None}
            return job.became(State.ENQUEUED, self._now(), reason, **fresh, **cleared) if job.state.has_ended else None

        return self._change(job_id, requeued)

    def cancel(self, job_id: str, reason: str) -> Job | None:
        """Deletes a job that waits or has ended; asks a running job to stop. Returns it, or None without such a job."""

        def cancelled(job: Job) -> Job | None:
            if job.state is State.PROCESSING:
                return replace(job, cancelled=True)
            return job if job.state is State.DELETED else job.became(State.DELETED, self._now(), reason)

        return self._change(job_id, cancelled)

    def lines(self, job_id: str) -> list[str]:
        """Returns the last log lines of the job, oldest first."""
        item = self._keys.get(f"lines:{job_id}")
        return item.value.get("lines", []) if item else []

    def keep_lines(self, job_id: str, lines: Sequence[str]) -> None:
        """Keeps these as the last log lines of the job."""
        self._keys.commit([Change(f"lines:{job_id}", {"lines": list(lines)})])

    def waiting(self, limit: int = PAGE_AT_MOST) -> list[Job]:
        """Returns up to `limit` jobs that wait for a worker, oldest first: Enqueued, Scheduled and due, or Processing
        with a silent worker."""
        open_jobs = [job for state in sorted(OPEN) for job in self._of_state(state, only_free=True)]
        return sorted(open_jobs, key=lambda job: job.order, reverse=True)[:limit]

    def services_at_work(self) -> frozenset[str]:
        """Returns the services with jobs that have not ended."""
        return frozenset(job.request.service for state in OPEN for job in self._of_state(state))

    def numbers(self) -> dict[State, int]:
        """Returns how many jobs are in each state. Cost: one read; every change of a state keeps the numbers."""
        parts = [item.value for item in self._keys.scan(_NUMBERS, limit=_NUMBERS_AT_MOST)]
        return {state: sum(part.get(state, 0) for part in parts) for state in State}

    def forget(self, before: datetime, limit: int = 20) -> int:
        """Removes ended jobs that were made before that time, at most `limit`; returns how many it removed."""
        forgotten = 0
        for item in self._keys.scan("all:", after=f"all:{order_of(before, '')}", limit=limit):
            job = job_of(item.value)
            if job is None:  # what leads to it leads nowhere then, as to a job that was removed
                forgotten += self._keys.commit([Change(item.key, None, item.etag)])
                continue
            if not job.state.has_ended:
                continue
            removals = [Change(item.key, None, item.etag), Change(f"job:{job.job_id}", None)]
            removals += [Change(key, None) for key in pointer_keys(job)]
            removals += self._number_changes(job.job_id, job.state, None)
            if job.occurrence is not None:
                removals.append(Change(once_key(job.request.service, job.occurrence), None))
            forgotten += self._keys.commit(removals)
            self._keys.commit([Change(f"lines:{job.job_id}", None)])  # alone, because a job may have no lines
        return forgotten

    def _of_state(self, state: State, *, only_free: bool = False) -> Iterator[Job]:
        items = self._keys.scan(f"state:{state}:", limit=SCANNED_AT_MOST)
        for record in filter(None, records_at(self._keys, items)):
            job = job_of(record.value)
            if job is not None and job.state is state and not (only_free and not self._is_free(job, record)):
                yield job

    def _is_free(self, job: Job, record: Item) -> bool:
        """Whether a worker may take the job of this record: it waits and is due, or its worker is silent.

        A worker, and whoever schedules a job, writes its record at that moment. So the record's age counts, and no
        clock of a worker is compared with another's.
        """
        written_at = job.heartbeat_at if job.state is State.PROCESSING else job.state_at
        age = record.age_by(written_at or job.created_at, self._now())
        if job.state is State.SCHEDULED:
            pause = job.due_at - (job.state_at or job.created_at) if job.due_at else timedelta()
            return age >= min(pause, LONGEST_WAIT)
        return job.state is State.ENQUEUED or (job.state is State.PROCESSING and (age > SILENCE or _is_gone(job.owner)))

    def _item(self, job_id: str) -> Item | None:
        if not job_id or not all(character in _ID for character in job_id.lower()):
            return None
        pointers = self._keys.scan(f"job:{job_id.lower()}", limit=2)
        if len(pointers) > 1:
            raise BadRequest(f"Several jobs begin with {job_id}.", hint="Give more of the id.")
        order = pointers[0].value.get("order") if pointers else None
        return self._keys.get(f"all:{order}") if order else None

    def _change(
        self,
        job_id: str,
        change: Callable[[Job], Job | None],
        done: Callable[[Job], bool] = lambda _: False,
        *,
        only_free: bool = False,
    ) -> Job | None:
        """Commits what `change` makes of the job and returns it. Returns None if `change` does, or without such a job,
        or when `only_free` and the job has a worker or does not wait.

        `done` says whether an earlier try made the change already, but its answer was lost.
        """
        for _ in range(_TRIES):
            item = self._item(job_id)
            if item is None:
                return None
            before = job_of(item.value)
            if before is None:
                return None
            if done(before):
                return before
            if only_free and not self._is_free(before, item):
                return None
            after = change(before)
            if after is None or after == before:
                return after
            changes = record_changes(before, after, item.etag)
            if self._keys.commit([*changes, *self._number_changes(before.job_id, before.state, after.state)]):
                return after
        raise _crowded(job_id)

    def _number_changes(self, job_id: str, before: State | None, after: State | None) -> list[Change]:
        """The change of the numbers when a job goes from one state to another; None: it is new, or removed.

        The numbers lie in sixteen parts, by the first digit of the job's id. In one part the workers' changes would
        stand in each other's way.
        """
        if before is after:
            return []
        key = f"{_NUMBERS}{job_id[0]}"
        item = self._keys.get(key)
        numbers = dict(item.value) if item else {}
        for state, step in ((before, -1), (after, 1)):
            if state is not None:
                numbers[state] = max(0, numbers.get(state, 0) + step)
        return [Change(key, numbers, item.etag if item else NEW)]


def _is_gone(owner: str | None) -> bool:
    """Whether the owner is a process of this machine that has ended."""
    process = Process.read(owner) if owner else None
    return process is not None and process.is_gone


def _claimed(job: Job, owner: str, claim: str, now: datetime) -> Job:
    claimed = {"owner": owner, "claim": claim, "heartbeat_at": now, "attempt": job.attempt + 1, "due_at": None}
    return job.became(State.PROCESSING, now, f"Worked on by {owner}.", started_at=job.started_at or now, **claimed)


def _crowded(job_id: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"The record of job {job_id} could not be written: other calls changed it meanwhile. Nothing was changed.",
        hint="Try again.",
    )
