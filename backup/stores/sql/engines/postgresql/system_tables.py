"""PostgreSQL's catalogue: which table a name stands for, its columns, and what refers to it or fires on a delete."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from backup.stores.sql.engines.base import Described
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.policies import hidden_on_postgresql
from backup.stores.sql.engines.postgresql.collations import DEFAULT, NAMED
from backup.stores.sql.engines.postgresql.types import type_of
from backup.stores.sql.engines.tables import TableName

_TABLES = """
    SELECT c.oid, n.nspname, c.relname, c.relkind = 'r' AS alone,
           -- Only of such tables is it known how many rows a page has at most.
           CASE WHEN c.relkind = 'r' AND m.amname = 'heap' THEN pg_relation_size(c.oid) END AS bytes
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = c.relam
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND
    """
_FIND = f"""{_TABLES} c.relname = :table
      AND (n.nspname = :schema OR (CAST(:schema AS text) IS NULL AND n.nspname = ANY (current_schemas(false))))
    ORDER BY array_position(current_schemas(false), n.nspname) LIMIT 1
    """
_FIND_ALL = f"""{_TABLES} (n.nspname, c.relname) IN (
        SELECT schema_name, table_name
        FROM unnest(CAST(:schemas AS text[]), CAST(:tables AS text[])) AS t (schema_name, table_name)
    )
    """  # noqa: S608 - only constants
_FIND_ALONE = sa.text(f"SELECT nspname, relname, alone FROM ({_FIND}) AS t")  # noqa: S608 - a constant
_LOGIN_SCHEMA = sa.text("SELECT coalesce(current_schema(), :default)")
# A domain counts as its base type. The collation of the database is named, but not declared: it is the default.
_DESCRIPTION = f"""
    SELECT f.nspname, f.relname, f.alone, f.bytes, row_security_active(f.oid), current_user,
           a.attname, b.typname, format_type(b.oid, CASE WHEN b.oid = t.oid THEN a.atttypmod ELSE t.typtypmod END),
           n.nspname = 'pg_catalog', NOT a.attnotnull,
           a.attidentity <> '', a.attgenerated <> '', a.atthasdef,
           CASE WHEN c.collname <> 'default' AND (a.attcollation <> t.typcollation OR t.oid <> b.oid)
                THEN quote_ident(cn.nspname) || '.' || quote_ident(c.collname) END,
           CASE WHEN c.collname = 'default'
                THEN (SELECT {DEFAULT} FROM pg_database d WHERE d.datname = current_database())
                WHEN c.oid IS NOT NULL THEN {NAMED} END,
           array_position((i.indkey::int2[])[0:i.indnkeyatts - 1], a.attnum)
    FROM (TABLES) AS f
    LEFT JOIN pg_attribute a ON a.attrelid = f.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_type b ON b.oid = CASE WHEN t.typbasetype <> 0 THEN t.typbasetype ELSE t.oid END
    LEFT JOIN pg_namespace n ON n.oid = b.typnamespace
    LEFT JOIN pg_collation c ON c.oid = a.attcollation
    LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
    LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
    ORDER BY f.oid, a.attnum
    """  # noqa: S608 - only constants, and expressions of `collations`
_DESCRIBE, _DESCRIBE_ALL = (sa.text(_DESCRIPTION.replace("TABLES", tables)) for tables in (_FIND, _FIND_ALL))
_INDEX_BY = sa.text(
    """
    SELECT EXISTS (
        SELECT FROM pg_index i
        JOIN pg_class t ON t.oid = i.indrelid
        JOIN pg_namespace n ON n.oid = t.relnamespace
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0]
        JOIN pg_opclass o ON o.oid = i.indclass[0]
        JOIN pg_am m ON m.oid = o.opcmethod
        WHERE n.nspname = :schema AND t.relname = :table AND a.attname = :column
          AND m.amname = 'btree' AND o.opcdefault AND i.indcollation[0] = a.attcollation
          AND i.indisvalid AND i.indpred IS NULL
    )
    """
)
_PAGE_BYTES, _ROWS_ON_A_PAGE = 8192, 291
"""A row takes at least 28 bytes of a page. On a server with larger pages, more of these fit into the same bytes."""

REFERENCES = sa.text(
    """
    SELECT c.conname, n.nspname, r.relname,
           CASE c.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT'
                              WHEN 'r' THEN 'RESTRICT' ELSE 'NO ACTION' END,
           a.attname, b.attname
    FROM pg_constraint c
    JOIN pg_class r ON r.oid = c.conrelid
    JOIN pg_namespace n ON n.oid = r.relnamespace
    CROSS JOIN LATERAL unnest(c.conkey, c.confkey) WITH ORDINALITY AS k (column_number, referred_number, place)
    JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.column_number
    JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = k.referred_number
    WHERE c.contype = 'f' AND c.conparentid = 0
      AND c.confrelid = (SELECT t.oid FROM pg_class t JOIN pg_namespace s ON s.oid = t.relnamespace
                         WHERE t.relname = :table AND s.nspname = :schema)
    ORDER BY n.nspname, r.relname, c.conname, k.place
    """
)

DELETE_TRIGGERS = sa.text(
    """
    SELECT g.tgname FROM pg_trigger g JOIN pg_class t ON t.oid = g.tgrelid JOIN pg_namespace s ON s.oid = t.relnamespace
    WHERE t.relname = :table AND s.nspname = :schema AND NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & 8 <> 0
    """
)


def find(cx: sa.Connection, schema: str | None, table: str) -> TableName | None:
    """The table or view that this login's statements mean by the name; None if there is none."""
    row = cx.execute(_FIND_ALONE, {"table": table, "schema": schema}).first()
    return None if row is None else TableName(*row)


def login_schema(cx: sa.Connection, default: str | None) -> str:
    """The schema in which this login creates a table without a schema in its name."""
    return str(cx.scalar(_LOGIN_SCHEMA, {"default": default}))


def columns(cx: sa.Connection, schema: str, table: str) -> list[Column]:
    """The table's columns in order; empty if there is no such table. Raises ConfigError if a policy may hide rows from
    this login."""
    described = describe(cx, schema, table)
    if described is None:
        return []
    if described.error is not None:
        raise described.error
    return described.columns or []


def describe(cx: sa.Connection, schema: str | None, table: str) -> Described | None:
    """The table that `find` returns, with all that `columns` says of it, in one statement."""
    rows = cx.execute(_DESCRIBE, {"table": table, "schema": schema}).all()
    return _described(rows) if rows else None


def describe_all(cx: sa.Connection, names: Sequence[TableName]) -> list[Described | None]:
    """What `describe` says of each of these tables, in one statement for all. None for one without a schema."""
    values = {"schemas": [name.schema for name in names], "tables": [name.name for name in names]}
    rows = cx.execute(_DESCRIBE_ALL, values).all()
    described = {name: _described([*group]) for name, group in groupby(rows, key=lambda row: (row[0], row[1]))}
    return [described.get((name.schema or "", name.name)) for name in names]


def _described(rows: Sequence[Any]) -> Described:
    own_schema, own_name, alone, size, is_hidden, role = rows[0][:6]
    name = TableName(own_schema, own_name, alone)
    if is_hidden:
        return Described(name, error=hidden_on_postgresql(own_schema, own_name, role))
    rows_at_most = None if size is None else -(-size // _PAGE_BYTES) * _ROWS_ON_A_PAGE
    return Described(name, [_column(*row[6:]) for row in rows if row[6] is not None], rows_at_most=rows_at_most)


def _column(
    name: str,
    base: str,
    declared: str,
    builtin: bool,
    nullable: bool,
    identity: bool,
    computed: bool,
    defaulted: bool,
    spelled: str | None,
    collation: str | None,
    key: int | None,
) -> Column:
    return Column(
        name=name,
        type=type_of(base, declared, builtin, spelled),
        nullable=nullable,
        key_position=key,
        collation=collation,
        identity=identity,
        computed=computed,
        defaulted=defaulted,
        sortable=builtin,
    )


def has_index_by(cx: sa.Connection, table: TableName, column: str) -> bool:
    """Whether an index has all rows of the table in the order of this column."""
    return bool(cx.scalar(_INDEX_BY, {"schema": table.schema, "table": table.name, "column": column}))
