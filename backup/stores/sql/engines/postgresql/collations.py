"""Collations of PostgreSQL by what they do: two databases may name the same one differently."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import sqlalchemy as sa

from backup.core.errors import SchemaMismatch
from backup.stores.sql.engines.column import Column, ServerType

NOT_DETERMINISTIC = ", not deterministic"
"""What the kind of a collation has that takes texts of other characters for the same."""


def _kind(provider: str, locale: str, rules: str = "''") -> str:
    """SQL for a text that is equal for two collations that sort alike: their locale, and the provider that knows it."""
    plain = f"regexp_replace(lower({locale}), '[^a-z0-9_.@]', '', 'g')"
    return (
        f"CASE WHEN {provider} = 'i' THEN concat({locale}, {rules}, ' of ICU')"
        f" ELSE CASE {plain} WHEN 'posix' THEN 'c' ELSE {plain} END END"
    )


DEFAULT = _kind(
    "coalesce(to_jsonb(d) ->> 'datlocprovider', 'c')",
    "coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', d.datcollate)",
)
"""SQL for the kind of the default collation in a row `d` of pg_database."""

NAMED = _kind(
    "c.collprovider",
    "coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale', c.collcollate)",
    "to_jsonb(c) ->> 'collicurules', CASE WHEN to_jsonb(c) ->> 'collisdeterministic' = 'false'"
    f" THEN '{NOT_DETERMINISTIC}' END",
)
"""SQL for the kind of the collation in a row `c` of pg_collation."""

_DEFAULT_HERE = sa.text(f"SELECT {DEFAULT} FROM pg_database d WHERE d.datname = current_database()")  # noqa: S608
# Of hundreds of collations each is made JSON once.
_HERE = sa.text(
    f"""
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname), {NAMED.replace("to_jsonb(c)", "c.all_columns")}
    FROM (SELECT *, to_jsonb(c) AS all_columns FROM pg_collation c OFFSET 0) AS c
    JOIN pg_namespace n ON n.oid = c.collnamespace
    WHERE c.collencoding IN (-1, (SELECT encoding FROM pg_database WHERE datname = current_database()))
      AND c.collprovider <> 'd'
    ORDER BY n.nspname <> 'pg_catalog', length(c.collname), c.collname
    """  # noqa: S608 - of the expressions above
)


def fitted(cx: sa.Connection, columns: Sequence[Column], key_names: Sequence[str]) -> list[Column]:
    """The columns of another database, declared so that this database sorts them as that one.

    If this database lacks a collation, a key column raises SchemaMismatch, and any other column gets the default
    collation of this database.
    """
    if all(column.collation is None for column in columns):
        return list(columns)
    default = cx.scalar(_DEFAULT_HERE)
    if all(column.collation in (None, default) and " COLLATE " not in column.type.declared for column in columns):
        return list(columns)  # the server takes a hundred times as long to name all its collations
    rows = cx.execute(_HERE).all()
    names, by_kind = {name for name, _ in rows}, {kind: name for name, kind in reversed(rows)}
    fitted_columns = []
    for column in columns:
        plain, _, named = column.type.declared.partition(" COLLATE ")
        if column.collation is None or (named and named in names) or (not named and column.collation == default):
            fitted_columns.append(column)
            continue
        same_kind = None if column.collation == default else by_kind.get(column.collation)
        if same_kind is None and column.collation != default and column.name in key_names:
            raise SchemaMismatch(
                f"The key column {column.name} of the source is sorted by the collation {named or column.collation}, "
                "which the backup's database does not have.",
                hint="Create that collation there, or make the backup's database with the source's locale (CREATE "
                "DATABASE … TEMPLATE template0 LOCALE …): keys are compared on both sides. Nothing was changed.",
            )
        declared = f"{plain} COLLATE {same_kind}" if same_kind else plain
        fitted_columns.append(replace(column, type=_declared(column.type, declared)))
    return fitted_columns


def _declared(type_: ServerType, declared: str) -> ServerType:
    type_ = copy(type_)
    type_.declared = declared
    return type_
