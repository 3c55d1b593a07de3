"""Relays rows from one database of a SQL Server to another one of it: INSERT … SELECT by the full name of the source.

Only where the backup's session is the same login on the same server as the source's. Then it sees what that one sees,
and no mask makes a difference. Only between columns of one type and collation: then the server converts nothing.
A restore goes the other way, and by a temporary table: while it writes, it holds no lock of the backup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.sql import visitors

from backup.stores.sql.engines.column import spelled_column, spelled_table
from backup.stores.sql.engines.mssql.altering import MSSQL
from backup.stores.sql.engines.mssql.counters import own_identities
from backup.stores.sql.engines.mssql.json import JSON
from backup.stores.sql.engines.relayed import Relayed, RelayedRows, StagedRows
from backup.stores.sql.engines.tables import send_ddl

# The number of a login is NULL if only a database knows it, or a group that it belongs to.
_HERE = sa.text("SELECT CAST(SERVERPROPERTY('ServerName') AS nvarchar(128)), SUSER_ID()")
# No view: it may say other things in another database. No Azure SQL Database (5) and the like: it reaches no other one.
# No source that is read under SNAPSHOT: the backup's transaction would read it by locks.
_THERE = sa.text(
    """
    SELECT CAST(SERVERPROPERTY('ServerName') AS nvarchar(128)), SUSER_ID(), CAST(DB_NAME() AS nvarchar(128))
    FROM sys.databases d
    JOIN sys.tables t ON t.name = :table
    JOIN sys.schemas s ON s.schema_id = t.schema_id AND s.name = :schema
    WHERE d.database_id = DB_ID() AND (d.is_read_committed_snapshot_on = 1 OR d.snapshot_isolation_state <> 1)
      AND CAST(SERVERPROPERTY('EngineEdition') AS int) IN (2, 3, 4, 8)
    """
)


_STAGED = "#backup_changes"


def relay_rows(cx: sa.Connection, rows: RelayedRows) -> Relayed | None:
    """Inserts the rows; None, and nothing was done, where this session may not read them as the source's own does."""
    read = _readable(cx, rows)
    if read is None:
        return None
    if rows.apart:
        read = _Read(sa.select(*_staged(cx, rows, read).table.columns))
    with own_identities(cx, spelled_table(MSSQL, rows.copy)) if rows.identity else nullcontext():
        return Relayed(_insert(cx, rows.copy, rows.names, read))


def stage_rows(cx: sa.Connection, rows: RelayedRows) -> StagedRows | None:
    """As `relay_rows`, but into a temporary table. A session keeps it until it stages again, or ends.

    None also for copies that a restore writes over other rows: what comes of it is compared by hashes of all values,
    which costs the server more than the whole of it costs this process.
    """
    are_copies = isinstance(rows.columns[0][0].table, sa.Table)
    read = None if rows.apart and are_copies else _readable(cx, rows)
    return None if read is None else _staged(cx, rows, read)


class _Read(NamedTuple):
    """The query of rows. Its tables have the schemas that the map names in place of theirs."""

    query: sa.Select[Any]
    schemas: Mapping[str, str] = MappingProxyType({})


def _staged(cx: sa.Connection, rows: RelayedRows, read: _Read) -> StagedRows:
    staged = empty_staging_table(cx, rows.copy, tuple(rows.names), identity=rows.identity)
    return StagedRows(staged, _insert(cx, staged, staged.columns.keys(), read))


def empty_staging_table(
    cx: sa.Connection, copy: sa.Table, names: tuple[str, ...], *, with_text: bool = False, identity: bool = False
) -> sa.Table:
    """Makes a temporary table with columns of the types of these ones of the copy, and no rows. `with_text`: and with a
    text of any length behind them. `identity`: one of them numbers new rows in the copy, but shall not do so here. A
    session keeps it until it makes it again, or ends."""
    columns = [f"{spelled_column(MSSQL, copy, name)} AS c{place}" for place, name in enumerate(names)]
    columns += [f"CAST(N'' AS {JSON.declared}) AS c{len(names)}"] if with_text else []
    selected, table = f"SELECT TOP 0 {', '.join(columns)}", spelled_table(MSSQL, copy)
    union = f" UNION ALL {selected} FROM {table}" if identity else ""  # a column of a union numbers nothing
    send_ddl(cx, f"DROP TABLE IF EXISTS {_STAGED}")
    send_ddl(cx, f"{selected} INTO {_STAGED} FROM {table}{union}")
    return _staging_table(copy, names, with_text=with_text)


@lru_cache(maxsize=64)  # the same object each time, so that its statements are compiled once
def _staging_table(copy: sa.Table, names: tuple[str, ...], *, with_text: bool) -> sa.Table:
    types = [*(copy.c[name].type for name in names), *([JSON] if with_text else [])]
    return sa.Table(_STAGED, sa.MetaData(), *(sa.Column(f"c{place}", type_) for place, type_ in enumerate(types)))


def _insert(cx: sa.Connection, table: sa.Table, names: Sequence[str], read: _Read) -> int:
    insert = table.insert().from_select([*names], read.query, include_defaults=False)
    options = {"preserve_rowcount": True, "schema_translate_map": {**read.schemas}}
    return cx.execute(insert, execution_options=options).rowcount


def _readable(cx: sa.Connection, rows: RelayedRows) -> _Read | None:
    """The query of the rows by the full name of their table, where this session reads them as they are."""
    if rows.own_condition or not all(_are_alike(*pair) for pair in rows.columns):
        return None
    database = _database_of(cx, rows)
    if database is None:
        return None
    if not rows.apart:
        return _Read(_selected(rows, database))
    # It goes into a temporary table, which has no schema.
    values, schema = [column for column, _ in rows.columns], str(rows.original.schema)
    return _Read(sa.select(*values).where(*rows.conditions), {schema: f"[{database}].[{schema}]"})


def _are_alike(column: sa.Column[Any], copy: sa.Column[Any]) -> bool:
    declared: str = column.type.declared  # type: ignore[attr-defined] # a ServerType
    copied: str = copy.type.declared  # type: ignore[attr-defined]
    return declared.lower() == copied.lower()


def _database_of(cx: sa.Connection, rows: RelayedRows) -> str | None:
    """The name of the source's database, if this session reaches it as the source's own session does."""
    table = rows.original
    schema = str(table.schema)
    with rows.reading() as source_cx:
        there = source_cx.execute(_THERE, {"table": table.name, "schema": schema}).first()
    if there is None:
        return None
    server, login, database = there
    is_spelled = not {*"[]."} & {*database, *schema}
    is_same = None not in (server, login) and cx.execute(_HERE).one() == (server, login)
    return str(database) if is_spelled and is_same else None


def _selected(rows: RelayedRows, database: str) -> sa.Select[Any]:
    """The rows with the values of the copy's columns, by the full name of the source's table."""
    table = rows.original
    original = table.to_metadata(sa.MetaData(), schema=f"[{database}].[{table.schema}]").alias("original")

    def of_original(element: Any, **_: Any) -> Any:
        return original.c[element.name] if isinstance(element, sa.Column) and element.table is table else None

    values = [original.c[column.name] for column, _ in rows.columns]
    marked = [] if rows.mark is None else [sa.literal(rows.mark[1], rows.mark[0].type)]
    conditions = [visitors.replacement_traverse(condition, {}, of_original) for condition in rows.conditions]
    return sa.select(*values, *marked).select_from(original).where(*conditions)
