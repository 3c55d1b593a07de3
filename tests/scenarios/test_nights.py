"""Nights of the two timers: each has its sync, its purge and now and then its verify, whatever each of them takes."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core import interrupts
from backup.core.errors import BackupError
from backup.core.retry import Retry
from backup.core.run_values import Trigger
from backup.entry.timer import resume_open, run_scheduled
from backup.mirror.verification import Depth
from backup.recycle_bin.bin import RecycleBin
from backup.runs.lock import open_lock
from backup.runs.outcome import Turn
from backup.services.registry import Registry
from tests.scenarios.places import Place, Service, Sql

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
MINUTES_AT_MOST = 30
SLICES = {"BackupSync__SliceSeconds": "1e-9", "BackupSync__ChunkSize": "60"}


@pytest.fixture
def customers(sqlite_place: Place) -> Service:
    return sqlite_place.customer


class Nights:
    """The app's two timers and their clock."""

    def __init__(self, service: Service, **more: str) -> None:
        self.service, self.now = service, FIRST
        self.settings = load_settings({**service.settings, "BackupSync__RecycleDays": "2", **more})
        self.registry = Registry(self.settings, now=lambda: self.now)

    def pass_one(self) -> int:
        """Midnight and the minutes after it, until there is nothing left to do; returns how many that were."""
        with suppress(BackupError):
            run_scheduled(self.settings, self.registry, now=lambda: self.now)
        minutes, midnight = 0, self.now
        while self.state() != self.minute():
            minutes += 1
            assert minutes < MINUTES_AT_MOST
        self.now = midnight + DAY
        return minutes

    def minute(self) -> list[Any]:
        self.now += MINUTE
        with suppress(BackupError):
            resume_open(self.settings, self.registry, now=lambda: self.now)
        return self.state()

    def state(self) -> list[Any]:
        history = [{**entry, "HeartbeatAt": None} for entry in self.service.backup.history()]
        return [history, self.bin()]

    def bin(self) -> list[datetime]:
        """When each image in the recycle bin was kept, oldest first."""
        assert isinstance(self.service.backup, Sql)
        with self.registry.get("customer").stores() as (_, backup):
            entries = RecycleBin(backup, "customer")._entries.find({}, order_by="RecycledAt", limit=1000)
        return [entry["RecycledAt"] for entry in entries]

    def change(self) -> None:
        assert isinstance(self.service.source, Sql)
        self.service.source.run('UPDATE {table} SET "Version" = "Version" + 1 WHERE "Id" = 1')


@pytest.mark.parametrize(
    ("failing", "slices"),
    [({}, {}), ({}, SLICES), ({"SourceCustomerDb__CanaryKey": "999"}, {})],
    ids=["well-in one go", "well-in slices", "failing-in one go"],
)
def test_every_night_is_purged_and_every_week_verified(
    customers: Service, slices: dict[str, str], failing: dict[str, str]
) -> None:
    nights = Nights(customers, **slices)
    for night in range(9):
        if night == 2:
            now, nights = nights.now, Nights(customers, **slices, **failing)
            nights.now = now
        nights.change()
        minutes = nights.pass_one()
        assert all(kept >= nights.now - DAY - timedelta(days=2) for kept in nights.bin())
        assert failing or bool(minutes) == bool(slices)
    entries = customers.backup.history()
    verified = [entry for entry in entries if entry["Trigger"] == "verify"]
    assert [str(entry["StartedAt"])[:10] for entry in verified] == ["2026-01-01", "2026-01-08"]
    assert [entry["Status"] for entry in verified] == ["Completed"] * 2
    assert [entry["SourceCount"] for entry in verified] == [100, 100]
    assert [bool(entry["Verified"]) for entry in verified] == [True, not failing]  # what changed since is stale
    syncs = [entry["Status"] for entry in entries if entry["Trigger"] == "timer"]
    assert syncs == ["Completed"] * 2 + (["Failed"] if failing else ["Completed"]) * 7


def test_a_clock_that_jumps_ahead_for_a_night_stops_no_later_verify(customers: Service) -> None:
    nights = Nights(customers)
    for jump in (0, 365, 0, 0):
        nights.now += jump * DAY
        nights.pass_one()
        nights.now -= jump * DAY
    verified = [entry for entry in customers.backup.history() if entry["Trigger"] == "verify"]
    assert [str(entry["StartedAt"])[:10] for entry in verified] == ["2026-01-01", "2026-01-03", "2027-01-02"]


def test_a_verify_in_parts_is_one_entry_that_no_sync_closes_or_goes_on_with(customers: Service) -> None:
    nights = Nights(customers, BackupSync__ChunkSize="30", BackupVerify__EveryDays="0")
    service = nights.registry.get("customer")
    nights.registry.sync("all", Trigger.CLI)
    percents: list[int | None] = []
    while (outcome := service.verify_on(Depth(sample=5), Turn(1e-9))) is not None and outcome.in_progress:
        percents.append(outcome.run.percent)
        assert nights.registry.resume(Trigger.TIMER) == []
        [synced] = nights.registry.sync("all", Trigger.CLI)
        assert synced.error is None
    assert outcome is not None
    assert outcome.run.verified
    assert percents == [30, 60, 90]
    [entry] = [entry for entry in customers.backup.history() if entry["Trigger"] == "verify"]
    assert (entry["SyncId"], entry["Status"], entry["SourceCount"]) == (outcome.run.sync_id, "Completed", 100)
    assert (entry["Percent"], entry["Checkpoint"]) == (None, None)


def test_a_verify_whose_process_died_is_resumed_once_its_last_sign_is_old(
    customers: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = Nights(customers, BackupVerify__EveryDays="7")
    nights.registry.sync("all", Trigger.CLI)
    service = nights.registry.get("customer")

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("backup.verbs.upkeep.verify", die)
        with pytest.raises(KeyboardInterrupt):
            service.verify_on(Depth(), Turn())
    customers.say_that_another_machine_runs()
    assert service.verify_on(Depth(), Turn()) is None  # as far as anybody knows, it goes on
    nights.now += 4 * MINUTE
    outcome = service.verify_on(Depth(), Turn())
    assert outcome is not None
    assert outcome.run.verified
    assert [entry["Status"] for entry in customers.backup.history()] == ["Completed", "Completed"]


# Two timers in one second


def test_a_look_for_open_runs_asks_the_backup_alone_and_takes_no_lock(
    customers: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = Nights(customers)

    def refused(*_: Any) -> Any:
        raise AssertionError("the lock was asked for")

    monkeypatch.setattr(nights.registry, "_lock", refused)
    assert isinstance(customers.source, Sql)
    Path(customers.source.url.removeprefix("sqlite:///")).unlink()  # nor is the source asked
    assert nights.registry.resume(Trigger.TIMER) == []
    assert customers.statuses == []


def test_a_scheduled_sync_waits_for_a_lock_that_is_held_for_a_moment(
    customers: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = Nights(customers)
    with nights.registry.get("customer").stores() as (_, backup):
        held = open_lock(nights.settings, Retry())("customer", backup.place.location)
    held.__enter__()
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            held.__exit__(None, None, None)

    monkeypatch.setattr(interrupts, "sleep", wait)
    [outcome] = nights.registry.sync("all", Trigger.TIMER)
    assert (outcome.error, len(waited)) == (None, 3)
    assert sum(waited) < 90


@pytest.mark.parametrize("holder", ["a sync", "another kind of run"])
def test_a_scheduled_sync_that_could_not_run_says_so_and_disturbs_nobody(
    customers: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, holder: str
) -> None:
    """Both timers, while another run holds the lock for longer than they wait."""
    caplog.set_level(logging.INFO)
    nights = Nights(customers, **SLICES, BackupVerify__EveryDays="0")
    open_entries: list[Any] = []

    def while_held(*_: Any) -> None:
        before = [entry for entry in customers.backup.history() if entry["Status"] == "InProgress"]
        run_scheduled(nights.settings, nights.registry, now=lambda: nights.now)
        resume_open(nights.settings, nights.registry, now=lambda: nights.now)
        open_entries.extend(
            [before, [entry for entry in customers.backup.history() if entry["Status"] == "InProgress"]]
        )

    service = nights.registry.get("customer")
    with monkeypatch.context() as patched:
        if holder == "a sync":
            patched.setattr("backup.services.service.sync_with_schema", while_held)
            assert service.sync(Trigger.CLI).error is None
        else:
            with (
                service.stores() as (_, backup),
                open_lock(nights.settings, Retry())("customer", backup.place.location),
            ):
                while_held()
    before, after = open_entries
    assert before == after
    assert len(before) == (holder == "a sync")
    [entry] = [entry for entry in customers.backup.history() if entry["Trigger"] == "timer"]
    assert (entry["Status"], entry["ErrorMessage"]) == (
        "Failed",
        "A sync of customer is already running on this machine.",
    )
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []
    assert "sync.locked service=customer" in caplog.text


def test_a_purge_that_met_a_run_is_made_up_for(customers: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    nights = Nights(customers)
    nights.pass_one()
    for _ in range(2):  # a purge does not believe that many days went by without a run
        nights.now += DAY
        nights.registry.sync("all", Trigger.TIMER)
    nights.now += DAY
    nights.change()
    kept = nights.bin()
    nights.registry.sync("all", Trigger.TIMER)
    with (
        nights.registry.get("customer").stores() as (_, backup),
        nights.registry._lock("customer", backup.place.location),
    ):
        nights.minute()
        assert set(kept) <= set(nights.bin())
    assert "schedule.waits service=customer" in caplog.text
    nights.minute()
    assert set(kept).isdisjoint(nights.bin())
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
