"""Types on SQLite. The affinity of a declared type decides how SQLite stores a value."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from backup.core.model import Key
from backup.stores.exact_json import has_integers_only
from backup.stores.sql.engines.column import Relation, ServerType, digits, own_parameter, type_parts
from backup.stores.sql.engines.sqlite.fingerprint import INTEGERS
from backup.stores.sql.engines.sqlite.text import RAW, UTF_16

_AFFINITIES = (  # the first with a part that the declared type contains, by SQLite's rules
    ("INTEGER", ("int",)),
    ("TEXT", ("char", "clob", "text")),
    ("BLOB", ("blob",)),
    ("REAL", ("real", "floa", "doub")),
)


_OTHERS: Any = sa.literal_column("'*[\ufffd\U00010000-\U0010ffff]*'")
_NUL: Any = sa.literal_column("char(0)")  # no parameters: a statement takes so many only
_NOWHERE: Any = sa.literal_column("0")
_MANY = 500  # 1,000 rows are looked up in 3.6 ms of the processor and not 4.2; 500 in 1.3 and 1.4; 200 in 0.9 and 0.7
_RAW: Any = sa.literal_column(f"x'{RAW.hex()}'")
_BLOB = ServerType("BLOB")
_SPELLED_ONCE = (int, str, bytes)
_ODD = re.compile("[\0\ud800-\udfff]")
_NUMBER = re.compile(r"[ \t-\r]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t-\r]*")


class SqliteType(ServerType):
    """A column of SQLite may hold any value. But some turn a number into a text, others a text into a number."""

    cache_ok = True

    @property
    def is_for_integers(self) -> bool:
        return _affinity(self.declared) in INTEGERS

    def may_hold(self, value: Any) -> bool:
        affinity = _affinity(self.declared)
        if isinstance(value, str) and holds_numbers(self.declared):
            return not _is_number(value)
        return affinity != "TEXT" or not isinstance(value, int | float)

    def spells(self, value: Any) -> bool:
        # A real may be equal to an integer.
        return type(value) in _SPELLED_ONCE and self.may_hold(value)

    def may_list(self, values: Sequence[Any]) -> bool:
        kinds = {*map(type, values)}
        if kinds == {int} and self.is_for_integers:
            return has_integers_only((*values,))
        # SQLite's JSON may end a text at a NUL.
        return kinds == {str} and _affinity(self.declared) == "TEXT" and _ODD.search("".join(values)) is None

    def listed(self, types: Sequence[ServerType], keys: Sequence[Key]) -> sa.TextClause:
        parts = ", ".join(f"json_extract(value, '$[{place}]')" for place in range(len(types)))
        sought = json.dumps(keys, ensure_ascii=False)
        return sa.text(f"SELECT {parts} FROM json_each(:sought)").bindparams(own_parameter("sought", sought))  # noqa: S608 - no value

    def has_one_of(self, column: sa.ColumnElement[Any], values: Sequence[Any]) -> sa.ColumnElement[bool]:
        if len(values) < _MANY or not self.may_list(values):
            return super().has_one_of(column, values)
        # One parameter instead of one for each.
        listed = sa.literal(json.dumps([*values], ensure_ascii=False), sa.Text)
        return column.in_(sa.select(sa.func.json_each(listed).table_valued("value").c.value))


class Utf16Type(SqliteType):
    """A column of a file in UTF-16. Texts that the driver would read as others are selected as `RAW` and bytes."""

    cache_ok = True

    def __init__(self, declared: str, encoding: str) -> None:
        super().__init__(declared)
        self.encoding = encoding

    def may_list(self, values: Sequence[Any]) -> bool:
        return str not in {*map(type, values)} and super().may_list(values)

    def read_exactly(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        is_text = sa.func.typeof(column) == sa.literal_column("'text'")
        # GLOB looks no further than a NUL.
        may_be_other = sa.or_(column.op("GLOB")(_OTHERS), sa.func.instr(column, _NUL) != _NOWHERE)
        raw = sa.cast(_RAW.op("||")(sa.cast(column, _BLOB)), _BLOB)
        return sa.case((sa.and_(is_text, may_be_other), raw), else_=column)


class RowNumber(SqliteType):
    """The column of a table that is the number of its row: it holds integers and nothing else."""

    cache_ok = True
    kinds = (int,)
    is_row_number = True


class TimeOrText(sqlite.DATETIME):
    """A time in the app's own tables. SQLite's columns take any value: one that is not a time comes back unchanged."""

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        process: Any = super().result_processor(dialect, coltype)

        def tolerant(value: Any) -> Any:
            try:
                return process(value)
            except (ValueError, TypeError):
                return value

        return tolerant


def _is_number(text: str) -> bool:
    """Whether SQLite reads the text as a number, which is less than what Python's float() takes: no inf, no nan."""
    return _NUMBER.fullmatch(text) is not None


@cache
def type_of(declared: str, encoding: str = "UTF-8") -> ServerType:
    """The type with this declaration in a file of this encoding."""
    return Utf16Type(declared, encoding) if encoding in UTF_16 else SqliteType(declared)


ROW_NUMBER = RowNumber("INTEGER")


def holds_numbers(declared: str) -> bool:
    """Whether a column of this declaration turns what it gets into numbers, where it can."""
    return _affinity(declared) in (*INTEGERS, "REAL")


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
