"""All tables and views of a database on SQL Server, in two statements."""

from __future__ import annotations

from itertools import groupby

import sqlalchemy as sa

from backup.stores.listing import Listed, ListedColumn, UniqueIndex, with_keys
from backup.stores.sql.engines.tables import spelled_name

_VERSIONS = ("timestamp", "rowversion")
_COLUMNS = sa.text(
    """
    SELECT CAST(s.name AS nvarchar(128)), CAST(o.name AS nvarchar(128)), o.type, r.row_count,
           CAST(c.name AS nvarchar(128)), CAST(t.name AS nvarchar(128)), c.is_nullable
    FROM sys.objects o
    JOIN sys.schemas s ON s.schema_id = o.schema_id
    JOIN sys.columns c ON c.object_id = o.object_id
    LEFT JOIN sys.types t ON t.user_type_id = c.user_type_id
    LEFT JOIN (
        SELECT p.object_id, SUM(p.rows) AS row_count FROM sys.partitions p WHERE p.index_id IN (0, 1)
        GROUP BY p.object_id
    ) r ON r.object_id = o.object_id
    WHERE o.type IN ('U', 'V') AND o.is_ms_shipped = 0 AND s.name NOT IN ('sys', 'INFORMATION_SCHEMA')
    ORDER BY s.name, o.name, c.column_id
    """
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
      AND k.key_ordinal > 0
    ORDER BY s.name, o.name, i.name, k.key_ordinal
    """
)


def list_tables(cx: sa.Connection) -> list[Listed]:
    """The tables and views that the database has, with their columns and keys."""
    tables = []
    for (schema, name, kind, rows), group in groupby(cx.execute(_COLUMNS).all(), key=lambda row: tuple(row[:4])):
        columns = [ListedColumn(column, declared or "", bool(nullable)) for *_, column, declared, nullable in group]
        tables.append(
            Listed(
                spelled_name(schema, name),
                kind.strip() == "V",
                columns,
                row_version=next((column.name for column in columns if column.type in _VERSIONS), None),
                records=None if rows is None else int(rows),
            )
        )
    indexes = [
        UniqueIndex(spelled_name(schema, table), name, [row[4] for row in group], bool(is_primary))
        for (schema, table, name, is_primary), group in groupby(
            cx.execute(_INDEXES).all(), key=lambda row: tuple(row[:4])
        )
    ]
    return with_keys(tables, indexes)
