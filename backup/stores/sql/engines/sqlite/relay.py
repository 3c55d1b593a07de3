"""Relays rows from one SQLite file to another: the source's is attached, only to be read, and SQLite copies the rows.

The rows stay what they are: a value that SQLite has stored in a column fits a column of the same affinity unchanged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from backup.stores.sql.engines.column import spelled_column, spelled_table
from backup.stores.sql.engines.relayed import Relayed, RelayedRows, StagedRows
from backup.stores.sql.engines.tables import TableAlone, refusing

ATTACHED = "relay_source"
"""The name by which a connection knows the file that it has attached."""

STAGED = "backup_changes"
"""The name of the temporary table."""
_SPELLING = SQLiteDialect()


def relay_rows(cx: sa.Connection, rows: RelayedRows, source: str) -> Relayed | None:
    """Inserts the rows; None where a condition may name tables, which SQLite would look for in the copy's file first.
    `source` is the name of the file to attach."""
    if rows.own_condition:
        return None
    if rows.apart:
        staged = stage_rows(cx, rows, source)
        return None if staged is None else Relayed(_insert_staged(cx, rows, staged.table))
    driver: Any = cx.connection.driver_connection
    before = driver.total_changes  # which also counts what triggers and foreign keys change
    number = _insert(cx, rows, source, in_main(rows.copy), rows.names)
    return Relayed(number, alone=driver.total_changes - before == number)


def stage_rows(cx: sa.Connection, rows: RelayedRows, source: str) -> StagedRows | None:
    """As `relay_rows`, but into a temporary table, which ends when the connection is given back. None also where the
    copy has its name, and where no index of the copy may be used to find its rows."""
    if rows.own_condition or isinstance(rows.copy, TableAlone):
        return None
    with _outside(cx) if rows.apart else nullcontext():
        staged = empty_staging_table(cx, rows.copy, tuple(rows.names))
        number = 0 if staged is None else _insert(cx, rows, source, staged, staged.columns.keys())
    return None if staged is None else StagedRows(staged, number)


@contextmanager
def _outside(cx: sa.Connection) -> Iterator[None]:
    """Ends the transaction, in which nothing was done yet, and begins it anew behind the block. It has no lock on the
    file that the block has attached: IMMEDIATE would lock that one, too."""
    driver: Any = cx.connection.driver_connection
    cx.exec_driver_sql("COMMIT")
    yield
    if driver.in_transaction:  # the driver begins one before it writes
        cx.exec_driver_sql("COMMIT")
    if cx.info.pop(ATTACHED, False):
        cx.exec_driver_sql(f"DETACH {ATTACHED}")
    cx.exec_driver_sql("BEGIN IMMEDIATE")


def empty_staging_table(
    cx: sa.Connection, copy: sa.Table, names: tuple[str, ...], *, with_text: bool = False
) -> sa.Table | None:
    """Makes a temporary table for these columns of the copy. `with_text`: and with a last column for texts. None where
    the copy has its name."""
    if copy.name.lower() == STAGED:
        return None
    cx.exec_driver_sql(f"DROP TABLE IF EXISTS temp.{STAGED}")
    spelled = [f"{spelled_column(_SPELLING, copy, name)} AS c{place}" for place, name in enumerate(names)]
    spelled += [f"CAST(NULL AS TEXT) AS c{len(names)}"] if with_text else []
    table = spelled_table(_SPELLING, in_main(copy))
    cx.exec_driver_sql(f"CREATE TEMP TABLE {STAGED} AS SELECT {', '.join(spelled)} FROM {table} WHERE 0")  # noqa: S608 - names
    cx.info[STAGED] = True
    return _staging_table(copy, names, with_text)


def _insert_staged(cx: sa.Connection, rows: RelayedRows, staged: sa.Table) -> int:
    insert = refusing(in_main(rows.copy).insert()).from_select(
        rows.names, sa.select(*staged.columns), include_defaults=False
    )
    return cx.execute(insert.execution_options(preserve_rowcount=True)).rowcount


def _insert(cx: sa.Connection, rows: RelayedRows, source: str, table: sa.Table, names: Sequence[str]) -> int:
    attach(cx, source)
    values = [column for column, _ in rows.columns]
    marked = [] if rows.mark is None else [sa.literal(rows.mark[1])]
    query = sa.select(*values, *marked).where(*rows.conditions).order_by(*rows.key)
    insert = refusing(table.insert()).from_select([*names], query, include_defaults=False)
    return cx.execute(insert, execution_options={"schema_translate_map": {None: ATTACHED}}).rowcount


def attach(cx: sa.Connection, source: str) -> None:
    """Attaches the file of this name, until the connection is given back."""
    if not cx.info.get(ATTACHED):
        cx.exec_driver_sql(f"ATTACH ? AS {ATTACHED}", (source,))
        cx.info[ATTACHED] = True


def detach(connection: Any, record: Any) -> None:
    """Lets go of the file that a connection has read, and of the rows that it has staged. A listener of SQLAlchemy's
    pool event `checkin`."""
    is_staged, is_attached = record.info.pop(STAGED, False), record.info.pop(ATTACHED, False)
    if connection is None:  # it was lost or interrupted, and is closed
        return
    try:
        if is_staged:
            connection.execute(f"DROP TABLE IF EXISTS temp.{STAGED}")
        if is_attached:
            connection.execute(f"DETACH {ATTACHED}")
    except sqlite3.Error:
        record.invalidate()


@lru_cache(maxsize=64)  # the same object each time, so that its statements are compiled once
def in_main(table: sa.Table) -> sa.Table:
    """The table, said to be in the connection's own file. Tables without a schema are in the attached one."""
    return table.to_metadata(sa.MetaData(), schema="main")


@lru_cache(maxsize=64)
def _staging_table(table: sa.Table, names: tuple[str, ...], with_text: bool) -> sa.Table:
    """A temporary table for these columns of the table, of the same affinities."""
    types = [*(table.c[name].type for name in names), *([sa.Text()] if with_text else [])]
    columns = (sa.Column(f"c{place}", type_) for place, type_ in enumerate(types))
    return sa.Table(STAGED, sa.MetaData(), *columns, schema="temp")
