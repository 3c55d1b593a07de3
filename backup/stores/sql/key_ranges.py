"""The conditions that a row's key lies in a chunk, and the first and the last key of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from backup.core.model import Chunk, Key


def between(key: Sequence[sa.Column[Any]], chunk: Chunk) -> list[sa.ColumnElement[bool]]:
    """The conditions on these columns: lexicographic, and none for an end that is open. Each begins with a condition on
    the first column, so that the server seeks in the key's index."""
    conditions = []
    if chunk.after is not None:
        conditions.append(_after(key, chunk.after))
    if chunk.upto is not None:
        conditions.append(_upto(key, chunk.upto))
    return conditions


def is_integer(key: Sequence[sa.Column[Any]]) -> bool:
    """Whether each key of the table is a single integer."""
    return [getattr(column.type, "kinds", ()) for column in key] == [(int,)]


def ends_query(key: sa.Column[Any], conditions: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    """Selects the first and the last key of the rows that fulfil the conditions; NULL for both if there are none.

    Not by min and max: SQLite reads all keys for both, and not every type that may be a key has these functions.
    """
    orders = (key.asc(), key.desc())
    ends = (sa.select(key).where(*conditions).order_by(order).limit(1).scalar_subquery() for order in orders)
    return sa.select(*ends)


def _after(key: Sequence[sa.Column[Any]], values: Key) -> sa.ColumnElement[bool]:
    first = sa.literal(values[0], key[0].type)  # SQLAlchemy compares no plain True by order
    beyond: sa.ColumnElement[bool] = key[0] > first
    if len(key) == 1:
        return beyond
    return sa.and_(key[0] >= first, sa.or_(beyond, _after(key[1:], values[1:])))


def _upto(key: Sequence[sa.Column[Any]], values: Key) -> sa.ColumnElement[bool]:
    first = sa.literal(values[0], key[0].type)
    if len(key) == 1:
        last: sa.ColumnElement[bool] = key[0] <= first
        return last
    return sa.and_(key[0] <= first, sa.or_(key[0] < first, _upto(key[1:], values[1:])))
