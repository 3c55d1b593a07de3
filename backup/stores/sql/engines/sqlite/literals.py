"""Texts and numbers as a statement of SQLite spells them.

They are no parameters: a statement takes so many only, and SQLAlchemy would put each in its place again whenever the
statement runs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteDialect


@lru_cache(maxsize=1)
def _processor() -> Any:
    return sa.Text().literal_processor(SQLiteDialect())  # type: ignore[no-untyped-call]


def spelled_text(text: str) -> str:
    """The text in quotes."""
    return str(_processor()(text))


def text_literal(text: str) -> Any:
    """The text as an expression."""
    return sa.literal_column(spelled_text(text), sa.Text)


def number_literal(number: int) -> Any:
    """The number as an expression."""
    return sa.literal_column(str(number), sa.BigInteger)
