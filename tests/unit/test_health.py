"""Health: what is well, what is degraded and what is down, and that strangers learn no names."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backup.config.settings import load_settings
from backup.core.run_values import Counts, Run, Status, Trigger, Verb
from backup.entry import http
from backup.entry.answers import Answer
from backup.entry.health import look
from backup.runs.condition import Concern, concerns_of
from backup.runs.history import History
from backup.services.registry import Registry
from backup.services.service import Options
from tests.scenarios.places import Place, filled_on_sqlite

NIGHT = datetime(2026, 1, 1, tzinfo=UTC)


def answer(settings: dict[str, str]) -> Answer:
    return http.get_health(lambda: Registry(load_settings(settings)), {"deep": "true"})


def reasons(settings: dict[str, str]) -> list[dict[str, str | None]]:
    """Service, side and kind of error of each reason of a degraded answer."""
    health = answer(settings)
    assert (health.status, health.body["Status"]) == (200, "Degraded")
    return [{name: reason[name] for name in ("Service", "Side", "Error")} for reason in health.body["Reasons"]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Both services on SQLite, filled with the sample."""
    return filled_on_sqlite(tmp_path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The same for several tests, which put runs of their own into the customers' history."""
    return filled_on_sqlite(tmp_path_factory.mktemp("health"))


def test_without_a_service_it_is_degraded() -> None:
    assert reasons({}) == [{"Service": None, "Side": None, "Error": None}]
    assert answer({}).body["Reasons"][0]["Reason"] == "No service is configured."


@pytest.mark.parametrize(
    "wrong",
    [
        {"BackupSync__ChunkSize": "many"},
        {"SourceInvoiceDb__ConnectionString": "x"},
        {"BackupShedule__Enabled": "x"},
    ],
)
def test_settings_that_cannot_be_used_are_degraded(wrong: dict[str, str]) -> None:
    assert reasons(wrong) == [{"Service": None, "Side": None, "Error": "ConfigError"}]


@pytest.mark.parametrize("given", ["SourceCustomerDb__ConnectionString", "BackupCustomerDb__Table"])
def test_one_side_without_the_other_is_degraded_once(given: str) -> None:
    assert reasons({given: "sqlite:///x.db"}) == [{"Service": "customer", "Side": None, "Error": "ConfigError"}]


def test_a_backup_that_was_not_initialized_is_degraded(place: Place, tmp_path: Path) -> None:
    place.registry.get("customer").sync(Trigger.CLI)
    (tmp_path / "orders_backup.db").unlink()
    assert reasons(place.settings) == [{"Service": "order", "Side": "backup", "Error": "NotInitialized"}]


def test_a_source_that_is_gone_is_a_503_with_its_reason(place: Place, tmp_path: Path) -> None:
    for name in ("customer", "order"):
        place.registry.get(name).sync(Trigger.CLI)
    (tmp_path / "orders.db").unlink()
    health = answer(place.settings)
    assert (health.status, health.body["Status"]) == (503, "Unhealthy")
    assert [(reason["Service"], reason["Side"], reason["Error"]) for reason in health.body["Reasons"]] == [
        ("order", "source", "SourceMissing")
    ]
    failed = place.registry.get("order").sync(Trigger.CLI)
    [both] = answer(place.settings).body["Reasons"]
    assert (both["Side"], both["SyncId"]) == ("source", failed.run.sync_id)
    assert both["Reason"] == "The source is down. The last sync that ended has failed."


def test_a_sync_that_failed_is_a_reason_until_one_completes(place: Place) -> None:
    service = place.registry.get("customer")
    place.registry.get("order").sync(Trigger.CLI)
    [reason] = answer(place.settings).body["Reasons"]
    assert (reason["Service"], reason["Reason"]) == ("customer", "No whole sync has completed yet.")
    service.sync(Trigger.CLI)
    assert answer(place.settings).body["Status"] == "Healthy"
    place.customer.source.run("DELETE FROM {table} WHERE Id > 3")
    for _ in range(31):  # more than health looks at; each has a limit, which leaves changes
        service.sync(Trigger.CLI, Options(limit=1, allow_mass_delete=True))
        place.customer.source.run("UPDATE {table} SET Name = Name || 'x'")
    assert answer(place.settings).body["Reasons"] == []
    failed = service.sync(Trigger.CLI)
    service.sync(Trigger.CLI, Options(dry_run=True, allow_mass_delete=True))
    health = answer(place.settings)
    assert (health.status, health.body["Status"]) == (200, "Degraded")
    [reason] = health.body["Reasons"]
    assert (reason["Service"], reason["SyncId"], reason["Error"]) == ("customer", failed.run.sync_id, "GuardTripped")
    assert None not in (reason["Since"], reason["Reason"], reason["Hint"])
    assert service.sync(Trigger.CLI, Options(allow_mass_delete=True)).error is None
    assert answer(place.settings).body["Reasons"] == []


def test_a_backup_that_somebody_has_emptied_or_dropped_is_degraded_before_the_next_sync(
    place: Place, tmp_path: Path
) -> None:
    for name in ("customer", "order"):
        place.registry.get(name).sync(Trigger.CLI)
    assert answer(place.settings).body["Status"] == "Healthy"
    place.customer.backup.run("DELETE FROM {table}")
    [reason] = answer(place.settings).body["Reasons"]
    assert (reason["Service"], reason["Reason"]) == (
        "customer",
        "The backup has no record, though the last sync that ended had left some.",
    )
    place.customer.backup.run("DROP TABLE {table}")
    assert reasons(place.settings) == [{"Service": "customer", "Side": "backup", "Error": "NotInitialized"}]
    place.customer.source.run("DROP TABLE {table}")
    assert answer(place.settings).status == 503


def test_strangers_learn_no_names_of_servers_tables_or_values(place: Place, tmp_path: Path) -> None:
    place.registry.get("customer").sync(Trigger.CLI)
    place.customer.source.run("DELETE FROM {table} WHERE Id > 3")
    place.registry.get("customer").sync(Trigger.CLI)
    (tmp_path / "orders.db").unlink()
    body = json.dumps(answer(place.settings).body)
    assert not any(name in body for name in (str(tmp_path), "customers", "orders", "Customers", "SQLite", "97 of"))
    state = look(lambda: place.registry)  # its owner learns all
    assert "97 of 100" in " ".join(concern.detail for concern in state.concerns)


# What history says


def run(*hours: float, verb: Verb = Verb.SYNC, kind: str | None = None, ended: bool = True) -> Run:
    """A sync that began so many hours after the night; with an error if that is given."""
    begun = Run("customer", Trigger.TIMER, False, NIGHT + timedelta(hours=hours[0]), verb=verb)
    if not ended:
        return replace(begun, status=Status.IN_PROGRESS, heartbeat_at=NIGHT + timedelta(hours=hours[-1]))
    status = Status.FAILED if kind else Status.COMPLETED
    return replace(begun, error_kind=kind).ended(status, begun.started_at, Counts(), kind)


COMPLETED, FAILED, LOCKED = run(1), run(2, kind="StoreError"), run(3, kind="Locked")
AFTER = {"verify": run(4, verb=Verb.VERIFY), "undo": run(5, verb=Verb.UNDO, kind="Conflict")}


@pytest.mark.parametrize(
    ("runs", "hours", "expected"),
    [
        ([], 100, ["none yet"]),
        ([replace(COMPLETED, limit=5, counts=Counts(remaining=1))], 3, ["none yet"]),
        ([COMPLETED], 2, []),
        ([COMPLETED, FAILED], 3, ["StoreError"]),
        ([COMPLETED, FAILED, LOCKED], 4, ["StoreError"]),
        ([COMPLETED, LOCKED], 4, []),
        ([FAILED, run(3)], 4, []),
        ([FAILED, replace(FAILED, dry_run=True, error_kind="Unexpected")], 3, ["StoreError"]),
        ([FAILED, *AFTER.values()], 6, ["StoreError"]),
        ([COMPLETED, *AFTER.values()], 6, []),
        ([FAILED, run(3, 5, ended=False)], 5, ["StoreError"]),  # it goes on, and has not ended
        ([COMPLETED], 24.9, []),
        ([COMPLETED], 25.1, ["overdue"]),  # due at 24, an hour ago
        ([FAILED], 25.1, ["StoreError", "overdue"]),
        ([COMPLETED, AFTER["verify"]], 25.1, ["overdue"]),
        ([run(1, 25, ended=False)], 26, ["none yet"]),  # at work for more than a day
        ([run(1, 2, ended=False)], 26, ["none yet", "overdue"]),
        ([run(2000)], 26, []),  # from the future
        ([COMPLETED, run(2000)], 25.1, ["overdue"]),
    ],
)
def test_history_says_whether_the_last_sync_failed_and_whether_one_is_overdue(
    kept: Place, runs: list[Run], hours: float, expected: list[str]
) -> None:
    history_says = concerns(kept, runs, NIGHT + timedelta(hours=hours), load_settings({}).shared_schedule.next_due)
    words = {"No whole sync has completed yet.": "none yet"}
    assert [concern.error or words.get(concern.reason, "overdue") for concern in history_says] == expected


def test_without_a_schedule_nothing_is_overdue(kept: Place) -> None:
    assert concerns(kept, [COMPLETED], NIGHT + timedelta(days=99), None) == []


def test_with_a_disabled_schedule_nothing_is_overdue(place: Place) -> None:
    place.registry.get("order").sync(Trigger.CLI)
    with place.registry.get("customer").stores() as (_, backup):
        History(backup).save(replace(COMPLETED, place=backup.catalog.qualified_name(), number=1))
    assert answer(place.settings).body["Reasons"][0]["Reason"].startswith("A sync is overdue")
    assert answer({**place.settings, "BackupSchedule__Enabled": "false"}).body["Status"] == "Healthy"


def concerns(
    place: Place, runs: list[Run], now: datetime, next_due: Callable[[datetime], datetime] | None
) -> list[Concern]:
    with place.registry.get("customer").stores() as (_, backup):
        place.customer.backup.run("DELETE FROM SyncHistory")
        for number, unsaved in enumerate(runs, 1):
            History(backup).save(
                replace(unsaved, sync_id=str(number), place=backup.catalog.qualified_name(), number=number)
            )
        return concerns_of(backup, "customer", now, next_due)
