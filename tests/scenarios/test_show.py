"""What `show` tells of a record."""

from __future__ import annotations

from pathlib import Path

from tests.scenarios.inside import command, done, first_synced, raised, remove, synced
from tests.scenarios.places import Place
from tests.scenarios.taking_back import after, change_orders


def test_show_tells_a_records_past_and_what_it_was_at_a_time(orders: Place, tmp_path: Path) -> None:
    place = orders
    first = first_synced(place, "order")
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
    first_synced(customers, "customer")
    raised(customers, 3)
    run = synced(customers, "customer")
    ended = command(tmp_path, customers.settings, "show", "customer", "3")
    assert ended.code == 0, ended.err
    assert run.sync_id in ended.out
    assert ["Version", "2"] in [line.split() for line in ended.out.splitlines()]


def test_show_of_a_record_that_is_gone_says_so_and_keeps_its_past(customers: Place, tmp_path: Path) -> None:
    first_synced(customers, "customer")
    remove(customers, "customer", "3")
    synced(customers, "customer")
    shown = done(command(tmp_path, customers.settings, "show", "customer", "3", "--json"))
    assert (shown["Key"], shown["Record"]) == ([3], None)
    assert shown["Changes"][-1]["RecordBefore"]["Id"] == 3
