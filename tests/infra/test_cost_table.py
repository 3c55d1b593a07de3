"""The table of docs/cost.md against the prices and measured figures that it is made of."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from docs.make_cost_table import NUMBERS, PAGE, figures, monthly, never_pausing, with_table
from tests.infra.bicep import INFRA, ROOT, bicep_files

KNOWN: dict[str, Any] = dict(figures())


def test_the_page_has_the_table_that_the_script_makes() -> None:
    assert with_table(PAGE.read_text(), KNOWN) == PAGE.read_text()


def test_a_price_moves_the_table() -> None:
    other = copy.deepcopy(KNOWN)
    other["prices"]["cosmos_gb_month"] *= 2
    assert with_table(PAGE.read_text(), other) != PAGE.read_text()


def test_a_month_is_what_it_adds_up_to_by_hand() -> None:
    prices = {
        "flex_gb_second": 0.01,
        "flex_executions_million": 3,
        "sql_serverless_vcore_hour": 0.5,
        "sql_gb_month": 0.1,
    }
    prices |= {"cosmos_serverless_ru_million": 0.25, "cosmos_gb_month": 0.2, "private_endpoint_hour": 0.02}
    prices |= {
        "dns_zone_month": 0.7,
        "log_gb": 2,
        "alert_rule_5_minutes_month": 1.5,
        "alert_rule_15_minutes_month": 0.4,
    }
    known = {
        "prices": prices,
        "measured": {"sync_seconds_per_million": 3, "documents_read_per_changed": 2, "record_bytes": 500},
        "documented": {"ru_per_read": 1, "ru_per_write": 6, "least_billed_seconds": 1},
        "assumed": {
            **{"nights": 30, "changed_share": 0.001, "server_times_slower": 10, "ru_per_1000_counted": 4},
            **{"writes_per_changed": 3, "log_bytes_per_minute": 2000, "sql_vcores_at_work": 4},
        },
        "deployed": {
            **{"instance_gb": 2, "sql_min_vcores": 0.5, "sql_pause_minutes": 90, "sql_max_gb": 32},
            **{"private_endpoints": 6, "dns_zones": 4, "alert_rules_5_minutes": 5, "alert_rules_15_minutes": 2},
        },
    }
    units = 30 * (2 * 1_000 * 4 + 1_000 * 2 * 1 + 1_000 * 3 * 6)  # both sides counted; the changed read, and written
    assert monthly(1_000_000, known) == pytest.approx(
        {
            "the app: looking each minute": 30 * 24 * 60 * (2 * 0.01 + 3 / 1e6),
            "the app: the nights": 2 * 30 * 30 * 2 * 0.01,  # two services, thirty seconds of two GB
            "SQL backup: at work": 30 * 30 / 3600 * 4 * 0.5,
            "SQL backup: until it pauses": 30 * 1.5 * 0.5 * 0.5,
            "SQL backup: room": 32 * 0.1,
            "Cosmos DB backup and source: request units": units / 1e6 * 0.25,
            "Cosmos DB backup: stored": 0.5 * 0.2,
            "private endpoints and their DNS zones": 6 * 720 * 0.02 + 4 * 0.7,
            "logs": 43_200 * 2_000 / 1e9 * 2,
            "alert rules": 5 * 1.5 + 2 * 0.4,
        }
    )
    assert monthly(100_000_000, known)["SQL backup: room"] == pytest.approx(50 * 0.1), "more than the deployment gives"
    assert never_pausing(known) == pytest.approx(720 * 0.5 * 0.5)


def test_what_is_called_measured_stands_in_the_figures() -> None:
    page = (ROOT / "docs/figures.md").read_text()
    [row] = [line.split("|") for line in page.splitlines() if line.startswith("| 1,000 changed |")]
    measured = KNOWN["measured"]
    assert row[3].strip() == f"{measured['sync_seconds_per_million']} s"
    assert f"Of the 100 changed, {100 * measured['documents_read_per_changed']} were read" in page


def test_what_is_called_deployed_is_what_the_template_makes() -> None:
    files = {file.name: file for file in bicep_files()}
    deployed = KNOWN["deployed"]
    sql = {name: config for name, _, config in files["app/sql.bicep"].resources()}["database"]["properties"]
    assert sql["autoPauseDelay"] == deployed["sql_pause_minutes"]
    assert f"json('{deployed['sql_min_vcores']}')" in files["app/sql.bicep"].text
    assert f"param sqlMaxGb int = {deployed['sql_max_gb']}\n" in files["main.bicep"].text
    app = {name: config for name, _, config in files["app/function.bicep"].resources()}["app"]["properties"]
    assert app["functionAppConfig"]["scaleAndConcurrency"]["instanceMemoryMB"] == deployed["instance_gb"] * 1024
    endpoints = files["main.bicep"].text.count("'app/private-endpoint.bicep'")
    services = files["app/storage.bicep"].part("variables")["privateServices"]["value"]
    assert endpoints + len(services["operator"]["operands"]["true_value"]) == deployed["private_endpoints"]
    zones = files["main.bicep"].text.count("'app/dns-zone.bicep'")
    assert zones + len(services["operator"]["operands"]["true_value"]) == deployed["dns_zones"]
    watch = files["app/watch.bicep"].part("variables")
    assert len(watch["linesThatAlert"]["value"]) == deployed["alert_rules_5_minutes"]
    assert len(watch["signsOfLife"]["value"]) == deployed["alert_rules_15_minutes"]
    assert (INFRA / "queries").is_dir()


def test_the_first_copy_costs_what_the_page_says() -> None:
    dollars = KNOWN["documented"]["ru_per_write"] * KNOWN["prices"]["cosmos_serverless_ru_million"]
    assert f"{dollars:.2f} dollars a million" in PAGE.read_text()


def test_a_database_that_never_pauses_dominates_until_a_hundred_million_records() -> None:
    for records in NUMBERS.values():
        assert never_pausing(KNOWN) > sum(monthly(records, KNOWN).values())
