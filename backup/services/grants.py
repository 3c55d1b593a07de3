"""What to grant to the app in each of its databases, and what is granted too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from backup.core.errors import BackupError, ConfigError
from backup.core.model import SIDES, SideName
from backup.core.suggestions import quoted
from backup.services.directory import Directory
from backup.stores import Limits
from backup.stores.connection import Cosmos, parse_connection
from backup.stores.grants import Grantee, Needed, RightSeen, Statement
from backup.stores.rights import (
    default_schema_of,
    login_of,
    look_at,
    place_of,
    run_statements,
    statements_for,
    tables_of,
)
from backup.stores.sides import Side

_ROLES: dict[SideName, tuple[str, str]] = {
    "source": ("Data Reader", "00000000-0000-0000-0000-000000000001"),
    "backup": ("Data Contributor", "00000000-0000-0000-0000-000000000002"),
}
_NO_USERS = ("sqlite",)


@dataclass(frozen=True)
class GrantRequest:
    """What to grant, and to whom.

    `name`: the app's user; None: the login that the connection string names. `sides`: of which. `restores`: what a
    restore needs beside, in the sources alone; `revokes`: takes that back. `connection_string`: an administrator's,
    instead of the settings'.
    """

    grantee: Grantee
    sides: Sequence[SideName] = SIDES
    restores: bool = False
    revokes: bool = False
    unmasks: bool = False
    resource_group: str = "GROUP"
    connection_string: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class DatabaseGrant:
    """One database: the services that have a side there, what they need, and the statements; or the shell commands.

    `unseen`: why there may be more schemas than `needed` has; their rights are missing then.
    """

    side: Side
    title: str
    services: tuple[str, ...]
    needed: Needed
    grantee: Grantee
    statements: Sequence[Statement] = ()
    commands: Sequence[str] = ()
    unseen: BackupError | None = None


def grants_of(directory: Directory, limits: Limits, name: str, request: GrantRequest) -> list[DatabaseGrant]:
    """Returns what to grant in each database of the service, of the set, or of all. Databases that several services
    share come once. Asks a database only for the schemas of a set that has patterns; where it does not answer, they are
    those that the patterns spell.

    Raises UnknownService, and ConfigError where nobody can tell to whom to grant.
    """
    by_place: dict[tuple[SideName, str, str], DatabaseGrant] = {}
    for entry in directory.chosen_entries(name):
        if entry.lower() not in directory.sets and directory.is_group(entry):
            raise ConfigError(f"Rights are of whole databases, and {quoted(name)} is a pattern.", hint="Name its set.")
        for role in request.sides:
            made = _grant_of(directory, limits, entry, role, request)
            key = role, *place_of(made.side, limits)
            by_place[key] = _together(by_place[key], made) if key in by_place else made
    return [_spelled(made, limits, request) for made in by_place.values()]


def run_grants(made: DatabaseGrant, limits: Limits) -> None:
    """Runs the statements. Raises what a store raises; ConfigError where the login is the app's own."""
    login, _ = login_of(made.side)
    if login is not None and login.lower() == made.grantee.name.lower():
        raise ConfigError(
            f"{made.title}: the settings log in as {login} itself, which cannot grant itself rights. Nothing was "
            "changed.",
            hint="Name the variable with an administrator's connection string with --connect, or print the statements "
            "with --print.",
        )
    run_statements(made.side, limits, made.statements)


def rights_seen(made: DatabaseGrant, limits: Limits) -> list[RightSeen]:
    """Returns the rights that the app's user lacks now, and those beyond what it needs. Raises what a store raises."""
    return look_at(made.side, limits, made.needed, made.grantee.name)


def _grant_of(directory: Directory, limits: Limits, entry: str, role: SideName, request: GrantRequest) -> DatabaseGrant:
    service_set = directory.sets.get(entry.lower())
    if service_set is not None:
        side = service_set.specs.side(role)
        names: Sequence[str] = service_set.named_tables
    else:
        spec = directory.find(entry)[0]
        spec.check()
        side = spec.source if role == "source" else spec.backup
        names = [side.table or side.default_table]
    own = side
    if request.connection_string is not None:
        side = replace(side, connection_string=request.connection_string, setting="--connect", of_set=True)
        if place_of(side, limits) != place_of(own, limits):
            raise ConfigError(
                f"--connect leads to another database than the {role} of {entry}. Nothing was changed.",
                hint="Spell server and database as the settings do, and name one side with --side.",
            )
    if side.is_cosmos:
        return DatabaseGrant(side, "", (entry,), Needed(role, ()), request.grantee)
    tables: Sequence[tuple[str, str]] = tables_of(side, limits, names)
    schemas, errors = {schema for schema, _ in tables}, list[BackupError]()
    if service_set is not None and not names:
        asked = side if role == "source" else service_set.specs.side("source")
        seen, errors = service_set.tables_in(asked)
        table_names = [*seen, *(service_set.patterns_with_schema if errors else ())]
        schemas = {schema for schema, _ in tables_of(side, limits, table_names)}
    if service_set is not None and role == "backup":
        schemas.add(default_schema_of(side, limits))  # SyncHistory and the bin of a set lie there
        tables = ()
    needed = Needed(role, tuple(sorted(schemas)), tuple(tables), unmasks=request.unmasks)
    login, has_password = login_of(own)
    name = request.grantee.name or login
    if not name and place_of(side, limits)[0] not in _NO_USERS:
        raise ConfigError(
            f"Nobody can tell who logs in to the {role} of {entry}: its connection string names no user.",
            hint="Name the app's user, which for an identity is its name, with --to.",
        )
    has_password = has_password and name == login
    grantee = replace(request.grantee, name=name or "", has_password=has_password)
    return DatabaseGrant(side, "", (entry,), needed, grantee, unseen=errors[0] if errors else None)


def _together(first: DatabaseGrant, other: DatabaseGrant) -> DatabaseGrant:
    """Both as one: of a database whose tables are not all named, every table of the schemas."""
    tables = {*first.needed.tables, *other.needed.tables} if first.needed.tables and other.needed.tables else ()
    schemas = tuple(sorted({*first.needed.schemas, *other.needed.schemas}))
    needed = replace(first.needed, schemas=schemas, tables=tuple(sorted(tables)))
    services = (*first.services, *other.services)
    return replace(first, services=services, needed=needed, unseen=first.unseen or other.unseen)


def _spelled(made: DatabaseGrant, limits: Limits, request: GrantRequest) -> DatabaseGrant:
    kind, location = place_of(made.side, limits)
    title = f"{made.needed.role.capitalize()} of {', '.join(made.services)}: {location}"
    if kind == "cosmos":
        if made.needed.role == "backup" and request.restores:
            return replace(made, title=title)
        return replace(made, title=title, commands=_role_commands(made, request))
    needed = replace(made.needed, restores=request.restores and made.needed.role == "source")
    if request.restores and made.needed.role == "backup":
        return replace(made, title=title)
    statements = statements_for(made.side, limits, made.grantee, needed, revokes=request.revokes)
    needed = replace(needed, restores=needed.restores and not request.revokes)
    return replace(made, title=title, needed=needed, statements=statements)


def _role_commands(made: DatabaseGrant, request: GrantRequest) -> list[str]:
    where = parse_connection(made.side.connection_string, made.side.named("ConnectionString"))
    assert isinstance(where, Cosmos)  # noqa: S101 - for mypy; the place is Cosmos DB's
    account = (urlsplit(where.endpoint).hostname or "").partition(".")[0]
    role_name, role_id = _ROLES["backup" if made.needed.role == "backup" or request.restores else "source"]
    principal = str(made.grantee.object_id or "PRINCIPAL_ID")
    az = "az cosmosdb sql role assignment"
    of_account = f"--resource-group {request.resource_group} --account-name {account}"
    if not request.revokes:
        granted = f'--scope "/" --principal-id {principal} --role-definition-id {role_id}'
        return [f"{az} create {of_account} {granted}  # {role_name}"]
    own = f"[?principalId=='{principal}' && ends_with(roleDefinitionId, '{role_id}')].name"
    listed = f'$({az} list {of_account} --query "{own}" --output tsv)'
    return [f"{az} delete {of_account} --yes --role-assignment-id {listed}  # {role_name}"]
