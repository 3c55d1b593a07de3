"""The rights of the app in a side's database: which statements grant them, and which of them a login has."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from backup.core.errors import ConfigError
from backup.stores.connection import ENGINES, Cosmos, SqlServer, parse_connection
from backup.stores.grants import Grantee, Needed, RightSeen, Statement
from backup.stores.sides import Side, dialect_of, open_database
from backup.stores.sql.declared import split_name
from backup.stores.values import Limits


def place_of(side: Side, limits: Limits) -> tuple[str, str]:
    """Returns the kind and the location of the side's database or account: equal for two sides of one."""
    if side.is_cosmos:
        where = parse_connection(side.connection_string, side.named("ConnectionString"))
        assert isinstance(where, Cosmos)  # noqa: S101 - for mypy
        return "cosmos", where.endpoint.rstrip("/")
    dialect = dialect_of(side, limits)
    return dialect.kind, dialect.location


def tables_of(side: Side, limits: Limits, names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the schemas and names of tables that settings name; a schema is empty where the product has none."""
    default = dialect_of(side, limits).default_schema or ""
    parts = [split_name(name) for name in names]
    return [(schema or default, table) for schema, table in parts]


def default_schema_of(side: Side, limits: Limits) -> str:
    """Returns the schema of the tables that name none; empty where the product has no schemas."""
    return dialect_of(side, limits).default_schema or ""


def login_of(side: Side) -> tuple[str | None, bool]:
    """Returns the login that the side's connection string names, and whether it has a password there."""
    where = parse_connection(side.connection_string, side.named("ConnectionString"))
    if isinstance(where, SqlServer):
        return (None, False) if where.token else (where.keywords.get("UID"), "PWD" in where.keywords)
    name: str | None = getattr(where, "username", None)
    return name, bool(getattr(where, "password", None))


def statements_for(side: Side, limits: Limits, grantee: Grantee, needed: Needed, *, revokes: bool) -> list[Statement]:
    """Returns the statements that grant what is needed, or take back what a restore needed."""
    module = _module(side, limits)
    statements: list[Statement] = (module.revocations if revokes else module.grant_statements)(grantee, needed)
    return statements


def run_statements(side: Side, limits: Limits, statements: Sequence[Statement]) -> None:
    """Runs the statements one after the other, those of one database in one transaction. Raises what a store raises;
    then nothing of that transaction stays."""
    home = open_database(side, limits)
    try:
        for database in dict.fromkeys(statement.database for statement in statements):
            texts = [statement.sql for statement in statements if statement.database == database]
            access = home
            if database is not None:
                access = open_database(side, limits)
                access.dialect = home.dialect.beside(database)
            try:
                with access.once("grant rights", writes=True, fenced=False) as cx:
                    for text in texts:
                        # Without parameters. Else a driver would take a % or ? in a name for a parameter.
                        cx.exec_driver_sql(text, execution_options={"no_parameters": True})
            finally:
                access.close()
    finally:
        home.close()


def look_at(side: Side, limits: Limits, needed: Needed, role: str | None = None) -> list[RightSeen]:
    """Returns the rights that the login lacks, and those beyond what is needed; of `role`, or of the side's own login.

    Changes nothing. Cost: a few queries of the catalogue. Raises what a store raises.
    """
    access = open_database(side, limits)
    try:
        with access.once("look at the rights") as cx:
            seen: list[RightSeen] = _module(side, limits).look_at_rights(cx, needed, role)
    finally:
        access.close()
    return seen


def _module(side: Side, limits: Limits) -> Any:
    if side.is_cosmos:
        raise ConfigError(f"The {side.name} is an account of Cosmos DB, which has roles.")
    return import_module(f"{ENGINES[dialect_of(side, limits).kind]}.rights")
