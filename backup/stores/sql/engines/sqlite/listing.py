"""All tables and views of an SQLite file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from backup.stores.listing import ForeignKey, Listed, ListedColumn, PassedOver, UniqueIndex, with_keys
from backup.stores.sql.engines.tables import spelled_name

_TABLES = sa.text(
    """
    SELECT m.name, c.name, c.type, c."notnull" = 0, c.pk
    FROM sqlite_master m JOIN pragma_table_xinfo(m.name) c
    WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND m.sql NOT LIKE 'CREATE VIRTUAL%'
      AND c.hidden <> 1
    ORDER BY m.name, c.cid
    """
)
_VIRTUAL = sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL%'")
_NAMES = sa.text("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
_MODULE = re.compile(r"\bUSING\s+[\"'`\[]?(fts[345]|rtree|rtree_i32|geopoly)\b", re.I)
# In which tables SQLite's own modules keep the data of a virtual table; older releases of SQLite cannot tell.
_DATA_OF = {
    "fts": ("content", "segments", "segdir", "docsize", "stat", "data", "idx", "config"),
    "rtree": ("node", "rowid", "parent"),
    "geopoly": ("node", "rowid", "parent"),
}
_UNREADABLE = "SQLite cannot read it: it names a table, a column or a function that is not there."
_VIEWS = sa.text("SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY name")
_COLUMNS = sa.text('SELECT :table, name, type, "notnull" = 0, 0 FROM pragma_table_xinfo(:table) ORDER BY cid')
# Of an index sorted by a collation of its own, nobody knows whether it tells the same keys apart.
_INDEXES = sa.text(
    """
    SELECT m.name, i.name, x.name, x.coll = 'BINARY'
    FROM sqlite_master m JOIN pragma_index_list(m.name) i JOIN pragma_index_xinfo(i.name) x
    WHERE m.type = 'table' AND m.sql NOT LIKE 'CREATE VIRTUAL%' AND i."unique" AND NOT i.partial AND i.origin <> 'pk'
      AND x.key
    ORDER BY m.name, i.name, x.seqno
    """
)

_INDEXES_OF = sa.text(
    """
    SELECT m.name, i.name, i.partial, x.name
    FROM sqlite_master m JOIN pragma_index_list(m.name) i JOIN pragma_index_xinfo(i.name) x
    WHERE m.type = 'table' AND m.name IN :tables AND i.origin <> 'pk' AND x.key ORDER BY m.name, i.name, x.seqno
    """
).bindparams(sa.bindparam("tables", expanding=True))

_FOREIGN_KEYS = sa.text(
    """
    SELECT m.name, f.id, f."table", f.on_delete, f.on_update, f."from", f."to"
    FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f
    WHERE m.type = 'table' AND m.sql NOT LIKE 'CREATE VIRTUAL%'
    ORDER BY m.name, f.id, f.seq
    """
)


def list_tables(cx: sa.Connection) -> list[Listed]:
    """The tables and views that the file has, with their columns and keys. Leaves out virtual tables and what modules
    of SQLite keep their data in, and views that the server cannot read."""
    of_virtual = _data_of_virtual_tables(cx)
    rows = [row for row in cx.execute(_TABLES) if row[0].lower() not in of_virtual]
    tables = _grouped(rows, "table")
    tables += [view for view in _views(cx) if view.columns]
    indexes = []
    for (table, name), group in groupby(cx.execute(_INDEXES).all(), key=lambda row: (row[0], row[1])):
        parts = [(column, is_plain) for *_, column, is_plain in group]
        if all(column is not None and is_plain for column, is_plain in parts):  # None: an expression
            indexes.append(UniqueIndex(spelled_name(None, table), name, [column for column, _ in parts], False))
    by_name = {table.name.lower(): table for table in tables}
    foreign_keys = []
    for (table, number, referred, on_delete, on_update), group in groupby(
        cx.execute(_FOREIGN_KEYS).all(), key=lambda row: tuple(row[:5])
    ):
        pairs = [(row[5], row[6]) for row in group]
        named, parent = spelled_name(None, referred), by_name.get(spelled_name(None, referred).lower())
        referred_columns = [column for _, column in pairs if column is not None]  # NULL: the primary key's
        foreign_keys.append(
            ForeignKey(
                f"{table}_{number + 1}",
                spelled_name(None, table),
                [column for column, _ in pairs],
                parent.name if parent else named,
                referred_columns or (parent.primary_key if parent else ()),
                on_delete,
                on_update,
            )
        )
    return with_keys(tables, indexes, foreign_keys)


def list_left_out(cx: sa.Connection) -> list[PassedOver]:
    """The virtual tables, the tables with their data, and the views that the server cannot read. Costs three
    statements, and one a view."""
    of_virtual = _data_of_virtual_tables(cx)
    virtual = sorted(spelled_name(None, name) for name, _ in cx.execute(_VIRTUAL))
    holding = ((name, of_virtual.get(name.lower())) for name in cx.scalars(_NAMES))
    return [
        *(PassedOver(name, "virtual table", "Nothing of a virtual table is copied.") for name in virtual),
        *(
            PassedOver(
                spelled_name(None, name), "table", f"The virtual table {spelled_name(None, table)} has its data there."
            )
            for name, table in holding
            if table is not None
        ),
        *(PassedOver(view.name, "view", _UNREADABLE) for view in _views(cx) if not view.columns),
    ]


def indexes_of(cx: sa.Connection, tables: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    """The indexes of these tables beside their primary keys, as SQLAlchemy describes them, which leaves out some. Costs
    one statement."""
    indexes: dict[str, list[Mapping[str, Any]]] = {table: [] for table in tables}
    rows = cx.execute(_INDEXES_OF, {"tables": [*indexes]}).all()
    for (table, name, is_partial), group in groupby(rows, key=lambda row: tuple(row[:3])):
        indexes[table].append(
            {
                "name": name.removeprefix("sqlite_"),  # no other index may have a name that begins so
                "column_names": [row[3] for row in group],
                "dialect_options": {"sqlite_where": True} if is_partial else {},
            }
        )
    return indexes


def _data_of_virtual_tables(cx: sa.Connection) -> dict[str, str]:
    """The tables that hold the data of virtual tables, in small letters, each with its virtual table. Others may have
    names that begin alike."""
    names = dict[str, str]()
    for name, statement in cx.execute(_VIRTUAL):
        if module := _MODULE.search(statement):
            kind = re.match("fts|rtree|geopoly", module[1].lower())
            names |= dict.fromkeys([f"{name}_{part}".lower() for part in _DATA_OF[kind[0]]] if kind else [], name)
    return names


def _views(cx: sa.Connection) -> list[Listed]:
    """All views. One that the server cannot read, such as that of a table that was dropped, has no columns."""
    views = []
    for (view,) in cx.execute(_VIEWS).all():
        columns: list[Listed] = []
        with suppress(sa.exc.DBAPIError):
            columns = _grouped(list(cx.execute(_COLUMNS, {"table": view})), "view")
        views += columns or [Listed(spelled_name(None, view), "view")]
    return views


def _grouped(rows: list[Any], kind: str) -> list[Listed]:
    tables = []
    for name, group in groupby(rows, key=lambda row: row[0]):
        columns = list(group)
        key = sorted((position, column) for _, column, _, _, position in columns if position)
        tables.append(
            Listed(
                spelled_name(None, name),
                kind,
                [ListedColumn(column, declared, bool(nullable)) for _, column, declared, nullable, _ in columns],
                [column for _, column in key],
            )
        )
    return tables
