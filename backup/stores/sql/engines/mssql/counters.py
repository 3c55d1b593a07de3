"""Identity columns of SQL Server, which number new rows: their counters, and inserts with numbers of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from backup.stores.sql.engines.column import spelled_table
from backup.stores.sql.engines.tables import send_ddl

_LEFT_ON = "identity insert"


def advance(cx: sa.Connection, table: sa.Table, identity: str, spelling: sa.Dialect) -> list[str]:
    """Sets the identity if it is behind the largest value of its column. Returns what it set, in words.

    Usually nothing is to do: rows inserted with their own values move the identity. But somebody may have set it back.
    """
    name = spelled_table(spelling, table)
    current, step = cx.execute(
        sa.text("SELECT CAST(IDENT_CURRENT(:name) AS bigint), CAST(IDENT_INCR(:name) AS bigint)"), {"name": name}
    ).one()
    column = table.c[identity]
    farthest = cx.scalar(sa.select(sa.func.max(column) if (step or 1) > 0 else sa.func.min(column)))
    if farthest is None or current is None:
        return []
    far = int(farthest)
    if far <= current if (step or 1) > 0 else far >= current:
        return []
    quoted = name.replace("'", "''")
    unicode = "" if quoted.isascii() else "N"  # not every server that speaks T-SQL takes an N here
    statement = f"DBCC CHECKIDENT ({unicode}'{quoted}', RESEED, {far})"
    cx.exec_driver_sql(statement, execution_options={"no_parameters": True})
    return [f"identity of {name} to {far}"]


@contextmanager
def own_identities(cx: sa.Connection, table: str) -> Iterator[None]:
    """Lets the session insert values into the identity column of this table, and of no other, within the block.

    A session remembers one such table, also after its transaction, and a connection of the pool has other users. After
    an error the next block on the connection takes that back. By then the table may be renamed or dropped, so it is
    looked up first.
    """
    if (left := cx.info.pop(_LEFT_ON, None)) is not None:
        named = left.replace("'", "''")
        send_ddl(cx, f"IF OBJECT_ID(N'{named}') IS NOT NULL SET IDENTITY_INSERT {left} OFF")
    cx.info[_LEFT_ON] = table
    send_ddl(cx, f"SET IDENTITY_INSERT {table} ON")
    yield
    send_ddl(cx, f"SET IDENTITY_INSERT {table} OFF")
    del cx.info[_LEFT_ON]
