"""Undo as its users meet it: on the command line, over HTTP, on every kind of database."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.errors import RecordsSetAside, StoreError
from backup.core.model import Record
from backup.services.registry import Registry
from backup.stores.sql import image_writes
from backup.stores.sql.batch import SqlBatch
from tests.functions.worker import worker
from tests.scenarios import places
from tests.scenarios.inside import alone, command, counted, done, first_synced, named, raised, refused, remove, synced
from tests.scenarios.places import Place, Service, Sql
from tests.scenarios.product import ROOT, Counts, environment, post
from tests.scenarios.taking_back import FORGETS_AT_ONCE, after, change_orders, compress, kept_by, run_sql, whole


@pytest.fixture(autouse=True)
def also_few_by_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a server write few images by itself, too."""
    monkeypatch.setattr(image_writes, "FEWEST_IMAGES", 1)


def test_undo_gives_the_backup_before_the_run_and_undone_itself_the_one_after(orders: Place, tmp_path: Path) -> None:
    place = orders
    first_synced(place, "order")
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
    first_synced(place, "customer")
    raised(place, 4, 5)
    remove(place, "customer", "99")
    raised(place, 101, version=1)
    run = synced(place, "customer")
    before = whole(place.customer.backup), place.customer.backup.history()
    preview = done(command(tmp_path, place.settings, "undo", run.sync_id, "--json", "--dry-run", "--yes"))
    assert named(preview) == {4: "Updated", 5: "Updated", 99: "Inserted", 101: "Deleted"}
    assert (counted(preview), preview["DryRun"], preview["Verified"]) == ((1, 2, 1, 0), True, None)
    *entries, last = place.customer.backup.history()
    assert (whole(place.customer.backup), entries) == before
    assert (last["Trigger"], last["Status"], bool(last["DryRun"])) == ("undo", "Completed", True)
    assert kept_by(place, "customer", preview["SyncId"]) == []


def test_a_preview_is_a_table_that_says_that_nothing_was_written(customers: Place, tmp_path: Path) -> None:
    first_synced(customers, "customer")
    raised(customers, 42)
    run = synced(customers, "customer")
    ended = command(tmp_path, customers.settings, "undo", run.sync_id)
    assert ended.code == 0, ended.err
    assert "Nothing was written" in ended.out
    assert "--yes" in ended.out
    assert ["Updated", "42"] in [line.split() for line in ended.out.splitlines()]


def test_undo_of_a_run_whose_records_changed_later_names_the_later_runs(customers: Place, tmp_path: Path) -> None:
    place = customers
    first = first_synced(place, "customer")
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
    first_synced(place, "customer")
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
    first_synced(place, "customer")
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
    first_synced(place, "customer")
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
    first_synced(place, "customer")
    before = whole(place.customer.backup)
    raised(place, 1)
    run = synced(place, "customer")
    remove(place, "customer", "9")
    assert counted(done(command(tmp_path, place.settings, "restore", "customer", "--yes", "--json"))) == (1, 0, 0, 99)
    done(command(tmp_path, place.settings, "undo", run.sync_id, "--through", "--yes", "--json"))
    assert whole(place.customer.backup) == before


def test_undo_that_failed_half_way_can_be_repeated(customers: Place, tmp_path: Path) -> None:
    place = customers
    first_synced(place, "customer")
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
    first_synced(customers, "customer")
    raised(customers, 5)
    raised(customers, 101, version=1)
    remove(customers, "customer", "9")
    run = synced(customers, "customer")
    run_sql(customers.customer.backup, f"CREATE TRIGGER Takes {trigger}")
    undone = customers.registry.get("customer").undo(run.sync_id)
    assert isinstance(undone.error, StoreError)
    made = undone.run.counts
    assert (made.inserted, made.updated, made.deleted, made.skipped) == counts


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
        for method in ("delete", "write"):
            monkeypatch.setattr(SqlBatch, method, None)
    preview = service.undo(run.sync_id, dry_run=True)
    assert (preview.run.counts.deleted, len(preview.changes), whole(backup)) == (len(copied), len(copied), copied)
    undone = service.undo(run.sync_id)
    assert isinstance(undone.error, StoreError) == swallows
    assert (undone.run.counts.deleted, len(whole(backup))) == (len(copied) - swallows, swallows)
    assert service.undo(undone.run.sync_id).error is None
    assert whole(backup) == copied


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_server_takes_back_updates_and_deletes_by_itself(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "sqlite":
        place: Place = request.getfixturevalue("customers")
    else:
        place = alone(places.on_postgres(*request.getfixturevalue("two_postgres_databases")).customer)
    service, backup = place.registry.get("customer"), place.customer.backup
    synced(place, "customer")
    before = whole(backup)
    raised(place, 1, 2, 3)
    remove(place, "customer", "7", "8")
    second = synced(place, "customer")
    raised(place, 2, 3, 4, 7, version=3)
    remove(place, "customer", "1", "9")
    synced(place, "customer")
    later, written, write = whole(backup), list[int](), SqlBatch.write
    compress(backup, {"[2]", "[8]"}.__contains__)

    def noted(batch: SqlBatch, records: Sequence[Record], *rest: Any, **how: Any) -> Any:
        written.append(len(records))
        return write(batch, records, *rest, **how)

    monkeypatch.setattr(SqlBatch, "write", noted)
    for state, through in ((before, True), (later, False)):
        undone = service.undo(second.sync_id, through=through)
        assert (undone.error, whole(backup)) == (None, state)
        second = undone.run
    assert written == [1, 1, 1]  # of 2 before both runs, of 8 before the second
    assert (undone.run.counts.inserted, undone.run.counts.updated, undone.run.counts.deleted) == (1, 3, 3)


def test_undo_over_http_writes_only_when_confirmed(customers: Place) -> None:
    place = customers
    first_synced(place, "customer")
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
