"""Timers of the local host: when they run, by hand, and which schedules they take."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backup.config import ncrontab
from backup.core.errors import ConfigError
from backup.dev import host
from tests.functions.hosted import HEALTH, TIMER, call, loaded, next_event, serving, write_app
from tests.functions.worker import worker

pytestmark = pytest.mark.usefixtures("as_in_a_new_process")


def test_a_timer_runs_when_it_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "next_due", lambda schedule, now: now)
    with serving(write_app(tmp_path, TIMER)):
        loaded().release.set()
        assert next_event() == "began"


def test_a_timer_that_runs_late_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "next_due", lambda schedule, now: now - timedelta(minutes=5))
    with serving(write_app(tmp_path, TIMER)):
        loaded().release.set()
        assert next_event() == "past due"


def test_a_timer_is_not_run_before_it_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "next_due", lambda schedule, now: now + timedelta(hours=1))
    with serving(write_app(tmp_path, TIMER)) as port:
        call(port, "GET", "/admin/functions")
        assert loaded().events.empty()


def test_a_clock_that_is_set_back_delays_no_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = iter([5])
    monkeypatch.setattr(host, "next_due", lambda schedule, now: now + timedelta(hours=next(hours, 0)))
    monkeypatch.setattr(host, "_LOOK_SECONDS", 0)
    with serving(write_app(tmp_path, TIMER)):
        loaded().release.set()
        assert next_event() == "began"


def test_a_timer_that_fails_is_logged_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host, "next_due", lambda schedule, now: now)
    monkeypatch.setenv("TIMER_FAILS", "yes")
    with serving(write_app(tmp_path, TIMER)):
        loaded().release.set()
        assert [next_event(), next_event()] == ["began", "began"]
    assert "function=Timed" in caplog.text
    assert "RuntimeError: it broke" in caplog.text


def test_a_timer_that_returns_a_value_fails_as_in_the_real_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    function = """
events = queue.Queue()

@app.timer_trigger(arg_name="timer", schedule="0 0 0 * * *")
def Timed(timer: func.TimerRequest):
    events.put("ran")
    return "a value"
"""
    monkeypatch.setattr(host, "next_due", lambda schedule, now: now)
    root = write_app(tmp_path, function)
    with serving(root):
        assert [next_event(), next_event()] == ["ran", "ran"]
    assert "host.failed function=Timed" in caplog.text
    with worker(root, {}) as running:
        assert "returned a non-None value" in running.timer("Timed")["failed"]


def test_a_timer_can_be_run_by_hand(tmp_path: Path) -> None:
    with serving(write_app(tmp_path, TIMER)) as port:
        loaded().release.set()
        answer = call(port, "POST", "/admin/functions/Timed", "{}", {"Content-Type": "application/json"})
        assert (answer.status, answer.body) == (202, "")
        assert [next_event(), next_event()] == ["began", "ended"]


def test_to_run_a_timer_by_hand_takes_the_key(tmp_path: Path) -> None:
    with serving(write_app(tmp_path, TIMER), key="the-key") as port:
        loaded().release.set()
        assert call(port, "POST", "/admin/functions/Timed").status == 401
        assert loaded().events.empty()
        key = {"x-functions-key": "the-key"}
        assert call(port, "POST", "/admin/functions/Timed", headers=key).status == 202


@pytest.mark.parametrize("name", ["None", "Health"])
def test_only_a_timer_can_be_run_by_hand(tmp_path: Path, name: str) -> None:
    with serving(write_app(tmp_path, HEALTH, TIMER)) as port:
        assert call(port, "POST", f"/admin/functions/{name}").status == 404


def test_admin_lists_the_functions(tmp_path: Path) -> None:
    with serving(write_app(tmp_path, HEALTH, TIMER)) as port:
        listed = json.loads(call(port, "GET", "/admin/functions").body)
    assert [(function["name"], function["trigger"]["type"]) for function in listed] == [
        ("Health", "httpTrigger"),
        ("Timed", "timerTrigger"),
    ]


@pytest.mark.parametrize("timeout", ["-1", "00:00:00"])
def test_a_timer_never_overlaps_itself_even_beyond_its_timeout(tmp_path: Path, timeout: str) -> None:
    with serving(write_app(tmp_path, HEALTH, TIMER, host={"functionTimeout": timeout})) as port:
        call(port, "POST", "/admin/functions/Timed")
        assert next_event() == "began"
        call(port, "POST", "/admin/functions/Timed")
        call(port, "GET", "/api/health")  # a turn of the event loop and a thread later
        loaded().release.set()
        assert [next_event() for _ in range(3)] == ["ended", "began", "ended"]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("0 0 0 * * *", "2026-01-02T00:00:00"),
        ("30 */5 * * * *", "2026-01-01T10:30:30"),
        ("0 0 0 13 * 5", "2026-02-13T00:00:00"),  # the 13th AND a Friday
        ("0 0 9-17 * Jan Mon-Fri", "2026-01-01T11:00:00"),
        ("0 0 0 1,15 */6 *", "2026-01-15T00:00:00"),
    ],
)
def test_schedules_are_ncrontab_in_utc(schedule: str, expected: str) -> None:
    now = datetime.fromisoformat("2026-01-01T12:26:00+02:00")
    assert ncrontab.next_due(schedule, now) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "schedule",
    [
        *("", "0 0 * * *", "0 0 0 * * * 2026", "@daily", "00:05:00", "60 0 0 * * *", "0 0 0 31 2 *"),
        *("0 0 0 L * *", "0 0 0 15W * *", "0 0 0 ? * *", "0 0 0 * * 7", "0 0 0 * * 1#2", "0 0 0 R * *"),
        *("0 0 0 1, * *", "0 0 0 * * Monday"),
    ],
)
def test_what_is_not_ncrontab_is_refused(schedule: str) -> None:
    with pytest.raises(ConfigError, match="is not an NCRONTAB expression"):
        ncrontab.next_due(schedule, datetime(2026, 1, 1, tzinfo=UTC))
