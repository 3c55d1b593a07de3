"""The four scenarios of the demo, end to end: a first sync, one of changes, a forced one, one of nothing."""

from pathlib import Path
from typing import Any

import pytest

from backup.dev import sample
from backup.dev.demo import change_sources
from tests.functions.worker import Worker, worker
from tests.scenarios.places import Place, on_sqlite
from tests.scenarios.product import ROOT, cli, counts, environment, post

EXPECTED = [
    {"customer": (100, 0, 0, 0), "order": (55, 0, 0, 0)},
    {"customer": (0, 5, 3, 92), "order": (2, 3, 0, 52)},
    {"customer": (0, 97, 0, 0), "order": (0, 57, 0, 0)},
    {"customer": (0, 0, 0, 97), "order": (0, 0, 0, 57)},
]


def entries(place: Place) -> list[tuple[Any, ...]]:
    """What SyncHistory says of each service's runs, oldest first: also that each was counted once."""
    return [
        (
            *(service.name, entry["Status"], entry["Trigger"], bool(entry["Forced"]), bool(entry["Success"])),
            tuple(entry[f"{name}Count"] for name in ("Inserted", "Updated", "Deleted", "Skipped")),
        )
        for service in place.services
        for entry in service.backup.history()
    ]


def expected_entries(trigger: str) -> list[tuple[Any, ...]]:
    return [
        (name, "Completed", trigger, run == 2, True, counts_of_run[name])
        for name in ("customer", "order")
        for run, counts_of_run in enumerate(EXPECTED)
    ]


def test_over_http_each_run_counts_exactly_what_it_did_and_leaves_the_backup_equal_to_its_source(
    cosmos_place: Place,
) -> None:
    """Customers on SQLite, orders on Cosmos DB."""

    def sync(running: Worker, **body: Any) -> Any:
        status, answer = post(running, "TriggerSync", body or None)
        assert status == 200, answer
        return counts(answer["Results"]), [service.is_mirrored() for service in cosmos_place.services]

    with worker(ROOT, environment(cosmos_place.settings)) as running:
        first = sync(running)
        change_sources(cosmos_place.registry)
        later = [sync(running, service="all"), sync(running, service="all", forceFullSync=True), sync(running)]
    assert [first, *later] == [(expected, [True, True]) for expected in EXPECTED]
    assert entries(cosmos_place) == expected_entries("http")


def test_on_the_command_line_each_run_counts_exactly_what_it_did_and_leaves_the_backup_equal_to_its_source(
    postgres_place: Place, tmp_path: Path
) -> None:
    def sync(*arguments: str) -> Any:
        ended = cli(tmp_path, postgres_place.settings, "sync", *arguments, "--json")
        assert ended.code == 0, ended.err
        return counts(ended.json["Results"]), [service.is_mirrored() for service in postgres_place.services]

    first = sync()
    change_sources(postgres_place.registry)
    later = [sync("all"), sync("--force"), sync()]
    assert [first, *later] == [(expected, [True, True]) for expected in EXPECTED]
    assert entries(postgres_place) == expected_entries("cli")


@pytest.mark.parametrize(("name", "function"), [("customer", "SyncCustomer"), ("order", "SyncOrder")])
def test_a_single_service_route_syncs_that_service_alone(sqlite_place: Place, name: str, function: str) -> None:
    with worker(ROOT, environment(sqlite_place.settings)) as running:
        status, first = post(running, function)
        _, forced = post(running, function, query="?force=true")
    total = {"customer": 100, "order": 55}[name]
    assert (status, first["Success"]) == (200, True)
    assert counts([first, forced]) == {name: (0, total, 0, 0)}
    assert {service.name: service.is_mirrored() for service in sqlite_place.services} == {
        "customer": name == "customer",
        "order": name == "order",
    }


def test_initialize_over_http_makes_what_a_first_sync_needs(tmp_path: Path) -> None:
    place = on_sqlite(tmp_path)
    sample.fill(place.registry)
    with worker(ROOT, environment(place.settings)) as running:
        before = post(running, "TriggerSync")[0]
        answers = [post(running, "InitializeBackup") for _ in range(2)]
        after = post(running, "TriggerSync")[0]
    both = [{"Service": name, "Status": "Initialized"} for name in ("customer", "order")]
    assert (before, after) == (400, 200)
    assert [(status, answer["Success"], answer["Results"]) for status, answer in answers] == [(200, True, both)] * 2
