"""Commands that only look: history, show, changes, health."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

from backup.core.errors import BadRequest
from backup.core.model import utc_now
from backup.entry import http
from backup.entry.command_line.configuration import open_registry
from backup.entry.command_line.options import AsJson, At, Config, OneService, Only
from backup.entry.command_line.outcomes import show_health
from backup.entry.command_line.past import show_changes, show_history, show_past, show_run
from backup.entry.command_line.terminal import errors_shown, print_answer, show_trouble
from backup.entry.requests import moment_of, since_of

_MAY_BE_A_RUN = re.compile("[0-9a-f][0-9a-f-]*", re.I)


class Grouping(StrEnum):
    """What changes are put together by."""

    DAY = "day"
    RUN = "run"


def show_command(
    service: OneService,
    key: Annotated[str, typer.Argument(help="Its key; a JSON list where the key has several parts")],
    at: At = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show one record and its past: what it was, when it changed, by which run; exit code 1 when nobody knows it."""
    with errors_shown(as_json):
        moment = None if at is None else moment_of(at)
        shown = open_registry(config).get(service).past.show(key, moment)
        answer = http.shape_past(shown)

        def show() -> None:
            if shown.is_known:
                show_past(shown, moment)
            else:
                show_trouble(answer.body["Error"], answer.body["Message"], answer.body["Hint"])

        print_answer(answer, as_json, show)


def history_command(
    what: Annotated[str, typer.Argument(metavar="SERVICE|RUN", help="A service, all, or a run's id")] = "all",
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="How many runs of each service: 10; of one run how many changes: 100"),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only runs since then: 7d (or min, h, w), or ISO 8601")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only runs that failed")] = False,
    every: Annotated[bool, typer.Option("--all", help="Also dry runs, and what was refused")] = False,
    skip: Annotated[int, typer.Option(min=0, help="Of one run: not the first so many changes")] = 0,
    only: Only = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show the latest runs, newest first; or one run with its notes and the keys of what it changed."""
    with errors_shown(as_json):
        registry, now = open_registry(config), utc_now()
        if what.lower() not in (*(name.lower() for name in registry.names()), "all") and _MAY_BE_A_RUN.fullmatch(what):
            if since is not None or failed or every:
                raise BadRequest(
                    "A run is named, so --since, --failed and --all choose nothing.", hint="Leave them out."
                )
            service, run_id = registry.run_named(what)
            ran = service.past.ran(run_id, limit or 100, skip, None if only is None else only.action)
            print_answer(http.shape_ran(ran), as_json, lambda: show_run(ran, now, skip))
            return
        if skip or only is not None:
            raise BadRequest("--skip and --only choose among the changes of one run.", hint="Name a run by its id.")
        begun = None if since is None else since_of(since, now)
        runs = [
            run
            for name in registry.chosen(what)
            for run in registry.get(name).past.history(limit or 10, since=begun, failed=failed, every=every)
        ]
        runs.sort(key=lambda run: run.started_at, reverse=True)
        print_answer(http.shape_history(runs), as_json, lambda: show_history(runs, now))


def changes_command(
    service: OneService,
    since: Annotated[str, typer.Option(metavar="TIME", help="Since then: 7d (or min, h, w), or ISO 8601")] = "7d",
    by: Annotated[Grouping, typer.Option("--by", help="Put together by")] = Grouping.DAY,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show how many records were inserted, updated and deleted in the backup, by day or by run."""
    with errors_shown(as_json):
        asked, begun = open_registry(config).get(service), since_of(since, utc_now())
        changes = asked.past.changes(begun)
        answer = http.shape_changes(asked.name, changes, begun, by.value)
        print_answer(answer, as_json, lambda: show_changes(asked.name, changes, begun, by.value))


def health_command(config: Config = None, as_json: AsJson = False) -> None:
    """Ask every source and backup, and say how the last syncs ended; exit code 1 when all is not well."""
    with errors_shown(as_json):
        state = http.look(lambda: open_registry(config))
        print_answer(http.shape_health(state), as_json, lambda: show_health(state))
        if state.status != "Healthy":
            raise typer.Exit(1)
