"""All tables and views of a PostgreSQL database, in three statements."""

from __future__ import annotations

from itertools import groupby

import sqlalchemy as sa

from backup.stores.listing import ForeignKey, Listed, ListedColumn, PassedOver, UniqueIndex, with_keys
from backup.stores.sql.engines.tables import spelled_name

_KINDS = {"v": "view", "m": "materialized view", "f": "foreign table"}

# A partition shows in its parent.
_COLUMNS = sa.text(
    """
    SELECT n.nspname, c.relname, c.relkind, c.reltuples, a.attname,
           format_type(a.atttypid, a.atttypmod),
           -- A constraint that nobody has validated says nothing of older rows.
           NOT a.attnotnull OR (a.attrelid, a.attnum) IN (
               SELECT k.conrelid, unnest(k.conkey) FROM pg_constraint k WHERE k.contype = 'n' AND NOT k.convalidated
           )
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
      AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
    ORDER BY n.nspname, c.relname, a.attnum
    """
)
# An index may tell texts apart that the column takes for equal: a copy's key is sorted as the column is.
_INDEXES = sa.text(
    """
    SELECT n.nspname, c.relname, x.relname, i.indisprimary, array_agg(a.attname::text ORDER BY k.place)
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_class x ON x.oid = i.indexrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (column_number, place)
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.column_number
    LEFT JOIN pg_collation o ON o.oid = a.attcollation AND o.oid <> i.indcollation[CAST(k.place AS int) - 1]
    WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
      AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
    GROUP BY n.nspname, c.relname, x.relname, i.indisprimary
    HAVING bool_and(o.collisdeterministic IS NOT FALSE)
    ORDER BY n.nspname, c.relname, x.relname
    """
)
_PARTITIONS = sa.text(
    """
    SELECT n.nspname, c.relname, s.nspname, p.relname
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition AND c.relkind IN ('r', 'p', 'f')
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class p ON p.oid = i.inhparent
    JOIN pg_namespace s ON s.oid = p.relnamespace
    ORDER BY n.nspname, c.relname
    """
)

_WITHOUT_COLUMNS = sa.text(
    """
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
      AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
      AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
    ORDER BY 1, 2
    """
)

_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
# A foreign key of a partition, or to one, is told of the whole table.
_FOREIGN_KEYS = sa.text(
    """
    SELECT f.conname, n.nspname, c.relname, s.nspname, t.relname,
           c.oid <> f.conrelid OR t.oid <> f.confrelid, f.confdeltype, f.confupdtype,
           f.condeferrable, f.condeferred, f.confmatchtype = 'f',
           array_agg(a.attname::text ORDER BY k.place), array_agg(b.attname::text ORDER BY k.place)
    FROM pg_constraint f
    JOIN pg_class c ON c.oid = coalesce(pg_partition_root(f.conrelid), f.conrelid)
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class t ON t.oid = coalesce(pg_partition_root(f.confrelid), f.confrelid)
    JOIN pg_namespace s ON s.oid = t.relnamespace
    CROSS JOIN LATERAL unnest(f.conkey, f.confkey) WITH ORDINALITY AS k (column_number, referred_number, place)
    JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.column_number
    JOIN pg_attribute b ON b.attrelid = f.confrelid AND b.attnum = k.referred_number
    WHERE f.contype = 'f' AND f.conparentid = 0
    GROUP BY f.oid, f.conname, f.conrelid, f.confrelid, n.nspname, c.relname, c.oid, s.nspname, t.relname, t.oid,
             f.confdeltype, f.confupdtype, f.condeferrable, f.condeferred, f.confmatchtype
    ORDER BY n.nspname, c.relname, f.conname
    """
)


def list_left_out(cx: sa.Connection) -> list[PassedOver]:
    """The partitions, and tables without a column. Costs two statements."""
    return [
        *(
            PassedOver(spelled_name(schema, name), "table", "It has no column, so nothing of it can be copied.")
            for schema, name in cx.execute(_WITHOUT_COLUMNS)
        ),
        *_partitions(cx),
    ]


def _partitions(cx: sa.Connection) -> list[PassedOver]:
    return [
        PassedOver(
            spelled_name(schema, name),
            "partition",
            f"What is in a partition is copied with its table, {spelled_name(table_schema, table)}.",
        )
        for schema, name, table_schema, table in cx.execute(_PARTITIONS)
    ]


def list_tables(cx: sa.Connection) -> list[Listed]:
    """The tables and views that the database has, with their columns and keys."""
    tables = []
    for (schema, name, kind, rows), columns in groupby(cx.execute(_COLUMNS).all(), key=lambda row: row[:4]):
        tables.append(
            Listed(
                spelled_name(schema, name),
                _KINDS.get(kind, "table"),
                [ListedColumn(column, declared, nullable) for *_, column, declared, nullable in columns],
                records=round(rows) if rows >= 0 and kind == "r" else None,  # -1: nobody has counted yet
            )
        )
    indexes = [
        UniqueIndex(spelled_name(schema, table), name, columns, is_primary)
        for schema, table, name, is_primary, columns in cx.execute(_INDEXES)
    ]
    foreign_keys = []
    for name, schema, table, referred_schema, referred, is_of_a_part, *details in cx.execute(_FOREIGN_KEYS):
        on_delete, on_update, deferrable, deferred, match_full, columns, referred_columns = details
        foreign_keys.append(
            ForeignKey(
                name,
                spelled_name(schema, table),
                columns,
                spelled_name(referred_schema, referred),
                referred_columns,
                _ACTIONS[on_delete],
                _ACTIONS[on_update],
                deferrable,
                deferred,
                match_full,
                of_all_rows=not is_of_a_part,
            )
        )
    return with_keys(tables, indexes, foreign_keys)
