"""Expressions for values as JSON, as PostgreSQL spells them and `exact_json` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from backup.core.batched import batched
from backup.stores.sql.engines.postgresql.types import TextType

TAGS = {Decimal: "$decimal", UUID: "$uuid", bytes: "$bytes"}
_ARGUMENTS = 100  # that a function takes on any server
_Text = sa.ColumnElement[Any]


def json_list(columns: Sequence[sa.Column[Any]]) -> _Text:
    """The columns' values as a JSON list."""
    parts = [
        part for place, column in enumerate(columns) for part in (literal_text("," if place else "["), _json(column))
    ]
    return joined_texts([*parts, literal_text("]" if columns else "[]")])


def _json(column: sa.Column[Any]) -> _Text:
    """The column's value as JSON; null for NULL."""
    return sa.func.coalesce(_value(column), literal_text("null"))


def _value(column: sa.Column[Any]) -> _Text:
    text, kind = sa.cast(column, sa.Text), kind_of_column(column)
    if kind in (int, bool):
        return text
    if kind in TAGS:  # the texts of these have no character that JSON would escape
        start = literal_text(f'{{"{TAGS[kind]}":"')
        return sa.case((column.is_not(None), joined_texts([start, tagged_text(column), literal_text('"}')])))
    # Not the text of every column: to cast a character(n) to text would cut the spaces at its end.
    return sa.cast(sa.func.to_json(text if isinstance(column.type, TextType) else column), sa.Text)


def kind_of_column(column: sa.Column[Any]) -> type:
    """The Python type of the column's values."""
    kind: type = str if isinstance(column.type, TextType) else column.type.kinds[0]  # type: ignore[attr-defined]
    return kind


def tagged_text(column: sa.Column[Any]) -> _Text:
    """The text of a value that stands behind its tag."""
    if kind_of_column(column) is bytes:
        return sa.func.replace(sa.func.encode(column, "base64"), "\n", "")
    return sa.cast(column, sa.Text)


def literal_text(text: str) -> _Text:
    """The text, as a parameter."""
    return sa.literal(text, sa.Text)


def joined_texts(parts: Sequence[_Text]) -> _Text:
    """The texts one behind the other."""
    while len(parts) > 1:
        parts = [sa.func.concat(*some) for some in batched(list(parts), _ARGUMENTS)]
    return parts[0]
