"""The least rights on PostgreSQL: the statements that grant them, and which of them a role has."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from backup.stores.grants import WRITES, Grantee, Needed, RightSeen, Statement
from backup.stores.sql.engines.postgresql.copy import SPELLING

_DEFAULTS = "tables that are made later, by the role that runs this"
_DELETE = "for --delete-extra, and for unique values that were exchanged"
_SEQUENCES = "where a sequence numbers new rows: it is set"
_OWNS = "initialize makes the tables, and the app owns them"
_ROLE = sa.text(
    """
    SELECT r.rolsuper, r.rolcreaterole, r.rolreplication FROM pg_roles r
    WHERE r.rolname = coalesce(CAST(:role AS text), current_user)
    """
)
# The asked role's rights, its own and those of roles that it is in. A view's rows are as good as a table's.
_TABLES = sa.text(
    """
    SELECT n.nspname, c.relname,
           has_table_privilege(r.name, c.oid, 'SELECT') AS "SELECT",
           has_table_privilege(r.name, c.oid, 'INSERT') AS "INSERT",
           has_table_privilege(r.name, c.oid, 'UPDATE') AS "UPDATE",
           has_table_privilege(r.name, c.oid, 'DELETE') AS "DELETE",
           has_table_privilege(r.name, c.oid, 'TRUNCATE') AS "TRUNCATE",
           pg_has_role(r.name, c.relowner, 'USAGE') AS "ownership"
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN (SELECT coalesce(CAST(:role AS text), current_user) AS name) r
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname = ANY (CAST(:schemas AS text[]))
    ORDER BY n.nspname, c.relname
    """
)
_SCHEMAS = sa.text(
    """
    SELECT n.nspname, has_schema_privilege(r.name, n.oid, 'USAGE') AS "USAGE",
           has_schema_privilege(r.name, n.oid, 'CREATE') AS "CREATE"
    FROM pg_namespace n CROSS JOIN (SELECT coalesce(CAST(:role AS text), current_user) AS name) r
    WHERE n.nspname = ANY (CAST(:schemas AS text[]))
    """
)
_DATABASE = sa.text(
    "SELECT has_database_privilege(coalesce(CAST(:role AS text), current_user), current_database(), 'CREATE')"
)


def grant_statements(grantee: Grantee, needed: Needed) -> list[Statement]:
    """The statements that let the role do what is needed, in order. Each may be repeated."""
    role, statements = _name(grantee.name), []
    if grantee.object_id is not None:
        name = _literal(grantee.name)
        made = (
            f"pgaadauth_create_principal_with_oid({name}, {_literal(str(grantee.object_id))}, 'service', false, false)"
        )
        is_missing = f"SELECT FROM pg_roles WHERE rolname = {name}"
        statements.append(Statement(f"SELECT {made} WHERE NOT EXISTS ({is_missing})", database="postgres"))
    for schema in map(_name, needed.schemas):
        if needed.role == "backup":
            statements.append(Statement(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
            statements.append(Statement(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}", _OWNS))
        elif not needed.restores:
            statements.append(Statement(f"GRANT USAGE ON SCHEMA {schema} TO {role}"))
    if needed.role == "backup":
        return statements
    if needed.restores:
        statements += [Statement(f"GRANT INSERT, UPDATE ON {place} TO {role}") for place in _places(needed)]
        statements += [Statement(f"GRANT DELETE ON {place} TO {role}", _DELETE) for place in _places(needed)]
        return statements + [
            Statement(f"GRANT SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}", _SEQUENCES)
            for schema in map(_name, needed.schemas)
        ]
    statements += [Statement(f"GRANT SELECT ON {place} TO {role}") for place in _places(needed)]
    for schema in () if needed.tables else map(_name, needed.schemas):
        later = f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {role}"
        statements.append(Statement(later, _DEFAULTS))
    return statements


def revocations(grantee: Grantee, needed: Needed) -> list[Statement]:
    """The statements that take back what a restore needed."""
    role = _name(grantee.name)
    places = [f"REVOKE INSERT, UPDATE, DELETE ON {place} FROM {role}" for place in _places(needed)]
    sequences = [
        f"REVOKE SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {schema} FROM {role}"
        for schema in map(_name, needed.schemas)
    ]
    return [Statement(text) for text in (*places, *sequences)]


def look_at_rights(cx: sa.Connection, needed: Needed, role: str | None) -> list[RightSeen]:
    """Which rights the role lacks, and which it has beyond what is needed; None: the role of the connection. Asks the
    catalogue alone."""
    seen: list[RightSeen] = []
    asked = {"role": role, "schemas": list(needed.schemas)}
    is_source = needed.role == "source" and not needed.restores
    attributes = dict(cx.execute(_ROLE, {"role": role}).mappings().first() or {})
    names = {"rolsuper": "SUPERUSER", "rolcreaterole": "CREATEROLE", "rolreplication": "REPLICATION"}
    seen += [RightSeen("excess", text, "the server") for name, text in names.items() if attributes.get(name)]
    tables = {(row["nspname"], row["relname"]): row for row in cx.execute(_TABLES, asked).mappings()}
    to_make = {schema for schema, table in needed.tables if (schema, table) not in tables}
    schemas = {row["nspname"]: row for row in cx.execute(_SCHEMAS, asked).mappings()}
    for schema, row in schemas.items():
        if not row["USAGE"]:
            seen.append(RightSeen("missing", "USAGE", f"schema {schema}"))
        if needed.role == "backup" and not row["CREATE"]:
            seen.append(RightSeen("missing" if schema in to_make else "later", "CREATE", f"schema {schema}"))
    if needed.role == "backup" and to_make - schemas.keys() and not cx.scalar(_DATABASE, {"role": role}):
        seen.append(RightSeen("missing", "CREATE", "the database"))
    for name, row in tables.items():
        if needed.tables and name not in needed.tables:
            continue
        place = f"{row['nspname']}.{row['relname']}"
        wanted = ("SELECT",) if is_source else ("SELECT", *WRITES)
        seen += [RightSeen("missing", right, place) for right in wanted if not row[right]]
        if needed.role == "backup" and not row["ownership"]:
            seen.append(RightSeen("later", "ownership", place))
        if is_source and not attributes.get("rolsuper"):
            seen += [RightSeen("excess", right, place) for right in (*WRITES, "TRUNCATE") if row[right]]
    return seen


def _places(needed: Needed) -> Iterable[str]:
    if needed.tables:
        return [f"{_name(schema)}.{_name(table)}" for schema, table in needed.tables]
    return [f"ALL TABLES IN SCHEMA {_name(schema)}" for schema in needed.schemas]


def _name(name: str) -> str:
    return SPELLING.identifier_preparer.quote_identifier(name)


def _literal(text: str) -> str:
    """A text in a statement that takes no parameters. With a backslash in it, only this form is the same everywhere."""
    escaped = text.replace("'", "''").replace("\\", "\\\\")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"
