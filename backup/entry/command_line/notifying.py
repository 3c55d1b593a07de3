"""The command `notify`: sends what waits, or a test event, to each sink."""

from __future__ import annotations

from typing import Annotated

import typer

from backup.entry.answers import Answer
from backup.entry.command_line.configuration import open_registry, settings_from
from backup.entry.command_line.grid import GridColumn, GridRow
from backup.entry.command_line.options import AsJson, Config
from backup.entry.command_line.terminal import errors_shown, plain, print_answer, say, show_grid, show_trouble
from backup.entry.notify_api import answer_delivery, answer_test
from backup.jobs.job_queue import job_queue_of
from backup.jobs.late_ends import record_late_ends
from backup.notify.silence import look_around


def notify_command(
    test: Annotated[bool, typer.Option("--test", help="Send a test event to each sink instead")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Look which services are overdue, and send the events that wait to the sinks.

    Exit code 1 if a sink did not take its events.
    """
    with errors_shown(as_json):
        settings = settings_from(config)
        if test:
            answer = answer_test(settings)
        else:
            job_queue, registry = job_queue_of(settings), open_registry(config)
            record_late_ends(registry, job_queue)
            look_around(settings, job_queue, registry.directory.entries)
            answer = answer_delivery(settings, job_queue)
        print_answer(answer, as_json, lambda: _show(answer))


def _show(answer: Answer) -> None:
    """Prints a row for each sink; below it the error, if it did not take its events."""
    rows = answer.body["sinks"]
    names = [name for name in ("sent", "waiting", "givenUp") if name in rows[0]]
    titles = {"sent": "Sent", "waiting": "Waiting", "givenUp": "Given up"}
    columns = [GridColumn("Sink"), *(GridColumn(titles[name], right=True) for name in names)]
    cells = [[plain(row["label"]), *(_cell(row[name]) for name in names)] for row in rows]
    show_grid(None, columns, [GridRow(line) for line in cells])
    say(answer.body["message"])
    for row in rows:
        if row["error"]:
            show_trouble(row["sink"], row["error"], row["hint"] or "")


def _cell(value: bool | int) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
