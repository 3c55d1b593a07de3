"""Rows of an attached file, written over those of a table by one statement that reads them where they are.

A temporary table would hold each of them twice more. SQLite finds the row with the same number while it inserts one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.sql.visitors import replacement_traverse

from backup.stores.sql.engines.relayed import RelayedRows, StagedRows
from backup.stores.sql.engines.sqlite.relay import ATTACHED, STAGED, attach, in_main
from backup.stores.sql.engines.sqlite.types import affinity_of
from backup.stores.sql.engines.tables import TableAlone, refusing

_STANDS_IN_THE_WAY = """
SELECT name FROM pragma_index_list(?1, 'main') WHERE "unique"
UNION ALL SELECT name FROM main.sqlite_master
WHERE tbl_name = ?1 COLLATE NOCASE AND (type IN ('trigger', 'view') OR sql LIKE 'CREATE VIRTUAL%')
"""
_COLUMNS = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden NOT IN (2, 3)"


def overlay_rows(cx: sa.Connection, rows: RelayedRows, source: str, number: int | None) -> StagedRows | None:
    """As `Dialect.overlay`. `source` is the name of the file to attach.

    None unless the key of both tables is the row's number. Then the number says which row is which, whatever is in it.
    None also where the insert of a row that is there might do something else than its update: where the table has a
    trigger or another unique index, a column that gets no value, or one of another affinity.
    """
    pairs = dict(rows.columns)
    if rows.own_condition or isinstance(rows.copy, TableAlone) or rows.copy.name.lower() == STAGED:
        return None
    if len(rows.key) != 1 or rows.key[0] not in pairs:
        return None
    [original] = rows.key
    key = pairs[original]
    are_numbers = all(column.type.is_row_number for column in (original, key))  # type: ignore[attr-defined] # a ServerType
    are_alike = all(affinity_of(left) == affinity_of(right) for left, right in rows.columns)
    if not (are_numbers and are_alike and len(rows.names) > 1 and _may_be_inserted(cx, rows)):
        return None
    attach(cx, source)
    attached = _attached(original.table)

    def there(element: Any, **_: Any) -> Any:
        is_column = isinstance(element, sa.Column) and element.table is original.table
        return attached.c[element.key] if is_column else None

    conditions = [replacement_traverse(condition, {}, there) for condition in rows.conditions]
    values: list[Any] = [attached.c[column.key] for column, _ in rows.columns]
    values += [] if rows.mark is None else [sa.literal(rows.mark[1], rows.mark[0].type)]
    query = sa.select(*(value.label(f"c{place}") for place, value in enumerate(values))).where(*conditions)

    def put(cx: sa.Connection) -> int:
        insert: Any = refusing(sqlite_insert(in_main(rows.copy)))
        insert = insert.from_select(rows.names, query.order_by(attached.c[original.key]), include_defaults=False)
        others = {name: insert.excluded[name] for name in rows.names if name != key.name}
        upsert = insert.on_conflict_do_update(index_elements=[key.name], set_=others)
        return cx.execute(upsert.execution_options(preserve_rowcount=True)).rowcount

    if number is None:
        number = cx.execute(sa.select(sa.func.count()).select_from(attached).where(*conditions)).scalar_one()
    beside: Any = query.subquery(STAGED)
    return StagedRows(beside, number, put)


def _may_be_inserted(cx: sa.Connection, rows: RelayedRows) -> bool:
    """Whether nothing stands in the way of an insert, and each column of the table gets a value."""
    table = (rows.copy.name,)
    if cx.exec_driver_sql(_STANDS_IN_THE_WAY, table).first() is not None:
        return False
    return {name.lower() for (name,) in cx.exec_driver_sql(_COLUMNS, table)} == {name.lower() for name in rows.names}


@lru_cache(maxsize=64)  # the same object each time, so that its statements are compiled once
def _attached(table: sa.Table) -> sa.Table:
    """The table, said to be in the attached file."""
    return table.to_metadata(sa.MetaData(), schema=ATTACHED)
