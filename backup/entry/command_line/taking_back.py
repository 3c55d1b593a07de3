"""Commands that take changes back: undo in the backup, restore in the source."""

from __future__ import annotations

from typing import Annotated

import typer

from backup.entry import http
from backup.entry.command_line.configuration import open_registry
from backup.entry.command_line.options import AllowMassDelete, AsJson, At, Config, OneService, Only, Yes
from backup.entry.command_line.outcomes import show_outcomes
from backup.entry.command_line.terminal import errors_shown, print_answer, progress_bars
from backup.entry.requests import moment_of
from backup.services.service import Options
from backup.verbs.restoring import Wish


def undo_command(
    sync_id: Annotated[str, typer.Argument(help="The run, or the beginning of its id, as history names it")],
    through: Annotated[bool, typer.Option("--through", help="Undo all later runs as well, newest first")] = False,
    yes: Yes = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make the backup what it was before a run."""
    with errors_shown(as_json):
        registry = open_registry(config)
        service, run_id = registry.run_named(sync_id)
        with progress_bars(registry, service.name) as observer:
            outcome = service.undo(run_id, through=through, dry_run=not yes, observer=observer)
        print_answer(http.shape_one(outcome), as_json, lambda: show_outcomes(_preview(yes), [outcome]))


def restore_command(
    service: OneService,
    at: At = None,
    run: Annotated[str | None, typer.Option(metavar="ID", help="Just what this run changed, as it was before")] = None,
    only: Only = None,
    key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Only this record; may be given several times")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="CONNECTION", help="Another database than the source")] = None,
    overwrite_newer: Annotated[
        bool, typer.Option("--overwrite-newer", help="Also records that are newer than their copy")
    ] = False,
    delete_extra: Annotated[bool, typer.Option("--delete-extra", help="Delete what the backup does not have")] = False,
    allow_mass_delete: AllowMassDelete = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change, also with --yes")] = False,
    yes: Yes = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write the backup's state, now or as of a time, into the source or another database."""
    with errors_shown(as_json):
        registry = open_registry(config)
        found = registry.get(service)
        wish = Wish(
            None if at is None else moment_of(at),
            tuple(key or ()),
            overwrite_newer,
            delete_extra,
            None if run is None else registry.run_named(run, found.name)[1],
            None if only is None else only.action,
        )
        writes = yes and not dry_run
        options = Options(dry_run=not writes, allow_mass_delete=allow_mass_delete)
        with progress_bars(registry, service) as observer:
            outcome = found.restore(wish, options, to, observer)
        print_answer(http.shape_one(outcome), as_json, lambda: show_outcomes(_preview(writes), [outcome]))


def _preview(writes: bool) -> str | None:
    return None if writes else "Nothing was written. This would change; --yes writes it:"
