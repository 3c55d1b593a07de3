"""What timers and queue messages do with jobs: queue occurrences, ring for waiting jobs, work on a job."""

from __future__ import annotations

import logging
from datetime import datetime

from backup.config.settings import Settings
from backup.core.errors import BackupError
from backup.core.log import event
from backup.core.unexpected import safe_text
from backup.entry.timer import resume_open, run_own_schedules, run_scheduled
from backup.jobs.job import State
from backup.jobs.job_queue import JobQueue, is_queued
from backup.jobs.late_ends import record_late_ends
from backup.jobs.resting import at_rest, note_rest
from backup.jobs.worker import worker_of
from backup.notify.after_runs import after_runs
from backup.notify.delivery import delivery_of, wait_for_delivery
from backup.notify.silence import look_around
from backup.services.registry import Registry

_DELIVERY_SECONDS = 10.0
"""How long the minute timer waits for sinks; a thread that takes longer goes on alone."""


def on_schedule(
    settings: Settings, registry: Registry, job_queue: JobQueue, *, past_due: bool, last: datetime | None
) -> None:
    """Queues a job for every service, or syncs all services inline; `is_queued` decides.

    Raises BackupError when an inline sync failed, after all services had their turn.
    """
    if is_queued(settings, job_queue):
        job_queue.queue_due(settings, registry.directory.entries)
        if not settings.schedule_enabled:
            event("schedule.disabled", setting="BackupSchedule__Enabled")
    else:
        run_scheduled(settings, registry, past_due=past_due, last=last)


def each_minute(settings: Settings, registry: Registry, job_queue: JobQueue) -> None:
    """Queues missed occurrences, rings for waiting jobs, and calls `resume_open` for services without an open job.

    Services and sets that are at rest are left alone, so that their databases may pause (`jobs/resting.py`).

    Where nothing is queued, it syncs services whose own schedules are due. The timer's host knows only the shared one.
    Meanwhile it delivers the events that wait, those about silence too.

    Raises BackupError when a sync or a verify of `resume_open` failed, after all services had their turn.
    """
    busy: frozenset[str] = frozenset()
    is_inline = False
    try:
        is_inline = not is_queued(settings, job_queue)
        if not is_inline:
            job_queue.queue_due(settings, registry.directory.entries)
        job_queue.sweep()
        busy = job_queue.records.services_at_work()
        if not is_inline:
            busy |= at_rest(settings, job_queue, registry.directory.entries)
    except Exception as error:  # such as a record that nobody can read: silence must be told, and open syncs resumed
        hint = error.hint if isinstance(error, BackupError) else None
        event("jobs.not_swept", level=logging.WARNING, error=safe_text(error), hint=hint)
    try:
        record_late_ends(registry, job_queue, busy)
    except Exception as error:  # whatever it is: silence must be told
        event("runs.not_looked_at", level=logging.WARNING, error=safe_text(error))
    try:
        look_around(settings, job_queue, registry.directory.entries)
    except Exception as error:  # whatever it is: open syncs must be resumed
        event("notify.not_looked", level=logging.WARNING, error=safe_text(error))
    delivery_of(settings, job_queue).start()
    try:
        resume_open(
            settings, registry, busy=busy, now=job_queue.now, note_rest=lambda *rest: note_rest(job_queue, *rest)
        )
    finally:
        if is_inline:
            run_own_schedules(settings, registry, busy=busy)
        wait_for_delivery(_DELIVERY_SECONDS)


def work_on(settings: Settings, job_queue: JobQueue, job_id: str) -> None:
    """Works on the job of a message. Raises BackupError when the job has failed for good; its record says so before."""
    job_queue.worker_is_alive()
    job = worker_of(settings, job_queue, after_runs(settings, job_queue)).work(job_id)
    if job is not None and job.state is State.FAILED:
        raise BackupError(f"Job {job.job_id} failed: {job.error}", hint=job.hint)


def log_poisoned(job_queue: JobQueue, job_id: str) -> None:
    """Logs a message that the host gave up, and the state of its job. The sweeper rings again if the job waits."""
    try:
        job = job_queue.records.get(job_id)
    except BackupError as error:
        event("jobs.poisoned", level=logging.ERROR, job_id=job_id, error=error)
        return
    state = job.state if job else "unknown"
    level = logging.INFO if job and job.state.has_ended else logging.ERROR
    event("jobs.poisoned", level=level, job_id=job_id, state=state)
