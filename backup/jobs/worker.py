"""Works on a job: claims it, runs its service, records its progress, and writes how it ended."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from itertools import chain, repeat
from types import TracebackType
from typing import Any, Self

from backup.config.settings import Settings
from backup.core.errors import (
    BackupError,
    Cancelled,
    Interrupted,
    Locked,
    LockLost,
    SetFailed,
    SourceMissing,
    StoreUnavailable,
    Unexpected,
    UnknownRun,
)
from backup.core.log import event, redact
from backup.core.model import Now
from backup.core.run_values import Counts, Run, Status, Trigger, Verb
from backup.core.suggestions import quantity
from backup.core.unexpected import as_backup_error
from backup.jobs.doorbell import Doorbell
from backup.jobs.earlier_slices import run_so_far
from backup.jobs.job import Job, State
from backup.jobs.job_queue import JobQueue
from backup.jobs.lines import JobLines
from backup.jobs.records import JobRecords
from backup.jobs.run_keeper import RunKeeper
from backup.jobs.run_records import RunRecords
from backup.mirror.verification import Depth
from backup.runs.outcome import NOBODY, Observer, Observers, Outcome, Turn
from backup.runs.process import this_process
from backup.services.registry import Registry
from backup.services.service import Options, SyncService
from backup.services.turns import could_not_begin, new_run_of_several

RETRIES = 5
"""How often a job is tried again after an error that may pass: after 2, 4, 8, 16 and 32 minutes."""

_BEATS_SECONDS = (2.0, 5.0, 15.0)  # between two heartbeats: soon at first, for people who watch
_IN_LINE_SECONDS = 30.0  # how long a job waits when another run of its service is at work
_MAY_PASS = (StoreUnavailable, LockLost, Unexpected)


class JobWorker:
    """Works on jobs, one in each call. Several threads may use it at once."""

    def __init__(
        self,
        make_registry: Callable[[Observer], Registry],
        records: JobRecords,
        runs: RunRecords,
        doorbell: Doorbell,
        now: Now,
        slice_seconds: float | None,
        also: Observer = NOBODY,
    ) -> None:
        """`make_registry` makes the registry for each job again; it gets the watcher of the job's runs. `also` hears of
        them once they are recorded."""
        self._make_registry, self._records, self._runs, self._doorbell = make_registry, records, runs, doorbell
        self._now, self._slice_seconds, self._also = now, slice_seconds, also

    def work(self, job_id: str) -> Job | None:
        """Works on the job for one slice and returns it as it is then.

        Returns None when there was nothing to do, or when another worker has taken the job. Raises the errors of the
        records, but never an error of the run: the job has that error.
        """
        job = self._records.claim(job_id, str(this_process()))
        if job is None:
            return None
        event("job.started", job_id=job.job_id, service=job.request.service, attempt=job.attempt)
        lines = JobLines(job.request.service, self._records.lines(job.job_id))
        with lines, _Progress(self._records, job, lines) as progress:
            outcome = self._run(job, progress)
        job = progress.job
        ended_job = self._end(job, outcome)
        self._records.keep_lines(job.job_id, lines.lines)
        return ended_job

    def _run(self, job: Job, progress: _Progress) -> Outcome | BackupError:
        request = job.request
        options = Options(request.force, request.dry_run, request.allow_mass_delete, request.limit)
        turn = Turn(self._slice_seconds)
        keeper = RunKeeper(self._runs, job)
        watcher = Observers(keeper, self._also)
        try:
            registry = self._make_registry(watcher)
            is_group = registry.directory.is_group(request.service)
            service = None if is_group else registry.get(request.service)
        except Exception as error:
            failed = as_backup_error(error)
            watcher.ended(could_not_begin(request.service, Verb(request.verb), Trigger.JOB, options, failed))
            return failed
        try:
            if service is None:
                return self._run_group(registry, job, options, progress)
            if request.verb in (Verb.VERIFY, Verb.DRILL):
                depth = Depth(request.full, request.sample)
                is_drill = request.verb == Verb.DRILL
                return service.verify(depth, drilled=is_drill, trigger=Trigger.JOB, observer=progress)
            # Only its own run: another run of the service may do more than this job asks for, or less.
            own = None if job.sync_id is None else self._own_run(service, job.sync_id, progress, turn, keeper)
            return own or service.sync(Trigger.JOB, options, progress, turn)
        except Exception as error:
            return as_backup_error(error)

    def _own_run(
        self, service: SyncService, sync_id: str, progress: Observer, turn: Turn, keeper: RunKeeper
    ) -> Outcome | None:
        """Resumes the run that the job became. One that has completed is not made again: its worker died, or could not
        write that. Returns None if the job needs another run."""
        outcome = service.resume(Trigger.JOB, turn, progress, sync_id)
        if outcome is not None:
            return outcome
        with suppress(UnknownRun):
            run = service.past.ran(sync_id, 0).run
            if run.status is Status.COMPLETED:
                keeper.found(run)
                return Outcome(run, recorded=True)
        return None

    def _run_group(self, registry: Registry, job: Job, options: Options, progress: _Progress) -> Outcome | BackupError:
        """Syncs a set or what fits a pattern. A later slice resumes what is open, and keeps the failures of earlier
        slices."""
        seconds_left = Turn(self._slice_seconds).countdown()
        so_far = run_so_far(new_run_of_several(job.request.service, Trigger.JOB, options), job, self._runs)
        progress.progress(so_far.run.service, so_far.run.counts)  # a job whose worker died has other counts until now
        outcome = registry.sync_as_one(so_far, options, progress)
        if isinstance(outcome.error, Interrupted):
            return outcome.error
        if job.occurrence is not None and not outcome.in_progress:
            self._look_after(registry, job.request.service, seconds_left)
        return outcome

    def _look_after(self, registry: Registry, name: str, seconds_left: Callable[[], float]) -> None:
        """Purges and verifies the services while there is time: every minute looks after services of a set only while
        they have a run in progress. What fails is logged, and has an entry."""
        now = self._now()
        for service in registry.directory.services(name):
            if seconds_left() <= 0:
                return
            registry.look_after(service, now, seconds_left, nightly=True)

    def _end(self, job: Job, outcome: Outcome | BackupError) -> Job | None:
        """Writes what the run made of the job and returns it; None if another worker has taken the job."""
        error = outcome if isinstance(outcome, BackupError) else outcome.error
        run_fields: dict[str, Any] = {} if isinstance(outcome, BackupError) else _run_fields(outcome.run)
        error_fields = {} if error is None else _error_fields(error)
        now = self._now()
        if isinstance(error, Cancelled):
            return self._records.leave(job, State.DELETED, "It was cancelled.", **run_fields, **error_fields)
        is_interrupted = isinstance(error, Interrupted)
        if is_interrupted or (isinstance(error, SetFailed | None) and has_not_ended(outcome)):
            reason = "Its process ended." if is_interrupted else "Its time was up; the next slice goes on."
            fields = {"proof": None, **run_fields, **({} if is_interrupted else error_fields)}
            attempt = job.attempt if is_interrupted else job.attempt - 1  # another slice of a run is not a new attempt
            return self._ring(self._records.leave(job, State.ENQUEUED, reason, **fields, attempt=attempt))
        if isinstance(error, Locked):
            due = now + timedelta(seconds=_IN_LINE_SECONDS)
            reason = "Another run of the service is at work; it waits in line."
            scheduled = self._records.leave(job, State.SCHEDULED, reason, due_at=due, attempt=job.attempt - 1)
            return self._ring(scheduled, _IN_LINE_SECONDS)
        if error is None:
            return self._records.leave(job, State.SUCCEEDED, **run_fields, error=None, error_kind=None, hint=None)
        if may_pass(error) and job.retries < RETRIES:
            seconds = 60 * 2 ** (job.retries + 1) * random.uniform(1, 1.25)  # noqa: S311 - to spread, not to hide
            reason = f"{redact(str(error))} The next attempt is in about {quantity(round(seconds / 60), 'minute')}."
            fields = {**run_fields, **error_fields, "retries": job.retries + 1, "sync_id": None}
            fields["due_at"] = now + timedelta(seconds=seconds)
            return self._ring(self._records.leave(job, State.SCHEDULED, reason, **fields), seconds)
        return self._records.leave(job, State.FAILED, redact(str(error)), **run_fields, **error_fields)

    def _ring(self, job: Job | None, seconds: float = 0) -> Job | None:
        if job is not None:
            self._doorbell.ring(job.job_id, seconds)
        return job


def worker_of(settings: Settings, job_queue: JobQueue, also: Observer = NOBODY) -> JobWorker:
    """Returns a worker on the jobs of this queue, with the services of these settings. `also` hears of their runs."""

    def make_registry(watcher: Observer) -> Registry:
        return Registry(settings, watcher=watcher)

    return JobWorker(
        make_registry,
        job_queue.records,
        job_queue.runs,
        job_queue.doorbell,
        job_queue.now,
        settings.slice_seconds,
        also,
    )


def may_pass(error: BackupError) -> bool:
    """Whether a later attempt may succeed without anybody's help."""
    if isinstance(error, SetFailed):
        return any(map(may_pass, error.errors))
    return isinstance(error, _MAY_PASS) and not isinstance(error, SourceMissing)


def has_not_ended(outcome: Outcome | BackupError) -> bool:
    """Whether the run has not ended."""
    return isinstance(outcome, Outcome) and outcome.in_progress


def _error_fields(error: BackupError) -> dict[str, Any]:
    return {"error": redact(str(error)), "error_kind": type(error).__name__, "hint": error.hint or None}


def _run_fields(run: Run) -> dict[str, Any]:
    proof = asdict(run.proof) if run.proof is not None and run.completed_at is None else None
    return {"sync_id": run.sync_id, "percent": run.percent, "counts": asdict(run.counts), "proof": proof}


class _Progress(Observer):
    """Writes heartbeat and progress of the job from a thread of its own.

    Stops the run when the job is cancelled, or when another worker has taken it.
    """

    def __init__(self, records: JobRecords, job: Job, lines: JobLines) -> None:
        self.job = job
        self._records, self._lines = records, lines
        self._progress: dict[str, Any] = {}
        self._stop: BackupError | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"job-{job.job_id[:8]}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def started(self, run: Run) -> None:
        """As `Observer` says. The record gets the run's id now: if this process dies, the next worker goes on with that
        run, and does not make it again once it has ended."""
        self._progress |= {"sync_id": run.sync_id, "counts": asdict(run.counts)}
        with suppress(BackupError):  # as in a heartbeat
            self._records.beat(self.job, **self._progress)

    def walked(self, run: Run) -> None:
        """As `Observer` says."""
        self._progress |= {"percent": run.percent}

    def progress(self, service: str, counts: Counts) -> None:  # noqa: ARG002 - the job has one service
        """As `Observer` says. Raises Cancelled or LockLost to stop the run."""
        self._progress |= {"counts": asdict(counts)}
        if self._stop is not None:
            raise self._stop

    def _beat(self) -> None:
        for seconds in chain(_BEATS_SECONDS, repeat(_BEATS_SECONDS[-1])):
            if self._ended.wait(seconds):
                return
            with suppress(BackupError):  # a later heartbeat may succeed; without one another worker takes the job
                job = self._records.beat(self.job, **self._progress)
                if job is None:
                    self._stop = LockLost(f"Another worker has taken job {self.job.job_id}, so this run stopped.")
                    return
                if job.cancelled:
                    self._stop = Cancelled()
                self._records.keep_lines(job.job_id, self._lines.lines)
