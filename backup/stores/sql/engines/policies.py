"""Refuses tables with rows that a policy hides from this login: the sync would delete their copies."""

from __future__ import annotations

import sqlalchemy as sa

from backup.core.errors import ConfigError
from backup.core.suggestions import quantity
from backup.stores.sql.engines.rights import row_security_hint
from backup.stores.sql.engines.tables import TableName, whole_schema

# SQL Server has the views from 2016 on; Babelfish does not have them.
_HAS_POLICIES = sa.text("SELECT OBJECT_ID('sys.security_predicates')")
_POLICIES = sa.text(
    """
    SELECT p.name
    FROM sys.security_policies p
    JOIN sys.security_predicates d ON d.object_id = p.object_id
    WHERE p.is_enabled = 1 AND d.predicate_type = 0 -- FILTER
        AND d.target_object_id = OBJECT_ID(CONCAT(QUOTENAME(:schema), '.', QUOTENAME(:table)))
    """
)
_WITH_POLICIES = sa.text(
    """
    SELECT CAST(s.name AS nvarchar(128)), CAST(o.name AS nvarchar(128))
    FROM sys.security_policies p
    JOIN sys.security_predicates d ON d.object_id = p.object_id
    JOIN sys.objects o ON o.object_id = d.target_object_id
    JOIN sys.schemas s ON s.schema_id = o.schema_id
    WHERE p.is_enabled = 1 AND d.predicate_type = 0 -- FILTER
    """
)
_ROWS = sa.text(
    """
    SELECT SUM(p.rows) FROM sys.partitions p
    WHERE p.index_id IN (0, 1) AND p.object_id = OBJECT_ID(CONCAT(QUOTENAME(:schema), '.', QUOTENAME(:table)))
    """
)


def hidden_on_postgresql(schema: str, table: str, role: str) -> ConfigError:
    """The error for a table on which row-level security applies to this role, whatever its policies show.

    Against a later policy every session sets `row_security = off`: the server then refuses statements on the table.
    """
    return ConfigError(
        f"Row-level security of the table {schema}.{table} may hide rows from the role {role}.",
        hint=row_security_hint(table, role),
    )


def with_policies(cx: sa.Connection) -> set[TableName]:
    """The tables of a database of SQL Server on which a security policy lies that may hide rows."""
    if cx.scalar(_HAS_POLICIES) is None:
        return set()
    return {TableName(schema, name) for schema, name in cx.execute(_WITH_POLICIES)}


def refuse_hidden_on_sql_server(cx: sa.Connection, schema: str, table: str) -> None:
    """Raises ConfigError if a security policy hides rows of the table from this login. Only for a server that has
    security policies.

    The policy's function decides who sees which rows, and the app cannot read it. So this counts the rows that the
    login sees and compares them with the server's own number. Only a table with a policy costs that count. The login
    sees a policy only with VIEW DEFINITION on it.
    """
    names = {"schema": schema, "table": table}
    policy = cx.scalar(_POLICIES, names)
    if policy is None:
        return
    counted = sa.select(sa.func.count_big(sa.literal_column("*"))).select_from(
        sa.table(table, schema=whole_schema(schema))
    )
    before = cx.scalar(_ROWS, names) or 0
    seen = cx.scalar(counted) or 0
    after = cx.scalar(_ROWS, names) or 0
    if seen < (all_rows := min(before, after)):  # others may write meanwhile
        raise ConfigError(
            f"The security policy {policy} shows this login {seen} of the {quantity(all_rows, 'row')} of "
            f"{schema}.{table}.",
            hint="A copy of what a login may see would lose the rest. Exempt the app's user in the function of the "
            "policy's filter: … OR USER_NAME() = 'APP'. If rows were just being written, run it again.",
        )
