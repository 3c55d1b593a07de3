"""Queues jobs: the records of jobs and runs, the doorbell, and what the sweeper heals. Runs nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, timedelta
from pathlib import Path

from backup.config.settings import Settings
from backup.core.log import event
from backup.core.model import Now, utc_now
from backup.core.retry import Retry
from backup.core.unexpected import safe_text
from backup.jobs.doorbell import Doorbell, LocalDoorbell, QueueDoorbell
from backup.jobs.job import Job, Request
from backup.jobs.key_values import Change, Item, KeyValues
from backup.jobs.occurrences import first_occurrence, pass_occurrence, passed_occurrences
from backup.jobs.outbox import Outbox, subscriptions_of
from backup.jobs.record_keys import hashed
from backup.jobs.records import SILENCE, JobRecords
from backup.jobs.run_keeper import RunKeeper
from backup.jobs.run_records import KEEP_DAYS, RunRecords
from backup.jobs.stored import moment_in
from backup.runs.outcome import Observer
from backup.runs.process import this_process

_FORGOTTEN_AT_ONCE = 50
_WORKERS_AT_MOST = 1_000
_WORKERS_STAY = timedelta(hours=1)


@dataclass(frozen=True)
class JobQueue:
    """The records of jobs and runs, the outbox of events, and the doorbell. Several threads may use it at once."""

    keys: KeyValues
    records: JobRecords
    runs: RunRecords
    outbox: Outbox
    doorbell: Doorbell
    now: Now

    def ask(self, request: Request, trigger: str, *, requested_by: str | None = None) -> Job:
        """Writes a new job, rings for it, and returns it. If the ring fails, the sweeper rings later.

        Raises StoreUnavailable when the record cannot be written. Then there is no job, unless the server's answer was
        lost.
        """
        job = self.records.enqueue(request, trigger, requested_by=requested_by)
        assert job is not None  # noqa: S101 - for mypy; only an occurrence may have a job already
        self.doorbell.ring(job.job_id)
        return job

    def queue_due(self, settings: Settings, services: Sequence[str]) -> list[Job]:
        """Queues each service's newest occurrence of the schedule, unless it has a job already. Returns the new jobs.

        An occurrence gets one job, however late or often this is called, from however many processes. Of several missed
        occurrences only the last gets one. With `schedule_enabled` false none gets one; they do not count as missed.
        Cost: one read for each thousand services, and a few writes for each service that is due.
        """
        now, passed = self.now(), passed_occurrences(self.keys)
        schedules = {service: settings.schedule_of(service) for service in services}
        due = {schedule: schedule.last_due(now).astimezone(UTC) for schedule in set(schedules.values())}
        jobs: list[Job] = []
        for service, schedule in schedules.items():
            last = passed.get(service.lower())
            occurrence = last.missed(schedule, due[schedule], now) if last else first_occurrence(due[schedule], now)
            if occurrence is not None and settings.schedule_enabled:
                job = self.records.enqueue(Request(service), "timer", occurrence=occurrence.isoformat())
                jobs += [job] if job else []
            if last is None or (last.schedule, last.at) != (schedule, due[schedule]):
                pass_occurrence(self.keys, last, service, schedule, due[schedule])
        for job in jobs:
            service = job.request.service
            upcoming = schedules[service].next_due(now)
            event("schedule.queued", service=service, job_id=job.job_id, occurrence=job.occurrence, next=upcoming)
            self.doorbell.ring(job.job_id)
        return jobs

    def watcher(self, requested_by: str | None = None) -> Observer:
        """Returns what saves the summaries of runs that belong to no job; `requested_by` asked for them."""
        return RunKeeper(self.runs, requested_by=requested_by)

    def sweep(self) -> int:
        """Rings for every waiting job; removes old jobs and silent workers; saves the runs of this process that could
        not be saved when they ended. Returns for how many jobs it rang."""
        self.runs.save_unsaved()
        waiting = self.records.waiting()
        for job in waiting:
            self.doorbell.ring(job.job_id)
        self.records.forget(self.now() - timedelta(days=KEEP_DAYS), _FORGOTTEN_AT_ONCE)
        self._forget_workers()
        return len(waiting)

    def _forget_workers(self) -> None:
        # Processes come and go. Without this their entries would hide the living ones from `workers` one day.
        for item in self.keys.scan("server:", limit=_WORKERS_AT_MOST):
            silence = self._silence(item)
            if silence is None or silence > _WORKERS_STAY:
                self.keys.commit([Change(item.key, None, item.etag)])

    def check_written(self) -> None:
        """Raises StoreUnavailable or StoreError when the records cannot be written, as on a full disk."""
        self.keys.commit([Change("probe", {"at": self.now().isoformat()})])

    def worker_is_alive(self) -> None:
        """Records that this process works on jobs."""
        name = str(this_process())
        self.keys.commit([Change(f"server:{hashed(name)}", {"name": name, "at": self.now().isoformat()})])

    def workers(self) -> list[str]:
        """Returns the processes that worked on jobs within the last two minutes."""
        signs = [(item, self._silence(item)) for item in self.keys.scan("server:", limit=_WORKERS_AT_MOST)]
        return [item.value["name"] for item, silence in signs if silence is not None and silence < SILENCE]

    def _silence(self, item: Item) -> timedelta | None:
        """How long ago the worker of this entry said that it is alive; None for an entry that cannot be read."""
        at = moment_in(item.value, "at")
        return item.age_by(at, self.now()) if at and isinstance(item.value.get("name"), str) else None


def job_queue_of(settings: Settings) -> JobQueue:
    """Returns the job queue of this app. A process has one job queue for the same settings of it."""
    names = ("jobs_file", "storage_connection", "storage_account", "storage_blob_uri", "storage_table_uri")
    storage = tuple(getattr(settings, name) for name in (*names, "storage_queue_uri", "storage_client_id"))
    sinks = tuple(getattr(settings, name) for name in sorted(Settings.model_fields) if name.startswith("notify_"))
    values = (*storage, *sinks)
    if values not in _job_queues:
        _job_queues[values] = open_job_queue(settings)
    return _job_queues[values]


_job_queues: dict[tuple[object, ...], JobQueue] = {}


def close_job_queues() -> None:
    """Closes the connections to the records, as the end of the process. So the file of jobs has all changes in itself
    once no process uses it, and may be moved or copied alone. Raises no error."""
    for job_queue in list(_job_queues.values()):
        with suppress(Exception):
            job_queue.keys.close()


def open_job_queue(settings: Settings, now: Now = utc_now) -> JobQueue:
    """Opens the job queue of this app: in its storage account if it has one, else in its file. Connects nowhere yet."""
    retry = Retry(settings.retry_max_attempts, settings.retry_base_seconds, settings.retry_max_seconds)
    outbox = Outbox(subscriptions_of(settings), settings.notify_source)
    if not settings.has_storage_account:
        from backup.jobs.sqlite_key_values import SqliteKeyValues

        local: KeyValues = SqliteKeyValues(Path(settings.jobs_file))
        return JobQueue(local, JobRecords(local, now), RunRecords(local, outbox), outbox, LOCAL_DOORBELL, now)
    from backup.jobs.table_key_values import TableKeyValues

    table = TableKeyValues(settings, retry)
    return JobQueue(table, JobRecords(table, now), RunRecords(table, outbox), outbox, QueueDoorbell(settings), now)


LOCAL_DOORBELL = LocalDoorbell()
"""The doorbell of this process; its worker threads wait for it."""

_logged_reasons: set[str] = set()


def is_queued(settings: Settings, job_queue: JobQueue) -> bool:
    """Whether the schedule queues jobs. If not, it runs the syncs inline.

    `BackupSchedule__Mode` decides. Without it, the schedule queues jobs where the records can be written and something
    works on jobs: with a storage account the queue's function, else a worker of the last two minutes. Logs once in a
    process why the records or the queue cannot be written.
    """
    if settings.schedule_mode is not None:
        return settings.schedule_mode == "queue"
    try:
        if isinstance(job_queue.doorbell, QueueDoorbell):
            job_queue.doorbell.check()
        elif not job_queue.workers():
            return False
        job_queue.check_written()
    except Exception as error:
        reason = safe_text(error)
        if reason not in _logged_reasons:
            _logged_reasons.add(reason)
            event("schedule.inline", level=logging.WARNING, error=reason)
        return False
    return True
