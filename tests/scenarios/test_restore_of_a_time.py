"""A restore of the state that the backup had at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backup.config.settings import load_settings
from backup.core.run_values import Trigger
from backup.services.registry import Registry
from tests.scenarios.inside import command, counted, done, first_synced, raised, refused, remove, revised, synced
from tests.scenarios.places import Place, Sql
from tests.scenarios.taking_back import AHEAD, LONG_AGO, after, change_orders, run_sql, whole


def test_the_state_of_a_time_is_restored_across_inserts_updates_and_deletes(orders: Place, tmp_path: Path) -> None:
    place = orders
    first = first_synced(place, "order")
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
    first_synced(place, "customer")
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
    first = first_synced(place, "customer")
    raised(place, 101, version=1)
    synced(place, "customer")
    restored = done(command(tmp_path, place.settings, "restore", "customer", "--at", after(first), "--yes", "--json"))
    assert (counted(restored)[:3], 101 in place.customer.source.contents()) == ((0, 0, 0), True)


def test_a_time_goes_into_another_database_too(customers: Place, tmp_path: Path) -> None:
    place = customers
    first = first_synced(place, "customer")
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


def test_a_time_about_which_clocks_and_order_disagree_is_noted(customers: Place, tmp_path: Path) -> None:
    place, present = customers, datetime.now(UTC)
    now = present
    service = Registry(load_settings(place.settings), now=lambda: now).get("customer")
    service.initialize()
    for hours in (-2, -1, -5, -4, -3):  # the clock of two runs was ahead, or that of three was behind
        now = present + timedelta(hours=hours)
        raised(place, 1, version=10 + hours)
        assert service.sync(Trigger.CLI).error is None
    at = (present + timedelta(hours=-1.5)).isoformat()
    restored = done(command(tmp_path, place.settings, "restore", "customer", "--at", at, "--yes", "--json"))
    assert "A clock was wrong: the times of 1 run contradict" in " ".join(restored["Notes"])
