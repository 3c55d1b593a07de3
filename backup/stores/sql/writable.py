"""Asks a server whether it would take a change of a table, without making one."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import sqlalchemy as sa

from backup.core.errors import RightMissing
from backup.core.model import Action
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.engines.base import PlannedWrite
from backup.stores.sql.table import TableShape


def refuse_unwritable(access: SqlAccess, shape: TableShape, actions: Collection[Action]) -> None:
    """Raises what the server says of the first of these actions that it refuses for the table as a whole: a right that
    is missing, and, but for SQL Server, a view that cannot be written."""
    dialect = access.dialect
    for action, write in _writes(shape, dialect.engine.dialect):
        if action not in actions:
            continue
        operation = "delete records" if action is Action.DELETED else "write records"
        for attempt in access.attempts(operation):
            with attempt as cx:
                refused = dialect.refusal(cx, shape.table, write)
        if refused is not None:
            raise RightMissing(f"Could not {operation} in the {access.label}: {refused.text}", hint=refused.hint)


def _writes(shape: TableShape, dialect: sa.Dialect) -> Iterator[tuple[Action, PlannedWrite]]:
    """For each action a statement that needs the same rights."""
    table, spelled = shape.table, dialect.identifier_preparer.format_table(shape.table)
    yield Action.INSERTED, PlannedWrite("INSERT", f"INSERT INTO {spelled} DEFAULT VALUES")
    plain = [c for c in shape.columns if shape.may_write(c) and not (c.identity or c.name in shape.key_names)]
    if plain:
        column = table.c[(shape.own_deleted or plain[0]).name]
        update = str(table.update().values({column: column}).where(sa.false()).compile(dialect=dialect))
        write = PlannedWrite("UPDATE", update, column.name)
        yield Action.UPDATED, write
        if shape.keeps_deleted:
            yield Action.DELETED, write
    if not shape.keeps_deleted:
        delete = table.delete().where(sa.false())
        yield Action.DELETED, PlannedWrite("DELETE", str(delete.compile(dialect=dialect)))
