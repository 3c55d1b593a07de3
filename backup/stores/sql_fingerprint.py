"""The statement that asks a SQL server for a chunk's fingerprint. Runs nothing.

Every stamp is mixed into one number, twice and differently, and the numbers are summed: so equal sums mean equal sets
of stamps, but for a chance that ARCHITECTURE states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from backup.models import Fingerprint
from backup.stores.dialects import Dialect
from backup.stores.dialects.base import Column

if TYPE_CHECKING:
    from backup.stores.sql_table import TableShape


def fingerprint_query(
    shape: TableShape, dialect: Dialect, server: tuple[int | str, ...]
) -> tuple[str, sa.Select[Any]] | None:
    """What names the functions, and a query of five numbers, to be narrowed to a chunk; None where the dialect has no
    way to mix values of these types.

    The numbers are: rows, rows whose stamps cannot be mixed, and the sums.
    """
    fields = [(_column(shape, one), one) for one in (*shape.key, *shape.version)]
    mixed = dialect.mixed(fields, len(shape.key), server)
    if mixed is None:
        return None
    first, second = mixed.numbers
    return mixed.functions, sa.select(
        sa.func.count(), _sum(mixed.irregular), _sum(mixed.low), _sum(first), _sum(second)
    ).select_from(shape.table)


def fingerprint_of(functions: str, row: Sequence[Any]) -> Fingerprint | None:
    """The fingerprint that the query's row says; None when some stamps could not be mixed."""
    records, irregular, *sums = (int(number or 0) for number in row)
    return None if irregular else Fingerprint(functions, records, tuple(sums))


def _sum(expression: sa.ColumnElement[Any] | None) -> sa.ColumnElement[Any]:
    return sa.literal_column("0") if expression is None else sa.func.sum(expression)


def _column(shape: TableShape, one: sa.Column[Any]) -> Column:
    return next(column for column in shape.columns if column.name == one.name)
