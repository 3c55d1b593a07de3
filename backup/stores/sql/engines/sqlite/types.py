"""Types on SQLite. The affinity of a declared type decides how SQLite stores a value."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from backup.stores.sql.engines.column import Relation, ServerType, digits, type_parts
from backup.stores.sql.engines.sqlite.fingerprint import INTEGERS

_AFFINITIES = (  # the first with a part that the declared type contains, by SQLite's rules
    ("INTEGER", ("int",)),
    ("TEXT", ("char", "clob", "text")),
    ("BLOB", ("blob",)),
    ("REAL", ("real", "floa", "doub")),
)


class SqliteType(ServerType):
    """A column of SQLite may hold any value. But some turn a number into a text, others a text into a number."""

    cache_ok = True

    def may_hold(self, value: Any) -> bool:
        affinity = _affinity(self.declared)
        if isinstance(value, str) and affinity in (*INTEGERS, "REAL"):
            return not _is_number(value)
        return affinity != "TEXT" or not isinstance(value, int | float)


class TimeOrText(sqlite.DATETIME):
    """A time in the app's own tables. SQLite's columns take any value: one that is no time comes back unchanged."""

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        process: Any = super().result_processor(dialect, coltype)

        def tolerant(value: Any) -> Any:
            try:
                return process(value)
            except (ValueError, TypeError):
                return value

        return tolerant


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


@cache
def type_of(declared: str) -> ServerType:
    """The type with this declaration."""
    return SqliteType(declared)


def affinity_of(column: sa.Column[Any]) -> str:
    """The column's affinity: the kind that SQLite turns its values into, where it can."""
    return _affinity(column.type.declared)  # type: ignore[attr-defined] # a ServerType


@lru_cache(maxsize=1_024)
def _affinity(declared: str) -> str:
    name = type_parts(declared)[0]
    if not name:
        return "BLOB"
    return next((affinity for affinity, parts in _AFFINITIES if any(part in name for part in parts)), "NUMERIC")


def relation(source: str, copy: str) -> Relation:
    """How a source's declared type compares with its copy's. Also `same` for a source of a larger size: SQLite enforces
    no size."""
    sizes = zip(digits(type_parts(source)[1]), digits(type_parts(copy)[1]), strict=True)
    is_as_large = all(size >= copy_size for size, copy_size in sizes)
    holds = _affinity(source) == _affinity(copy) and is_as_large
    return "same" if holds else "other"
