"""Sets the identity of a SQL Server table, which numbers its new rows, to its largest key."""

from __future__ import annotations

import sqlalchemy as sa

from backup.stores.sql.engines.column import spelled_table


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
