"""Commands for the file of sets: init writes the first one, plan shows what a sync would do."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from backup.config.environment import variable_named
from backup.config.set_file import FILE_NAME
from backup.core.errors import ConfigError
from backup.core.suggestions import quantity
from backup.entry.command_line.configuration import UNANSWERED_ATTEMPTS, open_registry, settings_from
from backup.entry.command_line.grid import GridColumn, GridRow
from backup.entry.command_line.options import AnyService, AsJson, Config
from backup.entry.command_line.outcomes import TOLD_APART
from backup.entry.command_line.terminal import (
    as_called,
    errors_shown,
    plain,
    print_answer,
    say,
    show_grid,
    show_trouble,
)
from backup.entry.plans import shape_plan
from backup.services.first_file import first_file
from backup.services.registry import limits_of
from backup.services.service_plans import Plan, ServicePlan, plan_of

_NAME = re.compile(r"\w+")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def init_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="The environment variable that has the source's connection string, or the string"
        ),
    ],
    name: Annotated[str, typer.Option(metavar="SET", help="The name of the set")] = "main",
    database: Annotated[
        str | None, typer.Option(help="The database, for an account of Cosmos DB", show_default=False)
    ] = None,
    file: Annotated[Path, typer.Option(help="The file to write; it must not exist yet")] = Path(FILE_NAME),
    config: Config = None,
) -> None:
    """Look at a database and write the first backup.toml for it.

    Reads the catalogue alone, and changes nothing in the database.
    """
    with errors_shown(False):
        limits = limits_of(settings_from(config), UNANSWERED_ATTEMPTS)
        value = variable_named(source)
        if value is None and _NAME.fullmatch(source):
            raise ConfigError(
                f"There is no environment variable {source}. Nothing was written.",
                hint="Set it to the source's connection string, or give the string itself.",
            )
        text = first_file(value or source, name, limits, database=database, variable=source if value else None)
        _write_new(file, text)
        unset = [named for named in dict.fromkeys(_VARIABLE.findall(text)) if not variable_named(named)]
        noun = "a connection string" if len(unset) == 1 else "connection strings"
        todo = f" Set {' and '.join(unset)} to {noun}." if unset else ""
        if file.name != FILE_NAME:
            todo += f" Set BACKUP_CONFIG to {file}: without it {FILE_NAME} is read."
        say(f"{file} is written.{todo} See what a sync would do, table by table:")
        say(as_called(f"  python -m backup plan {name}"))


def _write_new(file: Path, text: str) -> None:
    """Writes a file that does not exist yet: the whole of it, or none. Raises ConfigError."""
    try:
        with file.open("x", encoding="utf-8") as opened:
            try:
                opened.write(text)
                opened.flush()
            except BaseException:
                file.unlink()  # a disk is full; half a file would be read as the whole, and stand in the way
                raise
    except FileExistsError:
        raise ConfigError(f"{file} exists already. Nothing was written.", hint="Name another with --file.") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}.") from None


def plan_command(service: AnyService = "all", config: Config = None, as_json: AsJson = False) -> None:
    """Show what a sync would do, and write nothing.

    Exit code 1 if a service or a pattern would fail, also by the guard.
    """
    with errors_shown(as_json):
        plan = plan_of(open_registry(config), service)
        answer = shape_plan(plan)
        print_answer(answer, as_json, lambda: _show(plan))


def _show(plan: Plan) -> None:
    columns = [GridColumn("Service"), GridColumn("Key", rank=1), GridColumn("Version", rank=2)]
    columns += [GridColumn(name, right=True) for name in ("Source", "Backup", "Insert", "Update", "Delete")]
    show_grid(None, columns, [GridRow(_cells(service)) for service in plan.services])
    services_with = Counter(note for service in plan.services for note in service.notes)
    for service in plan.services:
        if service.filter:
            say(f"{service.service}: only records with {service.filter}", indent="  ")
        if service.left_out:
            say(f"{service.service}: without the columns {', '.join(service.left_out)}", indent="  ")
        if service.masked:
            say(f"{service.service}: masked: {', '.join(service.masked)}", indent="  ")
        if service.transform:
            say(f"{service.service}: transformed: {', '.join(service.transform)}", indent="  ")
        for note in service.notes:
            if services_with[note] <= TOLD_APART:
                say(f"{service.service}: {note}", indent="  ")
    for note, number in services_with.items():
        if number > TOLD_APART:
            say(f"{quantity(number, 'service')}: {note}", indent="  ")
    for note in plan.notes:
        say(note, indent="  ")
    for service in plan.services:
        if service.error is not None:
            show_trouble(service.service, str(service.error), service.error.hint)
    for error in plan.errors:
        show_trouble("", str(error), error.hint)


def _cells(service: ServicePlan) -> list[str]:
    planned = service.changes
    numbers = ["would fail", "", "", "", ""]
    if planned is not None:
        counts = (planned.inserts, planned.updates, planned.deletes)
        numbers = [str(planned.source_records), str(planned.backup_records), *map(str, counts)]
    return [plain(service.service), plain(service.key), plain(service.version), *numbers]
