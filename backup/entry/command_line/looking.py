"""Commands that only look: history, show, health."""

from __future__ import annotations

from typing import Annotated

import typer

from backup.entry import http
from backup.entry.command_line.configuration import open_registry
from backup.entry.command_line.options import AnyService, AsJson, At, Config, OneService
from backup.entry.command_line.terminal import (
    errors_shown,
    print_answer,
    runs_of,
    show_health,
    show_history,
    show_past,
)
from backup.entry.requests import moment_of


def show_command(
    service: OneService,
    key: Annotated[str, typer.Argument(help="Its key; a JSON list where the key has several parts")],
    at: At = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show one record's past: what it was, when it changed, by which run."""
    with errors_shown(as_json):
        moment = None if at is None else moment_of(at)
        shown = open_registry(config).get(service).show(key, moment)
        print_answer(http.shape_past(shown), as_json, lambda: show_past(shown, moment))


def history_command(
    service: AnyService = "all",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many runs of each service")] = 10,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show the latest runs, newest first."""
    with errors_shown(as_json):
        registry = open_registry(config)
        runs = runs_of(registry, registry.chosen(service), limit)
        print_answer(http.shape_history(runs), as_json, lambda: show_history(runs))


def health_command(config: Config = None, as_json: AsJson = False) -> None:
    """Ask every source and backup, and say how the last syncs ended; exit code 1 when all is not well."""
    with errors_shown(as_json):
        state = http.look(lambda: open_registry(config))
        print_answer(http.shape_health(state), as_json, lambda: show_health(state))
        if state.status != "Healthy":
            raise typer.Exit(1)
