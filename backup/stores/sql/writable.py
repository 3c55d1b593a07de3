"""Asks a server whether it would take a change of a table, without making one."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import sqlalchemy as sa

from backup.core.model import Action
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.table import TableShape


def refuse_unwritable(access: SqlAccess, shape: TableShape, actions: Collection[Action]) -> None:
    """Raises what the server says of the first of these actions that it refuses for the table as a whole: a view that
    cannot be written, a right that is missing. Fires no trigger and locks no row, for the statements are only planned.
    Asks nothing where the server cannot plan one without running it (`Dialect.explains`)."""
    dialect = access.dialect
    if not dialect.explains:
        return
    for action, text in _statements(shape, dialect.engine.dialect):
        if action not in actions:
            continue
        for attempt in access.attempts("delete records" if action is Action.DELETED else "write records"):
            with attempt as cx:
                cx.exec_driver_sql(f"{dialect.explains} {text}")


def _statements(shape: TableShape, dialect: sa.Dialect) -> Iterator[tuple[Action, str]]:
    """For each action a statement that needs the same rights."""
    table, spelled = shape.table, dialect.identifier_preparer.format_table(shape.table)
    yield Action.INSERTED, f"INSERT INTO {spelled} DEFAULT VALUES"
    plain = [c for c in shape.columns if shape.may_write(c) and not (c.identity or c.name in shape.key_names)]
    if plain:
        column = table.c[(shape.own_deleted or plain[0]).name]
        update = str(table.update().values({column: column}).where(sa.false()).compile(dialect=dialect))
        yield Action.UPDATED, update
        if shape.keeps_deleted:
            yield Action.DELETED, update
    if not shape.keeps_deleted:
        yield Action.DELETED, str(table.delete().where(sa.false()).compile(dialect=dialect))
