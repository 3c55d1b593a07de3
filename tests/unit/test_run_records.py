"""Summaries of runs: kept once, counted once, listed page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backup.core.errors import BadRequest, StoreUnavailable
from backup.core.run_values import Counts, Run, Status, Trigger, Verb
from backup.jobs.events import failure_since
from backup.jobs.run_keeper import RunKeeper
from backup.jobs.run_numbers import percentile
from backup.jobs.run_records import RunRecords
from backup.jobs.sqlite_key_values import SqliteKeyValues
from backup.runs.outcome import Outcome
from tests.scenarios.aging import no_room

START = datetime(2026, 11, 28, 23, 0, tzinfo=UTC)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[RunRecords]:
    keys = SqliteKeyValues(tmp_path / "jobs.db")
    yield RunRecords(keys)
    keys.close()


def begun(n: int = 0, service: str = "customer", verb: Verb = Verb.SYNC) -> Run:
    run = Run(service, Trigger.HTTP, False, START + timedelta(minutes=n), verb=verb)
    return replace(run, status=Status.IN_PROGRESS)


def ended(run: Run, seconds: float = 1, error: str | None = None, **counts: int) -> Run:
    status = Status.FAILED if error else Status.COMPLETED
    return run.ended(status, run.started_at + timedelta(seconds=seconds), Counts(**counts), error)


def test_a_run_is_kept_as_it_stands_and_under_its_id(records: RunRecords) -> None:
    run = begun()
    records.save(replace(run, percent=40), job_id="1")
    kept = records.get(run.sync_id)
    assert kept is not None
    assert (kept["status"], kept["percent"], kept["jobId"]) == ("InProgress", 40, "1")
    records.save(ended(run, inserted=3))
    kept = records.get(run.sync_id[:9])
    assert kept is not None
    assert (kept["status"], kept["counts"]["inserted"], kept["durationMs"], kept["jobId"]) == (
        "Completed",
        3,
        1000,
        "1",
    )
    assert "percent" not in kept
    assert records.get("zz") is None


def test_an_ended_run_is_counted_once(records: RunRecords) -> None:
    run = begun()
    records.save(run)
    for _ in range(3):
        records.save(ended(run, inserted=3, skipped=4), due_at=START)
    records.save(ended(begun(1), error="It broke.", updated=1))
    records.save(ended(replace(begun(2), dry_run=True), inserted=99))
    [(service, numbers)] = records.day(START.date()).items()
    assert service == "customer"
    expected = {"runs": 2, "completed": 1, "failed": 1, "scheduled": 1, "inserted": 3, "updated": 1, "skipped": 4}
    assert {name: number for name, number in numbers.items() if number} == expected


def test_the_last_of_each_kind_is_known(records: RunRecords) -> None:
    good, bad = ended(begun()), ended(begun(1), error="It broke.")
    for run in (good, bad, ended(begun(2, verb=Verb.DRILL)), ended(begun(3, verb=Verb.UNDO))):
        records.save(run)
    last = records.last("CUSTOMER")
    assert last["success"]["syncId"] == good.sync_id
    assert (last["failure"]["syncId"], last["failure"]["error"]) == (bad.sync_id, "It broke.")
    assert last.keys() == {"service", "first", "success", "failure", "drill"}


def everything(records: RunRecords, **wanted: Any) -> list[str]:
    sync_ids, cursor = [], None
    while True:
        page = records.page(cursor=cursor, **wanted)
        sync_ids += [run["syncId"] for run in page.runs]
        cursor = page.cursor
        if cursor is None:
            return sync_ids


def test_runs_are_listed_newest_first_whatever_the_page(records: RunRecords) -> None:
    runs = [begun(n, service) for n, service in enumerate(["customer", "order", "customer", "order", "order"])]
    for run in runs:
        records.save(run)
    for run in runs[:3]:
        records.save(ended(run, error="It broke." if run is runs[0] else None))
    ids = [run.sync_id for run in reversed(runs)]
    for limit in (1, 2, 50):
        assert everything(records, limit=limit) == ids
        assert everything(records, limit=limit, service="Order") == [ids[0], ids[1], ids[3]]
        assert everything(records, limit=limit, status=Status.FAILED) == [ids[4]]
        assert everything(records, limit=limit, verb=Verb.SYNC, service="customer") == [ids[2], ids[4]]
        assert everything(records, limit=limit, verb=Verb.UNDO) == []
        assert everything(records, limit=limit, since=runs[1].started_at, until=runs[3].started_at) == [ids[2], ids[3]]


def test_old_summaries_are_forgotten_with_all_that_leads_to_them(records: RunRecords) -> None:
    old, young = begun(), begun(60)
    for run in (ended(old, inserted=1), young):
        records.save(run)
    assert records.forget(START + timedelta(minutes=30)) == 1
    assert everything(records) == [young.sync_id]
    assert everything(records, service="customer", status=Status.COMPLETED) == []
    assert records.get(old.sync_id) is None
    assert records.day(START.date())["customer"]["inserted"] == 1
    records.save(ended(replace(old, started_at=START + timedelta(days=400))))
    RunKeeper(records).ended(Outcome(ended(replace(begun(), started_at=START + timedelta(days=500)))))
    assert len(everything(records)) == 2


def test_a_summary_that_cannot_be_written_fails_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    keeper = RunKeeper(RunRecords(SqliteKeyValues(tmp_path / "file" / "jobs.db")))
    keeper.started(begun())
    keeper.ended(Outcome(ended(begun())))
    assert caplog.text.count("runs.not_saved") == 2


def test_ends_that_are_recorded_late_hide_no_later_one(records: RunRecords, tmp_path: Path) -> None:
    keys = SqliteKeyValues(tmp_path / "jobs.db")
    runs = [ended(begun(), error="It broke."), ended(begun(10)), ended(begun(20)), ended(begun(30), error="It broke.")]
    first, second, third, last = (replace(run, notes=("x" * 9_000,)) for run in runs)
    here = RunRecords(keys)
    with no_room(keys):
        for run in (first, second):
            RunKeeper(here).ended(Outcome(run))
        for run in (third, last):  # another process has room first
            records.save(run)
    here.save_unsaved()
    assert len(everything(records)) == 4
    known = records.last("customer")
    assert known["success"]["syncId"] == third.sync_id
    assert failure_since(known)["syncId"] == last.sync_id
    keys.close()


def test_an_end_that_never_can_be_recorded_stops_no_other(
    records: RunRecords, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(error: Exception) -> None:
        raise error

    run = ended(begun())
    for save in (partial(fail, StoreUnavailable("Too large.")), partial(fail, TypeError()), partial(records.save, run)):
        records.save_later(save)
    records.save_unsaved()
    assert everything(records) == []
    records.save_unsaved()
    assert everything(records) == [run.sync_id]
    assert caplog.text.count("runs.not_saved") == 1


def test_a_cursor_of_another_list_is_refused(records: RunRecords) -> None:
    with pytest.raises(BadRequest, match="cursor"):
        records.page(cursor="run:1", service="order")


def test_days_of_a_service_have_its_durations(records: RunRecords) -> None:
    for n, seconds in enumerate([1, 2, 3, 4, 100]):
        records.save(ended(begun(n * 30), seconds))
    days = records.days("customer", date(2026, 11, 28), date(2026, 11, 29))
    assert {day: numbers["runs"] for day, numbers in days.items()} == {date(2026, 11, 28): 2, date(2026, 11, 29): 3}
    assert records.days("customer", date(2026, 11, 29), date(2026, 11, 29)).keys() == {date(2026, 11, 29)}
    durations = [numbers["durations"] for numbers in days.values()]
    assert percentile(durations, 0.5) == pytest.approx(3000, rel=0.05)
    assert percentile(durations, 0.95) == pytest.approx(100_000, rel=0.05)
    assert percentile([], 0.5) is None
