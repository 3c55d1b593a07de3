"""The command `overview`, and one record before and after a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from backup.entry.answers import Answer
from backup.entry.command_line.configuration import open_registry, settings_from
from backup.entry.command_line.grid import GridColumn, GridRow
from backup.entry.command_line.options import AsJson, Config
from backup.entry.command_line.terminal import errors_shown, key_text, plain, print_answer, say, show_grid
from backup.entry.dashboard_shapes import shape_overview
from backup.entry.service_states import ServiceState
from backup.jobs.desk import desk_of

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_ALL = 1_000_000
_MOST_CHARACTERS = 60


def overview_command(
    text: Annotated[str | None, typer.Argument(help="Only services with this text in their names")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show every service at a glance, the worst first. Asks no database.

    Exit code 1 if a service is overdue, has failed, or differs.
    """
    with errors_shown(as_json):
        settings = settings_from(config)
        names = open_registry(config).directory.entries
        body = shape_overview(desk_of(settings), settings, names, text, _ALL, None)
        print_answer(Answer(200, body), as_json, lambda: _show_overview(body))
        if any(row["state"] != ServiceState.SAFE for row in body["services"]):
            raise typer.Exit(1)


def show_changed_record(record: Mapping[str, Any]) -> None:
    """Prints the columns of a record that a run changed, the old value beside the new."""
    old, new = record["old"] or {}, record["new"] or {}
    after = f"Until run {record['laterRun'][:8]}" if record["laterRun"] else "In the backup now"
    columns = [GridColumn(""), GridColumn("Column"), GridColumn("Before the run"), GridColumn(after)]
    rows = [
        GridRow(
            [
                "*" if column["differs"] else "",
                plain(column["name"]),
                _value_of(old, column["name"], record["old"] is None),
                _value_of(new, column["name"], record["new"] is None),
            ]
        )
        for column in record["columns"]
    ]
    title = f"Record {key_text(record['key'])} of {record['service']}: {record['change']} by run {record['syncId']}"
    show_grid(title, columns, rows)


def _show_overview(body: Mapping[str, Any]) -> None:
    columns = [GridColumn("State"), GridColumn("Service"), GridColumn("Last success", right=True)]
    columns += [GridColumn("Allowed", right=True), GridColumn("Records", right=True)]
    columns += [GridColumn("Versions proven", right=True, rank=1), GridColumn("Contents proven", right=True, rank=2)]
    columns += [GridColumn("Restore drill", right=True, rank=3), GridColumn("Next run", rank=4)]
    rows = []
    for row in body["services"]:
        failure = row["lastFailure"] if row["state"] == ServiceState.FAILED else None
        cells = [
            *(row["state"], plain(row["service"]), _since(row["lastSuccessAgeSeconds"]) or "never"),
            *(_since(row["allowedAgeSeconds"]), "" if row["records"] is None else str(row["records"])),
            *((row[name] or {}).get("at", "")[:10] for name in ("versionsProven", "contentsProven")),
            *((row["lastRestoreDrill"] or {}).get("at", "")[:10], (row["nextOccurrence"] or "")[:16]),
        ]
        rows.append(GridRow(cells, [plain(failure["error"] or "")] if failure else []))
    if rows:
        show_grid(None, columns, rows)
    else:
        say("There is no such service.")


def _since(seconds: int | None) -> str:
    if seconds is None:
        return ""
    return next((f"{seconds // unit} {name}" for unit, name in _UNITS if seconds >= unit), "0 s")


def _value_of(record: Mapping[str, Any], name: str, is_gone: bool) -> str:
    if name not in record:
        return "" if is_gone else "(none)"
    text = key_text([record[name]])
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
