"""Verify, drill, proof and dry run as their users meet them: on the command line, over HTTP, on the timer."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.run_values import Trigger
from backup.dev import sample
from backup.entry.timer import run_scheduled
from backup.services.registry import Registry
from tests.emulators.servers import lent_database
from tests.functions.worker import Worker, worker
from tests.scenarios import places, product
from tests.scenarios.inside import (
    command,
    counted,
    done,
    few_orders,
    named,
    raised,
    refused,
    remove,
    revised,
    synced,
)
from tests.scenarios.places import Place, Sql
from tests.scenarios.product import ROOT, environment, post

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
KINDS = ("Missing", "Extra", "Stale", "Content")


@pytest.fixture
def customers(tmp_path: Path) -> Place:
    """Customers on SQLite, synced."""
    customer = places.on_sqlite(tmp_path).customer
    place = Place(customer, customer)

    def make() -> None:
        places.filled_on_sqlite(tmp_path)
        synced(place, "customer")

    places.with_files(tmp_path, "synced customers", make)
    return place


@pytest.fixture(params=["postgresql", "cosmos"])
def orders(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A dozen orders on each kind of server in turn, synced."""
    if request.param == "cosmos":
        servers = (request.getfixturevalue(name) for name in ("cosmos_server", "cosmos_server_backup"))
        place = few_orders(places.with_orders_on_cosmos(tmp_path, *servers).order)
        synced(place, "order")
        yield place
        return
    server = request.getfixturevalue("postgres")
    with lent_database(server) as source, lent_database(server) as backup:
        place = few_orders(places.on_postgres(source, backup).order)
        synced(place, "order")
        yield place


def tables(place: Place) -> tuple[Sql, Sql]:
    """The customers' source and backup."""
    source, backup = place.customer.source, place.customer.backup
    assert isinstance(source, Sql)
    assert isinstance(backup, Sql)
    return source, backup


def spoil(place: Place) -> None:
    """One record missing in the backup, one extra, one stale, and one with other values in the same version."""
    _, backup = tables(place)
    backup.run("DELETE FROM {table} WHERE Id = 3")
    backup.run("INSERT INTO {table} (Id, Version) VALUES (777, 1)")
    backup.run("UPDATE {table} SET Version = 0 WHERE Id = 5")
    backup.run("UPDATE {table} SET Name = 'Somebody', City = NULL WHERE Id = 7")


def by_kind(answer: dict[str, Any]) -> tuple[int, ...]:
    return tuple(answer[kind] for kind in KINDS)


def differences(answer: dict[str, Any]) -> dict[Any, tuple[str, list[str]]]:
    return {difference["Key"][0]: (difference["Kind"], difference["Names"]) for difference in answer["Differences"]}


def last(place: Place) -> dict[str, Any]:
    return place.customer.backup.history()[-1]


# --- verify -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "compared"), [([], 0), (["--sample", "10"], 10), (["--full"], 100), (["--drill"], 100)]
)
def test_equal_sides_are_verified(customers: Place, tmp_path: Path, options: list[str], compared: int) -> None:
    answer = done(command(tmp_path, customers.settings, "verify", "customer", *options, "--json"))
    assert (answer["Verified"], by_kind(answer), answer["InFlight"]) == (True, (0, 0, 0, 0), 0)
    assert (answer["SourceCount"], answer["BackupCount"], answer["RecordsCompared"]) == (100, 100, compared)
    assert (answer["Trigger"], answer["Differences"]) == ("verify", [])


@pytest.mark.parametrize(("options", "content"), [([], 0), (["--sample", "100"], 1), (["--full"], 1)])
def test_what_differs_is_counted_by_kind_and_named(
    customers: Place, tmp_path: Path, options: list[str], content: int
) -> None:
    spoil(customers)
    ended = command(tmp_path, customers.settings, "verify", "customer", *options, "--json")
    answer = ended.json
    assert (ended.code, answer["Success"], answer["Verified"]) == (1, True, False)
    assert (by_kind(answer), answer["SourceCount"], answer["BackupCount"]) == ((1, 1, 1, content), 100, 100)
    expected: dict[Any, Any] = {3: ("missing", []), 777: ("extra", []), 5: ("stale", [])}
    assert differences(answer) == expected | ({7: ("content", ["City", "Name"])} if content else {})


def test_a_drill_compares_the_source_with_what_a_restore_gives(customers: Place, tmp_path: Path) -> None:
    spoil(customers)
    ended = command(tmp_path, customers.settings, "verify", "customer", "--drill", "--json")
    assert (ended.code, by_kind(ended.json)) == (1, (1, 1, 1, 1))
    assert [note.partition(" records")[0] for note in ended.json["Notes"]] == ["Restored 100"]


def test_a_drill_leaves_nothing_behind(customers: Place, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    done(command(tmp_path, customers.settings, "verify", "customer", "--drill", "--json"))
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert customers.customer.is_mirrored()


KILLED = """
import os, signal
from backup.verbs import drill
from backup.entry.command_line.app import cli
drill.verify = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
cli(["verify", "customer", "--drill"])
"""


@pytest.mark.parametrize("then", ["sync", "purge"])
def test_what_a_killed_drill_left_goes_with_the_next_run_or_purge(customers: Place, tmp_path: Path, then: str) -> None:
    (tmp_path / "customers.db").chmod(0o600)
    before = sorted(tmp_path.glob("*.db"))
    assert product.python(tmp_path, customers.settings, "-c", KILLED).code == -signal.SIGKILL
    [left] = set(tmp_path.glob("*.db")) - {*before}
    assert left.stat().st_mode & 0o777 == 0o600
    [*_, drilled] = customers.customer.backup.history()
    assert (drilled["Trigger"], drilled["Status"], drilled["Scratch"]) == ("verify", "InProgress", left.stem)
    customer = customers.registry.get("customer")
    if then == "sync":
        assert customer.sync(Trigger.CLI).error is None
    else:
        customer.past.purge()
    assert sorted(tmp_path.glob("*.db")) == before
    [ended] = [entry for entry in customers.customer.backup.history() if entry["SyncId"] == drilled["SyncId"]]
    assert (ended["Status"], ended["Scratch"]) == ("Failed", None)


def test_a_change_that_did_not_raise_the_version_is_found_by_comparing_whole_records_alone(
    customers: Place, tmp_path: Path
) -> None:
    source, _ = tables(customers)
    source.run("UPDATE {table} SET Name = 'Quietly changed' WHERE Id = 7")
    verify = ("verify", "customer", "--json")
    assert done(command(tmp_path, customers.settings, *verify))["Verified"]
    for options in (["--full"], ["--sample", "100"]):
        ended = command(tmp_path, customers.settings, *verify, *options)
        assert (ended.code, differences(ended.json)) == (1, {7: ("content", ["Name"])})


def test_sides_on_a_server_are_compared_too(orders: Place, tmp_path: Path) -> None:
    for options in (["--full"], ["--drill"]):
        answer = done(command(tmp_path, orders.settings, "verify", "order", *options, "--json"))
        assert (answer["Verified"], answer["RecordsCompared"], answer["BackupCount"]) == (True, 12, 12)
    revised(orders, 1, revision=7)
    remove(orders, "order", "order-0002")
    revised(orders, 13, revision=1)
    ended = command(tmp_path, orders.settings, "verify", "order", "--full", "--json")
    kinds = {difference["Key"][-1]: difference["Kind"] for difference in ended.json["Differences"]}
    assert (ended.code, kinds) == (1, {"order-0001": "stale", "order-0002": "extra", "order-0013": "missing"})


def test_without_json_differences_are_shown_to_people(customers: Place, tmp_path: Path) -> None:
    spoil(customers)
    ended = command(tmp_path, customers.settings, "verify", "customer", "--full")
    assert ended.code == 1
    assert ["customer", "NOT", "equal"] in [line.split()[:3] for line in ended.out.splitlines()]
    assert ["content", "7", "City,", "Name"] in [line.split() for line in ended.out.splitlines()]


def test_a_verify_changes_nothing_but_has_its_entry(customers: Place, tmp_path: Path) -> None:
    spoil(customers)
    source, backup = tables(customers)
    before = source.contents(), backup.contents()
    command(tmp_path, customers.settings, "verify", "customer", "--full", "--json")
    assert (source.contents(), backup.contents()) == before
    entry = last(customers)
    assert (entry["Trigger"], entry["Status"], bool(entry["Verified"])) == ("verify", "Completed", False)
    assert (entry["DifferingCount"], entry["SourceCount"], entry["BackupCount"]) == (4, 100, 100)
    assert entry["SourceChecksum"] != entry["BackupChecksum"]


def test_a_verify_of_a_backup_that_is_not_there_says_what_to_run(tmp_path: Path) -> None:
    place = places.on_sqlite(tmp_path)
    sample.fill(place.registry)
    error, message = refused(command(tmp_path, place.settings, "verify", "customer", "--json"))
    assert error == "NotInitialized"
    assert "initialize" in message


@pytest.fixture
def running(customers: Place) -> Iterator[Worker]:
    with worker(ROOT, environment(customers.settings)) as started:
        yield started


def test_verify_over_http_is_200_whether_equal_or_not(customers: Place, running: Worker) -> None:
    equal = post(running, "VerifyBackup", service="customer")
    drilled = post(running, "VerifyBackup", {"drill": True}, service="customer")
    spoil(customers)
    plain = post(running, "VerifyBackup", {}, service="customer")
    sampled = post(running, "VerifyBackup", {"sample": 100}, service="customer")
    full = post(running, "VerifyBackup", {"full": True}, service="customer")
    answers = [equal, drilled, plain, sampled, full]
    assert [status for status, _ in answers] == [200] * 5
    assert [answer["Verified"] for _, answer in answers] == [True, True, False, False, False]
    assert [by_kind(answer) for _, answer in answers[2:]] == [(1, 1, 1, 0), (1, 1, 1, 1), (1, 1, 1, 1)]
    # Of the 100 in the source, two are told apart by their stamps already.
    assert [answer["RecordsCompared"] for _, answer in answers] == [0, 100, 0, 98, 98]
    assert differences(full[1])[7] == ("content", ["City", "Name"])


@pytest.mark.parametrize(
    ("service", "body", "status"),
    [
        ("nobody", {}, 404),
        ("customer", {"sample": -1}, 400),
        ("customer", {"full": 1}, 400),
        ("customer", {"x": 1}, 400),
    ],
)
def test_a_verify_that_cannot_be_is_refused(running: Worker, service: str, body: Any, status: int) -> None:
    assert post(running, "VerifyBackup", body, service=service)[0] == status


# --- the proof of a sync ----------------------------------------------------------------------------------------------


def test_a_sync_records_counts_and_checksums_that_are_equal(customers: Place) -> None:
    raised(customers, 1, 2, 101)
    remove(customers, "customer", "9")
    synced(customers, "customer")
    first, entry = customers.customer.backup.history()
    assert bool(entry["Verified"])
    assert (entry["SourceCount"], entry["BackupCount"], entry["DifferingCount"]) == (100, 100, 0)
    assert entry["SourceChecksum"] == entry["BackupChecksum"] != first["SourceChecksum"]


def test_the_checksum_is_the_same_as_long_as_nothing_changes(customers: Place) -> None:
    for _ in range(2):
        synced(customers, "customer", BackupSync__ChunkSize="7")
    *_, first, second = customers.customer.backup.history()
    assert second["SourceChecksum"] == first["SourceChecksum"]


@pytest.mark.parametrize("event", ["INSERT", "UPDATE"])
def test_a_backup_that_spoils_what_is_written_fails_the_sync(customers: Place, tmp_path: Path, event: str) -> None:
    _, backup = tables(customers)
    backup.run(
        f"CREATE TRIGGER Spoils AFTER {event} ON {{table}} WHEN NEW.Id IN (4, 101) AND NEW.Version > 0"
        " BEGIN UPDATE Customers SET Version = -7 WHERE Id = NEW.Id; END"
    )
    raised(customers, 4, 5, 101)
    error, _ = refused(command(tmp_path, customers.settings, "sync", "customer", "--json"))
    entry = last(customers)
    assert (error, entry["Status"], bool(entry["Verified"])) == ("NotVerified", "Failed", False)
    assert entry["DifferingCount"] == 1
    assert entry["SourceChecksum"] != entry["BackupChecksum"]


def test_a_backup_that_keeps_what_is_deleted_fails_the_sync(customers: Place, tmp_path: Path) -> None:
    _, backup = tables(customers)
    backup.run("CREATE TRIGGER Keeps BEFORE DELETE ON {table} BEGIN SELECT RAISE(IGNORE); END")
    remove(customers, "customer", "9")
    error, _ = refused(command(tmp_path, customers.settings, "sync", "customer", "--json"))
    assert (error, last(customers)["DifferingCount"]) == ("NotVerified", 1)


# --- a sync that only says what it would do ---------------------------------------------------------------------------


def change(place: Place) -> None:
    raised(place, 1, 101)
    remove(place, "customer", "9")


def check_dry(place: Place, answer: dict[str, Any], before: Any) -> None:
    """A dry run of `change`: counted and named, and nothing written but its entry."""
    assert (counted(answer), answer["DryRun"], answer["Verified"]) == ((1, 1, 1, 98), True, None)
    assert named(answer) == {1: "Updated", 101: "Inserted", 9: "Deleted"}
    assert place.customer.backup.contents() == before
    entry = last(place)
    assert (entry["Status"], bool(entry["DryRun"]), entry["Verified"]) == ("Completed", True, None)


def test_a_dry_run_on_the_command_line_names_what_would_change(customers: Place, tmp_path: Path) -> None:
    change(customers)
    before = customers.customer.backup.contents()
    [answer] = done(command(tmp_path, customers.settings, "sync", "customer", "--dry-run", "--json"))["Results"]
    check_dry(customers, answer, before)


@pytest.mark.parametrize("route", ["SyncCustomer", "TriggerSync"])
def test_a_dry_run_over_http_names_what_would_change(customers: Place, running: Worker, route: str) -> None:
    change(customers)
    before = customers.customer.backup.contents()
    if route == "SyncCustomer":
        status, answer = post(running, route, query="?dryRun=true")
    else:
        status, body = post(running, route, {"service": "customer", "dryRun": True})
        [answer] = body["Results"]
    assert status == 200
    check_dry(customers, answer, before)


def test_a_dry_run_of_a_forced_sync_would_update_everything(customers: Place, tmp_path: Path) -> None:
    ended = command(tmp_path, customers.settings, "sync", "customer", "--dry-run", "--force", "--json")
    assert counted(done(ended)["Results"][0]) == (0, 100, 0, 0)


# --- the timer --------------------------------------------------------------------------------------------------------


def scheduled(place: Place, now: datetime, **more: str) -> None:
    settings = load_settings({**place.settings, **more})
    run_scheduled(settings, Registry(settings), now=lambda: now)


def triggers(place: Place) -> list[str]:
    return [entry["Trigger"] for entry in place.customer.backup.history()]


def test_the_timer_verifies_a_sample_when_the_days_are_over(customers: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scheduled(customers, NOW)
    verified = customers.registry.get("customer").past.last_verified()
    assert verified is not None
    start = verified.started_at
    for days in (1, 6.9, 7, 8):
        scheduled(customers, start + timedelta(days=days))
    # The verify's own time is the service's clock, so from the seventh day on it is due at each of these times.
    assert triggers(customers) == ["cli", "timer", "verify", "timer", "timer", *["timer", "verify"] * 2]
    lines = [line for line in caplog.messages if line.startswith("schedule.verified")]
    assert all("verified=True" in line for line in lines)


@pytest.mark.parametrize(("every", "verifies"), [("0", 0), ("0.0000001", 1)])
def test_how_often_the_timer_verifies_is_a_setting(customers: Place, every: str, verifies: int) -> None:
    scheduled(customers, NOW, BackupVerify__EveryDays=every)
    assert triggers(customers).count("verify") == verifies


def test_the_timers_sample_compares_whole_records(customers: Place, caplog: pytest.LogCaptureFixture) -> None:
    source, _ = tables(customers)
    source.run("UPDATE {table} SET Name = 'Quietly changed'")
    scheduled(customers, NOW, BackupVerify__Sample="3")
    assert (last(customers)["Trigger"], last(customers)["DifferingCount"]) == ("verify", 3)
    [line] = [line for line in caplog.messages if line.startswith("schedule.verified")]
    assert "verified=False" in line


def test_the_timer_purges_what_is_older_than_recycle_days(customers: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scheduled(customers, NOW)
    scheduled(customers, NOW, BackupSync__RecycleDays="1e-9")
    purged = [line for line in caplog.messages if line.startswith("schedule.purged")]
    counts = [line.partition("service=customer ")[2] for line in purged]
    assert counts == ["entries=0 runs=0", "entries=1 runs=0"]  # 100 records were inserted together


def test_a_verify_is_no_run_of_a_sync(customers: Place) -> None:
    customers.registry.sync("customer", Trigger.TIMER)
    assert customers.registry.get("customer").past.last_verified() is None
