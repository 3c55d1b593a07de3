"""The scheduled run and its log."""

import logging
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from backup.config.ncrontab import in_utc, last_due, next_due, was_due
from backup.config.schedule import Schedule
from backup.config.settings import load_settings
from backup.core.errors import BackupError, ConfigError, UnknownService
from backup.entry.timer import last_firing, run_scheduled
from backup.services.registry import Registry
from tests.scenarios.places import Place, filled_on_sqlite

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Both services on SQLite, filled with the sample."""
    return filled_on_sqlite(tmp_path)


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
    counts = "inserted={} updated=0 deleted=0 skipped=0 failed=0 remaining=0 duration_ms="
    assert customer.startswith("schedule.service service=customer status=Completed " + counts.format(100))
    assert order.startswith("schedule.service service=order status=Completed " + counts.format(55))
    assert [line.partition(" sync_id=")[0] for line in after] == [
        *("schedule.purged service=customer entries=0 runs=0", "schedule.verified service=customer"),
        *("schedule.purged service=order entries=0 runs=0", "schedule.verified service=order"),
    ]
    assert [line.endswith(" verified=True") for line in after] == [False, True, False, True]
    assert summary == 'schedule.finished completed=2 failed=0 next="2026-01-02 00:00:00+00:00"'


def test_a_scheduled_run_syncs_every_service_unforced(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    run(place, caplog)
    entries = [entry for service in place.services for entry in service.backup.history()]
    started = [(entry["Trigger"], bool(entry["Forced"])) for entry in entries if entry["Trigger"] != "verify"]
    assert started == [("timer", False)] * 2
    assert all(service.is_mirrored() for service in place.services)


def test_a_failing_service_is_in_the_summary_and_fails_the_invocation_after_the_others(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "orders.db").unlink()
    with pytest.raises(BackupError, match="order: SourceMissing"):
        run(place, caplog)
    lines = [line for line in caplog.messages if line.startswith("schedule.")]
    assert place.customer.is_mirrored()
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


# Time zones


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "times"),
    [
        ("0 30 2 * * *", "Europe/Berlin", "2026-01-01T00:00:00Z", ["2026-01-01T02:30+01:00", "2026-01-02T02:30+01:00"]),
        # What the clock leaves out is due right after, once; the day after as ever.
        ("0 30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        (
            "0 0,30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"],
        ),
        (
            "0 15 2,3 * * *",
            "Europe/Berlin",
            "2026-03-29T00:30:00Z",
            ["2026-03-29T03:00+02:00", "2026-03-29T03:15+02:00"],
        ),
        ("0 45 1 * * *", "Australia/Lord_Howe", "2026-10-02T20:00:00Z", ["2026-10-04T01:45+10:30"]),
        ("0 15 2 * * *", "Australia/Lord_Howe", "2026-10-03T15:15:00Z", ["2026-10-04T02:30+11:00"]),
        # What it shows twice is due the first time alone.
        ("0 30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("0 30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", ["2026-10-26T02:30+01:00"]),
        (
            "0 30 1 * * 0",
            "America/New_York",
            "2026-11-01T05:00:00Z",
            ["2026-11-01T01:30-04:00", "2026-11-08T01:30-05:00"],
        ),
        # An hour is an hour: neither is there none, nor one that lasts two.
        (
            *("0 0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z"),
            ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00"],
        ),
        ("0 30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"]),
        ("0 0 0 * * *", "Asia/Kathmandu", "2026-01-01T12:00:00Z", ["2026-01-02T00:00+05:45"]),
        ("0 0 0 1 1 *", "Pacific/Auckland", "2026-06-01T00:00:00Z", ["2027-01-01T00:00+13:00"]),
    ],
)
def test_occurrences_are_by_the_clock_of_the_zone_as_cron_has_them(
    schedule: str, zone: str, after: str, times: list[str]
) -> None:
    now, occurrences = at(after), []
    for expected in times:
        now = next_due(schedule, now, ZoneInfo(zone))
        assert now.utcoffset() == at(expected).utcoffset()
        assert last_due(schedule, now, ZoneInfo(zone)) == now or " * * * *" in schedule
        assert last_due(schedule, now.astimezone(UTC) - timedelta(seconds=1), ZoneInfo(zone)) < now.astimezone(UTC)
        occurrences.append(now.astimezone(UTC))
    assert occurrences == [at(expected).astimezone(UTC) for expected in times]


@pytest.mark.parametrize(
    ("schedule", "zone", "start"),
    [
        ("0 30 2 * * *", "Europe/Berlin", "2026-03-28T20:00:00Z"),
        ("0 30 2 * * *", "Europe/Berlin", "2026-10-24T20:00:00Z"),
        ("20 10,50 1 * * *", "Australia/Lord_Howe", "2026-04-04T10:00:00Z"),
        ("0 15 2 * * *", "Australia/Lord_Howe", "2026-10-03T10:00:00Z"),
        ("0 15 * * * *", "America/St_Johns", "2026-10-31T23:00:00Z"),
        ("0 40 0 * * *", "Asia/Kolkata", "2026-05-01T12:00:00Z"),
    ],
)
def test_a_timer_in_utc_finds_each_local_occurrence_due_once(schedule: str, zone: str, start: str) -> None:
    """At the timer's every firing, a little late, around the hour in which the clock is set."""
    own, firing = ZoneInfo(zone), at(start)
    timer, due, occurrences = in_utc(schedule, own, firing), next_due(schedule, firing, own), 0
    while (firing := next_due(timer, firing)) < at(start) + timedelta(hours=10):
        assert was_due(schedule, own, firing + timedelta(seconds=0.4)) == (due <= firing)
        while due <= firing:
            due, occurrences = next_due(schedule, due, own), occurrences + 1
    assert occurrences


@pytest.mark.parametrize(
    ("now", "past_due", "last", "due"),
    [
        ("2026-03-29T01:00:01Z", False, None, True),  # 03:00 in Berlin: what would have been 02:30
        ("2026-03-29T00:59:59.5Z", False, None, True),  # a little early
        ("2026-03-29T00:30:00Z", False, None, False),
        ("2026-03-30T00:30:02Z", False, None, True),
        ("2026-03-30T01:00:00Z", False, None, False),
        ("2026-03-30T05:42:10Z", True, "2026-03-29T22:30:00Z", True),  # the host was down at night
        ("2026-03-30T05:42:10Z", True, "2026-03-30T03:00:00Z", False),
        ("2026-03-30T05:42:10Z", False, None, True),  # by hand
    ],
)
def test_a_timer_of_another_zone_runs_when_the_schedule_is_due_by_it(
    caplog: pytest.LogCaptureFixture, now: str, past_due: bool, last: str | None, due: bool
) -> None:
    zone = {"BackupSchedule__TimeZone": "Europe/Berlin", "BackupSchedule__CronExpression": "0 30 2 * * *"}
    settings = load_settings(zone)
    caplog.set_level(logging.INFO)
    status = {"Last": last or "0001-01-01T00:00:00", "Next": "2026-03-30T06:00:00Z"}
    with suppress(UnknownService):  # the line before it tells enough
        run_scheduled(settings, Registry(settings), past_due=past_due, last=last_firing(status), now=lambda: at(now))
    first, *_ = [line.split()[0] for line in caplog.messages]
    assert first == ("schedule.started" if due else "schedule.not_due")
    assert due or re.search(r'next="2026-03-\d\d 0[23]:[03]0:00\+02:00"', caplog.text)


@pytest.mark.parametrize(
    ("schedule", "parts"),
    [
        (
            "* * 7",
            ["it has 3 fields and takes six: second, minute, hour", "day of week is '7'", "Sunday is 0"],
        ),
        ("0 0 * * *", ["it has 5 fields and takes six"]),
        ("0 0 0 * *  7", ["the day of week is '7' and takes 0 to 6 or SUN to SAT; Sunday is 0"]),
        ("0 60 24 * * *", ["the minute is '60' and takes 0 to 59", "the hour is '24' and takes 0 to 23"]),
        ("0 0 0 0 13 fry", ["the day of month is '0'", "the month is '13' and takes 1 to 12 or JAN to DEC", "'fry'"]),
        ("0 */0 * * * *", ["the minute is '*/0' and takes *, a number, a range as 1-5, a step as */15"]),
        (
            "0 0 0 L * 1#2",
            ["the day of month is 'L' and takes 1 to 31", "the day of week is '1#2' and takes *"],
        ),
        ("0 0 0 1, * mon-7", ["the day of month is '1,'", "the day of week is 'mon-7'"]),
        ("0 0 0 \u0661 * *", ["the day of month is"]),
        ("0 0 0 31 2 *", ["no date has this day of month, month and day of week"]),
        ("daily", ["it has 1 field and takes six"]),
        ("0 0 0 " + "9" * 5000 + " * *", ["the day of month is '999"]),
    ],
)
def test_a_text_that_is_no_schedule_is_refused_with_the_wrong_field_and_what_it_takes(
    schedule: str, parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        next_due(schedule, NOW)
    assert [part for part in parts if part not in str(raised.value)] == []
    assert len(str(raised.value)) < 400
    assert ("takes six" in str(raised.value)) == (len(schedule.split()) != 6)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"])
@pytest.mark.parametrize("schedule", ["0 0 * * * *", "0 */30 * * * *"])
def test_the_last_occurrence_of_an_hourly_schedule_is_the_next_one_of_before(schedule: str, zone: str) -> None:
    clock = ZoneInfo(zone)
    for start in (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 4, 4, 13, tzinfo=UTC), *_SET_BACK):
        due = next_due(schedule, start, clock).astimezone(UTC)
        for _ in range(12):
            following = next_due(schedule, due, clock).astimezone(UTC)
            for moment in (due, due + (following - due) / 2):
                assert last_due(schedule, moment, clock).astimezone(UTC) == due
            due = following


_SET_BACK = (datetime(2026, 10, 24, 23, tzinfo=UTC), datetime(2026, 11, 1, 3, tzinfo=UTC))


def test_a_time_that_the_clock_skips_is_due_once_and_a_minute_before_it_is_a_minute_before() -> None:
    skipped, due = Schedule("0 0 2 * * *", "Europe/Berlin"), datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert skipped.last_due(due) - timedelta(minutes=1) == due - timedelta(minutes=1)
    assert skipped.last_due(due).isoformat() == "2026-03-29T03:00:00+02:00"
    assert len([*skipped.times_due(due - timedelta(days=4), due + timedelta(days=4))]) == 9
