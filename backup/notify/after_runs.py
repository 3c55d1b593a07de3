"""Starts the delivery of events as soon as a run has ended."""

from __future__ import annotations

from backup.config.settings import Settings
from backup.jobs.job_queue import JobQueue
from backup.notify.delivery import Delivery, delivery_of
from backup.runs.outcome import NOBODY, Observer, Observers, Outcome


class AfterRuns(Observer):
    """Starts the delivery when a run has ended. The run does not wait for it."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def ended(self, outcome: Outcome) -> None:
        """As `Observer` says."""
        if outcome.run.completed_at is not None:
            self._delivery.start()


def after_runs(settings: Settings, job_queue: JobQueue) -> Observer:
    """Returns what starts the delivery after runs; where the settings name no sink, what does nothing."""
    delivery = delivery_of(settings, job_queue)
    return AfterRuns(delivery) if delivery.sinks else NOBODY


def watcher_of(settings: Settings, job_queue: JobQueue, requested_by: str | None = None) -> Observer:
    """Returns what saves the summaries of runs that belong to no job, and then delivers the events about them.
    `requested_by` asked for the runs."""
    return Observers(job_queue.watcher(requested_by), after_runs(settings, job_queue))
