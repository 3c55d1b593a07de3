"""Saves the summaries of runs in the records, as the runs begin and end."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from backup.core.errors import Locked, StoreUnavailable
from backup.core.log import event
from backup.core.run_values import Run, Trigger
from backup.core.unexpected import safe_text
from backup.jobs.job import Job
from backup.jobs.run_records import KEEP_DAYS, RunRecords
from backup.runs.outcome import Observer, Outcome


class RunKeeper(Observer):
    """Saves the summaries of runs. Logs a summary that cannot be written, and does not fail the run. That of a run that
    has ended is saved by this process later, as soon as the records can be written."""

    def __init__(self, runs: RunRecords, job: Job | None = None, requested_by: str | None = None) -> None:
        """`job`: the job that the runs belong to. `requested_by`: who asked for runs that belong to none."""
        self._runs, self._job_id = runs, job.job_id if job else None
        self._requested_by = job.requested_by if job else requested_by
        self._due_at = datetime.fromisoformat(job.occurrence) if job and job.occurrence else None

    def started(self, run: Run) -> None:
        """As `Observer` says."""
        self._save(run)

    def ended(self, outcome: Outcome) -> None:
        """As `Observer` says. Saves nothing of a run that did not get the lock, and no end of one that another call
        resumes: a saved end does not change any more."""
        error = outcome.error
        is_left_open = outcome.left_open and outcome.run.completed_at is not None
        if not isinstance(error, Locked) and not is_left_open:
            has_failed = error is not None and outcome.run.completed_at is not None
            run = replace(outcome.run, error_kind=type(error).__name__) if has_failed else outcome.run
            self._save(run, error.hint if error else None)

    def closed(self, run: Run) -> None:
        """As `Observer` says. The summary keeps the job and the person that it had."""
        RunKeeper(self._runs)._save(run)

    def found(self, run: Run) -> None:
        """Saves a run that ended some time ago, unless its end is saved. Other runs may have ended since."""
        self._save(run, is_late=True)

    def _save(self, run: Run, hint: str | None = None, *, is_late: bool = False) -> None:
        due_at = self._due_at or (run.started_at if run.trigger is Trigger.TIMER else None)
        save = partial(
            self._runs.save, run, job_id=self._job_id, hint=hint, requested_by=self._requested_by, due_at=due_at
        )
        try:
            save(is_late=is_late)
            if run.completed_at is not None:
                self._runs.forget(run.completed_at - timedelta(days=KEEP_DAYS))
        except Exception as error:  # whatever it is: the run itself is well
            if run.completed_at is not None and isinstance(error, StoreUnavailable):
                self._runs.save_later(partial(save, is_late=True))
            event(
                "runs.not_saved",
                level=logging.WARNING,
                service=run.service,
                sync_id=run.sync_id,
                error=safe_text(error),
            )
        else:
            self._runs.save_unsaved()
