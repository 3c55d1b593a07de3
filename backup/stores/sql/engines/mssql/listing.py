"""All tables and views of a database on SQL Server, in three statements."""

from __future__ import annotations

from itertools import groupby

import sqlalchemy as sa

from backup.stores.listing import ForeignKey, Listed, ListedColumn, UniqueIndex, with_keys
from backup.stores.sql.engines.mssql.kinds import KINDS, WITHOUT_KEY
from backup.stores.sql.engines.tables import spelled_name

_VERSIONS = ("timestamp", "rowversion")
_COLUMNS = sa.text(
    f"""
    SELECT CAST(s.name AS nvarchar(128)), CAST(o.name AS nvarchar(128)), o.type, g.kind, r.row_count,
           CAST(c.name AS nvarchar(128)), CAST(t.name AS nvarchar(128)), c.is_nullable
    FROM sys.objects o
    JOIN sys.schemas s ON s.schema_id = o.schema_id
    JOIN sys.columns c ON c.object_id = o.object_id
    LEFT JOIN sys.types t ON t.user_type_id = c.user_type_id
    LEFT JOIN (
        SELECT p.object_id, SUM(p.rows) AS row_count FROM sys.partitions p WHERE p.index_id IN (0, 1)
        GROUP BY p.object_id
    ) r ON r.object_id = o.object_id
    LEFT JOIN {KINDS} g ON g.object_id = o.object_id
    WHERE o.type IN ('U', 'V') AND o.is_ms_shipped = 0 AND s.name NOT IN ('sys', 'INFORMATION_SCHEMA')
    ORDER BY s.name, o.name, c.column_id
    """  # noqa: S608 - of constants
)
_INDEXES = sa.text(
    """
    SELECT CAST(s.name AS nvarchar(128)), CAST(o.name AS nvarchar(128)), CAST(i.name AS nvarchar(128)),
           i.is_primary_key, CAST(c.name AS nvarchar(128))
    FROM sys.indexes i
    JOIN sys.objects o ON o.object_id = i.object_id
    JOIN sys.schemas s ON s.schema_id = o.schema_id
    JOIN sys.index_columns k ON k.object_id = i.object_id AND k.index_id = i.index_id
    JOIN sys.columns c ON c.object_id = k.object_id AND c.column_id = k.column_id
    WHERE o.type = 'U' AND o.is_ms_shipped = 0 AND i.is_unique = 1 AND i.has_filter = 0 AND i.is_disabled = 0
      AND i.is_hypothetical = 0 AND k.key_ordinal > 0
    ORDER BY s.name, o.name, i.name, k.key_ordinal
    """
)

_FOREIGN_KEYS = sa.text(
    """
    SELECT CAST(f.name AS nvarchar(128)), CAST(s.name AS nvarchar(128)), CAST(o.name AS nvarchar(128)),
           CAST(q.name AS nvarchar(128)), CAST(t.name AS nvarchar(128)),
           f.delete_referential_action_desc, f.update_referential_action_desc,
           CAST(p.name AS nvarchar(128)), CAST(r.name AS nvarchar(128))
    FROM sys.foreign_keys f
    JOIN sys.objects o ON o.object_id = f.parent_object_id
    JOIN sys.schemas s ON s.schema_id = o.schema_id
    JOIN sys.objects t ON t.object_id = f.referenced_object_id
    JOIN sys.schemas q ON q.schema_id = t.schema_id
    JOIN sys.foreign_key_columns k ON k.constraint_object_id = f.object_id
    JOIN sys.columns p ON p.object_id = k.parent_object_id AND p.column_id = k.parent_column_id
    JOIN sys.columns r ON r.object_id = k.referenced_object_id AND r.column_id = k.referenced_column_id
    WHERE f.is_disabled = 0
    ORDER BY s.name, o.name, f.name, k.constraint_column_id
    """
)


def list_tables(cx: sa.Connection) -> list[Listed]:
    """The tables and views that the database has, with their columns and keys."""
    tables = []
    for (schema, name, type_, kind, rows), group in groupby(cx.execute(_COLUMNS).all(), key=lambda row: tuple(row[:5])):
        columns = [ListedColumn(column, declared or "", bool(nullable)) for *_, column, declared, nullable in group]
        tables.append(
            Listed(
                spelled_name(schema, name),
                "view" if type_.strip() == "V" else kind if kind in WITHOUT_KEY else "table",
                columns,
                row_version=next((column.name for column in columns if column.type in _VERSIONS), None),
                records=None if rows is None or rows < 0 else int(rows),  # Babelfish has -1 before ANALYZE
            )
        )
    indexes = [
        UniqueIndex(spelled_name(schema, table), name, [row[4] for row in group], bool(is_primary))
        for (schema, table, name, is_primary), group in groupby(
            cx.execute(_INDEXES).all(), key=lambda row: tuple(row[:4])
        )
    ]
    foreign_keys = []
    for named, group in groupby(cx.execute(_FOREIGN_KEYS).all(), key=lambda row: tuple(row[:7])):
        name, schema, table, referred_schema, referred, on_delete, on_update = named
        pairs = [tuple(row[7:]) for row in group]
        foreign_keys.append(
            ForeignKey(
                name,
                spelled_name(schema, table),
                [column for column, _ in pairs],
                spelled_name(referred_schema, referred),
                [column for _, column in pairs],
                on_delete.replace("_", " "),
                on_update.replace("_", " "),
            )
        )
    return with_keys(tables, indexes, foreign_keys)
