"""The records of jobs: made once, claimed by one worker, listed page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backup.core.errors import BadRequest
from backup.jobs import sqlite_key_values
from backup.jobs.job import HISTORY_AT_MOST, Job, Request, State
from backup.jobs.key_values import Change
from backup.jobs.listing import page_of_jobs
from backup.jobs.record_keys import hashed
from backup.jobs.records import SILENCE, JobRecords
from backup.jobs.sqlite_key_values import SqliteKeyValues
from backup.runs.process import this_process

START = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
CUSTOMER = Request("customer")


class Clock:
    """A clock that can be set, and one that only runs."""

    def __init__(self) -> None:
        self.now, self.elapsed = START, 0.0

    def __call__(self) -> datetime:
        self.pass_by(milliseconds=1)
        return self.now

    def pass_by(self, **time: float) -> None:
        self.set(**time)
        self.elapsed += timedelta(**time).total_seconds()

    def set(self, **time: float) -> None:
        self.now += timedelta(**time)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path, clock: Clock) -> Iterator[SqliteKeyValues]:
    made = SqliteKeyValues(tmp_path / "jobs.db", lambda: clock.elapsed)
    yield made
    made.close()


@pytest.fixture
def records(keys: SqliteKeyValues, clock: Clock) -> JobRecords:
    return JobRecords(keys, clock)


def enqueued(records: JobRecords, request: Request = CUSTOMER, **more: str) -> Job:
    job = records.enqueue(request, "http", **more)
    assert job is not None
    return job


def failed(records: JobRecords, service: str) -> Job:
    claimed = records.claim(enqueued(records, Request(service)).job_id, "worker")
    assert claimed is not None
    job = records.leave(claimed, State.FAILED, "It broke.", error="It broke.", error_kind="StoreError")
    assert job is not None
    return job


def test_a_job_is_there_as_it_was_made(records: JobRecords) -> None:
    request = Request("order", "sync", force=True, dry_run=True, allow_mass_delete=True)
    job = enqueued(records, request, requested_by="ada")
    assert records.get(job.job_id) == job
    assert (job.state, job.request, job.requested_by, job.attempt) == (State.ENQUEUED, request, "ada", 0)
    assert [(past.state, past.reason) for past in job.history] == [(State.ENQUEUED, "Requested by ada.")]


def test_a_job_is_found_by_the_beginning_of_its_id_alone(records: JobRecords) -> None:
    job = enqueued(records)
    assert records.get(job.job_id[:8].upper()) == job
    assert records.get("") is None
    assert records.get("x") is None
    for _ in range(17):
        enqueued(records)
    with pytest.raises(BadRequest, match="Several jobs begin with"):
        [records.get(letter) for letter in "0123456789abcdef"]


def test_a_job_is_claimed_by_one(records: JobRecords) -> None:
    job = enqueued(records)
    first = records.claim(job.job_id, "one")
    assert first is not None
    assert (first.state, first.owner, first.attempt) == (State.PROCESSING, "one", 1)
    assert records.claim(job.job_id, "other") is None
    assert records.claim("00000000-0000-0000-0000-000000000000", "one") is None


def test_a_job_whose_worker_is_silent_is_anothers_and_the_first_hears_of_it(records: JobRecords, clock: Clock) -> None:
    job = enqueued(records)
    first = records.claim(job.job_id, "one")
    assert first is not None
    clock.pass_by(seconds=SILENCE.total_seconds() - 5)
    assert records.claim(job.job_id, "other") is None
    assert records.beat(first) is not None
    clock.pass_by(seconds=SILENCE.total_seconds() - 5)
    assert records.waiting() == []
    clock.pass_by(seconds=6)
    assert [waiting.job_id for waiting in records.waiting()] == [job.job_id]
    second = records.claim(job.job_id, "other")
    assert second is not None
    assert second.attempt == 2
    assert records.beat(first) is None
    assert records.leave(first, State.SUCCEEDED) is None
    assert records.leave(second, State.SUCCEEDED) is not None


@pytest.mark.parametrize("jump", [timedelta(minutes=3), timedelta(hours=5), timedelta(days=400)])
@pytest.mark.parametrize("direction", [1, -1])
def test_a_clock_that_is_set_takes_no_job_from_its_worker_and_delays_none(
    records: JobRecords, clock: Clock, jump: timedelta, direction: int
) -> None:
    alive, later = (records.claim(enqueued(records).job_id, "one") for _ in range(2))
    assert alive is not None
    assert later is not None
    records.leave(later, State.SCHEDULED, due_at=clock() + timedelta(minutes=1))
    clock.set(days=jump.days * direction, seconds=jump.seconds * direction)
    assert records.waiting() == []
    assert (records.claim(alive.job_id, "other"), records.claim(later.job_id, "other")) == (None, None)
    clock.pass_by(minutes=1)
    assert [job.job_id for job in records.waiting()] == [later.job_id]
    clock.pass_by(seconds=SILENCE.total_seconds())
    assert records.claim(alive.job_id, "other") is not None
    assert records.claim(later.job_id, "other") is not None


def test_after_a_new_start_of_the_machine_the_times_in_the_records_count(
    keys: SqliteKeyValues, records: JobRecords, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So they do in records that an earlier release has written, or changed since."""
    job = records.claim(enqueued(records).job_id, "one")
    assert job is not None
    monkeypatch.setattr(sqlite_key_values, "_this_boot", lambda: "another")
    assert {item.age for item in keys.scan("", limit=100)} == {None}
    clock.set(seconds=SILENCE.total_seconds() - 5)
    assert records.waiting() == []
    clock.set(seconds=6)
    assert records.waiting() == [job]
    clock.set(days=-1)  # the clock was ahead when the worker wrote
    assert records.waiting() == [job]


def test_a_job_whose_worker_has_ended_on_this_machine_is_taken_at_once(records: JobRecords) -> None:
    here = this_process()
    job = enqueued(records)
    assert records.claim(job.job_id, str(here)) is not None
    assert records.claim(job.job_id, "other") is None
    gone = records.claim(enqueued(records).job_id, str(replace(here, number=2**22 + 1)))
    assert gone is not None
    assert [waiting.job_id for waiting in records.waiting()] == [gone.job_id]


def test_an_occurrence_is_queued_once(records: JobRecords) -> None:
    assert records.enqueue(CUSTOMER, "timer", occurrence="2026-11-29T00:00:00+00:00") is not None
    assert records.enqueue(CUSTOMER, "timer", occurrence="2026-11-29T00:00:00+00:00") is None
    assert records.enqueue(Request("order"), "timer", occurrence="2026-11-29T00:00:00+00:00") is not None
    assert records.enqueue(CUSTOMER, "timer", occurrence="2026-11-30T00:00:00+00:00") is not None


def test_a_scheduled_job_waits_until_it_is_due(records: JobRecords, clock: Clock) -> None:
    claimed = records.claim(enqueued(records).job_id, "one")
    assert claimed is not None
    due = clock.now + timedelta(minutes=2)
    left = records.leave(claimed, State.SCHEDULED, "It is tried again.", due_at=due, retries=1)
    assert left is not None
    assert (left.owner, left.due_at) == (None, due)
    assert (records.waiting(), records.claim(left.job_id, "one")) == ([], None)
    clock.pass_by(minutes=2)
    assert [job.job_id for job in records.waiting()] == [left.job_id]
    again = records.claim(left.job_id, "one")
    assert again is not None
    assert (again.attempt, again.retries) == (2, 1)


def test_waiting_jobs_come_oldest_first(records: JobRecords) -> None:
    jobs = [enqueued(records) for _ in range(5)]
    assert [job.job_id for job in records.waiting(3)] == [job.job_id for job in jobs[:3]]


def test_an_ended_job_is_requeued_and_no_other(records: JobRecords) -> None:
    waiting = enqueued(records)
    assert records.requeue(waiting.job_id, "Ada asked.") is None
    broken = failed(records, "order")
    again = records.requeue(broken.job_id, "Ada asked.")
    assert again is not None
    assert (again.state, again.error, again.retries, again.ended_at) == (State.ENQUEUED, None, 0, None)
    assert again.history[-1].reason == "Ada asked."


def test_a_waiting_job_is_deleted_and_a_running_one_is_asked_to_stop(records: JobRecords) -> None:
    waiting = records.cancel(enqueued(records).job_id, "Ada asked.")
    assert waiting is not None
    assert (waiting.state, records.claim(waiting.job_id, "one")) == (State.DELETED, None)
    running = records.claim(enqueued(records).job_id, "one")
    assert running is not None
    asked = records.cancel(running.job_id, "Ada asked.")
    assert asked is not None
    assert (asked.state, asked.cancelled) == (State.PROCESSING, True)
    still_running = records.beat(running)
    assert still_running is not None
    assert still_running.cancelled


def test_a_history_keeps_its_first_state_and_the_latest(records: JobRecords) -> None:
    job = enqueued(records)
    for _ in range(HISTORY_AT_MOST):
        claimed = records.claim(job.job_id, "one")
        assert claimed is not None
        assert records.leave(claimed, State.ENQUEUED, "Its time was up.")
    kept = records.get(job.job_id)
    assert kept is not None
    assert (len(kept.history), kept.history[0].reason) == (HISTORY_AT_MOST, "Requested by http.")
    assert kept.history[-1].reason == "Its time was up."


def pages(keys: SqliteKeyValues, **wanted: Any) -> list[str]:
    job_ids: list[str] = []
    cursor: str | None = None
    while True:
        page = page_of_jobs(keys, cursor=cursor, **wanted)
        job_ids += [job.job_id for job in page.jobs]
        cursor = page.cursor
        if cursor is None:
            return job_ids


def test_a_list_has_each_job_once_the_failed_first_and_then_the_newest(
    records: JobRecords, keys: SqliteKeyValues
) -> None:
    made = [failed(records, "customer") if n % 3 == 0 else enqueued(records) for n in range(10)]
    wrong = [job.job_id for job in reversed(made) if job.state is State.FAILED]
    others = [job.job_id for job in reversed(made) if job.state is not State.FAILED]
    for limit in (1, 3, 4, 50):
        assert pages(keys, limit=limit) == [*wrong, *others]


def test_a_list_is_of_a_state_a_service_and_a_text(records: JobRecords, keys: SqliteKeyValues) -> None:
    jobs = [enqueued(records, Request(service)) for service in ("customer", "order", "Order", "a/b ü")]
    wrong = failed(records, "order")
    ids = [job.job_id for job in jobs]
    assert pages(keys, state=State.FAILED) == [wrong.job_id]
    assert pages(keys, state=State.ENQUEUED) == ids[::-1]
    assert pages(keys, service="ORDER") == [wrong.job_id, ids[2], ids[1]]
    assert pages(keys, service="a/b ü") == [ids[3]]
    assert pages(keys, service="order", state=State.ENQUEUED) == [ids[2], ids[1]]
    assert pages(keys, text="it broke") == [wrong.job_id]
    assert pages(keys, text=ids[0][:8]) == [ids[0]]


@pytest.mark.parametrize("cursor", ["", "x", "9.all:", "-1.", "0.ü", "0.all:1", "1.type:0:1", "\u0660."])
def test_a_cursor_that_no_page_gave_is_refused(keys: SqliteKeyValues, cursor: str) -> None:
    with pytest.raises(BadRequest, match="cursor"):
        page_of_jobs(keys, cursor=cursor)


def test_jobs_are_counted_by_their_state(records: JobRecords) -> None:
    enqueued(records)
    failed(records, "customer")
    records.claim(enqueued(records).job_id, "one")
    numbers = {state: number for state, number in records.numbers().items() if number}
    assert numbers == {State.ENQUEUED: 1, State.FAILED: 1, State.PROCESSING: 1}


def test_old_jobs_are_forgotten_with_all_that_leads_to_them(
    records: JobRecords, keys: SqliteKeyValues, clock: Clock
) -> None:
    old = failed(records, "customer")
    running = records.claim(enqueued(records, occurrence="night").job_id, "one")
    assert running is not None
    clock.pass_by(days=2)
    young = failed(records, "customer")
    edge = clock.now - timedelta(days=1)
    assert records.forget(edge) == 1
    assert records.get(old.job_id) is None
    assert {item.key.rpartition(":")[2] for item in keys.scan("", limit=100)} >= {running.order, young.order}
    assert not [item for item in keys.scan("", limit=100) if old.order in item.key or old.job_id in item.key]
    assert records.leave(running, State.SUCCEEDED) is not None
    assert records.forget(edge) == 1
    assert records.enqueue(CUSTOMER, "timer", occurrence="night") is not None
    assert records.numbers()[State.FAILED] == 1


def test_a_record_of_a_later_release_is_read(records: JobRecords, keys: SqliteKeyValues) -> None:
    job = enqueued(records)
    given = {**job.to_json(), "unknown": 1, "request": {"service": "customer", "new": True}}
    assert Job.from_json(given) == job
    assert len(hashed("x" * 1000)) == 24


@pytest.mark.parametrize(
    "odd",
    [
        {"state": "Paused"},
        {"request": None},
        {"request": {}},
        {"created_at": "soon"},
        {"heartbeat_at": "2026-11-29T12:00:00"},
        {"request": {"service": "order", "allow_mass_delete": "no"}},
        {"request": {"service": "order", "limit": 0.5}},
        {"history": [{}]},
    ],
)
def test_a_record_that_cannot_be_read_hides_no_other_job(
    records: JobRecords, keys: SqliteKeyValues, clock: Clock, odd: dict[str, Any]
) -> None:
    unreadable, job = enqueued(records, Request("order")), enqueued(records)
    keys.commit([Change(f"all:{unreadable.order}", {**unreadable.to_json(), **odd})])
    assert records.waiting() == [job]
    assert records.services_at_work() == {"customer"}
    assert page_of_jobs(keys).jobs == [job]
    assert records.get(unreadable.job_id) is None
    assert records.claim(unreadable.job_id, "worker") is None
    assert records.cancel(unreadable.job_id, "It is of no use.") is None
    clock.pass_by(days=1)
    assert records.forget(clock.now) == 1
    assert keys.get(f"all:{unreadable.order}") is None
