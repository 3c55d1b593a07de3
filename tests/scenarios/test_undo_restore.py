"""Undo and restore as their users meet them: on the command line, over HTTP, on every kind of database."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from azure.cosmos import DatabaseProxy

from backup.config.settings import load_settings
from backup.core.errors import RecordsSetAside, StoreError
from backup.core.model import Action
from backup.core.run_values import Run, Trigger
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import Kept
from backup.services.registry import Registry
from backup.stores.sql.batch import SqlBatch
from tests.emulators.clients import cosmos_client
from tests.emulators.servers import lent_database
from tests.functions.worker import Worker, worker
from tests.scenarios import places
from tests.scenarios.inside import (
    alone,
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
from tests.scenarios.places import Cosmos, Place, Service, Sql
from tests.scenarios.product import ROOT, Counts, Ended, environment, post

OF_THE_SERVER = {"_rid", "_self", "_etag", "_ts", "_attachments"}
FORGETS_AT_ONCE = {"BackupSync__RecycleDays": "1e-9"}


# --- what the tests read and do past the product ----------------------------------------------------------------------


def rows(side: Sql, query: str = "SELECT * FROM {table}") -> list[tuple[Any, ...]]:
    """What the query gives, as the driver gives it; {table} stands for the table's name."""
    schema, _, name = side.table.rpartition(".")
    engine = sa.create_engine(side.url, poolclass=sa.NullPool)
    with engine.connect() as cx:
        table = cx.dialect.identifier_preparer.format_table(sa.table(name, schema=schema or None))
        return [tuple(row) for row in cx.exec_driver_sql(query.format(table=table))]


def run_sql(side: Sql | Cosmos, statement: str) -> None:
    """Executes a statement on a table."""
    assert isinstance(side, Sql)
    side.run(statement)


@contextmanager
def database(side: Cosmos) -> Iterator[DatabaseProxy]:
    with cosmos_client(side.account) as client:
        yield client.get_database_client(side.database)


def whole(side: Sql | Cosmos) -> list[str]:
    """All that is there, value for value, with the app's own marks; only what the server writes anew is left out."""
    if isinstance(side, Sql):
        return sorted(map(repr, rows(side)))
    with database(side) as opened:
        documents = list(opened.get_container_client(side.container).read_all_items())
    return sorted(json.dumps({k: v for k, v in document.items() if k not in OF_THE_SERVER}) for document in documents)


def empty(side: Sql | Cosmos) -> None:
    if isinstance(side, Sql):
        run_sql(side, "DELETE FROM {table}")
        return
    with database(side) as opened:
        container = opened.get_container_client(side.container)
        for document in list(container.read_all_items()):
            container.delete_item(document["id"], partition_key=document["customerId"])


def drop(side: Sql | Cosmos) -> None:
    if isinstance(side, Sql):
        run_sql(side, "DROP TABLE {table}")
        return
    with database(side) as opened:
        opened.delete_container(side.container)


def change_orders(place: Place) -> None:
    """Updates 3 orders, adds 2, deletes 2."""
    revised(place, 1, 2, 3, 56, 57)
    remove(place, "order", "order-0009", "order-0010")


def kept_by(place: Place, service: str, sync_id: str) -> list[Kept]:
    """The run's images."""
    with place.registry.get(service).stores() as (_, backup):
        return [kept for page in RecycleBin(backup, service).of_run(sync_id) for kept in page]


def after(run: Run) -> str:
    """A time at which the run had ended and no later one begun."""
    assert run.completed_at is not None
    return run.completed_at.isoformat()


@pytest.fixture
def customers(tmp_path: Path) -> Place:
    """Customers on SQLite."""
    return alone(places.on_sqlite(tmp_path).customer)


@pytest.fixture
def orders(tmp_path: Path) -> Place:
    """Orders on SQLite."""
    return alone(places.on_sqlite(tmp_path).order)


@pytest.fixture
def cosmos_orders(tmp_path: Path, cosmos_server: str, cosmos_server_backup: str) -> Place:
    """Orders on Cosmos DB."""
    return few_orders(places.with_orders_on_cosmos(tmp_path, cosmos_server, cosmos_server_backup).order)


@pytest.fixture
def two_postgres_databases(postgres: str) -> Iterator[tuple[str, str]]:
    with lent_database(postgres) as source, lent_database(postgres) as backup:
        yield source, backup


@pytest.fixture
def postgres_orders(two_postgres_databases: tuple[str, str]) -> Place:
    """Orders on PostgreSQL."""
    return few_orders(places.on_postgres(*two_postgres_databases).order)


# --- undo -------------------------------------------------------------------------------------------------------------


def test_undo_gives_the_backup_before_the_run_and_undone_itself_the_one_after(orders: Place, tmp_path: Path) -> None:
    place = orders
    synced(place, "order")
    before = whole(place.order.backup)
    change_orders(place)
    run = synced(place, "order")
    later = whole(place.order.backup)
    undone = done(command(tmp_path, place.settings, "undo", run.sync_id, "--yes", "--json"))
    assert (counted(undone), whole(place.order.backup)) == ((2, 3, 2, 0), before)
    again = done(command(tmp_path, place.settings, "undo", undone["SyncId"], "--yes", "--json"))
    assert (counted(again), whole(place.order.backup)) == ((2, 3, 2, 0), later)
    history = place.order.backup.history()
    assert [entry["Trigger"] for entry in history] == ["cli", "cli", "undo", "undo"]
    assert run.sync_id in history[2]["Notes"]


def test_a_preview_names_the_keys_and_writes_nothing_but_its_entry(customers: Place, tmp_path: Path) -> None:
    place = customers
    synced(place, "customer")
    raised(place, 4, 5)
    remove(place, "customer", "99")
    raised(place, 101, version=1)
    run = synced(place, "customer")
    before = whole(place.customer.backup), place.customer.backup.history()
    preview = done(command(tmp_path, place.settings, "undo", run.sync_id, "--json"))
    assert named(preview) == {4: "Updated", 5: "Updated", 99: "Inserted", 101: "Deleted"}
    assert (counted(preview), preview["DryRun"], preview["Verified"]) == ((1, 2, 1, 0), True, None)
    *entries, last = place.customer.backup.history()
    assert (whole(place.customer.backup), entries) == before
    assert (last["Trigger"], last["Status"], bool(last["DryRun"])) == ("undo", "Completed", True)
    assert kept_by(place, "customer", preview["SyncId"]) == []


def test_a_preview_is_a_table_that_says_that_nothing_was_written(customers: Place, tmp_path: Path) -> None:
    synced(customers, "customer")
    raised(customers, 42)
    run = synced(customers, "customer")
    ended = command(tmp_path, customers.settings, "undo", run.sync_id)
    assert ended.code == 0, ended.err
    assert "Nothing was written" in ended.out
    assert "--yes" in ended.out
    assert ["Updated", "42"] in [line.split() for line in ended.out.splitlines()]


def test_undo_of_a_run_whose_records_changed_later_names_the_later_runs(customers: Place, tmp_path: Path) -> None:
    place = customers
    first = synced(place, "customer")
    raised(place, 1, 2)
    second = synced(place, "customer")
    raised(place, 2, 3, version=3)
    third = synced(place, "customer")
    before = whole(place.customer.backup)
    error, message = refused(command(tmp_path, place.settings, "undo", second.sync_id, "--yes", "--json"))
    assert error == "Conflict"
    assert (third.sync_id in message, first.sync_id in message, "--through" in message) == (True, False, True)
    assert whole(place.customer.backup) == before


def test_undo_through_takes_the_later_runs_back_too(customers: Place, tmp_path: Path) -> None:
    place = customers
    synced(place, "customer")
    before = whole(place.customer.backup)
    raised(place, 1, 2)
    remove(place, "customer", "7", "8")
    raised(place, *range(201, 211), 301, version=1)
    second = synced(place, "customer")
    raised(place, 2, 3, 7, version=3)
    raised(place, 101, version=1)
    remove(place, "customer", "202", "210", "301")
    synced(place, "customer")
    through = (tmp_path, place.settings, "undo", second.sync_id, "--through", "--json")
    preview = counted(done(command(*through)))
    undone = done(command(*through, "--yes"))
    assert (whole(place.customer.backup), counted(undone)) == (before, preview)
    done(command(tmp_path, place.settings, "undo", undone["SyncId"], "--yes", "--json"))
    assert place.customer.is_mirrored()


def test_a_later_run_that_changed_other_records_is_left_as_it_is(customers: Place, tmp_path: Path) -> None:
    place = customers
    synced(place, "customer")
    raised(place, 1, 2)
    second = synced(place, "customer")
    raised(place, 3)
    synced(place, "customer")
    done(command(tmp_path, place.settings, "undo", second.sync_id, "--yes", "--json"))
    versions = {row["Id"]: row["Version"] for row in place.customer.backup.contents().values()}
    assert [versions[n] for n in (1, 2, 3, 4)] == [1, 1, 2, 1]


def test_an_unknown_run_is_an_error_that_says_where_runs_are_listed(customers: Place, tmp_path: Path) -> None:
    error, message = refused(command(tmp_path, customers.settings, "undo", str(uuid.uuid4()), "--yes", "--json"))
    assert error == "UnknownRun"
    assert "history" in message


def test_undo_of_a_run_whose_images_were_purged_is_refused(customers: Place, tmp_path: Path) -> None:
    place = customers
    synced(place, "customer")
    raised(place, 1, 2)
    run = synced(place, "customer")
    settings = {**place.settings, **FORGETS_AT_ONCE}
    assert Registry(load_settings(settings)).get("customer").past.purge().images == 1 + 2  # the inserts have one entry
    before = whole(place.customer.backup)
    error, message = refused(command(tmp_path, settings, "undo", run.sync_id, "--yes", "--json"))
    assert error == "Conflict"
    assert "purged" in message
    assert whole(place.customer.backup) == before


def test_a_restore_in_between_does_not_keep_earlier_runs_from_being_undone(customers: Place, tmp_path: Path) -> None:
    place = customers
    synced(place, "customer")
    before = whole(place.customer.backup)
    raised(place, 1)
    run = synced(place, "customer")
    remove(place, "customer", "9")
    assert counted(done(command(tmp_path, place.settings, "restore", "customer", "--yes", "--json"))) == (1, 0, 0, 99)
    done(command(tmp_path, place.settings, "undo", run.sync_id, "--through", "--yes", "--json"))
    assert whole(place.customer.backup) == before


def test_undo_that_failed_half_way_can_be_repeated(customers: Place, tmp_path: Path) -> None:
    place = customers
    synced(place, "customer")
    before = whole(place.customer.backup)
    raised(place, 5)
    raised(place, 101, version=1)
    run = synced(place, "customer")
    run_sql(
        place.customer.backup,
        "CREATE TRIGGER Broken BEFORE UPDATE ON {table} BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    )
    refused(command(tmp_path, place.settings, "undo", run.sync_id, "--yes", "--json"))
    run_sql(place.customer.backup, "DROP TRIGGER Broken")
    assert 101 not in place.customer.backup.contents()  # what it had done stays
    done(command(tmp_path, place.settings, "undo", run.sync_id, "--yes", "--json"))
    assert whole(place.customer.backup) == before


@pytest.mark.parametrize(("type_", "key", "left"), [("NUMERIC", "a", {"a": 2}), ("INTEGER", 5, {99: 1})])
def test_undo_of_several_runs_leaves_what_is_refused_but_not_what_it_deletes_later(
    tmp_path: Path, type_: str, key: Any, left: dict[Any, int]
) -> None:
    service = Service("customer", *(Sql(f"sqlite:///{tmp_path}/{side}.db", "Thing") for side in ("source", "backup")))
    place = Place(service, service)
    service.source.run(f"CREATE TABLE {{table}} (Id {type_} PRIMARY KEY, Version INTEGER)")
    service.source.run("INSERT INTO {table} VALUES (:id, 1)", id=min(left))
    place.registry.get("customer").initialize()
    synced(place, "customer")
    service.source.run("INSERT INTO {table} SELECT value, 1 FROM json_each('[1,2,3,4,5,6,7,8]')")
    run = synced(place, "customer")
    service.source.run("UPDATE {table} SET Version = 2 WHERE Id = :id", id=key)
    synced(place, "customer")
    service.backup.run("CREATE TRIGGER stays BEFORE UPDATE ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END")
    undone = place.registry.get("customer").undo(run.sync_id, through=True)
    assert isinstance(undone.error, RecordsSetAside) == (key in left)
    assert {id_: row["Version"] for id_, row in service.backup.contents().items()} == left


@pytest.mark.parametrize(
    ("trigger", "counts"),
    [
        ("BEFORE INSERT ON {table} BEGIN SELECT RAISE(IGNORE); END", (0, 1, 1, 0)),
        ("BEFORE UPDATE ON {table} BEGIN SELECT RAISE(IGNORE); END", (1, 0, 1, 0)),
        ("BEFORE DELETE ON {table} BEGIN SELECT RAISE(IGNORE); END", (1, 1, 0, 0)),
        ("AFTER UPDATE ON {table} BEGIN UPDATE {table} SET Email = 'x' WHERE Id = NEW.Id; END", (1, 0, 1, 0)),
    ],
)
def test_an_undo_that_has_another_effect_or_none_says_so(customers: Place, trigger: str, counts: Counts) -> None:
    synced(customers, "customer")
    raised(customers, 5)
    raised(customers, 101, version=1)
    remove(customers, "customer", "9")
    run = synced(customers, "customer")
    run_sql(customers.customer.backup, f"CREATE TRIGGER Takes {trigger}")
    undone = customers.registry.get("customer").undo(run.sync_id)
    assert isinstance(undone.error, StoreError)
    made = undone.run.counts
    assert (made.inserted, made.updated, made.deleted, made.skipped) == counts


# --- restore the newest state -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lose", [empty, drop])
def test_a_source_that_was_lost_is_restored_as_it_was(
    orders: Place, tmp_path: Path, lose: Callable[[Sql | Cosmos], None]
) -> None:
    place = orders
    synced(place, "order")
    before, copies = whole(place.order.source), whole(place.order.backup)
    lose(place.order.source)
    restored = done(command(tmp_path, place.settings, "restore", "order", "--yes", "--json"))
    assert counted(restored) == (55, 0, 0, 0)
    assert (whole(place.order.source), whole(place.order.backup)) == (before, copies)
    again = synced(place, "order").counts
    assert (again.inserted, again.deleted) == (0, 0)
    entry = place.order.backup.history()[1]
    assert (entry["Trigger"], entry["Status"], entry["InsertedCount"]) == ("restore", "Completed", 55)


def test_a_source_whose_database_is_gone_is_made_anew(customers: Place, tmp_path: Path) -> None:
    synced(customers, "customer")
    before = whole(customers.customer.source)
    (tmp_path / "customers.db").unlink()
    preview = done(command(tmp_path, customers.settings, "restore", "customer", "--json"))
    assert (counted(preview), (tmp_path / "customers.db").exists()) == ((100, 0, 0, 0), False)
    assert any("would be made" in note for note in preview["Notes"])
    done(command(tmp_path, customers.settings, "restore", "customer", "--yes", "--json"))
    assert whole(customers.customer.source) == before


def test_another_database_is_made_and_gets_everything_while_the_source_stays(orders: Place, tmp_path: Path) -> None:
    place = orders
    synced(place, "order")
    before = whole(place.order.source)
    remove(place, "order", "order-0001", "order-0002")
    reduced = whole(place.order.source)
    assert isinstance(place.order.source, Sql)
    other = replace(place.order.source, url=f"sqlite:///{tmp_path / 'new' / 'elsewhere.db'}")
    restore = ("restore", "order", "--to", other.url, "--yes", "--json")
    assert (counted(done(command(tmp_path, place.settings, *restore))), whole(other)) == ((55, 0, 0, 0), before)
    assert counted(done(command(tmp_path, place.settings, *restore))) == (0, 0, 0, 55)
    assert whole(place.order.source) == reduced


def test_the_backup_itself_is_no_place_to_restore_to(customers: Place, tmp_path: Path) -> None:
    synced(customers, "customer")
    backup = customers.customer.backup
    assert isinstance(backup, Sql)
    before = whole(backup)
    ended = command(tmp_path, customers.settings, "restore", "customer", "--to", backup.url, "--yes", "--json")
    assert refused(ended)[0] == "ConfigError"
    assert whole(backup) == before


def test_a_record_that_is_newer_than_its_copy_is_named_and_left_alone(customers: Place, tmp_path: Path) -> None:
    place = customers
    synced(place, "customer")
    raised(place, 1, 2)
    remove(place, "customer", "3")
    restored = done(command(tmp_path, place.settings, "restore", "customer", "--yes", "--json"))
    versions = {n: row["Version"] for n, row in place.customer.source.contents().items()}
    assert (versions[1], versions[2], versions[3], len(versions)) == (2, 2, 1, 100)
    assert (counted(restored), named(restored)) == ((1, 0, 0, 99), {1: "Newer", 2: "Newer"})


def test_a_record_that_is_older_than_its_copy_is_overwritten(customers: Place, tmp_path: Path) -> None:
    place = customers
    raised(place, 1, 2)
    synced(place, "customer")
    raised(place, 1, version=1)
    restored = done(command(tmp_path, place.settings, "restore", "customer", "--yes", "--json"))
    assert counted(restored) == (0, 1, 0, 99)
    assert place.customer.is_mirrored()


def test_newer_records_are_overwritten_when_asked(orders: Place, tmp_path: Path) -> None:
    place = orders
    synced(place, "order")
    before = whole(place.order.source)
    revised(place, 1, 2)
    restored = done(command(tmp_path, place.settings, "restore", "order", "--overwrite-newer", "--yes", "--json"))
    assert (counted(restored), whole(place.order.source)) == ((0, 2, 0, 53), before)


def test_what_only_the_source_has_is_left_alone_and_told(customers: Place, tmp_path: Path) -> None:
    place = customers
    synced(place, "customer")
    raised(place, 101, 102, version=1)
    restored = done(command(tmp_path, place.settings, "restore", "customer", "--yes", "--json"))
    assert len(place.customer.source.contents()) == 102
    assert [note.split()[0] for note in restored["Notes"]] == ["2"]


def test_what_only_the_source_has_is_deleted_when_asked_unless_it_is_too_much(customers: Place, tmp_path: Path) -> None:
    place = customers
    synced(place, "customer")
    before = whole(place.customer.source)
    raised(place, *range(101, 131), version=1)
    larger = whole(place.customer.source)
    restore = ("restore", "customer", "--delete-extra", "--json")
    assert refused(command(tmp_path, place.settings, *restore, "--yes"))[0] == "GuardTripped"
    assert whole(place.customer.source) == larger
    preview = done(command(tmp_path, place.settings, *restore, "--allow-mass-delete"))
    assert named(preview) == dict.fromkeys(range(101, 131), "Deleted")
    assert whole(place.customer.source) == larger
    restored = done(command(tmp_path, place.settings, *restore, "--allow-mass-delete", "--yes"))
    assert (counted(restored), whole(place.customer.source)) == ((0, 0, 30, 100), before)


def test_what_restores_delete_from_the_source_within_a_week_has_a_limit_too(customers: Place, tmp_path: Path) -> None:
    place, extra = customers, range(101, 107)
    synced(place, "customer")
    limits = {"BackupSync__DeleteGuardFloor": "0", "BackupSync__MaxDeletePercentPerWeek": "10"}

    def restore(*options: str) -> Ended:
        named = ("restore", "customer", "--delete-extra", "--yes", "--json", *options)
        return command(tmp_path, {**place.settings, **limits}, *named)

    raised(place, *extra, version=1)
    other = shutil.copy(tmp_path / "customers.db", tmp_path / "other.db")
    assert counted(done(restore("--to", f"sqlite:///{other}")))[2] == 6  # which is no week of the source's
    assert counted(done(restore()))[2] == 6
    raised(place, *extra, version=1)
    error, message = refused(restore())
    assert (error, "after 6 in the last seven days" in message) == ("GuardTripped", True)
    assert len(place.customer.source.contents()) == 106
    assert counted(done(restore("--allow-mass-delete")))[2] == 6
    raised(place, *extra[:3], version=1)
    assert counted(done(restore()))[2] == 3  # what was allowed does not count


def test_an_empty_backup_does_not_empty_its_source(customers: Place, tmp_path: Path) -> None:
    ended = command(tmp_path, customers.settings, "restore", "customer", "--delete-extra", "--yes", "--json")
    assert refused(ended)[0] == "GuardTripped"
    assert len(customers.customer.source.contents()) == 100


def test_what_a_restore_replaces_in_the_source_is_kept(orders: Place, tmp_path: Path) -> None:
    place = orders
    synced(place, "order")
    revised(place, 1, 56)
    with place.registry.get("order").stores() as (source, _):
        keys = [source.keys.from_text("order-0001"), source.keys.from_text("order-0056")]
        was = {image.key: image.record for page in source.images(keys, Action.UPDATED) for image in page}
    options = ("--overwrite-newer", "--delete-extra", "--yes", "--json")
    restored = done(command(tmp_path, place.settings, "restore", "order", *options))
    kept = kept_by(place, "order", restored["SyncId"])
    assert {image.key: image.record for image in kept} == was
    assert {(image.key, image.action) for image in kept} == {(keys[0], Action.UPDATED), (keys[1], Action.DELETED)}
    assert {image.side for image in kept} == {"source"}


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--dry-run", "--yes"]])
def test_a_dry_run_names_what_would_change_and_writes_nothing(
    customers: Place, tmp_path: Path, options: list[str]
) -> None:
    place = customers
    raised(place, 4)
    synced(place, "customer")
    raised(place, 1)
    raised(place, 4, version=1)
    remove(place, "customer", "3")
    raised(place, 101, version=1)
    before = whole(place.customer.source), whole(place.customer.backup)
    preview = done(command(tmp_path, place.settings, "restore", "customer", "--delete-extra", *options, "--json"))
    assert named(preview) == {1: "Newer", 3: "Inserted", 4: "Updated", 101: "Deleted"}
    assert (whole(place.customer.source), whole(place.customer.backup)) == before
    assert kept_by(place, "customer", preview["SyncId"]) == []
    assert bool(place.customer.backup.history()[-1]["DryRun"])


# --- restore as of a time ---------------------------------------------------------------------------------------------


def test_the_state_of_a_time_is_restored_across_inserts_updates_and_deletes(orders: Place, tmp_path: Path) -> None:
    place = orders
    first = synced(place, "order")
    before = whole(place.order.source)
    change_orders(place)
    synced(place, "order")
    revised(place, 2, 9, 56, revision=3)
    remove(place, "order", "order-0003", "order-0057")
    synced(place, "order")
    options = ("--at", after(first), "--delete-extra", "--yes", "--json")
    restored = done(command(tmp_path, place.settings, "restore", "order", *options))
    assert whole(place.order.source) == before
    assert counted(restored)[0] == 2  # orders 3 and 10; of 9 there was one
    assert counted(restored)[2] == 1  # order 56


def test_a_time_between_two_runs_is_the_state_between_them(customers: Place, tmp_path: Path) -> None:
    place = customers
    synced(place, "customer")
    raised(place, 1, 2)
    remove(place, "customer", "9")
    middle = synced(place, "customer")
    between = whole(place.customer.source)
    raised(place, 2, 3, version=5)
    remove(place, "customer", "1", "8")
    raised(place, 9, version=7)
    synced(place, "customer")
    options = ("--at", after(middle), "--delete-extra", "--yes", "--json")
    restored = done(command(tmp_path, place.settings, "restore", "customer", *options))
    assert (counted(restored), whole(place.customer.source)) == ((2, 2, 1, 95), between)


def test_what_came_after_the_time_is_left_alone_unless_asked(customers: Place, tmp_path: Path) -> None:
    place = customers
    first = synced(place, "customer")
    raised(place, 101, version=1)
    synced(place, "customer")
    restored = done(command(tmp_path, place.settings, "restore", "customer", "--at", after(first), "--yes", "--json"))
    assert (counted(restored)[:3], 101 in place.customer.source.contents()) == ((0, 0, 0), True)


def test_a_time_goes_into_another_database_too(customers: Place, tmp_path: Path) -> None:
    place = customers
    first = synced(place, "customer")
    before = whole(place.customer.source)
    raised(place, 1)
    remove(place, "customer", "9")
    raised(place, 101, version=1)
    synced(place, "customer")
    assert isinstance(place.customer.source, Sql)
    other = replace(place.customer.source, url=f"sqlite:///{tmp_path / 'then.db'}")
    options = ("--at", after(first), "--to", other.url, "--yes", "--json")
    done(command(tmp_path, place.settings, "restore", "customer", *options))
    assert whole(other) == before


AHEAD, LONG_AGO = "9999-01-01T00:00:00Z", "2001-01-01T01:00:00+01:00"


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        ("2026-01-01T00:00:00", "no offset"),
        ("yesterday", "is not a time"),
        (AHEAD, "lies ahead"),
        (LONG_AGO, "RecycleDays is 30"),
    ],
    ids=["no offset", "none", "ahead", "too old"],
)
def test_a_time_without_an_offset_ahead_or_older_than_the_bin_is_refused(
    customers: Place, tmp_path: Path, at: str, reason: str
) -> None:
    run_sql(customers.customer.source, "DELETE FROM {table} WHERE Id = 5")
    error, message = refused(
        command(tmp_path, customers.settings, "restore", "customer", "--yes", "--at", at, "--json")
    )
    assert error == "BadRequest"
    assert reason in message
    assert len(customers.customer.source.contents()) == 99


def test_a_time_before_the_first_sync_is_refused_and_no_empty_state(customers: Place, tmp_path: Path) -> None:
    place = customers
    began = synced(place, "customer").started_at.isoformat()
    options = ("--at", began, "--delete-extra", "--allow-mass-delete", "--yes", "--json")
    error, message = refused(command(tmp_path, place.settings, "restore", "customer", *options))
    assert error == "BadRequest"
    assert "before the end of the first sync" in message
    assert len(place.customer.source.contents()) == 100


def test_without_a_completed_sync_a_time_is_refused_with_the_last_error(customers: Place, tmp_path: Path) -> None:
    place = customers
    run_sql(place.customer.backup, "DELETE FROM {table}")
    when = "BEFORE INSERT ON {table} WHEN NEW.Id = 3"
    run_sql(place.customer.backup, f"CREATE TRIGGER no {when} BEGIN SELECT raise(ABORT, 'no'); END")
    assert command(tmp_path, place.settings, "sync", "customer").code == 1
    moment = place.customer.backup.history()[-1]["CompletedAt"].replace(" ", "T") + "Z"
    error, message = refused(
        command(tmp_path, place.settings, "restore", "customer", "--yes", "--at", moment, "--json")
    )
    assert error == "BadRequest"
    assert "no sync of customer has completed yet" in message
    assert "could not be read or written" in message


# --- restore some records ---------------------------------------------------------------------------------------------


def test_only_the_records_of_the_keys_are_restored(customers: Place, tmp_path: Path) -> None:
    place = customers
    synced(place, "customer")
    remove(place, "customer", "5", "6", "7")
    restored = done(
        command(tmp_path, place.settings, "restore", "customer", "--key", "5", "--key", "7", "--yes", "--json")
    )
    assert counted(restored) == (2, 0, 0, 0)
    assert {n for n in range(1, 101) if n not in place.customer.source.contents()} == {6}


def test_a_key_as_of_a_time_gives_that_record_of_then(orders: Place, tmp_path: Path) -> None:
    place = orders
    first = synced(place, "order")
    before = place.order.source.contents()
    change_orders(place)
    synced(place, "order")
    options = ("--at", after(first), "--key", "order-0001", "--yes", "--json")
    restored = done(command(tmp_path, place.settings, "restore", "order", *options))
    now = place.order.source.contents()
    assert counted(restored) == (0, 1, 0, 0)
    assert (now["order-0001"], now["order-0002"] == before["order-0002"]) == (before["order-0001"], False)


def test_a_key_of_a_record_that_is_gone_on_both_sides_is_restored_as_of_a_time(
    customers: Place, tmp_path: Path
) -> None:
    place = customers
    first = synced(place, "customer")
    before = whole(place.customer.source)
    remove(place, "customer", "5")
    synced(place, "customer")
    options = ("--at", after(first), "--key", "5", "--yes", "--json")
    assert counted(done(command(tmp_path, place.settings, "restore", "customer", *options))) == (1, 0, 0, 0)
    assert whole(place.customer.source) == before


def test_keys_of_documents_are_a_list_with_the_partition_or_the_id_alone(cosmos_orders: Place, tmp_path: Path) -> None:
    place = cosmos_orders
    synced(place, "order")
    before = place.order.source.contents()
    remove(place, "order", "order-0001", "order-0002", "order-0003")
    keys = ("--key", '["customer-1", "order-0001"]', "--key", "order-0002")
    restored = done(command(tmp_path, place.settings, "restore", "order", *keys, "--yes", "--json"))
    assert counted(restored) == (2, 0, 0, 0)
    now = place.order.source.contents()
    assert before.keys() - now.keys() == {"order-0003"}
    assert now == {name: before[name] for name in now}
    for key in ("order-0077", '["a", "b", "c"]'):
        ended = command(tmp_path, place.settings, "restore", "order", "--key", key, "--yes", "--json")
        assert refused(ended)[0] == "BadRequest"


@pytest.mark.parametrize("key", ["five", "", "5.5", "[5, 6]"])
def test_a_text_that_is_no_key_of_the_service_is_refused(customers: Place, tmp_path: Path, key: str) -> None:
    run_sql(customers.customer.source, "DELETE FROM {table} WHERE Id = 5")
    ended = command(tmp_path, customers.settings, "restore", "customer", "--key", key, "--yes", "--json")
    assert refused(ended)[0] == "BadRequest"
    assert len(customers.customer.source.contents()) == 99


# --- tables of other shapes -------------------------------------------------------------------------------------------


def things_in(source: str, backup: str, create: str, insert: str) -> tuple[Place, Sql]:
    """Customers in a table `Things` of the test's own making, their backup made; and their source."""
    table = Sql(source, "Things")
    table.run(f"CREATE TABLE {{table}} ({create})")
    table.run(insert)
    service = Service("customer", table, Sql(backup, "Things"))
    place = Place(service, service)
    place.initialize()
    return place, table


def test_composite_keys_are_json_lists(tmp_path: Path) -> None:
    create = "A INTEGER NOT NULL, B TEXT NOT NULL, Version INTEGER, PRIMARY KEY (B, A)"
    insert = "INSERT INTO {table} VALUES (1, 'x', 1), (2, 'x', 1), (1, 'ä\"', 1)"
    files = f"sqlite:///{tmp_path / 'source.db'}", f"sqlite:///{tmp_path / 'backup.db'}"
    place, source = things_in(*files, create, insert)
    synced(place, "customer")
    before = rows(source)
    source.run("DELETE FROM {table}")
    keys = ("--key", '["x", 1]', "--key", json.dumps(['ä"', 1]))
    preview = done(command(tmp_path, place.settings, "restore", "customer", *keys, "--json"))
    assert named(preview) == {'["x", 1]': "Inserted", json.dumps(['ä"', 1]): "Inserted"}
    done(command(tmp_path, place.settings, "restore", "customer", *keys, "--yes", "--json"))
    assert sorted(rows(source)) == sorted(row for row in before if row[:2] != (2, "x"))
    entries = len(place.customer.backup.history())
    assert refused(command(tmp_path, place.settings, "restore", "customer", "--key", "x", "--yes", "--json"))[0] == (
        "BadRequest"
    )
    assert len(place.customer.backup.history()) == entries  # it is refused before it is a run


def check_source_restored(place: Place, source: Sql, folder: Path) -> None:
    """Loses a record and spoils another, restores, and has the source as it was."""
    synced(place, "customer")
    before = whole(source)
    source.run("DELETE FROM {table} WHERE id = 1")
    source.run("UPDATE {table} SET version = 0, a = NULL WHERE id = 2")
    ended = command(folder, place.settings, "restore", "customer", "--yes", "--json")
    assert counted(done(ended)) == (1, 1, 0, 1)
    assert whole(source) == before
    again = synced(place, "customer").counts
    assert (again.processed, again.skipped) == (0, 3)


def test_generated_columns_of_a_source_are_left_to_sqlite(tmp_path: Path) -> None:
    create = (
        "id INTEGER PRIMARY KEY, version INTEGER, a INT, b INT GENERATED ALWAYS AS (a * 2), c TEXT AS ('c' || a) STORED"
    )
    insert = "INSERT INTO {table} (id, version, a) VALUES (1, 1, 10), (2, 1, 20), (3, 1, NULL)"
    files = f"sqlite:///{tmp_path / 'source.db'}", f"sqlite:///{tmp_path / 'backup.db'}"
    check_source_restored(*things_in(*files, create, insert), tmp_path)


@pytest.mark.parametrize("generated", ["BY DEFAULT", "ALWAYS"])
def test_generated_and_identity_columns_of_a_source_are_restored_on_postgresql(
    two_postgres_databases: tuple[str, str], tmp_path: Path, generated: str
) -> None:
    create = (
        f"id bigint GENERATED {generated} AS IDENTITY PRIMARY KEY, version integer, a integer,"
        " b integer GENERATED ALWAYS AS (a * 2) STORED"
    )
    insert = "INSERT INTO {table} (version, a) VALUES (1, 10), (1, 20), (1, NULL)"
    check_source_restored(*things_in(*two_postgres_databases, create, insert), tmp_path)


def test_an_identity_key_is_restored_on_sql_server(sqlserver_urls: tuple[str, str], tmp_path: Path) -> None:
    source, backup = sqlserver_urls
    table = f"Things_{uuid.uuid4().hex}"
    settings = {
        "SourceCustomerDb__ConnectionString": source,
        "SourceCustomerDb__Table": table,
        "BackupCustomerDb__ConnectionString": backup,
        "BackupCustomerDb__Table": table,
    }
    registry = Registry(load_settings(settings))
    with registry.get("customer").stores() as (here, _):
        engine = here.access.dialect.engine  # type: ignore[attr-defined]
    with engine.begin() as cx:
        cx.exec_driver_sql(
            f"CREATE TABLE {table} (Id int IDENTITY PRIMARY KEY, Version int, A int, B AS (A * 2) PERSISTED)"
        )
        cx.exec_driver_sql(f"INSERT INTO {table} (Version, A) VALUES (1, 10), (1, 20), (1, NULL)")
    registry.get("customer").initialize()
    [outcome] = registry.sync("customer", Trigger.CLI)
    assert outcome.error is None
    with engine.begin() as cx:
        before = list(cx.exec_driver_sql(f"SELECT * FROM {table} ORDER BY Id"))
        cx.exec_driver_sql(f"DELETE FROM {table} WHERE Id = 1")
        cx.exec_driver_sql(f"UPDATE {table} SET Version = 0, A = NULL WHERE Id = 2")
    done(command(tmp_path, settings, "restore", "customer", "--yes", "--json"))
    with engine.begin() as cx:
        assert list(cx.exec_driver_sql(f"SELECT * FROM {table} ORDER BY Id")) == before
        cx.exec_driver_sql(f"DROP TABLE {table}")
    engine.dispose()


# --- show -------------------------------------------------------------------------------------------------------------


def test_show_tells_a_records_past_and_what_it_was_at_a_time(orders: Place, tmp_path: Path) -> None:
    place = orders
    first = synced(place, "order")
    change_orders(place)
    second = synced(place, "order")
    shown = done(command(tmp_path, place.settings, "show", "order", "order-0001", "--json"))
    assert [(change["Change"], change["SyncId"]) for change in shown["Changes"]] == [
        ("Inserted", first.sync_id),
        ("Updated", second.sync_id),
    ]
    assert shown["Changes"][0]["RecordBefore"] is None
    then = done(command(tmp_path, place.settings, "show", "order", "order-0001", "--at", after(first), "--json"))
    assert then["Record"] == shown["Changes"][1]["RecordBefore"] != shown["Record"]
    assert then["Changes"] == shown["Changes"]


def test_show_without_json_is_text_for_people(customers: Place, tmp_path: Path) -> None:
    synced(customers, "customer")
    raised(customers, 3)
    run = synced(customers, "customer")
    ended = command(tmp_path, customers.settings, "show", "customer", "3")
    assert ended.code == 0, ended.err
    assert run.sync_id in ended.out
    assert ["Version", "2"] in [line.split() for line in ended.out.splitlines()]


def test_show_of_a_record_that_is_gone_says_so_and_keeps_its_past(customers: Place, tmp_path: Path) -> None:
    synced(customers, "customer")
    remove(customers, "customer", "3")
    synced(customers, "customer")
    shown = done(command(tmp_path, customers.settings, "show", "customer", "3", "--json"))
    assert (shown["Key"], shown["Record"]) == ([3], None)
    assert shown["Changes"][-1]["RecordBefore"]["Id"] == 3


# --- the same on servers ---


@contextmanager
def another_place(source: Sql | Cosmos, backup: Sql | Cosmos) -> Iterator[tuple[str, Sql | Cosmos]]:
    """Where a source of this kind may be restored to, and its connection string; the database is not there yet."""
    if isinstance(source, Cosmos):
        assert isinstance(backup, Cosmos)
        yield backup.account, replace(source, account=backup.account)
        with cosmos_client(backup.account) as client:
            client.delete_database(source.database)
        return
    url, name = sa.make_url(source.url), f"restored_{uuid.uuid4().hex}"
    to = url.set(database=name).render_as_string(hide_password=False)
    yield to, replace(source, url=to)
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as cx:
        cx.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["postgres_orders", "cosmos_orders"])
def served(request: pytest.FixtureRequest) -> Place:
    """Orders on each kind of server in turn."""
    chosen: Place = request.getfixturevalue(request.param)
    return chosen


def test_undo_and_show_on_a_server(served: Place, tmp_path: Path) -> None:
    place = served
    first = synced(place, "order")
    before = whole(place.order.backup)
    change_orders(place)
    run = synced(place, "order")
    later = whole(place.order.backup)
    shown = done(command(tmp_path, place.settings, "show", "order", "order-0001", "--at", after(first), "--json"))
    assert [(change["Change"], change["SyncId"]) for change in shown["Changes"]] == [
        ("Inserted", first.sync_id),
        ("Updated", run.sync_id),
    ]
    assert shown["Record"] == shown["Changes"][1]["RecordBefore"]
    undone = done(command(tmp_path, place.settings, "undo", run.sync_id, "--yes", "--json"))
    assert (counted(undone), whole(place.order.backup)) == ((2, 3, 2, 0), before)
    done(command(tmp_path, place.settings, "undo", undone["SyncId"], "--yes", "--json"))
    assert whole(place.order.backup) == later


@pytest.mark.parametrize("swallows", [False, True])
def test_the_server_takes_back_a_first_copy_by_itself(
    two_postgres_databases: tuple[str, str], monkeypatch: pytest.MonkeyPatch, *, swallows: bool
) -> None:
    place = alone(places.on_postgres(*two_postgres_databases).customer)
    service, backup = place.registry.get("customer"), place.customer.backup
    run, copied = synced(place, "customer"), whole(backup)
    if swallows:  # then the app deletes batch by batch, and finds the record that is left
        run_sql(backup, 'CREATE RULE swallows AS ON DELETE TO {table} WHERE old."Id" = 7 DO INSTEAD NOTHING')
    else:
        monkeypatch.setattr(SqlBatch, "delete", None)
    preview = service.undo(run.sync_id, dry_run=True)
    assert (preview.run.counts.deleted, len(preview.changes), whole(backup)) == (len(copied), len(copied), copied)
    undone = service.undo(run.sync_id)
    assert isinstance(undone.error, StoreError) == swallows
    assert (undone.run.counts.deleted, len(whole(backup))) == (len(copied) - swallows, swallows)
    assert service.undo(undone.run.sync_id).error is None
    assert whole(backup) == copied


def test_restore_on_a_server(served: Place, tmp_path: Path) -> None:
    place = served

    def restore(*options: str) -> Counts:
        return counted(done(command(tmp_path, place.settings, "restore", "order", *options, "--yes", "--json")))

    first = synced(place, "order")
    before = whole(place.order.source)
    change_orders(place)
    synced(place, "order")
    later = whole(place.order.source)
    drop(place.order.source)
    assert (restore(), whole(place.order.source)) == ((12, 0, 0, 0), later)
    then = ("--at", after(first))
    with another_place(place.order.source, place.order.backup) as (to, other):
        assert (restore(*then, "--to", to), whole(other)) == ((12, 0, 0, 0), before)
    gone = "order-0009" if isinstance(place.order.source, Sql) else '["customer-9", "order-0009"]'
    assert restore(*then, "--key", gone) == (1, 0, 0, 0)
    inserted, _, deleted, _ = restore(*then, "--delete-extra", "--overwrite-newer")
    assert (inserted, deleted) == (1, 2)
    assert whole(place.order.source) == before
    assert [entry["Trigger"] for entry in place.order.backup.history()] == ["cli", "cli", *["restore"] * 4]


# --- over HTTP --------------------------------------------------------------------------------------------------------


def test_undo_over_http_writes_only_when_confirmed(customers: Place) -> None:
    place = customers
    synced(place, "customer")
    before = whole(place.customer.backup)
    raised(place, 4, 5)
    second = synced(place, "customer")
    raised(place, 5, version=3)
    third = synced(place, "customer")
    later = whole(place.customer.backup)
    with worker(ROOT, environment(place.settings)) as running:
        conflict = post(running, "UndoRun", {"confirm": True}, syncId=second.sync_id)
        preview = post(running, "UndoRun", {"through": True}, syncId=second.sync_id)
        untouched = whole(place.customer.backup)
        undone = post(running, "UndoRun", {"through": True, "confirm": True}, syncId=second.sync_id)
    assert (conflict[0], conflict[1]["Error"], third.sync_id in conflict[1]["Message"]) == (409, "Conflict", True)
    assert (preview[0], preview[1]["DryRun"], set(named(preview[1]))) == (200, True, {4, 5})
    assert (undone[0], undone[1]["Success"], undone[1]["DryRun"]) == (200, True, False)
    assert (untouched, whole(place.customer.backup)) == (later, before)


def test_restore_over_http_writes_only_when_confirmed(customers: Place) -> None:
    place = customers
    first = synced(place, "customer")
    before = whole(place.customer.source)
    raised(place, 4)
    remove(place, "customer", "7", "8")
    synced(place, "customer")
    body = {"at": after(first), "keys": ["4", 7], "overwriteNewer": False}
    with worker(ROOT, environment(place.settings)) as running:
        preview = post(running, "RestoreSource", body, service="customer")
        untouched = whole(place.customer.source)
        some = post(running, "RestoreSource", {**body, "confirm": True}, service="customer")
        everything = post(running, "RestoreSource", {"at": after(first), "confirm": True}, service="customer")
    assert (preview[0], named(preview[1])) == (200, {4: "Updated", 7: "Inserted"})
    assert (some[0], counted(some[1]), counted(everything[1])) == (200, (1, 1, 0, 0), (1, 0, 0, 99))
    assert untouched != before
    assert whole(place.customer.source) == before


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Worker, Place]]:
    """A worker whose customers are synced, for requests that are all refused."""
    place = alone(places.on_sqlite(tmp_path_factory.mktemp("refusing")).customer)
    synced(place, "customer")
    with worker(ROOT, environment(place.settings)) as running:
        yield running, place


@pytest.mark.parametrize(
    ("name", "part", "body", "status", "error"),
    [
        ("UndoRun", "00000000-0000-0000-0000-000000000000", {"confirm": True}, 404, "UnknownRun"),
        ("UndoRun", "nonsense", None, 404, "UnknownRun"),
        ("UndoRun", "x", {"confirm": "yes"}, 400, "BadRequest"),
        ("RestoreSource", "nobody", {"confirm": True}, 404, "UnknownService"),
        ("RestoreSource", "all", {"confirm": True}, 404, "UnknownService"),
        ("RestoreSource", "customer", {"to": "sqlite:///x.db", "confirm": True}, 400, "BadRequest"),
        ("RestoreSource", "customer", {"at": "2026-01-01T00:00:00", "confirm": True}, 400, "BadRequest"),
        ("RestoreSource", "customer", {"at": AHEAD, "confirm": True}, 400, "BadRequest"),
        ("RestoreSource", "customer", {"at": LONG_AGO, "confirm": True}, 400, "BadRequest"),
        ("RestoreSource", "customer", {"at": 1767225600, "confirm": True}, 400, "BadRequest"),
        ("RestoreSource", "customer", {"keys": "5", "confirm": True}, 400, "BadRequest"),
        ("RestoreSource", "customer", {"keys": ["five"], "confirm": True}, 400, "BadRequest"),
        ("RestoreSource", "customer", {"keys": [None], "confirm": True}, 400, "BadRequest"),
    ],
)
def test_a_wrong_request_is_refused_and_changes_nothing(
    refusing: tuple[Worker, Place], name: str, part: str, body: Any, status: int, error: str
) -> None:
    running, place = refusing
    before = whole(place.customer.source), whole(place.customer.backup)
    response = post(running, name, body, **{"syncId" if name == "UndoRun" else "service": part})
    assert (response[0], response[1]["Error"], response[1]["Success"]) == (status, error, False)
    assert (whole(place.customer.source), whole(place.customer.backup)) == before
