"""The conditions that a row's key lies in a chunk."""

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
