"""The table of docs/cost.md against the prices and measured figures that it is made of."""

from __future__ import annotations

import copy
from typing import Any

from docs.make_cost_table import NUMBERS, PAGE, figures, monthly, never_pausing, with_table
from tests.infra.bicep import INFRA, ROOT, bicep_files

KNOWN: dict[str, Any] = dict(figures())


def test_the_page_has_the_table_that_the_script_makes() -> None:
    assert with_table(PAGE.read_text(), KNOWN) == PAGE.read_text()


def test_a_price_moves_the_table() -> None:
    other = copy.deepcopy(KNOWN)
    other["prices"]["cosmos_gb_month"] *= 2
    assert with_table(PAGE.read_text(), other) != PAGE.read_text()


def test_what_is_called_measured_stands_in_the_figures() -> None:
    page = (ROOT / "docs/figures.md").read_text()
    growth = [
        line.split("|") for line in page.splitlines() if line.startswith(("| first copy | 1.9", "| 1,000 changed |"))
    ]
    seconds = {line[1].strip(): float(line[3].strip().removesuffix(" s")) for line in growth}
    measured = KNOWN["measured"]
    assert seconds == {
        "first copy": measured["first_copy_seconds_per_million"],
        "1,000 changed": measured["sync_seconds_per_million"],
    }
    assert f"{20 * measured['documents_read_per_changed']} documents were read" in page


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
