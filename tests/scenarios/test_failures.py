"""What happens when something is not as it should be: servers down, connections lost, wrong passwords, two at once."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backup.config.settings import load_settings
from backup.core.retry import Retry
from backup.runs.lock import open_lock
from tests.functions.worker import worker
from tests.scenarios.inside import command
from tests.scenarios.places import Cosmos, Place, Sql
from tests.scenarios.product import ROOT, Ended, cli, counts, environment, post
from tests.scenarios.proxy import Proxy

SECRET = "not-the-Pa55word"


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody else is given meanwhile."""
    with socket.socket() as bound:  # but does not listen
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def sync(place: Place, folder: Path, service: str = "all", **settings: str) -> Ended:
    return command(folder, {**place.settings, **settings}, "sync", service, "--json")


def only_result(ended: Ended) -> dict[str, Any]:
    [result] = ended.json["Results"]
    return dict(result)


def through(side: Sql | Cosmos, **parts: Any) -> Sql:
    """The same table at another address or with another login."""
    assert isinstance(side, Sql)
    return replace(side, url=sa.make_url(side.url).set(**parts).render_as_string(hide_password=False))


# Servers that are down


def test_a_source_file_that_is_missing_is_a_failed_run_and_never_an_empty_source(
    sqlite_place: Place, tmp_path: Path
) -> None:
    assert sync(sqlite_place, tmp_path).code == 0
    before = sqlite_place.customer.backup.contents()
    (tmp_path / "customers.db").rename(tmp_path / "moved.db")
    ended = sync(sqlite_place, tmp_path, "customer")
    assert (ended.code, ended.json["Error"]) == (1, "SourceMissing")
    assert sqlite_place.customer.backup.contents() == before
    assert not (tmp_path / "customers.db").exists()


def test_a_run_that_cannot_read_its_source_is_in_sync_history(sqlite_place: Place, tmp_path: Path) -> None:
    (tmp_path / "customers.db").unlink()
    ended = sync(sqlite_place, tmp_path, "customer")
    [entry] = sqlite_place.customer.backup.history()
    assert (entry["SyncId"], entry["Status"], bool(entry["Success"])) == (only_result(ended)["SyncId"], "Failed", False)
    assert entry["ErrorMessage"] == only_result(ended)["ErrorMessage"]
    assert "customers.db" in entry["ErrorMessage"]


def test_a_source_that_cannot_be_reached_is_a_503_that_names_it_after_five_tries(
    postgres_place: Place, refused_port: int
) -> None:
    source = through(postgres_place.customer.source, port=refused_port)
    settings = replace(postgres_place.customer, source=source).settings
    with worker(ROOT, environment(settings)) as running:
        status, answer = post(running, "SyncCustomer")
        tries = running.log.count("retry operation=") + 1
    assert (status, answer["Success"], answer["Error"]) == (503, False, "TransientStoreError")
    assert f"source of customer (PostgreSQL 127.0.0.1:{refused_port}" in answer["Message"]
    assert tries == 5
    assert postgres_place.customer.statuses == ["Failed"]


def test_a_backup_that_cannot_be_reached_is_a_503_that_names_it(postgres_place: Place, refused_port: int) -> None:
    backup = through(postgres_place.customer.backup, port=refused_port)
    settings = replace(postgres_place.customer, backup=backup).settings
    with worker(ROOT, environment(settings)) as running:
        status, answer = post(running, "SyncCustomer")
    assert (status, answer["Status"]) == (503, "Failed")
    assert f"backup of customer (PostgreSQL 127.0.0.1:{refused_port}" in answer["Message"]


@pytest.mark.parametrize("side", ["source", "backup"])
def test_a_cosmos_account_that_cannot_be_reached_is_a_503_that_names_it(
    cosmos_orders: Place, refused_port: int, side: str
) -> None:
    at_refused_port = f"AccountEndpoint=https://127.0.0.1:{refused_port}/;AccountKey=c2VjcmV0LWtleQ=="
    service = cosmos_orders.order
    down = replace(getattr(service, side), account=at_refused_port)
    settings = {**replace(service, **{side: down}).settings, "BackupRetry__MaxAttempts": "1"}
    with worker(ROOT, environment(settings)) as running:
        status, answer = post(running, "SyncOrder")
    assert (status, answer["Status"]) == (503, "Failed")
    assert f"{side} of order (Cosmos DB https://127.0.0.1:{refused_port}" in answer["Message"]


def test_one_failing_service_leaves_the_other_complete_and_the_answer_is_207(
    sqlite_place: Place, tmp_path: Path
) -> None:
    (tmp_path / "orders.db").unlink()
    with worker(ROOT, environment(sqlite_place.settings)) as running:
        status, answer = post(running, "TriggerSync")
    assert (status, answer["Success"]) == (207, False)
    assert [(result["ServiceName"], result["Status"]) for result in answer["Results"]] == [
        ("customer", "Completed"),
        ("order", "Failed"),
    ]
    assert sqlite_place.customer.is_mirrored()


def test_when_all_services_fail_the_answer_has_the_failures_status(sqlite_place: Place, tmp_path: Path) -> None:
    for file in ("orders.db", "customers.db"):
        (tmp_path / file).unlink()
    with worker(ROOT, environment(sqlite_place.settings)) as running:
        assert post(running, "TriggerSync")[0] == 503


# Connections that break


@pytest.mark.parametrize(
    ("side", "cut_after", "silent"),
    [(side, cut_after, False) for side in ("source", "backup") for cut_after in (6_000, 14_000)]
    + [("source", 14_000, True), ("backup", 14_000, True)],
)
def test_a_connection_lost_on_the_way_is_taken_up_again_and_the_copy_is_right(
    postgres_place: Place, tmp_path: Path, side: str, cut_after: int, silent: bool
) -> None:
    service = postgres_place.customer
    place: Sql = getattr(service, side)
    proxy = Proxy(sa.make_url(place.url).port or 0, cut_after, of_client=side == "backup", silent=silent)
    with proxy.running():
        settings = service.on(side, through(place, port=proxy.port)).settings
        sizes = {"BackupSync__BatchSize": "20", "BackupSync__MaxCallSeconds": "3"}
        ended = cli(tmp_path, settings | sizes, "sync", "customer", "--json")
    assert proxy.cuts == 1, "the connection was to be cut"
    assert (ended.code, only_result(ended)["Status"]) == (0, "Completed"), ended.err
    assert counts(ended.json["Results"]) == {"customer": (100, 0, 0, 0)}
    assert "retry operation=" in ended.err
    assert ("there was no answer within 3 s" in ended.err) is silent
    assert service.is_mirrored()


def test_a_source_lost_for_good_leaves_a_failed_entry_and_deletes_nothing(
    postgres_place: Place, tmp_path: Path
) -> None:
    service = postgres_place.customer
    assert cli(tmp_path, service.settings, "sync", "customer").code == 0
    service.source.run('DELETE FROM {table} WHERE "Id" <= 50')
    service.source.run('UPDATE {table} SET "Version" = 2')
    proxy = Proxy(sa.make_url(through(service.source).url).port or 0, cut_after=6_000, for_good=True)
    with proxy.running():
        settings = replace(service, source=through(service.source, port=proxy.port)).settings
        ended = cli(tmp_path, {**settings, "BackupSync__ChunkSize": "10"}, "sync", "customer", "--json")
    assert (ended.code, ended.json["Error"]) == (1, "TransientStoreError")
    assert len(service.backup.contents()) == 100
    assert service.statuses == ["Completed", "Failed"]


# Logins that are refused


@pytest.mark.parametrize("side", ["source", "backup"])
def test_a_wrong_password_fails_at_once_and_is_told_nowhere(postgres_place: Place, tmp_path: Path, side: str) -> None:
    service = postgres_place.customer
    settings = service.on(side, through(getattr(service, side), password=SECRET)).settings
    with worker(ROOT, environment(settings)) as running:
        status, answer = post(running, "SyncCustomer")
        log = running.log
    assert (status, answer["Error"]) == (503, "StoreUnavailable")
    assert f"{side} of customer" in answer["Message"]
    assert "retry operation=" not in log
    assert SECRET not in log + str(answer) + str(service.backup.history())


def test_a_wrong_password_fails_on_the_command_line_without_telling_it(postgres_place: Place, tmp_path: Path) -> None:
    service = postgres_place.customer
    settings = replace(service, source=through(service.source, password=SECRET)).settings
    ended = cli(tmp_path, settings, "sync", "customer")
    assert ended.code == 1
    assert SECRET not in ended.out + ended.err


# Two at once


def test_a_second_sync_of_a_service_that_runs_is_a_409_and_leaves_no_entry(sqlite_place: Place) -> None:
    service = sqlite_place.customer
    with sqlite_place.registry.get("customer").stores() as (_, backup):
        place = backup.place.location
    with (
        open_lock(load_settings({}), Retry())("customer", place),
        worker(ROOT, environment(service.settings)) as running,
    ):
        status, answer = post(running, "SyncCustomer")
    assert (status, answer["Success"], answer["Error"]) == (409, False, "Locked")
    assert service.backup.history() == []


def test_a_lock_in_the_storage_account_is_held_against_every_instance(
    sqlite_place: Place, tmp_path: Path, azurite: str
) -> None:
    settings = {"AzureWebJobsStorage": azurite}
    with open_lock(load_settings(settings), Retry(base_seconds=0))("customer", "anywhere"):
        held = sync(sqlite_place, tmp_path, **settings)
    free = sync(sqlite_place, tmp_path, **settings)
    assert [(result["ServiceName"], result["Status"]) for result in held.json["Results"]] == [
        ("customer", "Failed"),
        ("order", "Completed"),
    ]
    assert held.json["Error"] == "Locked"
    assert (free.code, free.json["Success"]) == (0, True)


def test_two_syncs_of_one_service_at_once_run_one_after_the_other_or_not_at_all(sqlite_place: Place) -> None:
    with worker(ROOT, environment(sqlite_place.settings)) as running:
        calls = [running.call("SyncCustomer", method="POST") for _ in range(4)]
        statuses = sorted(call.result(60)["status"] for call in calls)
    assert statuses[0] == 200
    assert set(statuses) <= {200, 409}
    assert sqlite_place.customer.statuses == ["Completed"] * statuses.count(200)
    assert sqlite_place.customer.is_mirrored()


def test_a_storage_account_that_cannot_be_reached_stops_the_run_and_is_named(
    sqlite_place: Place, tmp_path: Path, refused_port: int
) -> None:
    storage = f"AccountName=x;AccountKey=c2VjcmV0;BlobEndpoint=http://127.0.0.1:{refused_port}/x;"
    ended = sync(sqlite_place, tmp_path, "customer", AzureWebJobsStorage=storage, BackupRetry__MaxAttempts="1")
    assert (ended.code, ended.json["Error"]) == (1, "TransientStoreError")
    assert "AzureWebJobsStorage" in only_result(ended)["ErrorMessage"]
    assert sqlite_place.customer.backup.contents() == {}
    assert sqlite_place.customer.statuses == ["Failed"]


# Sources that lost their records; tests/reliability/test_mass_delete.py has the other ways


def test_a_source_that_lost_many_records_is_a_409_until_one_run_is_allowed_to_delete_them(sqlite_place: Place) -> None:
    service = sqlite_place.customer
    with worker(ROOT, environment(sqlite_place.settings)) as running:
        post(running, "SyncCustomer")
        before = service.backup.contents()
        service.source.run("DELETE FROM {table} WHERE Id <= 21")  # of 100, by default 20 may go
        refused = post(running, "SyncCustomer", query="?force=true")
        kept = service.backup.contents()
        _, dry = post(running, "SyncCustomer", query="?dryRun=true&allowMassDelete=true")
        allowed = post(running, "SyncCustomer", query="?allowMassDelete=true")
    assert (refused[0], refused[1]["Error"], refused[1]["DeletedCount"]) == (409, "GuardTripped", 0)
    assert "21 of 100 records would be deleted" in refused[1]["Message"]
    assert (kept, dry["DeletedCount"]) == (before, 21)
    assert (allowed[0], allowed[1]["DeletedCount"]) == (200, 21)
    assert service.is_mirrored()
