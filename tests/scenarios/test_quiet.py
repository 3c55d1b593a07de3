"""A small table of which nothing has changed is settled before its run has an entry. Everything else gets its run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backup.core.errors import Cancelled, Locked
from backup.core.run_values import Counts, Run, Status, Trigger
from backup.dev import sample
from backup.mirror.verification import Depth
from backup.runs.history import History
from backup.runs.outcome import NOBODY, Observer
from backup.services.service import NO_OPTIONS, Options, SyncService
from backup.stores.sql.relational import SqlRelational
from tests.scenarios.places import Place, on_sqlite, with_files
from tests.scenarios.test_places import service, synced


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Three customers, of which the last sync found nothing changed."""
    both = on_sqlite(tmp_path)
    customers = Place(both.customer, both.customer)

    def make() -> None:
        sample.put(customers.registry, "customer", [sample.customer(n) for n in (1, 2, 3)])
        customers.initialize()
        for _ in range(2):
            synced(service(customers.settings))

    with_files(tmp_path, "three quiet customers", make)
    return customers


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each run got its first entry from now on: `open`, or `ended` for one that was settled at once."""
    written: list[str] = []
    add_next, save = SqlRelational.add_next, History.save

    def ended(relational: SqlRelational, *arguments: Any) -> bool:
        written.append("ended")
        return add_next(relational, *arguments)

    def opened(history: History, run: Run, *, new: bool = False) -> None:
        written.extend(["open"] * new)
        save(history, run, new=new)

    monkeypatch.setattr(SqlRelational, "add_next", ended)
    monkeypatch.setattr(History, "save", opened)
    return written


def newest(customer: SyncService) -> Run:
    return next(iter(customer.past.history(1)))


def test_a_quiet_table_has_one_entry_with_its_proof(place: Place, entries: list[str]) -> None:
    before = newest(service(place.settings))
    outcome = service(place.settings).sync(Trigger.CLI)
    run = outcome.run
    assert (entries, outcome.error, outcome.recorded) == (["ended"], None, True)
    assert newest(service(place.settings)) == run
    assert (run.status, run.verified, run.counts) == (Status.COMPLETED, True, Counts(skipped=3))
    assert (run.number, run.proof, run.notes) == (3, before.proof, before.notes)
    assert before.completed_at is not None
    assert before.completed_at < run.started_at <= (run.completed_at or run.started_at)


CHANGES: dict[str, tuple[str, str]] = {
    "a record": ("source", "UPDATE {table} SET Version = Version + 1 WHERE Id = 2"),
    "a deleted record": ("source", "DELETE FROM {table} WHERE Id = 2"),
    "a record of the backup": ("backup", "UPDATE {table} SET Version = 7 WHERE Id = 2"),
    "a new column": ("source", "ALTER TABLE {table} ADD Fax TEXT"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_found_by_a_run(place: Place, entries: list[str], change: str) -> None:
    side, statement = CHANGES[change]
    getattr(place.customer, side).run(statement)
    run = synced(service(place.settings))
    assert entries == ["open"]
    assert run.verified
    assert run.counts.processed > 0
    synced(service(place.settings))  # after a sync that has changed something, the next one is expected to as well
    assert entries == ["open", "open"]


@pytest.mark.parametrize(
    "options", [Options(force=True), Options(dry_run=True), Options(limit=5), Options(allow_mass_delete=True)]
)
def test_what_is_asked_for_otherwise_is_a_run(place: Place, entries: list[str], options: Options) -> None:
    service(place.settings).sync(Trigger.CLI, options)
    assert entries == ["open"]


@pytest.mark.parametrize(
    "fields",
    [
        {"status": Status.FAILED, "error": "It broke."},
        {"status": Status.IN_PROGRESS, "completed_at": None},
        {"proof": None},
        {"dry_run": True},
        {"selection": "another"},
        {"removed_columns": ("Fax",)},
        {"counts": Counts(failed=1, skipped=2)},
    ],
)
def test_after_a_run_that_proves_nothing_a_quiet_sync_is_a_run(
    place: Place, entries: list[str], fields: dict[str, Any]
) -> None:
    customer = service(place.settings)
    with customer.stores() as (_, backup):
        History(backup).save(replace(newest(customer), **fields))
    synced(customer)
    assert entries == ["open"]


def test_a_verify_in_between_changes_nothing(place: Place, entries: list[str]) -> None:
    service(place.settings).verify(Depth())
    assert synced(service(place.settings)).number == 4
    assert entries == ["ended"]


def test_an_undo_in_between_is_a_reason_for_a_run(place: Place, entries: list[str]) -> None:
    customer = service(place.settings)
    customer.undo(newest(customer).sync_id)
    entries.clear()
    synced(customer)
    assert entries == ["open"]


def test_a_run_that_began_meanwhile_has_the_number_alone(
    place: Place, entries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another process with another kind of lock can do."""
    customer = service(place.settings)
    add_next: Callable[..., bool] = SqlRelational.add_next

    def late(*arguments: Any) -> bool:
        with customer.stores() as (_, backup):
            History(backup).save(replace(newest(customer), sync_id="another", number=3))
        return add_next(*arguments)

    monkeypatch.setattr(SqlRelational, "add_next", late)
    assert isinstance(customer.sync(Trigger.CLI).error, Locked)
    assert entries == ["ended"]
    assert [(run.sync_id, run.number) for run in customer.past.history(1)] == [("another", 3)]


def test_a_sync_that_is_cancelled_leaves_no_entry(place: Place, entries: list[str]) -> None:
    class Cancelling(Observer):
        def progress(self, service: str, counts: Counts) -> None:
            raise Cancelled

    customer = service(place.settings)
    assert isinstance(customer.sync(Trigger.CLI, NO_OPTIONS, Cancelling()).error, Cancelled)
    assert entries == []
    assert customer.sync(Trigger.CLI, NO_OPTIONS, NOBODY).run.number == 3
