"""What forbids a delete: rows of other tables that the delete would change, and triggers. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.core.errors import ConstraintRefused
from backup.core.model import Key
from backup.core.suggestions import quantity
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.tables import whole_schema
from backup.stores.sql.table import TableShape

_REFUSES = {"NO ACTION", "RESTRICT"}


class Reference(NamedTuple):
    """A foreign key. `schema` and `table` are those of the table that has it; `whole`: the same, or of a partition
    those of the whole table.

    `columns` pairs each of its columns with the column that it refers to. `action` says what a delete of a row does to
    the rows that refer to it: the foreign key's ON DELETE.
    """

    name: str
    schema: str | None
    table: str
    columns: tuple[tuple[str, str], ...]
    action: str
    whole: tuple[str | None, str]

    def __str__(self) -> str:
        place = f"{self.schema}.{self.table}" if self.schema else self.table
        return f"{place} (foreign key {self.name}, ON DELETE {self.action})"


def references_to(cx: sa.Connection, dialect: Dialect, shape: TableShape) -> list[Reference]:
    """The foreign keys that point to the table; read once while the store is open."""
    if shape.references is not None:
        return [*shape.references]
    schema = shape.table.schema or dialect.default_schema
    rows = cx.execute(dialect.references, {"table": shape.table.name, "schema": schema}).all()
    references = []
    for (name, schema, table, action, whole), rows_of_key in groupby(
        rows, lambda row: (*row[:4], tuple(row[6:]) or tuple(row[1:3]))
    ):
        pairs = tuple((row[4], row[5] or shape.key_names[place]) for place, row in enumerate(rows_of_key))
        references.append(Reference(str(name), schema, table, pairs, action.replace("_", " ").upper(), whole))
    shape.references = references
    return references


def would_change(reference: Reference, dialect: Dialect) -> bool:
    """Whether a delete of a row changes the rows that refer to it, instead of being refused by the server.

    On SQLite always: the app's connections enforce no foreign key, so those rows would refer to nothing.
    """
    return dialect.in_process or reference.action not in _REFUSES


def is_of_itself(reference: Reference, dialect: Dialect, shape: TableShape) -> bool:
    """Whether the table refers to itself."""
    schema = shape.table.schema or dialect.default_schema
    return (reference.schema, reference.table.lower()) == (schema, shape.table.name.lower())


def refuse_to_touch_others(
    cx: sa.Connection, shape: TableShape, dialect: Dialect, keys: Sequence[Key], *, stays: bool = False
) -> None:
    """Raises ConstraintRefused if deleting the rows of these keys would change other rows, which refer to them.

    `stays`: the rows are inserted again with the same keys, in the same transaction.
    """
    for reference in references_to(cx, dialect, shape):
        if not would_change(reference, dialect) or (stays and dialect.in_process):
            continue
        if count := referring(cx, reference, dialect, shape, keys):
            referring_rows = quantity(count, f"row of {reference} refers", f"rows of {reference} refer")
            raise ConstraintRefused(
                f"{referring_rows} to rows to delete in the {shape.label}. The delete would change them as well.",
                hint="Nothing of this batch was deleted. Delete or change those rows first.",
            )


def refuse_replacing(cx: sa.Connection, shape: TableShape, dialect: Dialect) -> None:
    """Raises ConstraintRefused if the table has triggers on delete: its rows cannot be deleted and inserted again."""
    if names := triggers_on_delete(cx, shape, dialect):
        raise ConstraintRefused(
            f"Records of the {shape.label} can only be written if they are deleted first, and the table has triggers "
            f"on delete: {', '.join(names)}.",
            hint="Nothing of this batch was written. Write these records by hand, or disable the triggers meanwhile.",
        )


def triggers_on_delete(cx: sa.Connection, shape: TableShape, dialect: Dialect) -> list[str]:
    """The names of the table's triggers that a delete fires."""
    table = {"table": shape.table.name, "schema": shape.table.schema or dialect.default_schema}
    return [str(name) for name in cx.scalars(dialect.delete_triggers, table)]


def unique_columns(cx: sa.Connection, shape: TableShape) -> list[set[str]]:
    """The columns of each unique constraint and unique index of the table, without its primary key."""
    inspector, (name, schema) = sa.inspect(cx), (shape.table.name, shape.table.schema)
    uniques: list[Any] = [index for index in inspector.get_indexes(name, schema) if index["unique"]]
    with suppress(NotImplementedError):  # on a server whose unique constraints are all among the indexes
        uniques += inspector.get_unique_constraints(name, schema)
    return [{column for column in unique["column_names"] if column} for unique in uniques]


def referring(cx: sa.Connection, reference: Reference, dialect: Dialect, shape: TableShape, keys: Sequence[Key]) -> int:
    """How many rows refer to the rows of these keys. Where the table refers to itself, these rows do not count.

    Takes no more keys than `key_batches` gives at once.
    """
    of_itself = is_of_itself(reference, dialect, shape)
    columns: dict[str, sa.Column[Any]] = {name: sa.Column(name) for name, _ in reference.columns}
    if of_itself:
        columns |= {name: sa.Column(name, shape.table.c[name].type) for name in shape.key_names}
    named = sa.Table(reference.table, sa.MetaData(), *columns.values(), schema=whole_schema(reference.schema))
    child = named.alias(" referring")  # no table has this name, which would stand for that table
    joined = [child.c[name] == shape.table.c[referred_name] for name, referred_name in reference.columns]
    query = sa.select(dialect.row_count).select_from(child)
    query = query.where(sa.exists().where(shape.is_one_of(keys), *joined).correlate(child))
    if of_itself:
        query = query.where(~shape.is_one_of(keys, [child.c[name] for name in shape.key_names]))
    return int(cx.scalar(query) or 0)
