"""The scheduled run and its log."""

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backup.ncrontab import next_due
from backup.registry import Registry
from backup.schedule import run_scheduled
from backup.settings import load_settings
from tests.scenarios.places import Place, on_sqlite

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Both services on SQLite, filled with the sample."""
    found = on_sqlite(tmp_path)
    found.fill()
    return found


def run(place: Place, caplog: pytest.LogCaptureFixture, past_due: bool = False, **more: str) -> list[str]:
    """The lines about the schedule that a scheduled run logs."""
    settings = load_settings({**place.settings, **more})
    caplog.set_level(logging.INFO)
    run_scheduled(settings, Registry(settings), past_due=past_due, now=lambda: NOW)
    return [line for line in caplog.messages if line.startswith("schedule.")]


def test_the_log_has_start_lines_of_each_service_and_a_summary_with_the_next_occurrence(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    start, customer, order, *after, summary = run(place, caplog)
    assert start == "schedule.started services=customer,order past_due=False"
    counts = "inserted={} updated=0 deleted=0 skipped=0 failed=0 duration_ms="
    assert customer.startswith("schedule.service service=customer status=Completed " + counts.format(100))
    assert order.startswith("schedule.service service=order status=Completed " + counts.format(55))
    assert [line.partition(" sync_id=")[0] for line in after] == [
        *("schedule.purged service=customer entries=0", "schedule.verified service=customer"),
        *("schedule.purged service=order entries=0", "schedule.verified service=order"),
    ]
    assert [line.endswith(" verified=True") for line in after] == [False, True, False, True]
    assert summary == 'schedule.finished completed=2 failed=0 next="2026-01-02 00:00:00+00:00"'


def test_a_scheduled_run_syncs_every_service_unforced(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    run(place, caplog)
    entries = [entry for service in place.services for entry in service.backup.history()]
    told = [(entry["Trigger"], bool(entry["Forced"])) for entry in entries if entry["Trigger"] != "verify"]
    assert told == [("timer", False)] * 2
    assert all(service.is_mirrored() for service in place.services)


def test_a_failing_service_is_in_the_summary_and_raises_nothing(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "orders.db").unlink()
    lines = run(place, caplog)
    assert lines[-1].startswith("schedule.finished completed=1 failed=1")
    assert [line for line in lines if line.startswith("schedule.service service=order status=Failed")]


def test_a_late_run_says_so(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    assert run(place, caplog, past_due=True)[0].endswith("past_due=True")


def test_when_disabled_it_does_nothing_but_say_so(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    [line] = run(place, caplog, BackupSchedule__Enabled="false")
    assert line.startswith("schedule.disabled setting=BackupSchedule__Enabled")
    assert [service.backup.history() for service in place.services] == [[], []]


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("0 0 0 * * *", "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"),
        ("0 0 0 * * *", "2026-01-01T23:59:59+00:00", "2026-01-02T00:00:00+00:00"),
        ("0 0 0 * * *", "2026-01-02T01:00:00+02:00", "2026-01-02T00:00:00+00:00"),
        ("30 15 2 * * *", "2026-01-01T02:15:29+00:00", "2026-01-01T02:15:30+00:00"),
        ("0 0 0 13 * Fri", "2026-01-01T00:00:00+00:00", "2026-02-13T00:00:00+00:00"),  # the 13th AND a Friday
        ("0 */15 9-17 * * 1-5", "2026-01-02T17:45:00+00:00", "2026-01-05T09:00:00+00:00"),
    ],
)
def test_the_next_occurrence_is_ncrontabs_in_utc(schedule: str, after: str, expected: str) -> None:
    assert next_due(schedule, datetime.fromisoformat(after)) == datetime.fromisoformat(expected)
