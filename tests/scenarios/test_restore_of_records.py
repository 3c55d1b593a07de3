"""A restore of some records alone, named by their keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.inside import command, counted, done, first_synced, refused, remove, synced
from tests.scenarios.places import Place
from tests.scenarios.taking_back import after, change_orders, run_sql, whole


def test_only_the_records_of_the_keys_are_restored(customers: Place, tmp_path: Path) -> None:
    place = customers
    first_synced(place, "customer")
    remove(place, "customer", "5", "6", "7")
    restored = done(
        command(tmp_path, place.settings, "restore", "customer", "--key", "5", "--key", "7", "--yes", "--json")
    )
    assert counted(restored) == (2, 0, 0, 0)
    assert {n for n in range(1, 101) if n not in place.customer.source.contents()} == {6}


def test_a_key_as_of_a_time_gives_that_record_of_then(orders: Place, tmp_path: Path) -> None:
    place = orders
    first = first_synced(place, "order")
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
    first = first_synced(place, "customer")
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
