"""Mistakes in a source that look like many deletes: each run is stopped before its first one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.run_values import Counts, Trigger
from backup.entry import answers
from backup.services.registry import Registry
from backup.services.service import NO_OPTIONS, Options
from tests.emulators.clients import cosmos_client
from tests.reliability.scenes import ONE_THREAD
from tests.scenarios import places
from tests.scenarios.observing import Told
from tests.scenarios.places import Contents, Cosmos, Place, Service, Sql

QUICK = {"BackupRetry__BaseSeconds": "0", "BackupSync__ChunkSize": "30", "BackupSync__BatchSize": "10"}
ALLOWED = Options(allow_mass_delete=True)

Mistake = Callable[[Service], None]


@pytest.fixture
def customers(tmp_path: Path) -> Service:
    """A mirrored table of 100 customers."""
    customer = places.on_sqlite(tmp_path).customer

    def make() -> None:
        places.filled_on_sqlite(tmp_path)
        assert sync(customer)[0] == 200

    places.with_files(tmp_path, "mirrored customers", make)
    return customer


@pytest.fixture
def orders(tmp_path: Path, cosmos_server: str, cosmos_server_backup: str) -> Service:
    """A mirrored container of 55 orders."""
    place = places.filled_with_orders_on_cosmos(tmp_path, cosmos_server, cosmos_server_backup)
    assert sync(place.order)[0] == 200
    return place.order


def sync(
    service: Service,
    options: Options = NO_OPTIONS,
    settings: dict[str, str] | None = None,
    after_first_step: Callable[[], None] = lambda: None,
) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer; what is given happens once the run has read its first chunk."""
    left = [after_first_step]

    def progress(name: str, counts: Counts) -> None:
        if left:
            left.pop()()

    # In one thread, for what happens after the first chunk shall happen before the second.
    registry = Registry(load_settings({**QUICK, **ONE_THREAD, **service.settings, **(settings or {})}))
    [outcome] = registry.sync(service.name, Trigger.HTTP, options, Told(progress))
    answer = answers.shape_one(outcome)
    return answer.status, answer.body


def run_on_source(service: Service, statement: str) -> None:
    assert isinstance(service.source, Sql)
    service.source.run(statement)


def statement(text: str) -> Mistake:
    return lambda service: run_on_source(service, text)


def path_of(side: Sql | Cosmos) -> Path:
    assert isinstance(side, Sql)
    return Path(side.url.removeprefix("sqlite:///"))


def another_database(service: Service) -> None:
    """In the source's place lies a database with as many other customers."""
    run_on_source(service, "UPDATE {table} SET Id = Id + 1000")


def break_file(service: Service) -> None:
    file = path_of(service.source)
    file.write_bytes(file.read_bytes()[:8192])


def is_whole(before: Contents, after: Contents) -> bool:
    """Whether nothing is missing. What is there may have been updated, and more may have come."""
    return before.keys() <= after.keys()


# Nothing is deleted


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(statement("DELETE FROM {table}"), id="empty table"),
        pytest.param(another_database, id="another database"),
        pytest.param(statement("DELETE FROM {table} WHERE Id % 2 = 0"), id="half of the rows"),
        pytest.param(statement("DELETE FROM {table} WHERE Id > 1"), id="one row left"),
    ],
)
def test_a_source_that_lost_its_records_is_a_409_until_the_deletes_are_allowed(
    customers: Service, mistake: Mistake
) -> None:
    before = customers.backup.contents()
    mistake(customers)
    status, answer = sync(customers)
    after = customers.backup.contents()
    assert (status, answer["Error"], answer["Status"], answer["DeletedCount"]) == (409, "GuardTripped", "Failed", 0)
    assert {"allowMassDelete", "--allow-mass-delete"} <= {*answer["Hint"].replace('"', " ").replace(".", " ").split()}
    assert is_whole(before, after)
    assert {key: after[key] for key in before} == before
    assert sync(customers, ALLOWED)[0] == 200
    assert customers.is_mirrored()
    *_, refused, allowed = customers.backup.history()
    assert (refused["AllowMassDelete"], refused["Status"]) == (0, "Failed")
    assert (allowed["AllowMassDelete"], allowed["Status"], allowed["Trigger"]) == (1, "Completed", "http")


def test_what_is_new_or_changed_in_a_source_that_lost_half_of_its_records_is_copied(customers: Service) -> None:
    run_on_source(customers, "DELETE FROM {table} WHERE Id <= 50")
    run_on_source(customers, "UPDATE {table} SET Version = Version + 1, Name = 'changed' WHERE Id > 90")
    status, answer = sync(customers)
    copies = customers.backup.contents()
    assert (status, answer["UpdatedCount"]) == (409, 10)
    assert len(copies) == 100
    assert {key for key, copy in copies.items() if copy["Name"] == "changed"} == set(range(91, 101))


@pytest.mark.parametrize("force", [False, True])
def test_a_filter_that_matches_nothing_is_a_409(tmp_path: Path, force: bool) -> None:
    place = places.filled_on_sqlite(tmp_path)
    sync(place.order)
    before = place.order.backup.contents()
    run_on_source(place.order, "UPDATE {table} SET Type = 'Draft'")
    status, answer = sync(place.order, Options(force=force))
    assert (status, answer["Error"]) == (409, "GuardTripped")
    assert place.order.backup.contents() == before


@pytest.mark.parametrize("options", [NO_OPTIONS, ALLOWED])
@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(statement("DROP TABLE {table}"), id="dropped table"),
        pytest.param(lambda service: path_of(service.source).unlink(), id="missing file"),
        pytest.param(break_file, id="broken file"),
    ],
)
def test_a_source_that_cannot_be_read_is_a_503_even_where_deletes_are_allowed(
    customers: Service, mistake: Mistake, options: Options
) -> None:
    before = customers.backup.contents()
    mistake(customers)
    status, answer = sync(customers, options)
    assert (status, answer["Status"]) == (503, "Failed")
    assert customers.backup.contents() == before
    assert customers.statuses == ["Completed", "Failed"]


@pytest.mark.parametrize(
    ("breaks_off", "options", "expected"),
    [
        ("DELETE FROM {table} WHERE Id > 40", NO_OPTIONS, 409),
        ("DROP TABLE {table}", NO_OPTIONS, 503),
        ("DROP TABLE {table}", ALLOWED, 503),
    ],
)
def test_a_source_that_breaks_off_half_way_costs_no_record(
    customers: Service, breaks_off: str, options: Options, expected: int
) -> None:
    run_on_source(customers, "DELETE FROM {table} WHERE Id <= 10")
    before = customers.backup.contents()
    status, answer = sync(customers, options, after_first_step=lambda: run_on_source(customers, breaks_off))
    assert (status, answer["Status"], answer["DeletedCount"]) == (expected, "Failed", 0)
    assert is_whole(before, customers.backup.contents())


def test_a_dropped_container_is_a_503_and_costs_no_document(orders: Service) -> None:
    before, source = orders.backup.contents(), orders.source
    assert isinstance(source, Cosmos)
    with cosmos_client(source.account) as client:
        client.get_database_client(source.database).delete_container(source.container)
    for options in (NO_OPTIONS, ALLOWED):
        status, answer = sync(orders, options)
        assert (status, answer["Error"], answer["Status"]) == (503, "SourceMissing", "Failed")
    assert orders.backup.contents() == before


def test_documents_that_the_filter_matches_no_more_are_a_409_until_their_deletes_are_allowed(orders: Service) -> None:
    before, source = orders.backup.contents(), orders.source
    assert isinstance(source, Cosmos)
    with cosmos_client(source.account) as client:
        container = client.get_database_client(source.database).get_container_client(source.container)
        for document in list(container.read_all_items()):
            container.upsert_item({**document, "type": "Draft"})
    status, answer = sync(orders)
    assert (status, answer["Error"], answer["DeletedCount"]) == (409, "GuardTripped", 0)
    assert orders.backup.contents() == before
    assert sync(orders, ALLOWED)[0] == 200
    assert orders.backup.contents() == {}
    last = orders.backup.history()[-1]
    assert (last["AllowMassDelete"], last["Trigger"]) == (True, "http")


# Limits

NO_FLOOR = {"BackupSync__DeleteGuardFloor": "0"}


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 20),  # 10 %, but only from more than 20 on
        ({"BackupSync__MaxDeletes": "5"}, 5),
        ({"BackupSync__DeleteGuardFloor": "7", "BackupSync__MaxDeletePercent": "0"}, 7),
        ({**NO_FLOOR, "BackupSync__MaxDeletePercent": "12"}, 12),
        ({**NO_FLOOR, "BackupSync__MaxDeletePercent": "12.9"}, 12),
        ({**NO_FLOOR, "BackupSync__MaxDeletePercent": "0"}, 0),
        ({"BackupSync__MaxDeletes": "5", "BackupCustomerDb__MaxDeletes": "8"}, 8),
        ({"BackupSync__MaxDeletes": "8", "BackupCustomerDb__MaxDeletes": "5"}, 5),
        ({"BackupSync__MaxDeletes": "8", "BackupOrderDb__MaxDeletes": "5"}, 8),
        ({**NO_FLOOR, "BackupSync__MaxDeletePercent": "50", "BackupCustomerDb__MaxDeletePercent": "3"}, 3),
        ({"BackupSync__MaxDeletePercent": "0", "BackupCustomerDb__DeleteGuardFloor": "4"}, 4),
    ],
)
def test_as_many_deletes_as_the_limit_says_pass_and_one_more_does_not(
    customers: Service, settings: dict[str, str], most: int
) -> None:
    run_on_source(customers, f"DELETE FROM {{table}} WHERE Id <= {most + 1}")
    status, answer = sync(customers, settings=settings)
    assert (status, answer["DeletedCount"], len(customers.backup.contents())) == (409, 0, 100)
    run_on_source(customers, "INSERT INTO {table} (Id, Name, Version) VALUES (1, 'back again', 9)")
    status, answer = sync(customers, settings=settings)
    assert (status, answer["DeletedCount"], len(customers.backup.contents())) == (200, most, 100 - most)


def test_too_many_updates_are_a_409_before_the_first_write(customers: Service) -> None:
    limits = {**NO_FLOOR, "BackupSync__MaxUpdatePercent": "12"}
    run_on_source(customers, "UPDATE {table} SET Version = Version + 1, Name = 'changed' WHERE Id <= 13")
    run_on_source(customers, "UPDATE {table} SET Id = 1000 WHERE Id = 100")
    before = tables(customers)
    status, answer = sync(customers, settings=limits)
    assert (status, answer["Error"], answer["TotalProcessed"]) == (409, "GuardTripped", 0)
    assert "--allow-mass-delete" in answer["Hint"]
    assert tables(customers) == before
    run_on_source(customers, "DELETE FROM {table} WHERE Id = 13")
    assert sync(customers, settings=limits)[0] == 200
    assert customers.backup.contents()[1]["Name"] == "changed"


def test_allowing_a_mass_delete_allows_the_updates_too(customers: Service) -> None:
    run_on_source(customers, "UPDATE {table} SET Version = Version + 1")
    limits = {"BackupSync__MaxUpdatePercent": "12"}
    assert sync(customers, settings=limits)[0] == 409
    assert sync(customers, ALLOWED, limits)[1]["UpdatedCount"] == 100


@pytest.mark.parametrize("options", [NO_OPTIONS, ALLOWED, Options(dry_run=True)])
def test_a_source_without_the_canary_is_a_409_before_the_first_write(customers: Service, options: Options) -> None:
    run_on_source(customers, "UPDATE {table} SET Version = Version + 1")
    before = tables(customers)
    status, answer = sync(customers, options, {"SourceCustomerDb__CanaryKey": "101"})
    assert (status, answer["Error"], answer["TotalProcessed"]) == (409, "GuardTripped", 0)
    assert "CanaryKey" in answer["Message"] + answer["Hint"]
    assert "allowMassDelete" not in answer["Hint"]  # where it stands, the page offers to let the sync pass
    assert tables(customers) == before


def test_a_canary_that_is_no_key_is_a_400_before_the_first_write(customers: Service) -> None:
    run_on_source(customers, "UPDATE {table} SET Version = Version + 1")
    before = tables(customers)
    status, answer = sync(customers, settings={"SourceCustomerDb__CanaryKey": "Ada"})
    assert (status, answer["Error"], answer["TotalProcessed"]) == (400, "ConfigError", 0)
    assert "setting CanaryKey of the source" in answer["Message"]
    assert tables(customers) == before


def test_a_source_with_the_canary_is_copied(customers: Service) -> None:
    run_on_source(customers, "UPDATE {table} SET Version = Version + 1")
    assert sync(customers, settings={"SourceCustomerDb__CanaryKey": "100"})[1]["UpdatedCount"] == 100


def test_an_allowed_run_does_not_allow_the_next_one(customers: Service) -> None:
    run_on_source(customers, "DELETE FROM {table} WHERE Id <= 50")
    assert sync(customers, ALLOWED)[0] == 200
    run_on_source(customers, "DELETE FROM {table} WHERE Id <= 75")
    assert sync(customers)[0] == 409
    assert len(customers.backup.contents()) == 50


# Dry runs


@pytest.mark.parametrize("deleted", [20, 21, 100])
def test_a_dry_run_is_refused_as_the_real_one_and_writes_nothing_but_its_entry(
    customers: Service, deleted: int
) -> None:
    run_on_source(customers, f"DELETE FROM {{table}} WHERE Id <= {deleted}")
    before = tables(customers)
    status, answer = sync(customers, Options(dry_run=True))
    assert tables(customers) == before
    dry = customers.backup.history()[-1]
    real_status, real = sync(customers)
    assert (status, answer.get("Error"), answer["DeletedCount"]) == (
        *(real_status, real.get("Error"), real["DeletedCount"]),
    )
    if "Error" in answer and deleted < 100:
        assert "A dry run changes nothing." in answer["Message"]
        assert "that the run made before stay" in real["Message"]
    assert (dry["DryRun"], dry["Trigger"], dry["SyncId"]) == (1, "http", answer["SyncId"])
    assert len(customers.backup.history()) == 3


def test_a_dry_run_that_is_allowed_names_the_deletes_and_makes_none(customers: Service) -> None:
    run_on_source(customers, "DELETE FROM {table} WHERE Id <= 50")
    before = tables(customers)
    status, answer = sync(customers, Options(dry_run=True, allow_mass_delete=True))
    assert (status, answer["DeletedCount"]) == (200, 50)
    assert {tuple(change["Key"]) for change in answer["Changes"]} == {(n,) for n in range(1, 51)}
    assert {change["Change"] for change in answer["Changes"]} == {"Deleted"}
    assert tables(customers) == before


def tables(service: Service) -> list[str]:
    """The backup's file as SQL, without what SyncHistory holds."""
    with closing(sqlite3.connect(path_of(service.backup))) as file:
        return [line for line in file.iterdump() if not line.startswith('INSERT INTO "SyncHistory"')]


@pytest.mark.parametrize(
    ("records", "gone", "status"), [(21, 20, 409), (21, 11, 409), (21, 10, 200), (4, 3, 409), (3, 2, 200)]
)
def test_more_than_half_of_a_side_is_not_deleted_however_small_it_is(
    customers: Service, records: int, gone: int, status: int
) -> None:
    run_on_source(customers, f"DELETE FROM {{table}} WHERE Id > {records}")
    sync(customers, ALLOWED)
    run_on_source(customers, f"DELETE FROM {{table}} WHERE Id <= {gone}")
    assert sync(customers)[0] == status
    assert len(customers.backup.contents()) == (records if status == 409 else records - gone)


def test_what_is_deleted_night_by_night_has_a_limit_too(customers: Service) -> None:
    nightly = {**NO_FLOOR, "BackupSync__MaxDeletePercent": "10"}

    def lost(number: int, options: Options = NO_OPTIONS) -> int:
        run_on_source(customers, f"DELETE FROM {{table}} WHERE Id IN (SELECT Id FROM {{table}} LIMIT {number})")
        return sync(customers, options, nightly)[0]

    assert [lost(20, ALLOWED), lost(8), lost(7), lost(6)] == [200, 200, 200, 409]  # 21 of the 80 that were there
    assert "MaxDeletePercentPerWeek is 25" in str(customers.backup.history()[-1]["ErrorMessage"])
    undone = customers.backup.history()[-2]["SyncId"]
    registry = Registry(load_settings({**QUICK, **customers.settings}))
    assert registry.get("customer").undo(undone, through=True).error is None
    assert lost(0, ALLOWED) == 200
    assert lost(5) == 200  # 13 in the week: 7 were taken back, and when they went again that was allowed


def test_what_a_dead_run_deleted_counts_too(customers: Service) -> None:
    assert sync(customers)[0] == 200
    run_on_source(customers, "DELETE FROM {table} WHERE Id <= 15")
    limits = {**NO_FLOOR, "BackupSync__MaxDeletePercent": "20"}
    assert sync(customers, settings=limits)[0] == 200
    assert isinstance(customers.backup, Sql)
    died = '"Status" = \'InProgress\', "CompletedAt" = NULL, "Owner" = NULL, "DeletedCount" = 0'
    replace(customers.backup, table="SyncHistory").run(f'UPDATE {{table}} SET {died} WHERE "DeletedCount" = 15')
    run_on_source(customers, "DELETE FROM {table} WHERE Id <= 27")
    assert sync(customers, Options(force=True), limits)[0] == 409
    assert [entry["DeletedCount"] for entry in customers.backup.history()][-2:] == [15, 0]


# The second look


def test_keys_that_come_back_before_the_deletes_are_not_deleted(customers: Service) -> None:
    rows = "SELECT * FROM {table} WHERE Id <= 10"
    run_on_source(customers, f"CREATE TABLE aside AS {rows}")
    run_on_source(customers, "DELETE FROM {table} WHERE Id <= 15")
    status, answer = sync(
        customers, after_first_step=lambda: run_on_source(customers, "INSERT INTO {table} SELECT * FROM aside")
    )
    assert (status, answer["DeletedCount"]) == (200, 5)
    assert customers.backup.contents().keys() == set(range(1, 11)) | set(range(16, 101))


def test_both_services_have_limits_of_their_own(tmp_path: Path) -> None:
    place: Place = places.filled_on_sqlite(tmp_path)
    for service in place.services:
        sync(service)
        run_on_source(service, "DELETE FROM {table} WHERE rowid <= 6")
    limits = {"BackupSync__MaxDeletes": "5", "BackupOrderDb__MaxDeletes": "6"}
    assert [sync(service, settings=limits)[0] for service in place.services] == [409, 200]
