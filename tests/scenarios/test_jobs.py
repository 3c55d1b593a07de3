"""A job's life: queued, worked on, retried, cancelled, taken over; over a SQLite file and over a storage account."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from azure.storage.queue import QueueServiceClient

from backup.config.bindings import QUEUE
from backup.config.settings import Settings, load_settings
from backup.core.errors import Locked, LockLost, StoreUnavailable
from backup.core.retry import Retry
from backup.core.run_values import Counts, Run, Trigger
from backup.jobs import records, table_key_values, worker
from backup.jobs.doorbell import QueueDoorbell
from backup.jobs.job import Job, Request, State
from backup.jobs.job_queue import JobQueue, open_job_queue
from backup.jobs.late_ends import record_late_ends
from backup.jobs.records import SILENCE
from backup.jobs.run_keeper import RunKeeper
from backup.jobs.worker import RETRIES, JobWorker
from backup.runs.lock import open_lock
from backup.runs.outcome import Observer
from backup.services.registry import Registry
from tests.scenarios.aging import let_pass
from tests.scenarios.places import Place, filled_on_sqlite

CUSTOMER = Request("customer")


class Clock:
    """The present, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Office:
    """A place whose services are synced by jobs."""

    def __init__(self, place: Place, given: dict[str, str]) -> None:
        self.place, self.clock = place, Clock()
        self.settings: Settings = load_settings({**place.settings, **given})
        self.job_queue: JobQueue = open_job_queue(self.settings, self.clock)

    def let_pass(self, time: timedelta) -> None:
        self.clock.ahead += time
        let_pass(self.job_queue.keys, time)

    def worker(self, registry: Callable[..., Any] | None = None, slice_seconds: float | None = None) -> JobWorker:
        job_queue = self.job_queue
        made = registry or (lambda watcher: Registry(self.settings, watcher=watcher))
        return JobWorker(made, job_queue.records, job_queue.runs, job_queue.doorbell, self.clock, slice_seconds)

    def asked(self, request: Request = CUSTOMER) -> Job:
        return self.job_queue.ask(request, "http")

    def job(self, job: Job) -> Job:
        latest = self.job_queue.records.get(job.job_id)
        assert latest is not None
        return latest

    def worked(self, job: Job, **more: Any) -> Job:
        left = self.worker(**more).work(job.job_id)
        assert left is not None
        assert left == self.job(job)
        return left


@contextlib.contextmanager
def opened(folder: Path, given: dict[str, str]) -> Iterator[Office]:
    place = filled_on_sqlite(folder)
    made = Office(place, given)
    yield made
    made.job_queue.keys.close()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """Jobs in a SQLite file. What a storage account does otherwise, `any_office` and the contract of keys and values
    show."""
    with opened(tmp_path, {"BackupJobs__File": str(tmp_path / "jobs.db")}) as made:
        yield made


@pytest.fixture(params=["file", "account"])
def any_office(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    """Jobs in a SQLite file, and in a storage account."""
    if request.param == "file":
        yield request.getfixturevalue("office")
        return
    monkeypatch.setattr(table_key_values.TableKeyValues.__init__, "__defaults__", (f"t{uuid4().hex}",))
    with opened(tmp_path, {"AzureWebJobsStorage": request.getfixturevalue("azurite")}) as made:
        yield made


def test_a_job_becomes_a_run_and_ends_with_its_counts(any_office: Office, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "backup")
    job = any_office.asked()
    assert any_office.job(job).state is State.ENQUEUED
    left = any_office.worked(job)
    assert (left.state, left.percent, left.counts["inserted"], left.attempt) == (State.SUCCEEDED, None, 100, 1)
    [run] = any_office.job_queue.runs.page().runs
    assert (run["syncId"], run["jobId"], run["status"], run["trigger"]) == (
        left.sync_id,
        job.job_id,
        "Completed",
        "job",
    )
    assert [past.state for past in left.history] == [State.ENQUEUED, State.PROCESSING, State.SUCCEEDED]
    assert any("sync.completed" in line for line in any_office.job_queue.records.lines(job.job_id))


def test_a_message_that_comes_twice_runs_the_job_once(any_office: Office) -> None:
    job = any_office.asked()
    worker = any_office.worker()
    left: list[Job | None] = []
    threads = [threading.Thread(target=lambda: left.append(worker.work(job.job_id))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left.append(worker.work(job.job_id))
    assert sorted(result is None for result in left) == [False, True, True]
    assert len(any_office.job_queue.runs.page().runs) == 1


def test_a_bell_whose_queue_was_removed_makes_it_again(azurite: str) -> None:
    bell = QueueDoorbell(load_settings({"AzureWebJobsStorage": azurite}))
    assert bell.ring("1")
    QueueServiceClient.from_connection_string(azurite).delete_queue(QUEUE)
    assert [bell.ring("2"), bell.ring("3")] == [False, True]


def test_a_dry_run_writes_nothing_to_the_backup(office: Office) -> None:
    left = office.worked(office.asked(replace(CUSTOMER, dry_run=True)))
    assert (left.state, left.counts["inserted"]) == (State.SUCCEEDED, 100)
    with office.place.registry.get("customer").stores() as (_, backup):
        assert backup.count() == 0


def test_a_run_that_could_not_start_is_a_failed_job_with_its_reason(office: Office) -> None:
    left = office.worked(office.asked(Request("nothing")))
    assert (left.state, left.error_kind, left.attempt) == (State.FAILED, "UnknownService", 1)
    assert left.error is not None
    assert "nothing" in left.error
    assert left.hint


def unreachable(_watcher: Observer) -> Registry:
    raise StoreUnavailable("Nothing answers there.")


def test_an_error_that_may_pass_is_tried_again_after_longer_and_longer_pauses(office: Office) -> None:
    job = office.asked()
    for minutes in (2, 4, 8, 16, 32):
        before, left, after = office.clock(), office.worked(job, registry=unreachable), office.clock()
        assert (left.state, left.error) == (State.SCHEDULED, "Nothing answers there.")
        assert left.due_at is not None
        assert left.due_at >= before + timedelta(minutes=minutes)
        assert left.due_at <= after + timedelta(minutes=1.25 * minutes)
        assert office.worker().work(job.job_id) is None
        office.let_pass(left.due_at - office.clock() + timedelta(seconds=1))
    left = office.worked(job, registry=unreachable)
    assert (left.state, left.attempt) == (State.FAILED, RETRIES + 1)
    again = office.job_queue.records.requeue(job.job_id, "Ada asked.")
    assert again is not None
    left = office.worked(job)
    assert (left.state, left.error) == (State.SUCCEEDED, None)


def test_a_job_whose_service_is_at_work_waits_in_line(office: Office) -> None:
    job = office.asked()
    with office.place.registry.get("customer").stores() as (_, backup):
        location = backup.place.location
    with open_lock(office.settings, Retry())("customer", location):
        left = office.worked(job)
    assert (left.state, left.retries, left.error) == (State.SCHEDULED, 0, None)
    office.let_pass(timedelta(minutes=1))
    assert [waiting.job_id for waiting in office.job_queue.records.waiting()] == [job.job_id]
    assert office.worked(job).state is State.SUCCEEDED


@pytest.mark.parametrize("any_office", ["file"], indirect=True)
def test_work_in_slices_is_one_run(any_office: Office) -> None:
    settings = any_office.settings.model_copy(update={"chunk_size": 20, "parallelism": 1})
    job = any_office.asked()
    left = any_office.worked(job, registry=lambda watcher: Registry(settings, watcher=watcher), slice_seconds=0)
    slices = 1
    while left.state is State.ENQUEUED:
        left = any_office.worked(job, registry=lambda watcher: Registry(settings, watcher=watcher), slice_seconds=0)
        slices += 1
    assert slices > 2
    assert (left.state, left.counts["inserted"]) == (State.SUCCEEDED, 100)
    assert [run["syncId"] for run in any_office.job_queue.runs.page().runs] == [left.sync_id]


def test_a_job_that_was_cancelled_stops_at_its_next_batch(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_BEATS_SECONDS", (0.01,))
    settings = office.settings.model_copy(update={"batch_size": 1, "parallelism": 1})
    office.place.registry.sync("customer", Trigger.CLI)
    office.place.customer.source.run("UPDATE {table} SET Version = Version + 1000")
    job = office.asked()
    progress = worker._Progress.progress

    def cancelled(self: worker._Progress, service: str, counts: Counts) -> None:
        progress(self, service, counts)
        if counts.updated == 10:
            office.job_queue.records.cancel(job.job_id, "Ada asked.")
            while self._stop is None:  # its heartbeats have not heard of it yet
                threading.Event().wait(0.001)

    monkeypatch.setattr(worker._Progress, "progress", cancelled)
    left = office.worked(job, registry=lambda watcher: Registry(settings, watcher=watcher))
    assert left.state is State.DELETED
    assert left.counts["updated"] == 11  # it hears of it when the next batch is written
    [run] = office.job_queue.runs.page().runs
    assert (run["status"], run["errorKind"]) == ("Failed", "Cancelled")
    rows = office.place.customer.backup.contents().values()
    assert sum(row["Version"] > 1000 for row in rows) == left.counts["updated"]


def test_a_run_that_lost_its_lock_goes_on_and_its_summary_says_how_it_ended(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = office.settings.model_copy(update={"batch_size": 1, "parallelism": 1})
    office.place.registry.sync("customer", Trigger.CLI)
    office.place.customer.source.run("UPDATE {table} SET Version = Version + 1000")
    job = office.asked()

    def lost(_: worker._Progress, __: str, counts: Counts) -> None:
        if counts.updated == 10:
            raise LockLost

    with monkeypatch.context() as patch:
        patch.setattr(worker._Progress, "progress", lost)
        left = office.worked(job, registry=lambda watcher: Registry(settings, watcher=watcher))
    assert (left.state, left.error_kind) == (State.SCHEDULED, "LockLost")
    assert [run["status"] for run in office.job_queue.runs.page().runs] == ["InProgress"]
    office.let_pass(timedelta(minutes=5))
    left = office.worked(job)
    assert left.state is State.SUCCEEDED
    assert [run["status"] for run in office.job_queue.runs.page().runs] == ["Completed"]
    assert office.job_queue.runs.last("customer")["success"]["syncId"] == left.sync_id
    assert [run["Status"] for run in office.place.customer.backup.history()] == ["Completed"] * 2


def test_a_verify_and_a_drill_say_how_far_they_are_and_stop_where_their_job_is_cancelled(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_BEATS_SECONDS", (0.01,))
    settings = office.settings.model_copy(update={"chunk_size": 20, "parallelism": 1})
    office.place.registry.sync("customer", Trigger.CLI)
    walked = worker._Progress.walked
    percents: list[int | None] = []

    def cancelled(self: worker._Progress, run: Run) -> None:
        walked(self, run)
        percents.append(run.percent)
        office.job_queue.records.cancel(self.job.job_id, "Ada asked.")
        while self._stop is None:
            threading.Event().wait(0.001)

    monkeypatch.setattr(worker._Progress, "walked", cancelled)
    for verb in ("verify", "drill"):
        job = office.job_queue.ask(Request("customer", verb), "http")
        left = office.worked(job, registry=lambda watcher: Registry(settings, watcher=watcher))
        assert (left.state, left.error_kind) == (State.DELETED, "Cancelled")
    assert percents == [20, 20]  # it hears of it at the next chunk


def test_a_job_whose_worker_died_goes_on_with_another_and_a_wrong_clock_takes_none(
    any_office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = any_office.asked()
    assert any_office.job_queue.records.claim(job.job_id, "a process that is gone") is not None
    for ahead in (timedelta(minutes=4), timedelta(days=-3), timedelta(days=3), timedelta(hours=-5)):
        any_office.clock.ahead = ahead
        assert any_office.worker().work(job.job_id) is None
        assert any_office.job_queue.sweep() == 0
    monkeypatch.setattr(records, "SILENCE", timedelta(seconds=-1))  # the time has passed by the clock of the records
    assert any_office.job_queue.sweep() == 1
    left = any_office.worked(job)
    assert (left.state, left.attempt) == (State.SUCCEEDED, 2)


def test_a_run_that_completed_is_not_made_again_though_its_worker_could_not_say_so(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = office.asked(replace(CUSTOMER, limit=10))

    def unwritable(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("The records cannot be written.")

    with monkeypatch.context() as patch:
        patch.setattr(records.JobRecords, "leave", unwritable)
        patch.setattr(RunKeeper, "ended", lambda *_: None)  # nor had its process time to save the summary
        with pytest.raises(StoreUnavailable):
            office.worker().work(job.job_id)
    assert office.job(job).state is State.PROCESSING
    office.let_pass(SILENCE + timedelta(seconds=1))
    left = office.worked(job)
    assert (left.state, left.attempt, left.counts["inserted"]) == (State.SUCCEEDED, 2, 10)
    [run] = office.place.customer.backup.history()
    [summary] = office.job_queue.runs.page().runs
    assert (run["SyncId"], summary["status"], summary["counts"]["inserted"]) == (left.sync_id, "Completed", 10)


def test_the_end_of_a_run_whose_process_had_no_time_to_record_it_is_recorded_and_told(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_queue = open_job_queue(office.settings.model_copy(update={"notify_webhooks": ("https://x",)}), office.clock)
    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "ended", lambda *_: None)
        [outcome] = Registry(office.settings, watcher=job_queue.watcher("Ada")).sync("customer", Trigger.HTTP)
    registry = Registry(office.settings)
    record_late_ends(registry, job_queue)  # it may be at work
    assert [run["status"] for run in job_queue.runs.page().runs] == ["InProgress"]
    office.let_pass(SILENCE + timedelta(seconds=1))
    record_late_ends(registry, job_queue, busy=["Customer"])
    assert [run["status"] for run in job_queue.runs.page().runs] == ["InProgress"]
    for _ in range(2):
        record_late_ends(registry, job_queue)
    [summary] = job_queue.runs.page().runs
    assert (summary["status"], summary["requestedBy"], summary["counts"]["inserted"]) == ("Completed", "Ada", 100)
    assert job_queue.runs.last("customer")["success"]["syncId"] == outcome.run.sync_id
    [event] = [item.value["event"] for item in job_queue.keys.scan("outbox:", limit=9)]
    assert (event["type"], event["data"]["syncId"]) == ("backup.sync.completed", outcome.run.sync_id)
    job_queue.keys.close()


def test_an_occurrence_of_the_schedule_is_queued_once_and_a_missed_night_is_caught_up_once(office: Office) -> None:
    names = ["customer", "order"]
    office.clock.ahead = datetime(2026, 12, 1, 12, 0, tzinfo=UTC) - datetime.now(UTC)
    assert (
        office.job_queue.queue_due(office.settings, names) == []
    )  # what was due before the app was there is not missed
    office.clock.ahead += timedelta(hours=13)
    queued = office.job_queue.queue_due(office.settings, names)
    assert [(job.request.service, job.occurrence) for job in queued] == [
        (name, "2026-12-02T00:00:00+00:00") for name in names
    ]
    assert office.job_queue.queue_due(office.settings, names) == []
    office.clock.ahead += timedelta(days=4)
    assert [job.occurrence for job in office.job_queue.queue_due(office.settings, names)] == [
        "2026-12-06T00:00:00+00:00"
    ] * 2
    disabled = office.settings.model_copy(update={"schedule_enabled": False})
    office.clock.ahead += timedelta(days=1)
    assert office.job_queue.queue_due(disabled, names) == []


def test_a_worker_that_has_long_been_silent_is_forgotten(office: Office) -> None:
    office.job_queue.worker_is_alive()
    assert len(office.job_queue.workers()) == 1
    office.clock.ahead = timedelta(days=3)
    assert len(office.job_queue.workers()) == 1
    office.let_pass(SILENCE + timedelta(seconds=1))
    office.job_queue.sweep()
    assert (office.job_queue.workers(), len(office.job_queue.keys.scan("server:", limit=10))) == ([], 1)
    office.let_pass(timedelta(hours=1))
    office.job_queue.sweep()
    assert office.job_queue.keys.scan("server:", limit=10) == []


def test_two_timers_that_fire_at_once_queue_an_occurrence_once(any_office: Office) -> None:
    any_office.clock.ahead = datetime(2026, 12, 1, 0, 0, 5, tzinfo=UTC) - datetime.now(UTC)
    queued: list[Job] = []
    job_queues = [open_job_queue(any_office.settings, any_office.clock) for _ in range(3)]

    def queue(job_queue: JobQueue) -> None:
        queued.extend(job_queue.queue_due(any_office.settings, ["customer"]))

    threads = [threading.Thread(target=queue, args=(job_queue,)) for job_queue in job_queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(queued) == 1
    for job_queue in job_queues:
        with contextlib.suppress(Locked):
            job_queue.keys.close()
