"""Services with nothing left to do: no minute opens their databases, and everything that may come wakes them again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backup.config.settings import Settings, load_settings
from backup.core.errors import BackupError, StoreUnavailable
from backup.core.run_values import Run, Status, Trigger
from backup.entry.job_timer import each_minute
from backup.jobs.job_queue import JobQueue, open_job_queue
from backup.jobs.key_values import Change
from backup.notify.after_runs import watcher_of
from backup.services.registry import Registry
from backup.stores.sides import open_store
from tests.scenarios.places import Place

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Nights:
    """The minute timer of an app that queues jobs; its clock, and which stores each minute opened."""

    def __init__(self, place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
        self.now = NOON
        given = {"BackupJobs__File": str(folder / "jobs.db"), "BackupSchedule__Mode": "queue", **more}
        self.settings: Settings = load_settings({**place.customer.settings, **given})
        self.job_queue: JobQueue = replace(open_job_queue(self.settings), now=lambda: self.now)
        watcher = watcher_of(self.settings, self.job_queue, None)
        self.registry = Registry(self.settings, watcher=watcher, now=lambda: self.now)
        self.opened = 0
        real = open_store

        def counting(*arguments: object, **options: object) -> object:
            self.opened += 1
            return real(*arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr("backup.services.places.open_store", counting)

    def minute(self, *, after: timedelta = MINUTE) -> int:
        """Lets a minute pass; returns how many stores the timer opened."""
        self.now += after
        self.opened = 0
        with suppress(BackupError):
            each_minute(self.settings, self.registry, self.job_queue)
        return self.opened

    def until_it_rests(self) -> None:
        """Syncs, and lets minutes pass until one opens nothing."""
        self.registry.sync("customer", Trigger.TIMER)
        for job in self.job_queue.records.waiting():
            self.job_queue.records.cancel(job.job_id, "The test has synced.")
        assert self.minute() > 0
        for _ in range(5):
            if self.minute() == 0:
                return
        raise AssertionError("it does not rest")


@pytest.fixture
def nights(sqlite_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nights]:
    made = Nights(sqlite_place, tmp_path, monkeypatch)
    yield made
    made.job_queue.keys.close()


def test_a_service_that_never_synced_does_not_rest(nights: Nights) -> None:
    assert [nights.minute() > 0 for _ in range(3)] == [True] * 3


def test_after_a_night_no_minute_opens_a_store_until_the_next_time_of_the_schedule(nights: Nights) -> None:
    nights.until_it_rests()
    assert [nights.minute() for _ in range(3)] == [0, 0, 0]
    for job in nights.job_queue.records.waiting():
        nights.job_queue.records.cancel(job.job_id, "None is worked on here.")
    assert nights.minute(after=timedelta(days=1)) == 0  # its job waits
    for job in nights.job_queue.records.waiting():
        nights.job_queue.records.cancel(job.job_id, "None is worked on here.")
    assert nights.minute() > 0  # and may have left something


def test_a_run_that_is_left_open_wakes_its_service(nights: Nights) -> None:
    nights.until_it_rests()
    run = Run("customer", Trigger.HTTP, forced=False, started_at=nights.now, status=Status.IN_PROGRESS)
    nights.job_queue.runs.save(run)
    assert nights.minute() > 0


def test_an_open_run_of_another_service_wakes_nobody(nights: Nights) -> None:
    nights.until_it_rests()
    run = Run("customers", Trigger.HTTP, forced=False, started_at=nights.now, status=Status.IN_PROGRESS)
    nights.job_queue.runs.save(run)
    assert nights.minute() == 0


def test_after_a_look_that_failed_a_service_does_not_rest(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    nights.registry.sync("customer", Trigger.TIMER)

    def down(*_: object, **__: object) -> object:
        nights.opened += 1
        raise StoreUnavailable("It is down.")

    monkeypatch.setattr("backup.services.places.open_store", down)
    assert [nights.minute() > 0 for _ in range(3)] == [True] * 3


def test_while_its_note_cannot_be_written_a_service_does_not_rest(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.registry.sync("customer", Trigger.TIMER)
    real = nights.job_queue.keys.commit

    def refusing(changes: list[Change]) -> bool:
        if any(change.key.startswith("rest:") for change in changes):
            raise StoreUnavailable("The records cannot be written.")
        return real(changes)

    monkeypatch.setattr(nights.job_queue.keys, "commit", refusing)
    assert [nights.minute() > 0 for _ in range(4)] == [True] * 4


def test_a_record_that_cannot_be_read_stops_no_minute(nights: Nights) -> None:
    for key in ("server:0", "rest:0", "due:0"):
        nights.job_queue.keys.commit([Change(key, {"at": 7})])
    assert nights.minute() > 0
    assert [nights.job_queue.keys.scan(key, limit=2) for key in ("server:", "due:0")] == [[], []]


def test_silence_is_looked_for_though_the_ends_of_runs_cannot_be(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[object] = []

    def spoilt(*_: object) -> None:
        raise KeyError("startedAt")  # as of a record that nobody can read

    monkeypatch.setattr("backup.entry.job_timer.record_late_ends", spoilt)
    monkeypatch.setattr("backup.entry.job_timer.look_around", lambda *given: looked.append(given))
    nights.minute()
    assert len(looked) == 1
