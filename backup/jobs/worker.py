"""Works on a job: claims it, runs its service, says how far it is, and leaves it as it ended."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from backup.config.settings import Settings
from backup.core.errors import (
    BackupError,
    Cancelled,
    Interrupted,
    Locked,
    LockLost,
    SourceMissing,
    StoreUnavailable,
    Unexpected,
)
from backup.core.log import event, redact
from backup.core.model import Counts, Now, Run, Trigger
from backup.jobs.desk import Desk
from backup.jobs.doorbell import Doorbell
from backup.jobs.job import Job, State
from backup.jobs.lines import JobLines
from backup.jobs.records import JobRecords
from backup.jobs.run_records import RunKeeper, RunRecords
from backup.runs.process import this_process
from backup.runs.runner import Observer, Outcome, Turn, foreseen
from backup.services.registry import Registry
from backup.services.service import Options

RETRIES = 5
"""So often a job is tried again for an error that may pass, after 2, 4, 8, 16 and 32 minutes."""

_BEAT_SECONDS = 15.0
_LINE_SECONDS = 30.0  # so long a job that finds its service at work waits before it looks again
_MAY_PASS = (StoreUnavailable, LockLost, Unexpected)


class JobWorker:
    """Works on jobs of the services of a registry, one in each call. Several threads may use it at once."""

    def __init__(
        self,
        registry: Callable[[Observer], Registry],
        records: JobRecords,
        runs: RunRecords,
        doorbell: Doorbell,
        now: Now,
        slice_seconds: float | None,
    ) -> None:
        """`registry` is called for each job, with a watcher of its runs, so that it sees the settings as they are."""
        self._registry, self._records, self._runs, self._doorbell = registry, records, runs, doorbell
        self._now, self._slice_seconds = now, slice_seconds

    def work(self, job_id: str) -> Job | None:
        """Works on the job for one slice and returns it as it was left; None where there was nothing to do.

        Never raises an error of the run: that is in the job. Raises what the records raise.
        """
        job = self._records.claim(job_id, str(this_process()))
        if job is None:
            return None
        event("job.started", job_id=job.job_id, service=job.request.service, attempt=job.attempt)
        lines = JobLines(job.request.service, self._records.lines(job.job_id))
        with lines, _Progress(self._records, job, lines) as progress:
            outcome = self._run(job, progress)
        job = progress.job
        left = self._left(job, outcome)
        self._records.keep_lines(job.job_id, lines.lines)
        return left

    def _run(self, job: Job, progress: _Progress) -> Outcome | BackupError:
        request = job.request
        options = Options(force=request.force, dry_run=request.dry_run, allow_mass_delete=request.allow_mass_delete)
        turn = Turn(self._slice_seconds)
        try:
            service = self._registry(RunKeeper(self._runs, job)).get(request.service)
            outcome = service.resume(Trigger.JOB, turn, progress) if job.sync_id is not None else None
            return outcome or service.sync(Trigger.JOB, options, progress, turn)
        except Exception as error:
            return foreseen(error)

    def _left(self, job: Job, outcome: Outcome | BackupError) -> Job | None:
        """The job as its run leaves it; None if another worker has it by now."""
        error = outcome if isinstance(outcome, BackupError) else outcome.error
        known: dict[str, Any] = {} if isinstance(outcome, BackupError) else _known(outcome.run)
        told = {} if error is None else _told(error)
        now = self._now()
        if isinstance(error, Cancelled):
            return self._records.leave(job, State.DELETED, "It was cancelled.", **known, **told)
        if isinstance(error, Interrupted) or (error is None and goes_on(outcome)):
            reason = "Its process ended." if error else "Its time was up; it goes on."
            same = {"attempt": job.attempt if error else job.attempt - 1}  # going on is no new try
            return self._rung(self._records.leave(job, State.ENQUEUED, reason, **known, **same))
        if isinstance(error, Locked):
            due = now + timedelta(seconds=_LINE_SECONDS)
            reason = "Another run of the service is at work; it waits in line."
            left = self._records.leave(job, State.SCHEDULED, reason, due_at=due, attempt=job.attempt - 1)
            return self._rung(left, _LINE_SECONDS)
        if error is None:
            return self._records.leave(job, State.SUCCEEDED, **known, error=None, error_kind=None, hint=None)
        if may_pass(error) and job.retries < RETRIES:
            seconds = 60 * 2 ** (job.retries + 1) * random.uniform(1, 1.25)  # noqa: S311 - to spread, not to hide
            reason = f"{redact(str(error))} Tried again in about {round(seconds / 60)} minutes."
            due = now + timedelta(seconds=seconds)
            more = {"due_at": due, "retries": job.retries + 1, "sync_id": None}
            return self._rung(self._records.leave(job, State.SCHEDULED, reason, **{**known, **told, **more}), seconds)
        return self._records.leave(job, State.FAILED, redact(str(error)), **known, **told)

    def _rung(self, job: Job | None, seconds: float = 0) -> Job | None:
        if job is not None:
            self._doorbell.ring(job.job_id, seconds)
        return job


def worker_of(settings: Settings, desk: Desk) -> JobWorker:
    """The worker on jobs of a desk, for the services of these settings."""

    def registry(watcher: Observer) -> Registry:
        return Registry(settings, watcher=watcher)

    return JobWorker(registry, desk.records, desk.runs, desk.doorbell, desk.now, settings.slice_seconds)


def may_pass(error: BackupError) -> bool:
    """Whether a later try may succeed although nobody mends anything."""
    return isinstance(error, _MAY_PASS) and not isinstance(error, SourceMissing)


def goes_on(outcome: Outcome | BackupError) -> bool:
    """Whether the run has not ended."""
    return isinstance(outcome, Outcome) and outcome.in_progress


def _told(error: BackupError) -> dict[str, Any]:
    return {"error": redact(str(error)), "error_kind": type(error).__name__, "hint": error.hint or None}


def _known(run: Run) -> dict[str, Any]:
    return {"sync_id": run.sync_id, "percent": run.percent, "counts": asdict(run.counts)}


class _Progress(Observer):
    """Says in the background that the job is worked on, and how far it is; hears that it shall stop."""

    def __init__(self, records: JobRecords, job: Job, lines: JobLines) -> None:
        self.job = job
        self._records, self._lines = records, lines
        self._now: dict[str, Any] = {}
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
        """As `Observer` says."""
        self._now |= {"sync_id": run.sync_id}

    def progress(self, service: str, counts: Counts) -> None:  # noqa: ARG002 - it is the job's
        """As `Observer` says. Raises Cancelled or LockLost to stop the run."""
        self._now |= {"counts": asdict(counts)}
        if self._stop is not None:
            raise self._stop

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            with suppress(BackupError):  # a later beat may succeed; without any the job becomes another's
                job = self._records.beat(self.job, **self._now)
                if job is None:
                    self._stop = LockLost(f"The job {self.job.job_id} was taken over, so its run stopped.")
                    return
                if job.cancelled:
                    self._stop = Cancelled()
                self._records.keep_lines(job.job_id, self._lines.lines)
