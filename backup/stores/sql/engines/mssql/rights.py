"""The least rights on SQL Server: the statements that grant them, and which of them a user has."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.mssql.base import MSDialect

from backup.stores.grants import WRITES, Grantee, Needed, RightSeen, Statement
from backup.stores.sql.engines.base import PlannedWrite
from backup.stores.sql.engines.column import spelled_table
from backup.stores.sql.engines.failures import Failure
from backup.stores.sql.engines.rights import mssql_hint

_SPELLING = MSDialect()  # type: ignore[no-untyped-call] # SQLAlchemy leaves it so
_DEFINITION = "or keys, alias types and security policies may not be seen"
_ALTER = "for initialize, and for columns that are new or wider in the source"
_CREATE = "for initialize, and for new tables of a set; else it may be revoked afterwards"
_DELETE = "for --delete-extra, and for unique values that were exchanged"
_IDENTITY = "where the key is an identity column"
_UNMASK = "or copies would hold masks instead of values"
# A table's rights include those on its schema and database, and those of the roles that the user is in.
_TABLES = sa.text(
    """
    SELECT s.name AS schema_name, t.name AS table_name,
           HAS_PERMS_BY_NAME(CONCAT(QUOTENAME(s.name), '.', QUOTENAME(t.name)), 'OBJECT', 'SELECT') AS [SELECT],
           HAS_PERMS_BY_NAME(CONCAT(QUOTENAME(s.name), '.', QUOTENAME(t.name)), 'OBJECT', 'INSERT') AS [INSERT],
           HAS_PERMS_BY_NAME(CONCAT(QUOTENAME(s.name), '.', QUOTENAME(t.name)), 'OBJECT', 'UPDATE') AS [UPDATE],
           HAS_PERMS_BY_NAME(CONCAT(QUOTENAME(s.name), '.', QUOTENAME(t.name)), 'OBJECT', 'DELETE') AS [DELETE],
           HAS_PERMS_BY_NAME(CONCAT(QUOTENAME(s.name), '.', QUOTENAME(t.name)), 'OBJECT', 'ALTER') AS [ALTER]
    FROM sys.objects t
    JOIN sys.schemas s ON s.schema_id = t.schema_id
    WHERE t.type IN ('U', 'V') AND s.name = :schema
    ORDER BY t.name
    """
)
# The server reads the name as part of a statement: it knows nothing of a database `shop.2026` that is not quoted.
_DATABASE = sa.text(
    """
    SELECT MAX(HAS_PERMS_BY_NAME(n.name, 'DATABASE', 'VIEW DEFINITION')) AS definition,
           MAX(HAS_PERMS_BY_NAME(n.name, 'DATABASE', 'UNMASK')) AS unmask,
           MAX(HAS_PERMS_BY_NAME(n.name, 'DATABASE', 'CREATE TABLE')) AS make_table,
           MAX(HAS_PERMS_BY_NAME(n.name, 'DATABASE', 'CREATE SCHEMA')) AS make_schema,
           MAX(IS_ROLEMEMBER('db_owner')) AS owner
    FROM (VALUES (QUOTENAME(DB_NAME())), (DB_NAME())) AS n (name)
    """
)
_SCHEMA = sa.text(
    """
    SELECT SCHEMA_ID(:schema) AS id, HAS_PERMS_BY_NAME(QUOTENAME(:schema), 'SCHEMA', 'ALTER') AS [ALTER]
    """
)
_MASKED = sa.text(
    """
    SELECT COUNT(*) FROM sys.columns c JOIN sys.objects t ON t.object_id = c.object_id
    JOIN sys.schemas s ON s.schema_id = t.schema_id WHERE c.is_masked = 1 AND s.name = :schema
    """
)
_MAY_WRITE = sa.text("SELECT HAS_PERMS_BY_NAME(:table, 'OBJECT', :right), DB_NAME()")
# The name of a column has no brackets here.
_MAY_WRITE_COLUMN = sa.text("SELECT HAS_PERMS_BY_NAME(:table, 'OBJECT', :right, :column, 'COLUMN'), DB_NAME()")
_BECOME = "EXECUTE AS USER = {}"
_REVERT = "REVERT"


def grant_statements(grantee: Grantee, needed: Needed) -> list[Statement]:
    """The statements that let the user do what is needed, in order. Each may be repeated."""
    user, statements = _name(grantee.name), []
    if needed.role == "backup":
        for schema in needed.schemas:
            make = _literal(f"CREATE SCHEMA {_name(schema)}")  # it has to be alone in its batch
            statements.append(Statement(f"IF SCHEMA_ID({_literal(schema)}) IS NULL EXEC({make})"))
    if not needed.restores:
        statements += _refusal(grantee)
        statements.append(Statement(f"IF DATABASE_PRINCIPAL_ID({_literal(grantee.name)}) IS NULL {_created(grantee)}"))
    for schema in needed.schemas:
        on = f"ON SCHEMA::{_name(schema)} TO {user}"
        if needed.role == "backup":
            statements.append(Statement(f"GRANT SELECT, INSERT, UPDATE, DELETE, VIEW DEFINITION {on}"))
            statements.append(Statement(f"GRANT ALTER {on}", _ALTER))
        elif needed.restores:
            statements.append(Statement(f"GRANT INSERT, UPDATE {on}"))
            statements.append(Statement(f"GRANT DELETE {on}", _DELETE))
            statements.append(Statement(f"GRANT ALTER {on}", _IDENTITY))
        else:
            statements.append(Statement(f"GRANT SELECT {on}"))
    if needed.role == "backup":
        statements.append(Statement(f"GRANT CREATE TABLE TO {user}", _CREATE))
    elif not needed.restores:
        statements.append(Statement(f"GRANT VIEW DEFINITION TO {user}", _DEFINITION))
        if needed.unmasks:
            statements.append(Statement(f"GRANT UNMASK TO {user}", _UNMASK))
    return statements


def revocations(grantee: Grantee, needed: Needed) -> list[Statement]:
    """The statements that take back what a restore needed."""
    user = _name(grantee.name)
    return [
        Statement(f"REVOKE INSERT, UPDATE, DELETE, ALTER ON SCHEMA::{_name(schema)} FROM {user}")
        for schema in needed.schemas
    ]


def look_at_rights(cx: sa.Connection, needed: Needed, role: str | None) -> list[RightSeen]:
    """Which rights the user lacks, and which it has beyond what is needed; None: the user of the connection. Asks the
    catalogue alone; for another user it becomes that user meanwhile."""
    if role is None:
        return _seen(cx, needed)
    cx.exec_driver_sql(_BECOME.format(_literal(role)), execution_options={"no_parameters": True})
    try:
        return _seen(cx, needed)
    finally:
        cx.exec_driver_sql(_REVERT)


def refusal(cx: sa.Connection, table: sa.Table, write: PlannedWrite, login: str | None) -> Failure | None:
    """As `Dialect.refusal`, of rights alone: the server plans no statement for a login without a right to see plans."""
    names = {"table": spelled_table(_SPELLING, table), "right": write.right}
    if write.column is None:
        may, database = cx.execute(_MAY_WRITE, names).one()
    else:
        may, database = cx.execute(_MAY_WRITE_COLUMN, {**names, "column": write.column}).one()
    if may != 0:  # NULL: it does not say
        return None
    on = f"object '{table.name}', database '{database}', schema '{table.schema}'"
    text = f"The {write.right} permission was denied on the {on}."
    return Failure("denied", text, mssql_hint(text, login))


def _seen(cx: sa.Connection, needed: Needed) -> list[RightSeen]:
    seen: list[RightSeen] = []
    is_source = needed.role == "source" and not needed.restores
    named = {_folded(*table) for table in needed.tables}
    absent = set(named)
    database = cx.execute(_DATABASE).mappings().one()
    if not database["definition"] and needed.role == "source":
        seen.append(RightSeen("missing", "VIEW DEFINITION", "the database"))
    if is_source and database["owner"]:
        seen.append(RightSeen("excess", "db_owner", "the database"))
    for schema in needed.schemas:
        if is_source and not database["unmask"] and cx.scalar(_MASKED, {"schema": schema}):
            seen.append(RightSeen("missing", "UNMASK", "the database"))
        for row in cx.execute(_TABLES, {"schema": schema}).mappings():
            table = _folded(row["schema_name"], row["table_name"])
            if needed.tables and table not in named:
                continue
            absent.discard(table)
            place = f"{row['schema_name']}.{row['table_name']}"
            wanted = ("SELECT",) if is_source else ("SELECT", *WRITES)
            seen += [RightSeen("missing", right, place) for right in wanted if not row[right]]
            if needed.role == "backup" and not row["ALTER"]:
                seen.append(RightSeen("later", "ALTER", place))
            if is_source and not database["owner"]:
                seen += [RightSeen("excess", right, place) for right in (*WRITES, "ALTER") if row[right]]
    if needed.role == "backup":
        incomplete = {schema for schema, _ in absent}
        seen += _lacking_to_make(cx, database, [each for each in needed.schemas if each.casefold() in incomplete])
        if needed.grows and not incomplete and not database["make_table"]:
            seen.append(RightSeen("later", "CREATE TABLE", "the database"))
    return seen


def _lacking_to_make(cx: sa.Connection, database: sa.RowMapping, schemas: Sequence[str]) -> list[RightSeen]:
    """What the login lacks in order to make tables that are not there, or that it may not see, in these schemas."""
    lacking: dict[RightSeen, None] = {}
    for schema in schemas:
        existing = cx.execute(_SCHEMA, {"schema": schema}).mappings().one()
        if existing["id"] is None and not database["make_schema"]:
            lacking[RightSeen("missing", "CREATE SCHEMA", "the database")] = None
        if existing["id"] is not None and not existing["ALTER"]:
            lacking[RightSeen("missing", "ALTER", f"schema {schema}")] = None
        if not database["make_table"]:
            lacking[RightSeen("missing", "CREATE TABLE", "the database")] = None
    return list(lacking)


def _folded(schema: str, table: str) -> tuple[str, str]:
    """The name without its case, which most servers ignore. Where one does not, a table may be taken for another."""
    return schema.casefold(), table.casefold()


def _refusal(grantee: Grantee) -> list[Statement]:
    """Refuses the user of an identity that had this name before: nobody could log in as it."""
    if grantee.has_password or grantee.client_id is None:
        return []
    is_other = f"name = {_literal(grantee.name)} AND sid <> {_sid(grantee)}"
    message = _literal(f"{_name(grantee.name)} is the user of another identity. DROP USER it first.".replace("%", "%%"))
    exists = f"EXISTS (SELECT 1 FROM sys.database_principals WHERE {is_other})"  # noqa: S608 - a literal
    return [Statement(f"IF {exists} RAISERROR({message}, 16, 1)")]


def _sid(grantee: Grantee) -> str:
    """The server asks nobody: an identity's SID is the bytes of its client id."""
    return "0x" + grantee.client_id.bytes_le.hex().upper() if grantee.client_id is not None else "NULL"


def _created(grantee: Grantee) -> str:
    user = _name(grantee.name)
    if grantee.has_password:
        return f"CREATE USER {user} FOR LOGIN {user}"
    if grantee.client_id is not None:
        return f"CREATE USER {user} WITH SID = {_sid(grantee)}, TYPE = E"
    if grantee.object_id is not None:
        return f"CREATE USER {user} FROM EXTERNAL PROVIDER WITH OBJECT_ID = '{grantee.object_id}'"
    return f"CREATE USER {user} FROM EXTERNAL PROVIDER"


def _name(name: str) -> str:
    return _SPELLING.identifier_preparer.quote_identifier(name)


def _literal(text: str) -> str:
    return "N'" + text.replace("'", "''") + "'"
