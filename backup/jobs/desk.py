"""Queues jobs: the records of jobs and runs, the doorbell, and what the sweeper heals. Runs nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from backup.config.ncrontab import last_due
from backup.config.settings import Settings
from backup.core.foreseen import safe_text
from backup.core.log import event
from backup.core.model import Now, utc_now
from backup.core.retry import Retry
from backup.jobs.doorbell import Doorbell, LocalDoorbell, QueueDoorbell
from backup.jobs.job import Job, Request
from backup.jobs.key_values import NEW, Change, KeyValues
from backup.jobs.record_keys import hashed
from backup.jobs.records import SILENCE, JobRecords
from backup.jobs.run_records import KEEP_DAYS, RunKeeper, RunRecords
from backup.runs.outcome import Observer
from backup.runs.process import this_process

_FORGOTTEN_AT_ONCE = 50
_WORKERS_AT_MOST = 1_000
_WORKERS_STAY = timedelta(hours=1)
_FIRST_NIGHT = timedelta(minutes=10)  # a new service has missed no occurrence from before


@dataclass(frozen=True)
class Desk:
    """The records of jobs and runs, and the doorbell. Several threads may use it at once."""

    keys: KeyValues
    records: JobRecords
    runs: RunRecords
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

        An occurrence gets one job, however late or often this is called. Of several missed occurrences only the last
        gets one.
        """
        if not settings.schedule_enabled:
            return []
        now = self.now()
        item = self.keys.get("schedule")
        queued: dict[str, str] = dict(item.value) if item else {}
        jobs: list[Job] = []
        for service in services:
            due = last_due(settings.schedule, now, settings.zone)
            last = queued.get(service)
            if last is not None and due <= datetime.fromisoformat(last):
                continue
            if last is not None or due > now - _FIRST_NIGHT:
                job = self.records.enqueue(Request(service), "timer", occurrence=due.isoformat())
                jobs += [job] if job else []
            queued[service] = due.isoformat()
        if item is None or queued != item.value:
            # If another call has written it meanwhile, this changes nothing; the next call heals that.
            self.keys.commit([Change("schedule", queued, item.etag if item else NEW)])
        for job in jobs:
            event("schedule.queued", service=job.request.service, job_id=job.job_id, occurrence=job.occurrence)
            self.doorbell.ring(job.job_id)
        return jobs

    def watcher(self, requested_by: str | None = None) -> Observer:
        """Returns what saves the summaries of runs that belong to no job; `requested_by` asked for them."""
        return RunKeeper(self.runs, requested_by=requested_by)

    def sweep(self) -> int:
        """Rings for every waiting job; removes old jobs and silent workers. Returns for how many jobs it rang."""
        waiting = self.records.waiting()
        for job in waiting:
            self.doorbell.ring(job.job_id)
        self.records.forget(self.now() - timedelta(days=KEEP_DAYS), _FORGOTTEN_AT_ONCE)
        self._forget_workers(self.now() - _WORKERS_STAY)
        return len(waiting)

    def _forget_workers(self, before: datetime) -> None:
        # Processes come and go. Without this their entries would hide the living ones from `workers` one day.
        for item in self.keys.scan("server:", limit=_WORKERS_AT_MOST):
            if datetime.fromisoformat(item.value["at"]) < before:
                self.keys.commit([Change(item.key, None, item.etag)])

    def worker_is_alive(self) -> None:
        """Records that this process works on jobs."""
        name = str(this_process())
        self.keys.commit([Change(f"server:{hashed(name)}", {"name": name, "at": self.now().isoformat()})])

    def workers(self) -> list[str]:
        """Returns the processes that worked on jobs within the last two minutes."""
        since = self.now() - SILENCE
        items = self.keys.scan("server:", limit=_WORKERS_AT_MOST)
        return [item.value["name"] for item in items if datetime.fromisoformat(item.value["at"]) > since]


def desk_of(settings: Settings) -> Desk:
    """Returns the desk of this app. A process has one desk for the same settings of it."""
    names = ("jobs_file", "storage_connection", "storage_account", "storage_blob_uri", "storage_table_uri")
    values = tuple(getattr(settings, name) for name in (*names, "storage_queue_uri", "storage_client_id"))
    if values not in _desks:
        _desks[values] = open_desk(settings)
    return _desks[values]


_desks: dict[tuple[object, ...], Desk] = {}


def open_desk(settings: Settings, now: Now = utc_now) -> Desk:
    """Opens the desk of this app: in its storage account if it has one, else in its file. Connects nowhere yet."""
    retry = Retry(settings.retry_max_attempts, settings.retry_base_seconds, settings.retry_max_seconds)
    if not settings.has_storage_account:
        from backup.jobs.sqlite_key_values import SqliteKeyValues

        local: KeyValues = SqliteKeyValues(Path(settings.jobs_file))
        return Desk(local, JobRecords(local, now), RunRecords(local), LOCAL_DOORBELL, now)
    from backup.jobs.table_key_values import TableKeyValues

    table = TableKeyValues(settings, retry)
    return Desk(table, JobRecords(table, now), RunRecords(table), QueueDoorbell(settings), now)


LOCAL_DOORBELL = LocalDoorbell()
"""The doorbell of this process; its worker threads wait for it."""

_logged_reasons: set[str] = set()


def is_queued(settings: Settings, desk: Desk) -> bool:
    """Whether the schedule queues jobs. If not, it runs the syncs inline.

    `BackupSchedule__Mode` decides. Without it, the schedule queues jobs where the records can be written and something
    works on jobs: with a storage account the queue's function, else a worker of the last two minutes. Logs once in a
    process why the records or the queue cannot be written.
    """
    if settings.schedule_mode is not None:
        return settings.schedule_mode == "queue"
    try:
        if not isinstance(desk.doorbell, QueueDoorbell):
            return bool(desk.workers())
        desk.doorbell.check()
        return desk.keys.commit([Change("probe", {"at": desk.now().isoformat()})])
    except Exception as error:
        reason = safe_text(error)
        if reason not in _logged_reasons:
            _logged_reasons.add(reason)
            event("schedule.inline", level=logging.WARNING, error=reason)
        return False
