"""Commands that make and check backups and delete what is too old: initialize, sync, verify, purge."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from backup.core import interrupts
from backup.core.errors import Locked
from backup.core.log import event
from backup.core.run_values import Trigger
from backup.core.unexpected import as_backup_error
from backup.entry import answers, http
from backup.entry.command_line.configuration import open_registry
from backup.entry.command_line.options import AllowMassDelete, AnyService, AsJson, Config
from backup.entry.command_line.outcomes import NOTHING_WRITTEN, show_outcomes, show_results, show_verified
from backup.entry.command_line.terminal import errors_shown, print_answer, progress_bars
from backup.entry.requests import LIMIT_AT_MOST
from backup.mirror.verification import Depth
from backup.runs.outcome import Outcome
from backup.services.registry import Registry
from backup.services.service import Options

_PURGE_SECONDS = 30.0
"""How long a purge after a sync may take. The next purge deletes what is left."""


def initialize_command(config: Config = None, as_json: AsJson = False) -> None:
    """Create the databases, schemas, tables and containers of the backups, where missing.

    Safe to repeat.
    """
    with errors_shown(as_json):
        answer = http.initialize(open_registry(config))
        print_answer(answer, as_json, lambda: show_results(answer))


def sync_command(
    service: AnyService = "all",
    force: Annotated[bool, typer.Option("--force", help="Copy every record that both sides have")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change no record; show what would change")] = False,
    allow_mass_delete: AllowMassDelete = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, max=LIMIT_AT_MOST, metavar="N", help="Make at most N changes; count the rest", show_default=False
        ),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Sync one service or all services, and show the counts."""
    with errors_shown(as_json):
        registry = open_registry(config)
        with progress_bars(registry, service, of_source=True) as observer:
            options = Options(force, dry_run, allow_mass_delete, limit)
            outcomes = registry.sync(service, Trigger.CLI, options, observer)
        try:
            title = NOTHING_WRITTEN if dry_run else None
            print_answer(answers.shape_syncs(outcomes), as_json, lambda: show_outcomes(title, outcomes))
        finally:
            _purge_if_due(registry, outcomes)


def verify_command(
    service: AnyService = "all",
    full: Annotated[bool, typer.Option("--full", help="Compare all records whole, not only their versions")] = False,
    sample: Annotated[int, typer.Option(min=0, max=1_000_000, help="Also compare this many random records whole")] = 0,
    drill: Annotated[
        bool,
        typer.Option("--drill", help="Restore into a scratch place, and compare that with the source"),
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Compare source and backup, and show what differs.

    Exit code 1 if anything differs.
    """
    with errors_shown(as_json):
        registry = open_registry(config)
        outcomes = registry.verify(service, Depth(full, sample), drilled=drill)
        is_group = registry.directory.is_group(service)
        answer = answers.shape_verifies(outcomes) if is_group else answers.shape_verify(outcomes[0])
        print_answer(answer, as_json, lambda: show_verified(outcomes))
        if not answer.body["Verified"]:
            raise typer.Exit(1)


def purge_command(
    service: AnyService = "all",
    history_days: Annotated[
        float | None,
        typer.Option(
            min=0, max=36_500, metavar="DAYS", help="Days of SyncHistory to keep, for this purge", show_default=False
        ),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Delete what is too old from the recycle bin and from SyncHistory.

    sync and the timer also purge, when it is due.
    """
    with errors_shown(as_json):
        registry = open_registry(config)

        def purge(name: str) -> dict[str, Any]:
            purged = registry.get(name).past.purge(history_days=history_days)
            return {"Status": "Purged", "Images": purged.images, "Runs": purged.runs}

        answer = answers.answer_each(registry.directory.some_services(service), purge, "backups purged")
        print_answer(answer, as_json, lambda: show_results(answer))


def _purge_if_due(registry: Registry, outcomes: Sequence[Outcome]) -> None:
    """Purges the services that were synced, for users without the timer. A failure is only logged: the next sync tries
    again."""
    for outcome in outcomes:
        name = outcome.run.service
        if not outcome.recorded or outcome.run.dry_run or outcome.in_progress or interrupts.requested():
            continue
        try:
            purged = registry.get(name).past.purge_if_due(_PURGE_SECONDS)
        except Exception as caught:
            error = as_backup_error(caught)
            level = logging.INFO if isinstance(error, Locked) else logging.WARNING
            event("sync.not_purged", level=level, service=name, error=error)
        else:
            if purged.images or purged.runs:
                event("sync.purged", service=name, entries=purged.images, runs=purged.runs)
