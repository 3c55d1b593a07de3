"""The command `overview`, and one record before and after a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.cells import cell_len, set_cell_size

from backup.entry.answers import Answer
from backup.entry.command_line.configuration import open_registry, settings_from
from backup.entry.command_line.grid import GridColumn, GridRow
from backup.entry.command_line.options import AsJson, Config
from backup.entry.command_line.terminal import (
    errors_shown,
    key_text,
    plain,
    print_answer,
    say,
    show_grid,
    width_of_results,
)
from backup.entry.dashboard_shapes import shape_overview
from backup.entry.service_states import ServiceState
from backup.jobs.job_queue import job_queue_of

_UNITS = ((86_400, "d", 172_800), (3_600, "h", 3_600), (60, "min", 60), (1, "s", 1))
"""Seconds and name of each unit, and from how many seconds on it is used: 26 hours are not one day."""
_ALL = 1_000_000
_LEAST_CHARACTERS, _MOST_CHARACTERS = 18, 60


def overview_command(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="Only services with this text in their names")
    ] = None,
    of_set: Annotated[
        str | None, typer.Option("--set", help="The services of this set, as far as records know")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show every service at a glance, the worst first. Asks no database.

    Exit code 1 if a service is overdue, has failed, or differs, or if there is none.
    """
    with errors_shown(as_json):
        settings = settings_from(config)
        directory = open_registry(config).directory
        set_name = directory.set_named(of_set).name if of_set else None
        body = shape_overview(job_queue_of(settings), settings, directory.entries, text, _ALL, None, set_name)
        print_answer(Answer(200, body), as_json, lambda: _show_overview(body))
        if not body["services"] or any(row["state"] != ServiceState.SAFE for row in body["services"]):
            raise typer.Exit(1)


def show_changed_record(record: Mapping[str, Any]) -> None:
    """Prints the columns of a record that a run changed, the old value beside the new."""
    after = f"Until run {record['laterRun'][:8]}" if record["laterRun"] else "In the backup now"
    titles = [
        title if record[side] is not None else f"{title}: none"
        for side, title in (("old", "Before the run"), ("new", after))
    ]
    columns = [GridColumn(""), GridColumn("Column"), *map(GridColumn, titles)]
    names = [column["name"] for column in record["columns"]]
    texts = [[_text_of(record[side], name) for side in ("old", "new")] for name in names]
    longest = _longest_text(names)
    rows = [
        GridRow(
            [
                *("*" if column["differs"] else "", plain(column["name"])),
                *(text if cell_len(text) <= longest else f"{set_cell_size(text, longest - 1)}…" for text in values),
            ]
        )
        for column, values in zip(record["columns"], texts, strict=True)
    ]
    how = f"{record['change'].lower()} by the run {record['syncId'][:8]}"
    title = f"Record {key_text(record['key'])} of {record['service']}: {how}"
    show_grid(title, columns, rows)
    if any(cell_len(text) > longest for values in texts for text in values):
        say("Long values are cut. --json shows them whole.")


def _longest_text(names: Sequence[str]) -> int:
    """How wide a value may be, so that two of them stand beside the column's name."""
    width = width_of_results()
    if width is None:
        return _MOST_CHARACTERS
    beside = max(map(cell_len, ("Column", *map(plain, names)))) + len(" *    ")
    return min(_MOST_CHARACTERS, max(_LEAST_CHARACTERS, (width - beside) // 2))


def _show_overview(body: Mapping[str, Any]) -> None:
    columns = [GridColumn("State"), GridColumn("Service"), GridColumn("Last success", right=True)]
    columns += [GridColumn("Allowed", right=True), GridColumn("Records", right=True)]
    columns += [GridColumn("Versions proven", right=True, rank=1), GridColumn("Contents proven", right=True, rank=2)]
    columns += [GridColumn("Restore drill", right=True, rank=3), GridColumn("Next run (UTC)", rank=4)]
    rows = []
    for row in body["services"]:
        failure = row["lastFailure"] if row["state"] == ServiceState.FAILED else None
        cells = [
            *(row["state"], plain(row["service"]), _since(row["lastSuccessAgeSeconds"]) or "never"),
            *(_since(row["allowedAgeSeconds"]), "" if row["records"] is None else str(row["records"])),
            *((row[name] or {}).get("at", "")[:10] for name in ("versionsProven", "contentsProven")),
            *((row["lastRestoreDrill"] or {}).get("at", "")[:10], (row["nextOccurrence"] or "")[:16].replace("T", " ")),
        ]
        rows.append(GridRow(cells, [plain(failure["error"] or "")] if failure else []))
    if not rows:
        say("There is no such service.")
        return
    show_grid(None, columns, rows)
    if any(row["lastSuccessAgeSeconds"] is None for row in body["services"]):
        say("never: the records that this machine sees know of no success. `history` asks the backups themselves.")


def _since(seconds: int | None) -> str:
    if seconds is None:
        return ""
    return next((f"{seconds // unit} {name}" for unit, name, least in _UNITS if seconds >= least), "0 s")


def _text_of(record: Mapping[str, Any] | None, name: str) -> str:
    """A value as a person reads it; empty if there is no record."""
    if record is None:
        return ""
    if name not in record:
        return "(none)"
    return "null" if record[name] is None else key_text([record[name]])
