"""What stands in the way of a delete: rows that refer to the table's, and would be changed; triggers. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.core.errors import ConstraintRefused
from backup.core.model import Key
from backup.stores.sql.engines import Dialect
from backup.stores.sql.table import TableShape

_REFUSES = {"NO ACTION", "RESTRICT"}


class Reference(NamedTuple):
    """A foreign key of a table, `schema` and `table`, and what becomes of its rows when one they refer to is deleted;
    `columns` pairs each of its columns with the one that it refers to."""

    name: str
    schema: str | None
    table: str
    columns: tuple[tuple[str, str], ...]
    action: str

    def __str__(self) -> str:
        place = f"{self.schema}.{self.table}" if self.schema else self.table
        return f"{place} (foreign key {self.name}, ON DELETE {self.action})"


def references_to(cx: sa.Connection, dialect: Dialect, shape: TableShape) -> list[Reference]:
    """The foreign keys that point to the table; asked once while the store is open."""
    if shape.references is not None:
        return [*shape.references]
    schema = shape.table.schema or dialect.default_schema
    rows = cx.execute(dialect.references, {"table": shape.table.name, "schema": schema}).all()
    found = []
    for (name, of, table, action), columns in groupby(rows, lambda row: (row[0], row[1], row[2], row[3])):
        pairs = tuple((row[4], row[5] or shape.key_names[place]) for place, row in enumerate(columns))
        found.append(Reference(str(name), of, table, pairs, action.replace("_", " ").upper()))
    shape.references = found
    return found


def would_change(reference: Reference, dialect: Dialect) -> bool:
    """Whether a delete does something to the rows that refer to the deleted one, and is not refused by the server. On
    SQLite, whose connections here enforce no foreign key, they would be left without the row that they refer to."""
    return dialect.in_process or reference.action not in _REFUSES


def is_of_itself(reference: Reference, dialect: Dialect, shape: TableShape) -> bool:
    """Whether the table refers to itself."""
    schema = shape.table.schema or dialect.default_schema
    return (reference.schema, reference.table.lower()) == (schema, shape.table.name.lower())


def refuse_to_touch_others(
    cx: sa.Connection, shape: TableShape, dialect: Dialect, keys: Sequence[Key], *, stays: bool = False
) -> None:
    """Raises ConstraintRefused when rows refer to those of these keys, which are to be deleted, and would be changed by
    that. `stays`: the rows come back with their keys."""
    for reference in references_to(cx, dialect, shape):
        if not would_change(reference, dialect) or (stays and dialect.in_process):
            continue
        if others := referring(cx, reference, dialect, shape, keys):
            raise ConstraintRefused(
                f"{others} rows of {reference} refer to what was to be deleted in the {shape.label}, and would be "
                "changed as well.",
                hint="Nothing of this batch was deleted. Delete or change those rows first.",
            )


def refuse_replacing(cx: sa.Connection, shape: TableShape, dialect: Dialect) -> None:
    """Raises ConstraintRefused for a table on which a delete does more than to delete, for rows that come back."""
    if names := triggers_on_delete(cx, shape, dialect):
        raise ConstraintRefused(
            f"Records of the {shape.label} can only be written if they are deleted first, and there are triggers on "
            f"that: {', '.join(names)}.",
            hint="Nothing of this batch was written. Write these records by hand, or switch them off meanwhile.",
        )


def triggers_on_delete(cx: sa.Connection, shape: TableShape, dialect: Dialect) -> list[str]:
    """The table's own triggers that a delete fires."""
    asked = {"table": shape.table.name, "schema": shape.table.schema or dialect.default_schema}
    return [str(name) for name in cx.scalars(dialect.delete_triggers, asked)]


def unique_columns(cx: sa.Connection, shape: TableShape) -> list[set[str]]:
    """The columns of each unique index of the table but its primary key's."""
    found, (name, schema) = sa.inspect(cx), (shape.table.name, shape.table.schema)
    uniques: list[Any] = [*found.get_unique_constraints(name, schema)] if cx.dialect.name != "mssql" else []
    indexes: list[Any] = [index for index in found.get_indexes(name, schema) if index["unique"]]
    return [{column for column in one["column_names"] if column} for one in (*uniques, *indexes)]


def referring(cx: sa.Connection, reference: Reference, dialect: Dialect, shape: TableShape, keys: Sequence[Key]) -> int:
    """How many rows refer to those of these keys; of the same table only others than these. No more keys than
    `key_batches` gives at once."""
    own = is_of_itself(reference, dialect, shape)
    names: dict[str, sa.Column[Any]] = {mine: sa.Column(mine) for mine, _ in reference.columns}
    if own:
        names |= {name: sa.Column(name, shape.table.c[name].type) for name in shape.key_names}
    other = sa.Table(reference.table, sa.MetaData(), *names.values(), schema=reference.schema).alias("other")
    joined = [other.c[mine] == shape.table.c[theirs] for mine, theirs in reference.columns]
    query = sa.select(dialect.row_count).select_from(other)
    query = query.where(sa.exists().where(shape.is_one_of(keys), *joined).correlate(other))
    if own:
        query = query.where(~shape.is_one_of(keys, [other.c[name] for name in shape.key_names]))
    return int(cx.scalar(query) or 0)
