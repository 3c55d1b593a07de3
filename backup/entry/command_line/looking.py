"""Commands that only look: history, show, changes, health."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

from backup.core.errors import BadRequest
from backup.core.model import utc_now
from backup.entry import answers
from backup.entry.command_line.configuration import concerns_here, open_registry
from backup.entry.command_line.glance import show_changed_record
from backup.entry.command_line.options import AnyService, AsJson, At, Config, OneService, Only
from backup.entry.command_line.outcomes import show_health
from backup.entry.command_line.past import show_changes, show_history, show_past, show_run
from backup.entry.command_line.terminal import errors_shown, print_answer, show_trouble
from backup.entry.dashboard_api import shape_changed
from backup.entry.health import look, shape_health
from backup.entry.requests import moment_of, since_of
from backup.services.named_run import run_named
from backup.services.turns import side_by_side

_MAY_BE_A_RUN = re.compile("[0-9a-f][0-9a-f-]*", re.I)


class Grouping(StrEnum):
    """What a row of changes stands for."""

    DAY = "day"
    RUN = "run"
    SERVICE = "service"


def show_command(
    service: OneService,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The record's key; a key of several parts is a JSON list")],
    at: At = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show one record and its past: its values, when it changed, and by which run.

    Exit code 1 if neither the backup nor the recycle bin has it.
    """
    with errors_shown(as_json):
        moment = None if at is None else moment_of(at)
        shown = open_registry(config).get(service).past.show(key, moment)
        answer = answers.shape_past(shown)

        def show() -> None:
            if shown.is_known:
                show_past(shown, moment)
            else:
                show_trouble(answer.body["Error"], answer.body["Message"], answer.body["Hint"])

        print_answer(answer, as_json, show)


def history_command(
    subject: Annotated[
        str, typer.Argument(metavar="SERVICE|RUN", help="A service, a set, a pattern of names, all, or the id of a run")
    ] = "all",
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Runs of each service (default 10), or changes of one run (100)"),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only runs since then: 7d ago (or min, h, w), or a time"),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only runs that failed")] = False,
    every: Annotated[bool, typer.Option("--all", help="Also dry runs, and runs that were refused")] = False,
    skip: Annotated[int, typer.Option(min=0, help="Leave out so many changes of one run, for the next page")] = 0,
    only: Only = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="One record that the run changed, before and after", show_default=False),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show the latest runs, newest first; or one run, with its notes and the keys that it changed."""
    with errors_shown(as_json):
        registry, now = open_registry(config), utc_now()
        names = (*map(str.lower, registry.directory.entries), "all")
        if subject.lower() not in names and _MAY_BE_A_RUN.fullmatch(subject):
            if since is not None or failed or every:
                raise BadRequest(
                    "--since, --failed and --all choose among runs, but the command names one run.",
                    hint="Leave them out, or name a service instead of the run.",
                )
            service, run_id = run_named(registry, subject)
            if key is not None:
                record = {"service": service.name, **shape_changed(service.past.changed_record(run_id, key))}
                print_answer(answers.Answer(200, record), as_json, lambda: show_changed_record(record))
                return
            ran = service.past.ran(run_id, limit or 100, skip, None if only is None else only.action)
            print_answer(answers.shape_ran(ran), as_json, lambda: show_run(ran, now, skip, only))
            return
        if skip or only is not None or key is not None:
            raise BadRequest(
                "--skip, --only and --key choose among the changes of one run.", hint="Name a run by its id."
            )
        begun_since = None if since is None else since_of(since, now)
        runs = [
            run
            for name in registry.directory.some_services(subject)
            for run in registry.get(name).past.history(limit or 10, since=begun_since, failed=failed, every=every)
        ]
        runs.sort(key=lambda run: run.started_at, reverse=True)
        print_answer(answers.shape_history(runs), as_json, lambda: show_history(runs, now))


def changes_command(
    service: AnyService = "all",
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Changes since then: 7d ago (or min, h, w), or a time")
    ] = "7d",
    by: Annotated[
        Grouping | None,
        typer.Option("--by", help="A row for each of these; default day, of several services service"),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show how many records were inserted, updated and deleted in the backup, by day, by run or by service."""
    with errors_shown(as_json):
        registry, begun = open_registry(config), since_of(since, utc_now())
        names = registry.directory.some_services(service)
        of_services = side_by_side(lambda name: registry.get(name).past.changes(begun), names)
        changes = [change for of_service in of_services for change in of_service]
        changes.sort(key=lambda change: change.run.started_at, reverse=True)
        is_group = registry.directory.is_group(service)
        grouping = by or (Grouping.SERVICE if is_group else Grouping.DAY)
        shown_name = service if is_group else names[0]
        answer = answers.shape_changes(shown_name, changes, begun, grouping.value)
        print_answer(answer, as_json, lambda: show_changes(shown_name, changes, begun, grouping.value))


def health_command(config: Config = None, as_json: AsJson = False) -> None:
    """Check that every source and backup answers, how the last syncs ended, and whether one is overdue.

    Exit code 1 if anything is not well.
    """
    with errors_shown(as_json):
        state = look(lambda: open_registry(config), lambda registry: concerns_here(config, registry))
        print_answer(shape_health(state), as_json, lambda: show_health(state))
        if state.status != "Healthy":
            raise typer.Exit(1)
