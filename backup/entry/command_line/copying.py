"""Commands that make and check copies: initialize, sync, verify."""

from __future__ import annotations

from typing import Annotated

import typer

from backup.core.model import Trigger
from backup.entry import http
from backup.entry.command_line.configuration import open_registry
from backup.entry.command_line.options import AllowMassDelete, AnyService, AsJson, Config
from backup.entry.command_line.terminal import (
    errors_shown,
    print_answer,
    print_lines,
    progress_bars,
    show_outcomes,
    show_verified,
)
from backup.mirror.comparison import Depth
from backup.services.service import Options


def initialize_command(config: Config = None, as_json: AsJson = False) -> None:
    """Create the backup databases, schemas, tables and containers; safe to repeat."""
    with errors_shown(as_json):
        answer = http.initialize(open_registry(config))
        print_answer(answer, as_json, lambda: print_lines(answer))


def sync_command(
    service: AnyService = "all",
    force: Annotated[bool, typer.Option("--force", help="Copy every common record, changed or not")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count and name what would change")] = False,
    allow_mass_delete: AllowMassDelete = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Sync one service or all of them and show the counts."""
    with errors_shown(as_json):
        registry = open_registry(config)
        with progress_bars(registry, service) as progress:
            outcomes = registry.sync(service, Trigger.CLI, Options(force, dry_run, allow_mass_delete), progress)
        print_answer(http.shape_syncs(outcomes), as_json, lambda: show_outcomes(None, outcomes))


def verify_command(
    service: AnyService = "all",
    full: Annotated[bool, typer.Option("--full", help="Compare whole records, all of them")] = False,
    sample: Annotated[int, typer.Option(min=0, max=1_000_000, help="Compare also this many random records whole")] = 0,
    drill: Annotated[bool, typer.Option("--drill", help="Restore into a scratch place and compare that")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Compare source and backup and name what differs; exit code 1 when anything does."""
    with errors_shown(as_json):
        outcomes = open_registry(config).verify(service, Depth(full, sample), drilled=drill)
        answer = http.shape_verifies(outcomes) if service.lower() == "all" else http.shape_verify(outcomes[0])
        print_answer(answer, as_json, lambda: show_verified(outcomes))
        if not answer.body["Verified"]:
            raise typer.Exit(1)
