"""The identity of a SQL Server table, set past its largest key."""

from __future__ import annotations

import sqlalchemy as sa

from backup.stores.sql.engines.column import spelled_table


def advance(cx: sa.Connection, table: sa.Table, identity: str, spelling: sa.Dialect) -> list[str]:
    """Sets the identity if it lags behind the largest value of its column; returns what was set, in words.

    Rows inserted with values of their own have moved it, unless somebody has set it back since.
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
    unicode = "" if quoted.isascii() else "N"  # which not every server that speaks T-SQL takes here
    statement = f"DBCC CHECKIDENT ({unicode}'{quoted}', RESEED, {far})"
    cx.exec_driver_sql(statement, execution_options={"no_parameters": True})
    return [f"identity of {name} to {far}"]
