"""Relays rows from one SQLite file to another: the source's is attached, only to be read, and SQLite copies the rows.

The rows stay what they are: a value that SQLite has stored in a column fits a column of the same affinity unchanged.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from backup.stores.sql.engines.relayed import RelayedRows
from backup.stores.sql.engines.tables import refusing

_ATTACHED = "relay_source"


def relay_rows(cx: sa.Connection, rows: RelayedRows, source: str) -> int | None:
    """Inserts the rows and returns their number; None where a condition may name tables, which SQLite would look for
    in the copy's file first. `source` is the name of the file to attach."""
    if rows.own_condition:
        return None
    if not cx.info.get(_ATTACHED):
        cx.exec_driver_sql(f"ATTACH ? AS {_ATTACHED}", (source,))
        cx.info[_ATTACHED] = True
    values = [column for column, _ in rows.columns]
    marked = [] if rows.mark is None else [sa.literal(rows.mark[1])]
    query = sa.select(*values, *marked).where(*rows.conditions).order_by(*rows.key)
    insert = refusing(_in_main(rows.copy).insert()).from_select(rows.names, query, include_defaults=False)
    return cx.execute(insert, execution_options={"schema_translate_map": {None: _ATTACHED}}).rowcount


def detach(connection: Any, record: Any) -> None:
    """Lets go of the file that a connection has read. A listener of SQLAlchemy's pool event `checkin`."""
    if record.info.pop(_ATTACHED, False) and connection is not None:  # None: it was lost or interrupted, and is closed
        try:
            connection.execute(f"DETACH {_ATTACHED}")
        except sqlite3.Error:
            record.invalidate()


@lru_cache(maxsize=64)  # the same object each time, so that its statements are compiled once
def _in_main(table: sa.Table) -> sa.Table:
    """The table, said to be in the connection's own file. Tables without a schema are in the attached one."""
    return table.to_metadata(sa.MetaData(), schema="main")
