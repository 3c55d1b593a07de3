"""The four scenarios of the demo, end to end: a first sync, one of changes, a forced one, one of nothing."""

from pathlib import Path
from typing import Any

import pytest

from backup.dev import sample
from backup.dev.demo import change_sources
from tests.functions.worker import Worker, worker
from tests.scenarios.inside import command
from tests.scenarios.places import Place, on_sqlite
from tests.scenarios.product import ROOT, cli, counts, environment, post

EXPECTED = [
    {"customer": (100, 0, 0, 0), "order": (55, 0, 0, 0)},
    {"customer": (0, 5, 3, 92), "order": (2, 3, 0, 52)},
    {"customer": (0, 97, 0, 0), "order": (0, 57, 0, 0)},
    {"customer": (0, 0, 0, 97), "order": (0, 0, 0, 57)},
]


def test_over_http_each_run_counts_exactly_what_it_did_and_leaves_the_backup_equal_to_its_source(place: Place) -> None:
    def sync(running: Worker, **body: Any) -> Any:
        status, answer = post(running, "TriggerSync", body or None)
        assert status == 200, answer
        return counts(answer["Results"]), [service.is_mirrored() for service in place.services]

    with worker(ROOT, environment(place.settings)) as running:
        first = sync(running)
        change_sources(place.registry)
        later = [sync(running, service="all"), sync(running, service="all", forceFullSync=True), sync(running)]
    assert [first, *later] == [(expected, [True, True]) for expected in EXPECTED]


def test_on_the_command_line_each_run_counts_exactly_what_it_did_and_leaves_the_backup_equal_to_its_source(
    place: Place, tmp_path: Path
) -> None:
    def sync(*arguments: str) -> Any:
        ended = cli(tmp_path, place.settings, "sync", *arguments, "--json")
        assert ended.code == 0, ended.err
        return counts(ended.json["Results"]), [service.is_mirrored() for service in place.services]

    first = sync()
    change_sources(place.registry)
    later = [sync("all"), sync("--force"), sync()]
    assert [first, *later] == [(expected, [True, True]) for expected in EXPECTED]


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


def test_every_run_is_in_sync_history_with_its_counts(place: Place, tmp_path: Path) -> None:
    for arguments in ([], ["--force"]):
        assert command(tmp_path, place.settings, "sync", *arguments).code == 0
    for service, total in zip(place.services, (100, 55), strict=True):
        entries = [
            (
                *(entry["ServiceName"], entry["Status"], entry["Trigger"], bool(entry["Forced"])),
                *(entry["InsertedCount"], entry["UpdatedCount"], entry["SkippedCount"], bool(entry["Success"])),
            )
            for entry in service.backup.history()
        ]
        assert entries == [
            (service.name, "Completed", "cli", False, total, 0, 0, True),
            (service.name, "Completed", "cli", True, 0, total, 0, True),
        ]


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
