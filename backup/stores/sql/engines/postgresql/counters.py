"""Sets PostgreSQL's sequences, which number a table's new rows, to its largest key."""

from __future__ import annotations

from contextlib import suppress

import sqlalchemy as sa

from backup.stores.sql.engines.column import spelled_table
from backup.stores.sql.engines.postgresql.copy import SPELLING

# The sequences of identity columns, serial columns, and of defaults that take the next value of a sequence.
_SEQUENCES = sa.text(
    """
    SELECT DISTINCT a.attname, n.nspname, s.relname, q.seqincrement > 0
    FROM pg_attribute a
    LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
    JOIN pg_depend d
      ON (d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid
          AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i'))
      OR (d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass)
    JOIN pg_class s ON s.oid IN (d.objid, d.refobjid) AND s.relkind = 'S'
    JOIN pg_namespace n ON n.oid = s.relnamespace
    JOIN pg_sequence q ON q.seqrelid = s.oid
    WHERE a.attrelid = (SELECT t.oid FROM pg_class t JOIN pg_namespace m ON m.oid = t.relnamespace
                        WHERE t.relname = :table AND m.nspname = :schema)
    """
)

_SET = sa.text("SELECT setval(CAST(CAST(:name AS text) AS regclass), :far)")


def advance(cx: sa.Connection, table: sa.Table, schema: str) -> list[str]:
    """Sets the sequences that are behind the largest value of their column. Returns what it set, in words."""
    changes = []
    for name, sequence_schema, sequence_name, ascends in cx.execute(
        _SEQUENCES, {"table": table.name, "schema": table.schema or schema}
    ).all():
        column = table.c[name]
        farthest = cx.scalar(sa.select(sa.func.max(column) if ascends else sa.func.min(column)))
        sequence = sa.table(sequence_name, sa.column("last_value"), sa.column("is_called"), schema=sequence_schema)
        last, is_called = cx.execute(sa.select(sequence.c.last_value, sequence.c.is_called)).one()
        with suppress(ValueError):  # the column holds the number inside a text
            far = last if farthest is None else int(farthest)
            beyond = far > last if ascends else far < last
            if beyond or (far == last and not is_called and farthest is not None):
                spelled = spelled_table(SPELLING, sa.Table(sequence_name, sa.MetaData(), schema=sequence_schema))
                cx.execute(_SET, {"name": spelled, "far": far})
                changes.append(f"sequence {spelled} to {far}")
    return changes
