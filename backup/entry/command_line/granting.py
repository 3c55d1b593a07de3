"""The command grant: prints or runs the statements that give the app its least rights."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from backup.config.environment import variable_named
from backup.core.errors import BackupError, ConfigError
from backup.core.model import SIDES
from backup.core.suggestions import quantity
from backup.entry.command_line.configuration import open_registry
from backup.entry.command_line.options import Config
from backup.entry.command_line.terminal import errors_shown, plain, say, show_trouble
from backup.services.registry import Registry
from backup.stores.grants import Grantee, grouped

if TYPE_CHECKING:
    from backup.services.grants import DatabaseGrant


class SideChoice(StrEnum):
    """A side, as a person types it."""

    SOURCE = "source"
    BACKUP = "backup"


def grant_command(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="A service, a set, or all")] = "all",
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="NAME", help="The app's user or role; else the login of the connection string"),
    ] = None,
    object_id: Annotated[
        UUID | None, typer.Option("--object-id", metavar="GUID", help="The identity's object id", show_default=False)
    ] = None,
    client_id: Annotated[
        UUID | None,
        typer.Option("--client-id", metavar="GUID", help="The identity's client id: SQL Server then asks nobody"),
    ] = None,
    side: Annotated[SideChoice | None, typer.Option("--side", help="Only this side", show_default=False)] = None,
    restore: Annotated[bool, typer.Option("--restore", help="What a restore needs beside, in the sources")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="With --restore: take that back")] = False,
    unmask: Annotated[bool, typer.Option("--unmask", help="Let it see columns that SQL Server masks")] = False,
    resource_group: Annotated[
        str, typer.Option("--resource-group", metavar="NAME", help="Of accounts of Cosmos DB, for az")
    ] = "GROUP",
    connect: Annotated[
        str | None,
        typer.Option("--connect", metavar="VARIABLE", help="The variable with an administrator's connection string"),
    ] = None,
    only_print: Annotated[bool, typer.Option("--print", help="Print the statements, and run none")] = False,
    config: Config = None,
) -> None:
    """Give the app the least rights that it needs in each database, and say what is granted too much.

    Run it as an administrator of the databases. For Cosmos DB it prints commands of az.

    Exit code 1 if a database refused it, or if not all tables of a set could be seen. The others are done all the same.

    Nothing is granted that no run uses: no rights of change tracking, no administrator's role.
    """
    from backup.services.grants import GrantRequest, grants_of  # no other command needs SQLAlchemy at its start

    with errors_shown(False):
        if revoke and not restore:
            raise ConfigError("--revoke takes back what --restore gave.", hint="Name both, or neither.")
        connection = None if connect is None else variable_named(connect)
        if connect is not None and connection is None:
            raise ConfigError(f"There is no environment variable {connect}.", hint="It has a connection string.")
        grantee = Grantee(to or "", object_id, client_id)
        sides = SIDES if side is None else tuple(role for role in SIDES if role == side.value)
        request = GrantRequest(grantee, sides, restore, revoke, unmask, resource_group, connection)
        registry = open_registry(config)
        all_ran = True
        for made in grants_of(registry.directory, registry.limits, service, request):
            if made.unseen is not None:
                all_ran = False
                _tell_unseen(made, made.unseen)
            if only_print or made.commands:
                _print(made)
            if not made.statements and not made.commands:
                say(f"{made.title}: nothing to grant.")
            elif not only_print:
                all_ran &= _run(registry, made)
        if not all_ran:
            raise typer.Exit(1)


def _tell_unseen(made: DatabaseGrant, error: BackupError) -> None:
    schemas = ", ".join(filter(None, made.needed.schemas)) or "none"
    text = f"Not all tables of the set were seen, so schemas may be missing. Known are: {schemas}. {error}"
    again = (
        "Then run it again, as somebody who sees all tables. What backup.toml spells, as in sales.*, is known anyway."
    )
    show_trouble(made.title, text, f"{error.hint} {again}".strip())


def _print(made: DatabaseGrant) -> None:
    """Prints what an administrator runs, as it is: broken lines would be other statements."""
    if made.commands:
        print(f"# {plain(made.title)}\n" + "\n".join(made.commands) + "\n")
        return
    lines, database = [f"-- {plain(made.title)}"], None
    if made.unseen is not None:
        lines.append("-- Not whole: schemas may be missing, for not all tables of the set were seen.")
    for statement in made.statements:
        if statement.database != database:
            lines.append(f"-- In the database {statement.database}:" if statement.database else "-- In its database:")
            database = statement.database
        lines.append(statement.text)
    if made.statements:
        print("\n".join(lines) + "\n")


def _run(registry: Registry, made: DatabaseGrant) -> bool:
    """Whether the statements of this database were run; tells why not, and what is granted too much."""
    from backup.services.grants import rights_seen, run_grants

    if made.statements:
        try:
            run_grants(made, registry.limits)
        except BackupError as error:
            show_trouble(type(error).__name__, str(error), error.hint)
            return False
        statements = quantity(len(made.statements), "statement was", "statements were")
        say(f"{made.title}: {statements} run for {made.grantee.name}.")
        try:
            seen = rights_seen(made, registry.limits)
        except BackupError as error:
            show_trouble(made.title, f"What is granted could not be looked at. {error}", error.hint)
            return True
        if excess := grouped(seen, "excess"):
            show_trouble(made.title, f"{made.grantee.name} has more than it needs: {excess}.", "Take it back.")
    return True
