"""Syncs that may do little at a time: each call does a chunk, or a batch of deletes, and the next goes on with it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backup.config.settings import load_settings
from backup.core.errors import GuardTripped
from backup.core.run_values import Trigger
from backup.entry import http, timer
from backup.mirror.guard import Guard
from backup.runs.outcome import Outcome
from backup.services.registry import Registry
from backup.services.service import Options
from backup.stores.sql.writes import SqlWrites
from tests.reliability.bench import keys_of
from tests.scenarios.places import Place, Service, Sql
from tests.scenarios.product import Counts, python

SLICES = {"BackupSync__SliceSeconds": "1e-9", "BackupSync__ChunkSize": "25", "BackupSync__BatchSize": "20"}
CALLS_AT_MOST = 100


def registry_of(service: Service, **more: str) -> Registry:
    settings = {f"BackupSync__{name}": value for name, value in more.items()} | {"BackupVerify__EveryDays": "0"}
    return Registry(load_settings({**service.settings, "BackupRetry__BaseSeconds": "0", **SLICES, **settings}))


def begun(registry: Registry, calls: int = 1) -> Outcome:
    """A sync that this many calls have worked on, and that has not ended."""
    [outcome] = registry.sync("all", Trigger.TIMER)
    for _ in range(calls - 1):
        [outcome] = registry.resume(Trigger.TIMER)
    assert outcome.in_progress, outcome
    return outcome


def resumed(registry: Registry) -> list[Outcome]:
    """The outcomes of the calls until the run has ended."""
    outcomes: list[Outcome] = []
    while not outcomes or outcomes[-1].in_progress:
        outcomes += registry.resume(Trigger.TIMER)
        assert len(outcomes) < CALLS_AT_MOST
    return outcomes


def mirrored(service: Service) -> None:
    """Makes the backup equal in one go."""
    [outcome] = registry_of(service).sync("all", Trigger.CLI)
    assert outcome.error is None


def change(service: Service, statement: str) -> None:
    assert isinstance(service.source, Sql)
    of_driver = statement.replace("%", "%%") if service.source.url.startswith("postgresql") else statement
    service.source.run(of_driver)


def counts_of(outcome: Outcome) -> Counts:
    counts = outcome.run.counts
    return counts.inserted, counts.updated, counts.deleted, counts.skipped


def bin_of(service: Service) -> list[tuple[Any, str]]:
    """Key and action of each record that the recycle bin tells of, in order."""
    assert isinstance(service.backup, Sql)
    side = replace(service.backup, table=f"{service.backup.table.rpartition('.')[0]}.RecycleBin".lstrip("."))
    entries = side._run(sa.select(sa.text("*")).select_from(side._named()))
    return sorted((key, entry["Action"]) for entry in entries for key in keys_of(entry["RecordKey"]))


@pytest.fixture
def customers(sqlite_place: Place) -> Service:
    """100 customers on SQLite, not yet mirrored. Which calls make a run is no matter of the engine."""
    return sqlite_place.customer


@pytest.fixture(params=["sqlite_place", "postgres_place"])
def any_customers(request: pytest.FixtureRequest) -> Service:
    """100 customers on each engine, not yet mirrored: for what a server does by itself from one call to the next."""
    place: Place = request.getfixturevalue(request.param)
    return place.customer


IN_FILES = pytest.mark.parametrize("any_customers", ["sqlite_place"], indirect=True)
"""For what is no matter of the engine."""


@pytest.fixture
def orders_on_cosmos(cosmos_place: Place) -> Service:
    return cosmos_place.order


@pytest.mark.parametrize(
    ("any_customers", "parallelism"),
    [("sqlite_place", "1"), ("sqlite_place", "4"), ("postgres_place", "4")],
    indirect=["any_customers"],
)
def test_a_sync_in_many_calls_is_one_run_that_grows_and_is_proven(any_customers: Service, parallelism: str) -> None:
    registry = registry_of(any_customers, Parallelism=parallelism, ChunkSize="10")
    outcomes = [begun(registry), *resumed(registry)]
    ended = outcomes[-1]
    [entry] = any_customers.backup.history()
    assert len(outcomes) >= 10
    assert {outcome.run.sync_id for outcome in outcomes} == {entry["SyncId"]}
    assert (entry["Status"], bool(entry["Verified"]), entry["SourceCount"]) == ("Completed", True, 100)
    assert (entry["Percent"], entry["Checkpoint"], ended.run.percent) == (None, None, None)
    percents = [outcome.run.percent for outcome in outcomes[:-1]]
    assert percents == sorted(set(percents))  # type: ignore[type-var]
    assert [outcome.run.counts.inserted for outcome in outcomes[:3]] == [10, 20, 30]
    assert counts_of(ended) == (100, 0, 0, 0)
    assert any_customers.is_mirrored()


def test_a_sync_of_documents_in_many_calls_is_one_run(orders_on_cosmos: Service) -> None:
    registry = registry_of(orders_on_cosmos, ChunkSize="10")
    outcomes = [begun(registry), *resumed(registry)]
    [entry] = orders_on_cosmos.backup.history()
    assert len(outcomes) >= 5
    assert (entry["SyncId"], entry["Status"], entry["Verified"]) == (outcomes[0].run.sync_id, "Completed", True)
    assert (entry["InsertedCount"], entry["SkippedCount"], entry["SourceCount"]) == (55, 0, 55)
    assert orders_on_cosmos.is_mirrored()


def test_deletes_found_by_many_calls_are_made_at_the_end_and_the_guard_is_asked_about_all_at_once(
    customers: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored(customers)
    change(customers, 'DELETE FROM {table} WHERE "Id" % 12 = 0')
    change(customers, 'UPDATE {table} SET "Version" = "Version" + 1 WHERE "Id" % 5 = 0')
    asked: list[tuple[int, int, int]] = []
    check = Guard.check_deletes

    def noted(guard: Guard, deletes: int, wanted: int, held: int, label: str, *, allowed: bool, dry_run: bool) -> None:
        asked.append((deletes, wanted, held))
        check(guard, deletes, wanted, held, label, allowed=allowed, dry_run=dry_run)

    monkeypatch.setattr(Guard, "check_deletes", noted)
    registry = registry_of(customers)
    begun(registry)
    held = []
    while not asked:
        [outcome] = registry.resume(Trigger.TIMER)
        held.append((outcome.run.counts.deleted, len(customers.backup.contents())))
    ended = resumed(registry)[-1] if outcome.in_progress else outcome
    assert held[:-1] == [(0, 100)] * (len(held) - 1)
    # In the call that came to the end of the walk, in the one that deleted, and in those that only prove what is left.
    assert asked[:2] == [(8, 92, 100)] * 2
    assert {deletes for deletes, _, _ in asked[2:]} <= {0}
    assert (counts_of(ended), ended.run.verified) == ((0, 19, 8, 73), True)
    assert customers.is_mirrored()


def test_deletes_that_no_call_alone_finds_too_many_are_stopped_by_the_guard(customers: Service) -> None:
    mirrored(customers)
    change(customers, 'DELETE FROM {table} WHERE "Id" % 3 = 0')
    registry = registry_of(customers)
    begun(registry)
    ended = resumed(registry)[-1]
    assert isinstance(ended.error, GuardTripped)
    assert "33 of 100" in str(ended.error)
    assert len(customers.backup.contents()) == 100
    assert customers.statuses == ["Completed", "Failed"]


@IN_FILES
def test_deletes_may_take_many_calls_and_each_is_counted_and_kept_once(any_customers: Service) -> None:
    mirrored(any_customers)
    kept = bin_of(any_customers)
    change(any_customers, 'DELETE FROM {table} WHERE "Id" % 12 = 0')
    registry = registry_of(any_customers, BatchSize="2")
    outcomes = [begun(registry), *resumed(registry)]
    deleted = [outcome.run.counts.deleted for outcome in outcomes]
    assert {0, 2, 4, 6, 8} >= {*deleted} >= {0, 4, 8}
    assert deleted == sorted(deleted)
    assert (counts_of(outcomes[-1]), outcomes[-1].run.verified) == ((0, 0, 8, 92), True)
    assert [action for key, action in bin_of(any_customers) if (key, action) not in kept] == ["Deleted"] * 8
    assert any_customers.is_mirrored()


KILLED = """
import os, signal, sys
from backup.core.run_values import Trigger
from backup.services.registry import Registry
from backup.services.service import Options
from backup.config.settings import load_settings
from backup.stores.sql.relay import SqlRelay

original, calls = SqlRelay._transaction, 0

def killing(self, *arguments):
    global calls
    relayed = original(self, *arguments)
    calls += 1
    if calls == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return relayed

SqlRelay._transaction = killing
registry = Registry(load_settings())
registry.sync("all", Trigger.TIMER)
while True:
    registry.resume(Trigger.TIMER)
"""


@pytest.mark.parametrize(
    ("any_customers", "then"),
    [("sqlite_place", "resume"), ("sqlite_place", "sync"), ("postgres_place", "resume")],
    indirect=["any_customers"],
)
def test_a_sync_whose_process_is_killed_in_a_later_call_is_resumed(
    any_customers: Service, tmp_path: Path, then: str
) -> None:
    settings = {**any_customers.settings, **SLICES, "BackupSync__ChunkSize": "10", "BackupSync__Parallelism": "1"}
    ended = python(tmp_path, settings, "-c", KILLED)
    assert ended.code == -signal.SIGKILL, ended.err
    written = len(any_customers.backup.contents())
    registry = registry_of(any_customers)
    if then == "resume":
        outcome = resumed(registry)[-1]
    else:
        [outcome] = registry.sync("all", Trigger.CLI)
    assert written == 50
    assert (counts_of(outcome), outcome.run.verified) == ((100, 0, 0, 0), True)
    assert any_customers.statuses == ["Completed"]
    assert len(bin_of(any_customers)) == 100
    assert any_customers.is_mirrored()


def test_a_column_that_is_new_between_two_calls_is_filled_in_what_was_walked_before_too(any_customers: Service) -> None:
    registry = registry_of(any_customers)
    first = begun(registry, calls=3)
    change(any_customers, "ALTER TABLE {table} ADD COLUMN \"Nickname\" varchar(20) DEFAULT 'none'")
    ended = resumed(registry)[-1]
    [entry] = any_customers.backup.history()
    assert (entry["SyncId"], entry["Status"], entry["AddedColumns"]) == (first.run.sync_id, "Completed", '["Nickname"]')
    assert {copy["Nickname"] for copy in any_customers.backup.contents().values()} == {"none"}
    assert (counts_of(ended), ended.run.verified) == ((100, 0, 0, 0), True)
    assert any_customers.is_mirrored()


BEHIND = (
    'UPDATE {table} SET "Version" = "Version" + 1, "Name" = \'later\' WHERE "Id" <= 5',
    'DELETE FROM {table} WHERE "Id" = 6',
)


def test_a_new_sync_goes_on_with_the_open_one_and_covers_what_changed_behind_it(customers: Service) -> None:
    registry = registry_of(customers)
    first = begun(registry, calls=3)
    for statement in BEHIND:
        change(customers, statement)
    [outcome] = registry.sync("all", Trigger.CLI)
    assert outcome.run.sync_id == first.run.sync_id
    assert (outcome.run.verified, outcome.run.notes) == (True, ())
    # Each record once, as what it was before the run: also the six that were copied before, one of which is gone again.
    assert counts_of(outcome) == (100, 0, 0, 0)
    assert customers.statuses == ["Completed"]
    assert customers.is_mirrored()


def test_a_new_sync_in_calls_of_its_own_covers_what_changed_behind_the_open_one(customers: Service) -> None:
    registry = registry_of(customers)
    begun(registry, calls=3)
    for statement in BEHIND:
        change(customers, statement)
    [outcome] = registry.sync("all", Trigger.TIMER)
    assert outcome.in_progress
    assert resumed(registry)[-1].run.verified
    assert customers.statuses == ["Completed"]
    assert customers.is_mirrored()


@pytest.mark.parametrize("forced", [False, True])
def test_a_resumption_says_that_it_leaves_what_it_has_walked_and_the_next_sync_catches_up(
    customers: Service, forced: bool
) -> None:
    registry = registry_of(customers)
    [first] = registry.sync("all", Trigger.TIMER, Options(force=forced))
    for _ in range(2):
        registry.resume(Trigger.TIMER)
    for statement in BEHIND:
        change(customers, statement)
    ended = resumed(registry)[-1]
    copies = customers.backup.contents()
    assert (ended.run.verified, ended.run.sync_id) == (True, first.run.sync_id)
    [note] = ended.run.notes
    assert f"all that the source had at {first.run.started_at:%Y-%m-%d %H:%M:%S} UTC" in note
    assert note.endswith("is left to the next sync.")
    assert copies.keys() == set(range(1, 101))
    assert "later" not in {copy["Name"] for copy in copies.values()}
    mirrored(customers)
    assert customers.is_mirrored()


def test_what_others_remove_from_the_backup_between_two_calls_is_written_again(any_customers: Service) -> None:
    registry = registry_of(any_customers)
    begun(registry, 2)
    assert isinstance(any_customers.backup, Sql)
    any_customers.backup.run("DELETE FROM {table}")
    ended = resumed(registry)[-1]
    assert ended.error is None
    assert any_customers.backup.contents() == any_customers.source.contents()
    assert any("removed or added records of the backup" in note for note in ended.run.notes)
    assert ended.run.proof is not None
    assert ended.run.proof.backup.records == 100
    [quiet] = registry.sync("all", Trigger.CLI)
    assert quiet.run.counts.processed == 0


def test_a_dry_run_in_many_calls_changes_nothing_and_no_sync_goes_on_with_it(customers: Service) -> None:
    registry = registry_of(customers)
    [outcome] = registry.sync("all", Trigger.HTTP, Options(dry_run=True))
    assert outcome.in_progress
    ended = resumed(registry)[-1]
    assert (counts_of(ended), ended.run.dry_run, ended.run.verified) == ((100, 0, 0, 0), True, None)
    assert customers.backup.contents() == {}
    registry.sync("all", Trigger.HTTP, Options(dry_run=True))
    mirrored(customers)
    assert customers.statuses == ["Completed", "Failed", "Completed"]
    assert customers.is_mirrored()


def test_nothing_is_resumed_where_nothing_was_left_open(customers: Service) -> None:
    registry = registry_of(customers)
    before = registry.resume(Trigger.TIMER)
    mirrored(customers)
    assert (before, registry.resume(Trigger.TIMER)) == ([], [])
    assert customers.statuses == ["Completed"]


# Over HTTP


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """Set, it lets the first write go on."""
    go_on, original = threading.Event(), SqlWrites.write

    def waiting(store: SqlWrites, *arguments: Any, **options: Any) -> None:
        assert go_on.wait(60)
        original(store, *arguments, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SqlWrites, "write", waiting)
        yield go_on
        go_on.set()


def join_background() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("sync_"):
            thread.join(60)


def test_a_request_that_does_not_wait_is_answered_with_the_run_which_completes_later(
    customers: Service, held: threading.Event
) -> None:
    registry = registry_of(customers, SyncWaitSeconds="0", SliceSeconds="60")
    answer = http.post_sync_of(registry, "customer", {}, b"")
    while_running = http.post_sync_of(registry, "customer", {}, b"")
    statuses = customers.statuses
    held.set()
    join_background()
    [entry] = customers.backup.history()
    assert (answer.status, answer.body["Status"], answer.body["SyncId"]) == (202, "InProgress", entry["SyncId"])
    assert answer.body["CompletedAt"] is None
    assert (while_running.status, while_running.body["Error"]) == (409, "Locked")
    assert (statuses, entry["Status"], entry["InsertedCount"]) == (["InProgress"], "Completed", 100)
    assert customers.is_mirrored()


def test_a_request_whose_time_is_up_is_answered_with_the_run_which_the_timer_ends(customers: Service) -> None:
    registry = registry_of(customers)
    answer = http.post_sync(registry, {}, b"")
    [result] = answer.body["Results"]
    calls = 0
    while timer.resume_open(load_settings({}), registry):
        calls += 1
        assert calls < CALLS_AT_MOST
    [entry] = customers.backup.history()
    assert (answer.status, result["Status"], result["SyncId"]) == (202, "InProgress", entry["SyncId"])
    assert 0 < result["Percent"] < 100
    assert calls >= 3
    assert (entry["Status"], bool(entry["Verified"]), entry["InsertedCount"]) == ("Completed", True, 100)


# Side by side


def test_chunks_settled_side_by_side_come_to_what_they_come_to_one_after_the_other(
    sqlite_place: Place, postgres_place: Place
) -> None:
    for service in (sqlite_place.customer, postgres_place.customer):
        ends = [what_came_of_all(service, parallelism) for parallelism in ("1", "4")]
        assert ends[0] == ends[1]


def what_came_of_all(service: Service, parallelism: str) -> list[Any]:
    """The counts, copies and images of four syncs that insert, update, delete and skip, from an empty backup on."""
    registry = registry_of(service, Parallelism=parallelism, ChunkSize="20", BatchSize="8", DeleteGuardFloor="100")
    assert isinstance(service.backup, Sql)
    for table in ("Customers", "RecycleBin", "SyncHistory"):
        replace(service.backup, table=service.backup.table.replace("Customers", table)).run("DELETE FROM {table}")
    change(service, 'UPDATE {table} SET "Version" = 1')
    results: list[Any] = []
    steps = [
        'UPDATE {table} SET "Version" = 1',
        'UPDATE {table} SET "Version" = 2 WHERE "Id" % 3 = 0',
        'UPDATE {table} SET "Id" = "Id" + 1000 WHERE "Id" % 4 = 0',
        'UPDATE {table} SET "Id" = "Id" - 1000 WHERE "Id" > 1000',
    ]
    for statement in steps:
        change(service, statement)
        [outcome] = registry.sync("all", Trigger.CLI)
        assert outcome.error is None
        results.append((counts_of(outcome), outcome.run.proof, outcome.run.verified, service.is_mirrored()))
    return [*results, service.backup.contents(), bin_of(service)]
