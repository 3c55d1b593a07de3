"""The queries of alerts, of the workbook and of the documents, on lines that the real worker writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.functions.worker import worker
from tests.infra.bicep import INFRA, ROOT, bicep_files
from tests.infra.kql import Row, rows_of
from tests.scenarios.places import filled_on_sqlite
from tests.scenarios.product import environment, post

QUERIES = {path.stem: path.read_text() for path in sorted((INFRA / "queries").glob("*.kql"))}
WORKBOOK = json.loads((INFRA / "workbook.json").read_text())
PAGE = (ROOT / "docs/alerts.md").read_text()

Rows = Sequence[Mapping[str, Any]]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """What AppTraces has after a night with every accident: each line that the real worker has logged."""
    place = filled_on_sqlite(tmp_path_factory.mktemp("queries"))
    settings = {**place.settings, "BackupLog__Format": "json", "BackupSync__MaxAgeHours": "0.0000001"}
    with worker(ROOT, environment(settings)) as running:
        post(running, "SyncCustomer", query="?dryRun=true")
        post(running, "SyncCustomer", query="?limit=3")
        post(running, "SyncCustomer")
        place.customer.backup.run("UPDATE {table} SET Name = 'changed here'")
        post(running, "VerifyBackup", query="?full=true", service="customer")
        place.customer.source.run("DELETE FROM {table}")
        post(running, "SyncCustomer")
        running.timer("ResumeSync")
        running.queue("PoisonedJob", "0" * 32)
        log = running.log
    texts = [match[0] for match in re.finditer(r'^.*?(\{"time".*)$', log, re.M)]
    now = datetime.now(UTC)
    return [{"TimeGenerated": now, "Message": text[text.index('{"time"') :]} for text in texts]


def answer(name: str, lines: Sequence[Row], requests: Sequence[Row] = (), later: float = 0) -> Rows:
    """The rows of a query, `later` hours after the lines."""
    now = datetime.now(UTC) + timedelta(hours=later)
    return rows_of(QUERIES[name], {"AppTraces": lines, "AppRequests": requests}, now)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("failed-run", {"Entry": "customer", "Service": "customer", "Event": "sync.failed", "Kind": "GuardTripped"}),
        ("guard", {"Service": "customer", "Event": "sync.failed"}),
        ("differences", {"Service": "customer", "Event": "verify.completed"}),
        ("overdue", {"Service": "customer"}),
        ("poison", {"Job": "0" * 32, "State": "unknown"}),
        ("failures", {"Service": "customer", "Kind": "GuardTripped", "Failures": 1}),
        ("ages", {"Service": "customer"}),
        ("changes", {"Updated": 0, "Deleted": 0}),
        ("durations", {"Service": "customer", "Event": "sync.completed", "Runs": 3}),
    ],
)
def test_a_query_finds_what_the_worker_has_logged(query: str, wanted: dict[str, Any], lines: list[Row]) -> None:
    rows = answer(query, lines)
    assert [row for row in rows if wanted.items() <= row.items()], rows


@pytest.mark.parametrize("query", ["failed-run", "guard", "differences", "overdue", "poison"])
def test_no_alert_finds_something_in_a_good_night(query: str, lines: list[Row]) -> None:
    good = [line for line in lines if '"sync.completed"' in line["Message"] or '.started"' in line["Message"]]
    assert good
    assert answer(query, good) == []


def test_each_set_and_each_other_service_has_an_alert_of_its_own() -> None:
    # Else the first failure of a night would keep the others quiet, and each table of a set would send a mail.
    [watch] = [file for file in bicep_files() if file.name == "app/watch.bicep"]
    column_of = {rule["name"]: rule["of"] for rule in watch.part("variables")["linesThatAlert"]["value"]}
    assert column_of == {name: "" if name == "poison" else "Entry" for name in column_of}
    now, fields = datetime.now(UTC), {"error_kind": "GuardTripped", "error": "x", "dry_run": False}
    lines = [
        {
            "TimeGenerated": now,
            "Message": json.dumps({"time": "x", "event": event, "fields": {**fields, "service": name}}),
        }
        for name in ("shop/dbo.Orders", "shop/dbo.Items", "customer")
        for event in ("sync.failed", "service.overdue")
    ]
    for query in ("failed-run", "guard", "overdue"):
        assert {row["Entry"] for row in answer(query, lines)} == {"shop", "customer"}, query
    unexpected = {"TimeGenerated": now, "Message": json.dumps({"time": "x", "event": "unexpected", "fields": {}})}
    assert [row["Entry"] for row in answer("failed-run", [unexpected])] == ["the app"], "a rule may not count nothing"


def test_the_changes_of_a_day_are_those_of_its_syncs_without_dry_runs(lines: list[Row]) -> None:
    [day] = answer("changes", lines)
    completed = [json.loads(line["Message"])["fields"] for line in lines if '"sync.completed"' in line["Message"]]
    assert [run["dry_run"] for run in completed] == [True, False, False]
    assert day["Inserted"] == completed[1]["inserted"] + completed[2]["inserted"] == 100


def test_request_units_are_added_up_by_service() -> None:
    now = datetime.now(UTC)
    fields = {"service": "order", "request_charge": 12.5}
    message = json.dumps({"time": "x", "level": "INFO", "event": "sync.completed", "fields": fields})
    [row] = answer("request-units", [{"TimeGenerated": now, "Message": message}] * 2)
    assert (row["Service"], row["RequestUnits"]) == ("order", 25.0)


def test_a_success_is_counted_until_it_is_too_old_and_a_sync_that_its_limit_ended_is_none(lines: list[Row]) -> None:
    assert answer("silence", lines) == [{"Successes": 1}]
    assert answer("silence", lines, later=27) == [{"Successes": 0}]


def test_where_nothing_runs_the_signs_of_life_are_counted_as_none() -> None:
    assert answer("silence", []) == [{"Successes": 0}]
    assert answer("not-running", []) == [{"Looks": 0}]
    assert answer("not-running", [], [{"Name": "ResumeSync"}]) == [{"Looks": 1}]


def test_the_timer_whose_firing_is_counted_exists() -> None:
    assert "def ResumeSync(" in (ROOT / "function_app.py").read_text()


def test_the_age_that_an_alert_replaces_stands_in_its_query() -> None:
    assert "ago(26h)" in QUERIES["silence"]
    [watch] = [file.text for file in bicep_files() if file.name == "app/watch.bicep"]
    assert "replace(loadTextContent('../queries/silence.kql'), 'ago(26h)'" in watch


def test_each_query_is_of_an_alert_or_of_the_workbook_and_stands_in_the_page() -> None:
    [watch] = [file.text for file in bicep_files() if file.name == "app/watch.bicep"]
    of_alerts = set(re.findall(r"queries/([\w-]+)\.kql", watch))
    of_workbook = {item["name"] for item in WORKBOOK["items"] if item["type"] == 3}
    assert of_alerts | of_workbook == QUERIES.keys()
    assert dict(_blocks()) == QUERIES


def test_the_workbook_has_the_queries_as_they_are_in_their_files() -> None:
    items = [item for item in WORKBOOK["items"] if item["type"] == 3]
    assert {item["name"]: item["content"]["query"] for item in items} == {
        item["name"]: QUERIES[item["name"]] for item in items
    }


def _blocks() -> Iterator[tuple[str, str]]:
    yield from re.findall(r"^### `([\w-]+)`\n.*?^```kusto\n(.*?)^```$", PAGE, re.M | re.S)


def test_a_query_that_names_an_unknown_column_fails_here() -> None:
    with pytest.raises(KeyError):
        rows_of('AppTraces\n| where Messages startswith "x"', {"AppTraces": [{"Message": "x"}]}, datetime.now(UTC))


def test_the_fields_of_the_queries_are_fields_of_some_line(lines: list[Row]) -> None:
    named = {field for text in QUERIES.values() for field in re.findall(r"Line\.fields\.(\w+)", text)}
    logged = {field for line in lines for field in json.loads(line["Message"])["fields"]}
    assert named - logged == {"request_charge"}  # which only Cosmos DB has
