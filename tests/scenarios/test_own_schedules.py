"""Schedules of single services: what is queued when, once, whatever clocks, changes and callers do; and inline."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from backup.config.settings import Settings, load_settings
from backup.core.errors import ConfigError
from backup.entry.job_shapes import shape_stats
from backup.entry.timer import run_own_schedules
from backup.jobs.job_queue import JobQueue, open_job_queue
from backup.jobs.key_values import Change
from backup.jobs.record_keys import hashed
from backup.services.registry import Registry
from tests.scenarios.places import Place

BERLIN = "Europe/Berlin"
HOURLY = "0 0 * * * *"


class Office:
    """A job queue whose clock a test sets, and what was queued in it: the service and the occurrence of each job."""

    def __init__(self, file: Path) -> None:
        self.time = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
        self.job_queues: list[JobQueue] = [open_job_queue(settings(file=file), lambda: self.time) for _ in range(2)]
        self.file = file

    def look(self, services: str = "customer,order", **given: str) -> list[tuple[str, str]]:
        """What both instances queue now."""
        asked = settings(file=self.file, **given)
        jobs = [job for job_queue in self.job_queues for job in job_queue.queue_due(asked, services.split(","))]
        return [(job.request.service, job.occurrence or "") for job in jobs]

    def look_now_and_then(self, until: datetime, services: str = "customer", **given: str) -> list[tuple[str, str]]:
        queued = []
        while self.time < until:
            self.time += timedelta(minutes=10)
            queued += self.look(services, **given)
        return queued


def settings(file: Path | None = None, **given: str) -> Settings:
    sides = {f"{side}{name}Db__ConnectionString": "sqlite:///x.db" for side in ("Source", "Backup") for name in NAMES}
    return load_settings({**sides, "BackupJobs__File": str(file), **given})


NAMES = ("Customer", "Order")


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path / "jobs.db")
    yield made
    for job_queue in made.job_queues:
        job_queue.keys.close()


def test_each_service_is_queued_by_its_own_schedule_and_zone(office: Office) -> None:
    given = {
        "BackupSchedule__CronExpression": "0 0 1 * * *",
        "BackupCustomerDb__CronExpression": "0 30 4 * * *",
        "BackupCustomerDb__TimeZone": BERLIN,
    }
    office.look(**given)
    queued = office.look_now_and_then(office.time + timedelta(hours=24), "customer,order", **given)
    assert queued == [("order", "2026-12-02T01:00:00+00:00"), ("customer", "2026-12-02T03:30:00+00:00")]


@pytest.mark.parametrize("note", [{}, {"at": "soon"}, {"at": None}])
def test_a_note_of_an_occurrence_that_cannot_be_read_stops_no_schedule(office: Office, note: dict[str, Any]) -> None:
    office.look()
    keys = office.job_queues[0].keys
    customers, orders = (f"due:{hashed(name)}" for name in ("customer", "order"))
    readable = keys.get(customers)
    assert readable is not None
    keys.commit([Change(customers, {**readable.value, **note} if note else {})])
    office.time += timedelta(hours=12)
    assert sorted(office.look()) == [(name, "2026-12-02T00:00:00+00:00") for name in ("customer", "order")]
    assert office.look() == []
    written = [keys.get(key) for key in (customers, orders)]
    assert len({item.value["at"] for item in written if item is not None}) == 1
    office.time += timedelta(days=1)
    assert len(office.look()) == 2


def test_a_zone_alone_moves_the_shared_schedule(office: Office) -> None:
    made = settings(
        None, **{"BackupOrderDb__TimeZone": "America/New_York", "BackupSchedule__CronExpression": "0 0 1 * * *"}
    )
    assert made.schedule_of("order").next_due(office.time).astimezone(UTC).hour == 6
    assert (made.with_own_schedule(["customer", "order"]), made.schedule_of("CUSTOMER").zone_name) == (["order"], "UTC")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BackupCustomerDb__CronExpression", "0 0 31 2 * *"),
        ("BackupCustomerDb__CronExpression", "* * *"),
        ("BackupCustomerDb__TimeZone", "Mars"),
        ("SourceCustomerDb__CronExpression", "0 0 1 * * *"),
    ],
)
def test_a_schedule_that_cannot_be_used_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        settings(None, **{name: value})


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (datetime(2026, 3, 29, tzinfo=UTC), ["2026-03-29T01:00:00+00:00"]),  # 02:30 is left out: due after the gap
        (datetime(2026, 10, 25, tzinfo=UTC), ["2026-10-25T00:30:00+00:00"]),  # 02:30 comes twice: due the first time
    ],
    ids=["forward", "back"],
)
def test_a_night_when_the_clock_is_set_is_queued_once(office: Office, day: datetime, expected: list[str]) -> None:
    given = {"BackupCustomerDb__CronExpression": "0 30 2 * * *", "BackupCustomerDb__TimeZone": BERLIN}
    office.time = day - timedelta(hours=3)
    office.look("customer", **given)
    queued = office.look_now_and_then(day + timedelta(hours=5), **given)
    assert [occurrence for _, occurrence in queued] == expected
    assert ZoneInfo(BERLIN).utcoffset(day) != ZoneInfo(BERLIN).utcoffset(day + timedelta(hours=5))


def test_missed_nights_are_caught_up_once_for_each_service(office: Office) -> None:
    given = {"BackupCustomerDb__CronExpression": HOURLY}
    office.look(**given)
    office.time += timedelta(days=3, minutes=20)
    assert office.look(**given) == [("customer", "2026-12-04T12:00:00+00:00"), ("order", "2026-12-04T00:00:00+00:00")]
    assert office.look(**given) == []


def test_a_clock_that_jumps_back_queues_no_occurrence_twice_and_one_that_was_ahead_stops_no_later_one(
    office: Office,
) -> None:
    office.look("customer")
    office.time += timedelta(days=1)
    assert office.look("customer") == [("customer", "2026-12-02T00:00:00+00:00")]
    office.time += timedelta(days=365)  # a wrong clock
    assert office.look("customer") == [("customer", "2027-12-02T00:00:00+00:00")]
    office.time = datetime(2026, 12, 3, 0, 30, tzinfo=UTC)  # put right, half an hour after the night that it had missed
    assert office.look("customer") == [("customer", "2026-12-03T00:00:00+00:00")]
    office.time -= timedelta(hours=2)
    assert office.look_now_and_then(datetime(2026, 12, 3, 1, 0, tzinfo=UTC)) == []


def test_a_changed_schedule_makes_nothing_missed_that_was_due_before_the_change(office: Office) -> None:
    office.look("customer")
    office.time = datetime(2026, 12, 2, 0, 5, tzinfo=UTC)
    assert office.look("customer") == [("customer", "2026-12-02T00:00:00+00:00")]
    office.time = datetime(2026, 12, 2, 12, 30, tzinfo=UTC)
    changed = {"BackupCustomerDb__CronExpression": "0 0 3 * * *"}
    assert office.look("customer", **changed) == []  # three o'clock had passed, and the night was made
    queued = office.look_now_and_then(datetime(2026, 12, 3, 12, 0, tzinfo=UTC), **changed)
    assert queued == [("customer", "2026-12-03T03:00:00+00:00")]


def test_a_night_that_was_missed_before_its_schedule_changed_is_still_caught_up(office: Office) -> None:
    office.look("customer")
    office.time = datetime(2026, 12, 3, 12, 30, tzinfo=UTC)  # the app was down for two nights
    changed = {"BackupCustomerDb__CronExpression": "0 0 20 * * *"}
    assert office.look("customer", **changed) == [("customer", "2026-12-03T00:00:00+00:00")]
    assert office.look("customer", **changed) == []


def test_what_is_due_while_the_schedule_is_disabled_is_not_missed(office: Office) -> None:
    disabled = {"BackupSchedule__Enabled": "false"}
    office.look("customer")
    assert office.look_now_and_then(datetime(2026, 12, 2, 0, 10, tzinfo=UTC), **disabled) == []
    assert office.look("customer") == []
    queued = office.look_now_and_then(datetime(2026, 12, 3, 0, 5, tzinfo=UTC))
    assert queued == [("customer", "2026-12-03T00:00:00+00:00")]


def test_figures_name_each_services_own_next_occurrence(office: Office) -> None:
    made = settings(file=office.file, **{"BackupCustomerDb__CronExpression": "0 0 5 * * 1"})
    rows = [shape_stats(office.job_queues[0], made, name, 30)["nextOccurrence"] for name in ("customer", "order")]
    assert rows == ["2026-12-07T05:00:00.000Z", "2026-12-02T00:00:00.000Z"]


def test_inline_services_with_own_schedules_are_synced_once_by_their_history(
    sqlite_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "backup")
    made = load_settings({**sqlite_place.settings, "BackupCustomerDb__CronExpression": HOURLY})
    time = datetime(2026, 12, 1, 11, 59, tzinfo=UTC)
    registry = Registry(made, now=lambda: time)

    def synced(settings: Settings = made, **more: Any) -> list[str]:
        return [outcome.run.service for outcome in run_own_schedules(settings, registry, now=lambda: time, **more)]

    assert synced() == []  # it has never synced, and was due an hour ago
    time += timedelta(minutes=2)
    assert synced() == ["customer"]
    assert synced() == []
    assert (sqlite_place.customer.is_mirrored(), sqlite_place.order.is_mirrored()) == (True, False)
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("schedule.service") and 'next="2026-12-01 13:00:00+00:00"' in line for line in lines)
    time += timedelta(hours=5)
    assert synced(busy=["customer"]) == []
    assert synced(made.model_copy(update={"schedule_enabled": False})) == []
    assert (synced(), synced()) == (["customer"], [])
    time += timedelta(days=365)  # a wrong clock
    assert synced() == ["customer"]
    time -= timedelta(days=364)
    assert (synced(), synced()) == (["customer"], [])
