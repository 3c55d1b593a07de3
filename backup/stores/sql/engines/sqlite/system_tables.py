"""SQLite's catalogue: which table a name stands for, its columns, and what refers to it or fires on a delete."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, TypeVar

import sqlalchemy as sa

from backup.core.errors import BackupError, SchemaMismatch
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.described import Described
from backup.stores.sql.engines.prepared import TABLES_KEPT
from backup.stores.sql.engines.sqlite.plainly import asked_plainly
from backup.stores.sql.engines.sqlite.text import UTF_16
from backup.stores.sql.engines.sqlite.types import ROW_NUMBER, holds_numbers, type_of
from backup.stores.sql.engines.tables import TableName

Facts = TypeVar("Facts")
_PLAIN_TYPE = re.compile(
    # In quotes a type may have any words. Of these, CREATE TABLE would make constraints.
    r"(?!.*\b(AS|CHECK|COLLATE|CONSTRAINT|DEFAULT|GENERATED|NOT|NULL|PRIMARY|REFERENCES|UNIQUE)\b)"
    r"[A-Za-z_][\w ]*(\(\s*[+-]?[\d.]+\s*(,\s*[+-]?[\d.]+\s*)?\))?",
    re.IGNORECASE,
)
_COLLATIONS = ("BINARY", "NOCASE", "RTRIM")  # every program has them
_ENCODING = sa.text("SELECT encoding FROM pragma_encoding")
_FIND = sa.text(
    "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name = :table COLLATE NOCASE"
    " ORDER BY name <> :table LIMIT 1"
)
_HAS_ODD_INDEX = sa.text(
    "SELECT 1 FROM pragma_index_list(:table) AS i, pragma_index_xinfo(i.name) AS x"  # noqa: S608 - a constant
    f" WHERE upper(x.coll) NOT IN {_COLLATIONS} LIMIT 1"
)
REFERENCES = sa.text(
    """
    SELECT f.id + 1, NULL, m.name, f.on_delete, f."from", f."to"
    FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f
    WHERE m.type = 'table' AND lower(f."table") = lower(:table) AND coalesce(:schema, 'main') = 'main'
    ORDER BY m.name, f.id, f.seq
    """
)

_NAMES_COLLATION = sa.text("SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%COLLATE%'")
_TEXTS = "UNION SELECT 'a' UNION SELECT 'A' UNION SELECT 'b' UNION SELECT 'b ' UNION SELECT 'b  '"
_TOLD_APART = {5: "BINARY", 4: "NOCASE", 3: "RTRIM"}  # of these texts, so many

DELETE_TRIGGERS = sa.text(
    "SELECT name FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = lower(:table)"
    " AND coalesce(:schema, 'main') = 'main' AND sql LIKE '%DELETE%ON%'"
)


WRITE_TRIGGERS = sa.text(
    "SELECT '', tbl_name, name FROM sqlite_master WHERE type = 'trigger'"
    " AND (sql LIKE '%INSERT%ON%' OR sql LIKE '%UPDATE%ON%') ORDER BY 2, 3"
)


def find(cx: sa.Connection, schema: str | None, table: str) -> TableName | None:
    """The table or view of this name; None if there is none. Only the schema `main` has tables."""
    if schema is not None and schema.lower() != "main":
        return None
    name = cx.scalar(_FIND, {"table": table})
    return None if name is None else TableName(None, name, alone=bool(cx.scalar(_HAS_ODD_INDEX, {"table": name})))


def columns(cx: sa.Connection, schema: str | None, table: str, *, is_plain: bool = False) -> list[Column]:
    """The table's columns in order; empty if there is no such table. `is_plain`: it is no view and no virtual table.
    Raises SchemaMismatch for a key sorted by a collation of its application."""
    rows = cx.execute(
        sa.text(
            'SELECT name, type, "notnull", hidden, pk, dflt_value IS NOT NULL, (SELECT encoding FROM pragma_encoding)'
            " FROM pragma_table_xinfo(:table, coalesce(:schema, 'main'))"
            " WHERE hidden <> 1 ORDER BY cid"
        ),
        {"table": table, "schema": schema},
    ).all()
    key_index = cx.execute(
        sa.text(
            "SELECT x.name, x.coll FROM pragma_index_list(:table, coalesce(:schema, 'main')) AS i,"
            " pragma_index_xinfo(i.name, coalesce(:schema, 'main')) AS x WHERE i.origin = 'pk' AND x.key = 1"
        ),
        {"table": table, "schema": schema},
    )
    encoding: str = rows[0][-1] if rows else ""
    collations = {str(name): str(collation) for name, collation in key_index}
    described = _columns(table, [row[:-1] for row in rows], collations, encoding, is_plain=is_plain)
    if not is_plain or table.lower() in _named_collations(cx):
        _check_comparison(cx, table, collations)
        described = _unlike_bytes(cx, table, described)
    return described


def _named_collations(cx: sa.Connection) -> set[str]:
    """The tables whose statement names a collation, in small letters. In all others columns and indexes have BINARY."""
    return {name.lower() for name in cx.scalars(_NAMES_COLLATION)}


def _check_comparison(cx: sa.Connection, table: str, collations: Mapping[str, str]) -> None:
    """Raises SchemaMismatch for a key column that compares texts in another way than the key's index does: a statement
    about one key would be about several rows."""
    for name, collation in collations.items():
        comparison = _comparison(cx, table, name)
        if comparison != collation.upper():
            raise SchemaMismatch(
                f"The key column {name} of {table} compares texts by {comparison}, and the index of the key by "
                f"{collation.upper()}. So a statement about one key may be about several rows. Nothing was changed.",
                hint="Make the table anew, with the same collation in the column and in its primary key.",
            )


def _unlike_bytes(cx: sa.Connection, table: str, read: Sequence[Column]) -> list[Column]:
    """The columns. Outside of the primary key, one that does not compare texts by their bytes is not sortable: a copy
    would take keys for two that are one here."""
    return [
        column
        if column.key_position or _comparison(cx, table, column.name) == "BINARY"
        else replace(column, sortable=False)
        for column in read
    ]


def _comparison(cx: sa.Connection, table: str, name: str) -> str:
    """By what the column compares texts. No pragma tells a column's collation; a UNION uses it."""
    quote = cx.dialect.identifier_preparer.quote_identifier  # SQLAlchemy does not know every word of SQLite
    apart = f"SELECT count(*) FROM (SELECT {quote(name)} FROM {quote(table)} WHERE 0 {_TEXTS})"  # noqa: S608 - names
    try:
        [[number]] = asked_plainly(cx, apart)
    except sa.exc.DBAPIError as error:
        unknown = str(error.orig).partition("no such collation sequence: ")[2]
        if not unknown:
            raise
        return unknown
    return _TOLD_APART[number]


def sorted_alike(cx: sa.Connection, originals: Sequence[Column], key_names: Sequence[str]) -> list[Column]:
    """The columns of another file, which this file sorts alike.

    Raises SchemaMismatch for a key that may be a text where the two files have texts of different encodings. SQLite
    sorts texts by their bytes, and no column can say otherwise.
    """
    encoding = str(cx.scalar(_ENCODING))
    for column in originals:
        sorts_by_bytes = column.name in key_names and column.collation in (None, *UTF_16)
        if sorts_by_bytes and column.collation != _byte_order(column.type.declared, encoding):
            raise SchemaMismatch(
                f"The key column {column.name} may hold texts. The source's file stores texts as "
                f"{column.collation or 'UTF-8'} and the backup's file as {encoding}, and SQLite sorts texts by their "
                "bytes. So the two files have them in different orders. Nothing was changed.",
                hint="Name a file as backup that does not exist yet. It will get the source's encoding.",
            )
    return list(originals)


def _columns(
    table: str, rows: Sequence[Any], collations: Mapping[str, str], encoding: str, *, is_plain: bool
) -> list[Column]:
    for name, collation in collations.items():
        if collation.upper() not in _COLLATIONS:
            raise SchemaMismatch(
                f"The key column {name} of {table} is sorted by {collation}, a collation of its application's own.",
                hint="Only a key sorted by BINARY, NOCASE or RTRIM can be backed up.",
            )
    if any(not name for name, *_ in rows):
        raise SchemaMismatch(
            f"{table} has a column whose name is empty, which no statement of this app can name.",
            hint="Give the column a name. Or back up a view that does.",
        )
    spelled = {name: _declared(_plain_key(row[0], name, collations), collations.get(name)) for name, *row in rows}
    return [
        Column(
            name=name,
            type=ROW_NUMBER if is_plain and position and name not in collations else type_of(spelled[name], encoding),
            nullable=not notnull and not (position and name not in collations),  # a row's number is never NULL
            key_position=position or None,
            collation=_named(collations.get(name)) or _byte_order(spelled[name], encoding),
            computed=hidden in (2, 3),
            defaulted=bool(defaulted),
            # Of a column outside of the primary key, nobody has read how it compares texts.
            spelled_once=bool(position) and _named(collations.get(name)) is None,
        )
        for name, _, notnull, hidden, position, defaulted in rows
    ]


def describe(cx: sa.Connection, schema: str | None, table: str) -> Described | None:
    """What `find` and `columns` say of the table. The statements that made the table and its indexes say all of it, so
    a second call that sees the same statements asks for nothing else. Of a view, only its name."""
    made_by = _made_by(cx, table)
    if (schema is None or schema.lower() == "main") and (kept := _described.get((table, made_by))) is not None:
        return kept
    name = find(cx, schema, table)
    if name is None:
        return None
    tables = [row for row in made_by if row[0] == "table" and not str(row[1]).startswith("CREATE VIRTUAL")]
    if not tables:
        return Described(name)
    try:
        described = Described(name, columns(cx, schema, name.name, is_plain=True), identity=tables[0][2:4])
    except BackupError as error:
        described = Described(name, error=error)
    if _made_by(cx, table) == made_by:  # else somebody has changed the table meanwhile
        _keep(_described, (table, made_by), described, TABLES_KEPT)
    return described


_MASTER = "SELECT type, sql, rowid, name, tbl_name, (SELECT encoding FROM pragma_encoding) FROM sqlite_master"
# A table's identity: its row, and its place among the tables. VACUUM numbers the rows anew, but in their order.
_OF_TABLE = """
    SELECT type, sql, rowid, CASE WHEN type = 'table' THEN
        (SELECT count(*) FROM sqlite_master o WHERE o.type = 'table' AND o.rowid < m.rowid) END,
    name, tbl_name, (SELECT encoding FROM pragma_encoding)
    FROM sqlite_master m WHERE tbl_name = ? COLLATE NOCASE
"""
_described: dict[Any, Described] = {}


def _made_by(cx: sa.Connection, table: str) -> tuple[Any, ...]:
    return tuple(asked_plainly(cx, _OF_TABLE, (table,)))


def _keep(kept: dict[Any, Facts], key: Any, facts: Facts, at_most: int) -> None:
    for oldest in [*kept][: max(0, len(kept) + 1 - at_most)]:
        kept.pop(oldest, None)
    kept[key] = facts


# Of tables alone: a view may name what was dropped, and a virtual table may need a module that this process lacks.
_ALL_COLUMNS = sa.text(
    """
    SELECT m.name, m.rowid, c.name, c.type, c."notnull", c.hidden, c.pk, c.dflt_value IS NOT NULL
    FROM sqlite_master m JOIN pragma_table_xinfo(m.name, 'main') c
    WHERE m.type = 'table' AND m.sql NOT LIKE 'CREATE VIRTUAL%' AND c.hidden <> 1
    ORDER BY m.name, c.cid
    """
)
_TABLE_ROWS = "SELECT rowid FROM sqlite_master WHERE type = 'table' ORDER BY rowid"
_ALL_INDEXES = sa.text(
    """
    SELECT m.name, x.name, x.coll, i.origin = 'pk' AND x.key = 1
    FROM sqlite_master m JOIN pragma_index_list(m.name, 'main') i JOIN pragma_index_xinfo(i.name, 'main') x
    WHERE m.type = 'table' AND m.sql NOT LIKE 'CREATE VIRTUAL%'
    """
)


def describe_all(cx: sa.Connection) -> Mapping[str, Described]:
    """What `find` and `columns` say of each table, by its name in small letters. Leaves out views and virtual
    tables."""
    return remembered(cx, _describe_all)


def _describe_all(cx: sa.Connection) -> Mapping[str, Described]:
    collations: dict[str, dict[str, str]] = {}
    odd, encoding = set(), str(cx.scalar(_ENCODING))
    for table, column, collation, is_of_key in cx.execute(_ALL_INDEXES):
        if str(collation or "BINARY").upper() not in _COLLATIONS:
            odd.add(table)
        if is_of_key:
            collations.setdefault(table, {})[column] = collation
    described, named = {}, _named_collations(cx)
    places = {row: place for place, (row,) in enumerate(asked_plainly(cx, _TABLE_ROWS))}
    for (table, number), rows in groupby(cx.execute(_ALL_COLUMNS).all(), key=lambda row: (str(row[0]), row[1])):
        name = TableName(None, table, alone=table in odd)
        try:
            read = _columns(table, [row[2:] for row in rows], collations.get(table, {}), encoding, is_plain=True)
            if table.lower() in named:
                _check_comparison(cx, table, collations.get(table, {}))
                read = _unlike_bytes(cx, table, read)
            described[table.lower()] = Described(name, read, identity=(number, places[number]))
        except BackupError as error:
            described[table.lower()] = Described(name, error=error)
    return described


def remembered(cx: sa.Connection, read: Callable[[sa.Connection], Facts]) -> Facts:
    """What `read` reads of the catalogue. The statements that made the file's tables and its encoding say all of it, so
    a second call that sees the same ones reads nothing else."""
    key = read, _master(cx)
    facts: Facts | None = _remembered.get(key)
    if facts is not None:
        return facts
    facts = read(cx)
    if _master(cx) == key[1]:  # else somebody has changed a table meanwhile
        _keep(_remembered, key, facts, _REMEMBERED_AT_MOST)
    return facts


_REMEMBERED_AT_MOST = 8
_remembered: dict[tuple[Callable[[sa.Connection], Any], tuple[Any, ...]], Any] = {}


def _master(cx: sa.Connection) -> tuple[Any, ...]:
    """The rows of sqlite_master. A connection that has read them reads them again only if the file's schema version has
    changed: by that SQLite itself knows whether what the connection has read of the schema still counts."""
    driver: Any = cx.connection.driver_connection
    [[version]] = asked_plainly(cx, "PRAGMA schema_version")
    if driver.catalog is None or driver.catalog[0] != version:
        driver.catalog = version, tuple(asked_plainly(cx, _MASTER))
    rows: tuple[Any, ...] = driver.catalog[1]
    return rows


def _declared(declared: str, collation: str | None) -> str:
    plain = re.sub(r"\s*GENERATED ALWAYS.*", "", declared, flags=re.I).strip()
    # A column without a plain type, or of the STRICT type ANY, stores each value with its own type.
    if plain.upper() == "ANY" or not _PLAIN_TYPE.fullmatch(plain):
        plain = ""
    return f"{plain} COLLATE {collation}" if _named(collation) else plain


def _plain_key(declared: str, name: str, indexed: Mapping[str, str]) -> str:
    """The type that a copy declares. INTEGER would make a single key column the row's number, which cannot be a text.
    A key with its own index is not the row's number: INT keeps it so in the copy."""
    return "INT" if [*indexed] == [name] and declared.upper() == "INTEGER" else declared


def _byte_order(declared: str, encoding: str) -> str | None:
    """What sorts a column's texts by their bytes in a file that is not UTF-8: its encoding; else None."""
    return encoding if encoding in UTF_16 and not holds_numbers(declared) else None


def _named(collation: str | None) -> str | None:
    return None if collation == "BINARY" else collation  # a key without its own index has BINARY too
