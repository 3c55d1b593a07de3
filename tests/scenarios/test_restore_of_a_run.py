"""Someone deleted records last night: a restore of just what one run deleted, updated or inserted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backup.config.settings import load_settings
from backup.core.model import Action, Image, utc_now
from backup.core.run_values import Trigger
from backup.entry import http
from backup.recycle_bin.bin import RecycleBin
from backup.services.registry import Registry
from backup.services.service import Options
from backup.stores import Store
from backup.verbs.past_run import PastRun
from tests.scenarios import places
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
from tests.scenarios.places import Place, Sql, folder_of, with_files

MANY = {"BackupSync__MaxDeletePercent": "100"}
DELETED = ("order-0002", "order-0010", "order-0011")


@pytest.fixture(params=["sqlite", "cosmos"])
def orders(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A dozen orders, of which a night has deleted three, updated two and inserted one; some more came since."""
    if request.param == "cosmos":
        accounts = [request.getfixturevalue(name) for name in ("cosmos_server", "cosmos_server_backup")]
        return few_orders(places.with_orders_on_cosmos(tmp_path, *accounts).order)
    order = places.on_sqlite(tmp_path).order
    with_files(tmp_path, "a dozen orders", lambda: few_orders(order))
    return Place(order, order)


def a_night(place: Place) -> str:
    """The id of the run that mirrored the deletes and more."""

    def make() -> str:
        synced(place, "order")
        revised(place, 3, 4, 21)
        remove(place, "order", *DELETED)
        return synced(place, "order", **MANY).sync_id

    source = place.order.source
    in_files = isinstance(source, Sql) and source.url.startswith("sqlite")
    return with_files(folder_of(place.order), "a night of orders", make) if in_files else make()


def test_what_a_run_deleted_comes_back_and_nothing_else_does(orders: Place, tmp_path: Path) -> None:
    before = orders.order.source.contents()
    night = a_night(orders)
    revised(orders, 5, 22, revision=3)  # what the source has of its own since
    remove(orders, "order", "order-0012")
    then = orders.order.source.contents()
    restore = ("restore", "order", "--run", night[:8], "--only", "deleted", "--json")
    preview = done(command(tmp_path, orders.settings, *restore))
    assert (counted(preview), preview["DryRun"]) == ((3, 0, 0, 0), True)
    assert orders.order.source.contents() == then
    assert counted(done(command(tmp_path, orders.settings, *restore, "--yes"))) == (3, 0, 0, 0)
    now = orders.order.source.contents()
    assert now == then | {key: before[key] for key in DELETED}
    again = done(command(tmp_path, orders.settings, *restore, "--yes"))
    assert (counted(again), orders.order.source.contents()) == ((0, 0, 0, 3), now)


@pytest.mark.parametrize("orders", ["sqlite"], indirect=True)
def test_what_a_run_updated_is_what_it_was_before_but_for_what_is_newer(orders: Place) -> None:
    before = orders.order.source.contents()
    night = a_night(orders)
    revised(orders, 4, revision=5)
    body = f'{{"run": "{night[:8]}", "only": "updated", "confirm": true}}'
    answer = http.post_restore(orders.registry, "order", {}, body.encode())
    assert (answer.status, counted(answer.body)) == (200, (0, 1, 0, 1))
    now = orders.order.source.contents()
    assert now["order-0003"] == before["order-0003"]
    assert now["order-0004"] != before["order-0004"]
    assert not now.keys() & {*DELETED}


def test_a_whole_run_is_taken_back_in_the_source_with_its_inserts_only_where_deletes_are_asked_for(
    orders: Place, tmp_path: Path
) -> None:
    before = orders.order.source.contents()
    night = a_night(orders)
    restore = ("restore", "order", "--run", night, "--json", "--yes")
    restored = done(command(tmp_path, orders.settings, *restore))
    assert counted(restored) == (3, 2, 0, 0)
    assert any("1 record that the run inserted is in" in note for note in restored["Notes"])
    assert orders.order.source.contents().keys() == before.keys() | {"order-0021"}
    restored = done(command(tmp_path, {**orders.settings}, *restore, "--only", "inserted", "--delete-extra"))
    assert counted(restored) == (0, 0, 1, 0)
    assert orders.order.source.contents() == before


def test_the_guard_stands_before_deletes_of_what_a_run_inserted(customers: Place, tmp_path: Path) -> None:
    first = synced(customers, "customer").sync_id
    restore = ("restore", "customer", "--run", first, "--delete-extra", "--yes", "--json")
    assert refused(command(tmp_path, customers.settings, *restore))[0] == "GuardTripped"
    assert len(customers.customer.source.contents()) == 100


def test_some_records_of_a_run_may_be_named(customers: Place, tmp_path: Path) -> None:
    synced(customers, "customer")
    remove(customers, "customer", "1", "2", "10")
    night = synced(customers, "customer").sync_id
    remove(customers, "customer", "3")  # the backup has it still, but the run did nothing to it
    restore = ("restore", "customer", "--run", night, "--only", "deleted", "--key", "2", "--key", "3", "--json")
    preview = done(command(tmp_path, customers.settings, *restore))
    assert named(preview) == {2: "Inserted"}
    assert "The run did no such thing to 3." in preview["Notes"]


def test_a_record_that_came_anew_is_newer_and_left_alone(customers: Place, tmp_path: Path) -> None:
    synced(customers, "customer")
    remove(customers, "customer", "1")
    night = synced(customers, "customer").sync_id
    raised(customers, 1, version=7)
    restore = ("restore", "customer", "--run", night, "--only", "deleted", "--json")
    assert named(done(command(tmp_path, customers.settings, *restore))) == {1: "Newer"}
    forced = done(command(tmp_path, customers.settings, *restore, "--overwrite-newer"))
    assert named(forced) == {1: "Updated"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--run", "RUN", "--at", "2026-01-01T00:00:00Z"], "BadRequest"),
        (["--only", "deleted"], "BadRequest"),
        (["--run", "abcdef"], "UnknownRun"),
        (["--run", "DRY"], "BadRequest"),
    ],
)
def test_options_that_contradict_or_name_no_run_are_refused(
    customers: Place, tmp_path: Path, arguments: list[str], error: str
) -> None:
    run = synced(customers, "customer")
    [dry] = customers.registry.sync("customer", Trigger.CLI, Options(dry_run=True))
    names = {"RUN": run.sync_id, "DRY": dry.run.sync_id}
    ended = command(
        tmp_path, customers.settings, "restore", "customer", *(names.get(a, a) for a in arguments), "--json"
    )
    assert refused(ended)[0] == error


def test_a_run_whose_images_were_purged_is_refused(customers: Place, tmp_path: Path) -> None:
    synced(customers, "customer")
    remove(customers, "customer", "1")
    night = synced(customers, "customer").sync_id
    soon = {**customers.settings, "BackupSync__RecycleDays": "1e-9"}
    assert Registry(load_settings(soon)).get("customer").past.purge().images
    assert refused(command(tmp_path, soon, "restore", "customer", "--run", night, "--json"))[0] == "Conflict"


@contextmanager
def backup_of(place: Place) -> Iterator[Store]:
    with place.registry.get("customer").stores() as (source, backup):
        backup.catalog.match(source)
        yield backup


def test_a_record_that_a_run_updated_and_then_deleted_counts_as_deleted(customers: Place) -> None:
    run = synced(customers, "customer")
    with backup_of(customers) as backup:
        recycled = RecycleBin(backup, "customer")
        kept = [image for page in recycled.of_run(run.sync_id) for image in page]
        assert len(kept) == 100
        later = run.__class__("customer", Trigger.CLI, False, utc_now(), place=run.place)
        [images] = backup.images([(1,), (2,)], Action.UPDATED)
        recycled.recorder(later, utc_now)([Image(i.key, Action.UPDATED, i.record, i.version) for i in images], None)
        backup.delete([(1,)])
        for only, keys in ((Action.DELETED, {(1,)}), (Action.UPDATED, {(2,)}), (None, {(1,), (2,)})):
            past = PastRun(later, only, backup, recycled)
            asked = {key for some in past.changed_keys() for key in some}
            assert past.before([*asked]).keys() == keys
