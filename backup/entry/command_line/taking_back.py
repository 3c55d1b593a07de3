"""Commands that take changes back: undo in the backup, restore in the source."""

from __future__ import annotations

from typing import Annotated

import typer

from backup.config.given_services import ALL
from backup.core.errors import BadRequest
from backup.entry import answers, http
from backup.entry.command_line.configuration import open_registry
from backup.entry.command_line.options import AllowMassDelete, AsJson, At, Config, DryRun, OneOrSet, Only, Yes
from backup.entry.command_line.outcomes import show_outcomes
from backup.entry.command_line.terminal import errors_shown, print_answer, progress_bars
from backup.entry.requests import moment_of
from backup.services.group_restore import restore_group
from backup.services.group_undo import undo_group
from backup.services.named_run import run_named
from backup.services.service import Options
from backup.verbs.restore_spec import RestoreSpec


def undo_command(
    sync_id: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="The run's id or its beginning, as history shows it; or a set, for its last syncs"
        ),
    ],
    through: Annotated[bool, typer.Option("--through", help="Also undo all later runs, newest first")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make the backup what it was before a run, or before the last sync of each service of a set.

    Without --yes it changes no record, and shows what would change.
    """
    writes = yes and not dry_run
    with errors_shown(as_json):
        registry = open_registry(config)
        if http.is_group_to_undo(registry, sync_id, through=through):
            with progress_bars(registry, sync_id) as observer:
                outcomes = undo_group(registry, sync_id, dry_run=not writes, observer=observer)
            print_answer(answers.shape_undos(outcomes), as_json, lambda: show_outcomes(_preview(writes), outcomes))
            return
        service, run_id = run_named(registry, sync_id)
        with progress_bars(registry, service.name) as observer:
            outcome = service.undo(run_id, through=through, dry_run=not writes, observer=observer)
        print_answer(answers.shape_one(outcome), as_json, lambda: show_outcomes(_preview(writes), [outcome]))


def restore_command(
    service: OneOrSet,
    at: At = None,
    run: Annotated[
        str | None, typer.Option(metavar="ID", help="Only the records that this run changed, as before it")
    ] = None,
    only: Only = None,
    key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Only the record with this key; may be repeated")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="CONNECTION", help="Write into this database instead of the source")
    ] = None,
    constraints: Annotated[
        bool, typer.Option("--constraints", help="With --to, of a set: then make the source's foreign keys there")
    ] = False,
    overwrite_newer: Annotated[
        bool, typer.Option("--overwrite-newer", help="Also records that are newer than in the backup")
    ] = False,
    without_masked: Annotated[
        bool, typer.Option("--without-masked", help="Only columns without a mask, into records that exist")
    ] = False,
    delete_extra: Annotated[
        bool, typer.Option("--delete-extra", help="Delete records that the backup does not have")
    ] = False,
    allow_mass_delete: AllowMassDelete = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write the backup's records, as they are or were at a time, into the source or another database.

    Without --yes it changes no record, and shows what would change.
    """
    with errors_shown(as_json):
        registry = open_registry(config)
        is_group = registry.directory.is_group(service) and service.lower() != ALL
        if constraints and not is_group:
            raise BadRequest("--constraints is for a set. Nothing was changed.", hint="Name a set, or leave it out.")
        restored_name = service if is_group else registry.get(service).name
        if run is not None and not is_group:  # `restore_group` refuses it
            run = run_named(registry, run, restored_name)[1]
        spec = RestoreSpec(
            None if at is None else moment_of(at),
            tuple(key or ()),
            overwrite_newer,
            delete_extra,
            run,
            None if only is None else only.action,
            without_masked,
        )
        writes = yes and not dry_run
        options = Options(dry_run=not writes, allow_mass_delete=allow_mass_delete)
        with progress_bars(registry, service) as observer:
            if is_group:
                outcomes = restore_group(registry, service, spec, options, to, observer, constraints=constraints)
            else:
                outcomes = [registry.get(service).restore(spec, options, to, observer)]
        answer = answers.shape_restores(outcomes) if is_group else answers.shape_one(outcomes[0])
        print_answer(answer, as_json, lambda: show_outcomes(_preview(writes), outcomes))


def _preview(writes: bool) -> str | None:
    return None if writes else "Nothing was written. With --yes this would change:"
