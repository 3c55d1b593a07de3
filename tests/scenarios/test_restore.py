"""Restore as its users meet it: of the newest state, on the command line, over HTTP, on every kind of database."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backup.core.model import Action
from tests.functions.worker import Worker, worker
from tests.scenarios import places
from tests.scenarios.inside import (
    alone,
    command,
    counted,
    done,
    first_synced,
    named,
    raised,
    refused,
    remove,
    revised,
    synced,
)
from tests.scenarios.places import Cosmos, Place, Sql
from tests.scenarios.product import ROOT, Counts, Ended, environment, post
from tests.scenarios.taking_back import (
    AHEAD,
    LONG_AGO,
    after,
    another_place,
    change_orders,
    drop,
    empty,
    kept_by,
    whole,
)


@pytest.mark.parametrize("lose", [empty, drop])
def test_a_source_that_was_lost_is_restored_as_it_was(
    orders: Place, tmp_path: Path, lose: Callable[[Sql | Cosmos], None]
) -> None:
    place = orders
    first_synced(place, "order")
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
    first_synced(customers, "customer")
    before = whole(customers.customer.source)
    (tmp_path / "customers.db").unlink()
    preview = done(command(tmp_path, customers.settings, "restore", "customer", "--json"))
    assert (counted(preview), (tmp_path / "customers.db").exists()) == ((100, 0, 0, 0), False)
    assert any("would be made" in note for note in preview["Notes"])
    done(command(tmp_path, customers.settings, "restore", "customer", "--yes", "--json"))
    assert whole(customers.customer.source) == before


def test_another_database_is_made_and_gets_everything_while_the_source_stays(orders: Place, tmp_path: Path) -> None:
    place = orders
    first_synced(place, "order")
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
    first_synced(customers, "customer")
    backup = customers.customer.backup
    assert isinstance(backup, Sql)
    before = whole(backup)
    ended = command(tmp_path, customers.settings, "restore", "customer", "--to", backup.url, "--yes", "--json")
    assert refused(ended)[0] == "ConfigError"
    assert whole(backup) == before


def test_a_record_that_is_newer_than_its_copy_is_named_and_left_alone(customers: Place, tmp_path: Path) -> None:
    place = customers
    first_synced(place, "customer")
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
    first_synced(place, "order")
    before = whole(place.order.source)
    revised(place, 1, 2)
    restored = done(command(tmp_path, place.settings, "restore", "order", "--overwrite-newer", "--yes", "--json"))
    assert (counted(restored), whole(place.order.source)) == ((0, 2, 0, 53), before)


def test_what_only_the_source_has_is_left_alone_and_told(customers: Place, tmp_path: Path) -> None:
    place = customers
    first_synced(place, "customer")
    raised(place, 101, 102, version=1)
    restored = done(command(tmp_path, place.settings, "restore", "customer", "--yes", "--json"))
    assert len(place.customer.source.contents()) == 102
    assert [note.split()[0] for note in restored["Notes"]] == ["2"]


def test_what_only_the_source_has_is_deleted_when_asked_unless_it_is_too_much(customers: Place, tmp_path: Path) -> None:
    place = customers
    first_synced(place, "customer")
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
    first_synced(place, "order")
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


def test_restore_over_http_writes_only_when_confirmed(customers: Place) -> None:
    place = customers
    first = first_synced(place, "customer")
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
