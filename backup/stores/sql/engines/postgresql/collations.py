"""Collations of PostgreSQL, by what they are: two databases may name one differently, and have other defaults."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import sqlalchemy as sa

from backup.core.errors import SchemaMismatch
from backup.stores.sql.engines.column import Column, ServerType


def _is(provider: str, locale: str, more: str = "''") -> str:
    """What two collations have in common that sort alike: the locale, however it is spelled, and who knows it."""
    plain = f"regexp_replace(lower({locale}), '[^a-z0-9_.@]', '', 'g')"
    return (
        f"CASE WHEN {provider} = 'i' THEN concat({locale}, {more}, ' of ICU')"
        f" ELSE CASE {plain} WHEN 'posix' THEN 'c' ELSE {plain} END END"
    )


DEFAULT = _is(
    "coalesce(to_jsonb(d) ->> 'datlocprovider', 'c')",
    "coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', d.datcollate)",
)
"""SQL for what the collation of a row `d` of pg_database is."""

OF_ITS_OWN = _is(
    "c.collprovider",
    "coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale', c.collcollate)",
    "to_jsonb(c) ->> 'collicurules', CASE WHEN to_jsonb(c) ->> 'collisdeterministic' = 'false'"
    " THEN ', not deterministic' END",
)
"""SQL for what a row `c` of pg_collation is."""

_HERE = sa.text(
    f"""
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname), {OF_ITS_OWN},
           (SELECT {DEFAULT} FROM pg_database d WHERE d.datname = current_database())
    FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
    WHERE c.collencoding IN (-1, (SELECT encoding FROM pg_database WHERE datname = current_database()))
      AND c.collprovider <> 'd'
    ORDER BY n.nspname <> 'pg_catalog', length(c.collname), c.collname
    """  # noqa: S608 - of the expressions above
)


def fitted(cx: sa.Connection, columns: Sequence[Column], key_names: Sequence[str]) -> list[Column]:
    """The columns of another database, declared so that this one sorts them as that does. Raises SchemaMismatch for a
    key that it cannot; any other column then has the collation that is the default here."""
    if all(column.collation is None for column in columns):
        return list(columns)
    rows = cx.execute(_HERE).all()
    default, names = rows[0][2], {name for name, _, _ in rows}
    by_kind = {kind: name for name, kind, _ in reversed(rows)}
    found = []
    for column in columns:
        plain, _, named = column.type.declared.partition(" COLLATE ")
        if column.collation is None or (named and named in names) or (not named and column.collation == default):
            found.append(column)
            continue
        other = None if column.collation == default else by_kind.get(column.collation)
        if other is None and column.collation != default and column.name in key_names:
            raise SchemaMismatch(
                f"The key column {column.name} of the source is sorted by the collation {named or column.collation}, "
                "which the backup's database does not have.",
                hint="Create that collation there, or make the backup's database with the source's locale (CREATE "
                "DATABASE … TEMPLATE template0 LOCALE …): keys are compared on both sides. Nothing was changed.",
            )
        found.append(replace(column, type=_declared(column.type, f"{plain} COLLATE {other}" if other else plain)))
    return found


def _declared(type_: ServerType, declared: str) -> ServerType:
    same = copy(type_)
    same.declared = declared
    return same
