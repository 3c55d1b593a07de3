"""Types on SQLite: whatever is declared, a column's affinity tells what becomes of a value."""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from backup.stores.sql.engines.column import Relation, ServerType, digits, type_parts
from backup.stores.sql.engines.sqlite.fingerprint import INTEGERS

_AFFINITIES = (  # the first that stands in a declared type, as SQLite documents it
    ("INTEGER", ("int",)),
    ("TEXT", ("char", "clob", "text")),
    ("BLOB", ("blob",)),
    ("REAL", ("real", "floa", "doub")),
)


class SqliteType(ServerType):
    """A column of SQLite may hold any value; only a number is made a text by some, and a text a number by others."""

    cache_ok = True

    def may_hold(self, value: Any) -> bool:
        affinity = _affinity(self.declared)
        if isinstance(value, str) and affinity in (*INTEGERS, "REAL"):
            return not _is_number(value)
        return affinity != "TEXT" or not isinstance(value, int | float)


class TimeOrText(sqlite.DATETIME):
    """A time in the app's own tables. SQLite's columns take anything: what is no time comes as it is."""

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
    """The type of a column, by how it is declared."""
    return SqliteType(declared)


def affinity_of(column: sa.Column[Any]) -> str:
    """What SQLite makes of the column's values, where it can."""
    return _affinity(column.type.declared)  # type: ignore[attr-defined] # a ServerType


def _affinity(declared: str) -> str:
    name = type_parts(declared)[0]
    if not name:
        return "BLOB"
    return next((affinity for affinity, parts in _AFFINITIES if any(part in name for part in parts)), "NUMERIC")


def relation(source: str, copy: str) -> Relation:
    """How a source's declared type stands to its copy's: `same` also for a source with more room, for SQLite enforces
    no size, only the affinity tells."""
    room = zip(digits(type_parts(source)[1]), digits(type_parts(copy)[1]), strict=True)
    holds = _affinity(source) == _affinity(copy) and all(now >= before for now, before in room)
    return "same" if holds else "other"
