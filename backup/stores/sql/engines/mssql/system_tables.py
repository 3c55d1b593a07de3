"""SQL Server's catalogue: which table a name stands for, its columns, and what refers to it or fires on a delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from backup.core.errors import ConfigError
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.mssql.kinds import KINDS, refuse_graph
from backup.stores.sql.engines.mssql.types import IntegerType, type_of
from backup.stores.sql.engines.policies import refuse_hidden_on_sql_server, with_policies
from backup.stores.sql.engines.tables import TableName

# A name without a schema means a table in the login's schema, else in dbo.
_FIND, _FIND_IN = (
    sa.text(
        f"""
        SELECT CAST(s.name AS nvarchar(128)), CAST(o.name AS nvarchar(128))
        FROM sys.objects o
        JOIN sys.schemas s ON s.schema_id = o.schema_id
        WHERE o.name = :table AND o.type IN ('U', 'V') AND s.name IN ({schemas})
        ORDER BY CASE WHEN s.name = SCHEMA_NAME() THEN 0 ELSE 1 END
        """  # noqa: S608 - only the two lists below
    )
    for schemas in ("SCHEMA_NAME(), 'dbo'", ":schema")
)
# By the number of a table, and by functions where there are some: the servers make their views of many tables, and to
# join the views of objects, schemas and types takes them several times as long.
_COLUMNS = f"""
    SELECT CAST(OBJECT_SCHEMA_NAME(c.object_id) AS nvarchar(128)) AS schema_name,
           CAST(OBJECT_NAME(c.object_id) AS nvarchar(128)) AS table_name, c.object_id, g.kind,
           CAST(DATABASEPROPERTYEX(DB_NAME(), 'Collation') AS nvarchar(128)) AS database_collation,
           CAST(c.name AS nvarchar(128)) AS name,
           TYPE_NAME(c.user_type_id) AS type_name, -- NULL of an alias type that is hidden from the login
           TYPE_NAME(c.system_type_id) AS base_name,
           c.max_length, c.precision, c.scale, c.collation_name,
           c.is_nullable, c.is_identity, c.is_computed, c.generated_always_type, c.is_column_set, c.default_object_id,
           k.key_ordinal, c.encryption_type, k.leads_index,
           CASE WHEN c.is_masked = 0 OR 1 IN (
               HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', 'UNMASK'),
               HAS_PERMS_BY_NAME(QUOTENAME(DB_NAME()), 'DATABASE', 'UNMASK'),
               HAS_PERMS_BY_NAME(
                   QUOTENAME(OBJECT_SCHEMA_NAME(c.object_id)) + '.' + QUOTENAME(OBJECT_NAME(c.object_id)),
                   'OBJECT', 'UNMASK', c.name, 'COLUMN'
               )
           ) THEN 0 ELSE 1 END AS seen_masked,
           CASE WHEN OBJECT_ID('sys.security_predicates') IS NULL THEN 0 ELSE 1 END AS has_policies, -- not Babelfish
           CASE WHEN CAST(0x01 + 0x02 AS varbinary(9)) = 0x0102 THEN 1 ELSE 0 END AS joins_bytes, -- Babelfish adds them
           CASE WHEN CONVERT(varbinary(9), CAST('0A' AS varchar(9)), 2) = 0x0A THEN 1 ELSE 0 END AS reads_hex,
           CASE WHEN d.compatibility_level < 130 AND SERVERPROPERTY('BabelfishVersion') IS NULL
               THEN 0 ELSE 1 END AS has_openjson -- Babelfish has it at any level
    FROM sys.columns c
    LEFT JOIN sys.databases d ON d.database_id = DB_ID()
    LEFT JOIN (
        SELECT x.object_id, x.column_id, MAX(CASE WHEN i.is_primary_key = 1 THEN x.key_ordinal END) AS key_ordinal,
               MAX(CASE WHEN x.key_ordinal = 1 AND i.type IN (1, 2) AND i.has_filter = 0 AND i.is_disabled = 0
                   AND i.is_hypothetical = 0 THEN 1 ELSE 0 END) AS leads_index
        FROM sys.indexes i
        JOIN sys.index_columns x ON x.object_id = i.object_id AND x.index_id = i.index_id
        INDEXED
        GROUP BY x.object_id, x.column_id
    ) k ON k.object_id = c.object_id AND k.column_id = c.column_id
    LEFT JOIN {KINDS} g ON g.object_id = c.object_id
    WHERE TABLES
    ORDER BY schema_name, table_name, c.column_id
    """  # noqa: S608 - of constants
_COLUMNS_OF = sa.text(
    _COLUMNS.replace("INDEXED", "WHERE i.object_id = OBJECT_ID(:name)").replace(
        "TABLES",
        "c.object_id = OBJECT_ID(:name)"
        " AND 1 IN (OBJECTPROPERTY(c.object_id, 'IsUserTable'), OBJECTPROPERTY(c.object_id, 'IsView'))",
    )
)
_COLUMNS_OF_ALL = sa.text(
    _COLUMNS.replace("INDEXED", "").replace(
        "TABLES",
        "c.object_id IN (SELECT o.object_id FROM sys.objects o JOIN sys.schemas s ON s.schema_id = o.schema_id"
        " WHERE o.type IN ('U', 'V') AND o.name IN :tables AND s.name IN :schemas)",
    )
).bindparams(sa.bindparam("tables", expanding=True), sa.bindparam("schemas", expanding=True))

REFERENCES = sa.text(
    """
    SELECT f.name, s.name, o.name, f.delete_referential_action_desc, p.name, r.name
    FROM sys.foreign_keys f
    JOIN sys.objects o ON o.object_id = f.parent_object_id
    JOIN sys.schemas s ON s.schema_id = o.schema_id
    JOIN sys.foreign_key_columns c ON c.constraint_object_id = f.object_id
    JOIN sys.columns p ON p.object_id = c.parent_object_id AND p.column_id = c.parent_column_id
    JOIN sys.columns r ON r.object_id = c.referenced_object_id AND r.column_id = c.referenced_column_id
    JOIN sys.objects t ON t.object_id = f.referenced_object_id
    JOIN sys.schemas q ON q.schema_id = t.schema_id
    WHERE t.name = :table AND q.name = :schema AND f.is_disabled = 0
    ORDER BY s.name, o.name, f.name, c.constraint_column_id
    """
)

DELETE_TRIGGERS, WRITE_TRIGGERS = (
    sa.text(
        f"""
        SELECT DISTINCT {columns} FROM sys.triggers g
        JOIN sys.objects t ON t.object_id = g.parent_id
        JOIN sys.schemas s ON s.schema_id = t.schema_id
        JOIN sys.trigger_events e ON e.object_id = g.object_id
        WHERE g.is_disabled = 0 AND e.type_desc IN ({fired_by}) {of_table}
        """  # noqa: S608 - only the two lists below
    )
    for columns, fired_by, of_table in (
        ("g.name", "'DELETE'", "AND t.name = :table AND s.name = :schema"),
        ("s.name, t.name, g.name", "'INSERT', 'UPDATE'", ""),
    )
)


def find(cx: sa.Connection, schema: str | None, table: str) -> TableName | None:
    """The table or view that this login's statements mean by the name; None if there is none."""
    names = {"table": table} if schema is None else {"table": table, "schema": schema}
    row = cx.execute(_FIND if schema is None else _FIND_IN, names).first()
    return None if row is None else TableName(*row)


def describe_named(
    cx: sa.Connection, schema: str | None, table: str
) -> tuple[TableName, Sequence[Mapping[str, Any]]] | None:
    """What `find` and `describe` return, in one statement; None if there is no such table, or none of its columns can
    be seen. No policy is asked for."""
    rows = _columns_of(cx, schema, table)
    return (TableName(rows[0]["schema_name"], rows[0]["table_name"]), rows) if rows else None


def describe(cx: sa.Connection, schema: str, table: str) -> Sequence[Mapping[str, Any]]:
    """What the catalogue says of each column, in order, and of the database; empty if there is no such table.

    Raises ConfigError if a policy hides rows from this login.
    """
    rows = _columns_of(cx, schema, table)
    refuse_hidden(cx, TableName(schema, table), rows)
    return rows


def _columns_of(cx: sa.Connection, schema: str | None, table: str) -> Sequence[Mapping[str, Any]]:
    """A name without a schema means what it means in a statement of this login."""
    name = ".".join(f"[{part.replace(']', ']]')}]" for part in (schema, table) if part is not None)
    return [dict(row) for row in cx.execute(_COLUMNS_OF, {"name": name}).mappings().all()]


def refuse_hidden(cx: sa.Connection, table: TableName, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raises ConfigError if a policy hides rows of the table from this login. `rows` are what `describe` returns. Asks
    only a server that has policies."""
    if rows and rows[0]["has_policies"]:
        refuse_hidden_on_sql_server(cx, table.schema or "", table.name)


def describe_all(cx: sa.Connection, names: Sequence[TableName]) -> dict[TableName, Sequence[Mapping[str, Any]]]:
    """What `describe` returns for those of these tables that are spelled so and on which no security policy lies. Costs
    three statements at most, which have a parameter for each name."""
    if not names:
        return {}
    values = {"tables": sorted({name.name for name in names}), "schemas": sorted({name.schema or "" for name in names})}
    described: dict[TableName, list[Mapping[str, Any]]] = {}
    for row in cx.execute(_COLUMNS_OF_ALL, values).mappings():
        described.setdefault(TableName(row["schema_name"], row["table_name"]), []).append(dict(row))
    wanted = {*names} - with_policies(cx)
    return {name: rows for name, rows in described.items() if name in wanted}


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The columns in the rows of `describe`. Raises ConfigError for values that this login, or nobody, can read."""
    for row in rows:
        refuse_graph(row["kind"], f"{row['schema_name']}.{row['table_name']}")
        _refuse_unreadable(row)
    return [
        Column(
            name=row["name"],
            type=type_of(row["name"], row),
            nullable=bool(row["is_nullable"]),
            key_position=row["key_ordinal"],
            collation=row["collation_name"],
            identity=bool(row["is_identity"]),
            computed=bool(row["is_computed"] or row["generated_always_type"] or row["is_column_set"])
            or row["type_name"] in ("timestamp", "rowversion"),
            defaulted=bool(row["default_object_id"]),
            leads_index=bool(row["leads_index"]),
            spelled_once=isinstance(type_of(row["name"], row), IntegerType),
        )
        for row in rows
    ]


def _refuse_unreadable(column: Mapping[str, Any]) -> None:
    """Raises ConfigError for a column whose true values this login cannot read."""
    name = column["name"]
    if column["seen_masked"]:
        raise ConfigError(
            f"Column {name} is masked, and this login does not see its values.",
            hint="GRANT UNMASK to the login: a copy of masks would replace the values in the backup.",
        )
    if column["encryption_type"]:
        raise ConfigError(
            f"Column {name} is encrypted by Always Encrypted: only a program with its key can read it.",
            hint="Back up a table without this column.",
        )
