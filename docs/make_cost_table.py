"""Writes the table of docs/cost.md again, from the prices, measured figures and assumptions of docs/prices.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PAGE = FOLDER / "cost.md"
NUMBERS = {"10,000": 10_000, "1 M": 1_000_000, "100 M": 100_000_000}
"""How many records a night looks at."""

_MINUTES_A_MONTH = 43_200
_HOURS_A_MONTH = 720
_GB = 1e9
_TABLE = re.compile(r"(?<=<!-- made by make_cost_table.py -->\n).*?(?=<!-- end -->)", re.S)


def figures() -> Mapping[str, Any]:
    """Returns docs/prices.json."""
    return dict(json.loads((FOLDER / "prices.json").read_text()))


def monthly(records: int, known: Mapping[str, Any]) -> dict[str, float]:
    """Returns what a month costs, by part, when each night looks at so many records of SQL and of Cosmos DB each."""
    price, measured, documented = known["prices"], known["measured"], known["documented"]
    assumed, deployed = known["assumed"], known["deployed"]
    nights, changed = assumed["nights"], records * assumed["changed_share"]
    run_seconds = sync_seconds(records, known)
    looks_gb_seconds = _MINUTES_A_MONTH * documented["least_billed_seconds"] * deployed["instance_gb"]
    runs_gb_seconds = 2 * nights * run_seconds * deployed["instance_gb"]
    vcore_hour = price["sql_serverless_vcore_hour"]
    awake_hours = nights * deployed["sql_pause_minutes"] / 60
    at_work_hours = nights * run_seconds / 3600
    units = nights * (
        2 * records / 1000 * assumed["ru_per_1000_counted"]
        + changed * measured["documents_read_per_changed"] * documented["ru_per_read"]
        + changed * assumed["writes_per_changed"] * documented["ru_per_write"]
    )
    stored_gb = records * measured["record_bytes"] / _GB
    return {
        "the app: looking each minute": looks_gb_seconds * price["flex_gb_second"]
        + _MINUTES_A_MONTH / 1e6 * price["flex_executions_million"],
        "the app: the nights": runs_gb_seconds * price["flex_gb_second"],
        "SQL backup: at work": at_work_hours * assumed["sql_vcores_at_work"] * vcore_hour,
        "SQL backup: until it pauses": awake_hours * deployed["sql_min_vcores"] * vcore_hour,
        "SQL backup: room": max(deployed["sql_max_gb"], stored_gb) * price["sql_gb_month"],
        "Cosmos DB backup and source: request units": units / 1e6 * price["cosmos_serverless_ru_million"],
        "Cosmos DB backup: stored": stored_gb * price["cosmos_gb_month"],
        "private endpoints and their DNS zones": deployed["private_endpoints"]
        * _HOURS_A_MONTH
        * price["private_endpoint_hour"]
        + deployed["dns_zones"] * price["dns_zone_month"],
        "logs": _MINUTES_A_MONTH * assumed["log_bytes_per_minute"] / _GB * price["log_gb"],
        "alert rules": deployed["alert_rules_5_minutes"] * price["alert_rule_5_minutes_month"]
        + deployed["alert_rules_15_minutes"] * price["alert_rule_15_minutes_month"],
    }


def never_pausing(known: Mapping[str, Any]) -> float:
    """Returns what a month of the SQL backup costs if something keeps it awake."""
    return float(_HOURS_A_MONTH * known["deployed"]["sql_min_vcores"] * known["prices"]["sql_serverless_vcore_hour"])


def sync_seconds(records: int, known: Mapping[str, Any]) -> float:
    """Returns how long one service's sync takes: as measured on SQLite, times what a server is assumed to be slower."""
    return float(
        records / 1e6 * known["measured"]["sync_seconds_per_million"] * known["assumed"]["server_times_slower"]
    )


def table(known: Mapping[str, Any]) -> str:
    """Returns the table in Markdown."""
    months = {name: monthly(records, known) for name, records in NUMBERS.items()}
    lines = [f"| part | {' | '.join(months)} |", f"|---|{'---|' * len(months)}"]
    for part in next(iter(months.values())):
        lines.append(f"| {part} | {' | '.join(_shown(month[part]) for month in months.values())} |")
    totals = " | ".join(f"**{_shown(sum(month.values()))}**" for month in months.values())
    awake = [
        sum(month.values()) - month["SQL backup: until it pauses"] + never_pausing(known) for month in months.values()
    ]
    lines.append(f"| **together** | {totals} |")
    lines.append(f"| together, if the SQL backup never paused | {' | '.join(map(_shown, awake))} |")
    seconds = " | ".join(f"{sync_seconds(records, known):,.1f} s" for records in NUMBERS.values())
    lines.append(f"| (seconds of one sync) | {seconds} |")
    return "\n".join(lines) + "\n"


def _shown(amount: float) -> str:
    return f"{amount:,.2f}"


def with_table(page: str, known: Mapping[str, Any]) -> str:
    """Returns the page with its table made again."""
    return _TABLE.sub(lambda _: table(known), page)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(), figures()))
