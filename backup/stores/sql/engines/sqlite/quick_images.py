"""Images of rows whose values SQLite's own JSON spells exactly: half the work than to spell each value by itself.

Functions of this process, which are functions of C, see each image and spell the reals that SQLite may not. They refuse
the first image that is not exact.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from backup.stores.sql.engines.column import spelled_column, spelled_table
from backup.stores.sql.engines.images_to_make import LARGEST_BYTES, ImagesToMake
from backup.stores.sql.engines.sqlite.literals import number_literal, spelled_text
from backup.stores.sql.engines.sqlite.types import affinity_of

_LENGTH_OF, _SPELLED_REAL, _REFUSED = "length_of", "spelled_real", "refused"
_MOST_COLUMNS = 60  # a function takes 127 arguments
_HOLD_REALS = ("dec", "num")  # in a declared type of this affinity, which dates and flags have too
_UNBOUNDED = ("TEXT", "BLOB")
"""The affinities of columns that may have large values."""
_SPELLING = SQLiteDialect()
_GREATEST = (1 << 63) - 1
_PLACES = 10_000.0
_OF_FEW_DIGITS = (0.0001, 9e10)
"""Between these, a real that is the nearest one to a decimal of four places has fifteen digits at most. SQLite writes
fifteen, and of such a real they are that decimal."""

_SAMPLES = (0.0001, 0.07, 4.35, -19.99, 1234567.891, 89_999_999_999.9999, 0.1 + 0.2, 1e-7, 1 / 3, -0.0, 1e22, 5e-324)
_Value = sa.ColumnElement[Any]


def may_be_quick(images: ImagesToMake) -> bool:
    """Whether the rows may be such. A generated column may make JSON, which is no text to SQLite's JSON."""
    return len(images.columns) <= _MOST_COLUMNS and not images.computed and _spells_reals()


def learn_quick(driver: sqlite3.Connection) -> None:
    """Lets the connection call the functions."""
    # Not deterministic: SQLite would call them once for all rows where it takes their arguments for constants.
    driver.create_function(_LENGTH_OF, 1, len)
    driver.create_function(_SPELLED_REAL, 1, float.__repr__)
    driver.create_function(_REFUSED, 1, _refused)


def quick_parts(images: ImagesToMake, number: sa.Column[Any] | None) -> dict[str, _Value]:
    """Version and image of a row. `number` is the column of a key that is one integer, or None.

    Their image is NULL of a row that has other values, or too many bytes. So executing them with `is_made` fails there,
    or with an error of JSON.
    """
    version, image = _made_of(number, tuple(images.columns), tuple(images.version))
    return {"version": version, "image": image}


def is_made(image: _Value, longest: int | None) -> sa.ColumnElement[bool]:
    """A condition that is true, or fails where the image was not made or is longer than this. A function gets the
    image, so its texts are valid."""
    length, one = sa.func.length_of(image), number_literal(1)  # the function fails for NULL
    condition: sa.ColumnElement[bool] = length >= one
    if longest is not None:
        is_short = sa.case((length <= number_literal(longest), one), else_=sa.func.refused(image))
        condition = is_short == one
    return condition


@lru_cache(maxsize=64)
def _made_of(
    number: sa.Column[Any] | None, columns: Sequence[sa.Column[Any]], version: Sequence[sa.Column[Any]]
) -> Sequence[_Value]:
    """The versions and the image of a row. They are spelled here, once for a table: of as many expressions SQLAlchemy
    makes a statement in the time in which SQLite makes a thousand images."""
    sizes = ["0", *(_size(column) for column in columns if affinity_of(column) in _UNBOUNDED)]
    are_plain = [*filter(None, (_is_plain(column, number) for column in columns))]
    is_quick = " AND ".join([*are_plain, f"{' + '.join(sizes)} <= {LARGEST_BYTES}"])
    values = ", ".join(f"{spelled_text(column.name)}, {_exact(column)}" for column in columns)
    texts = (f"json_array({', '.join(map(_exact, version))})", f"CASE WHEN {is_quick} THEN json_object({values}) END")
    return [sa.literal_column(text, sa.Text) for text in texts]


@lru_cache(maxsize=64)
def digits_of(number: sa.Column[Any]) -> _Value:
    """The sixteen hexadecimal digits of the column's integer plus 2^63, none of whose steps is beyond 64 bits."""
    name = _name(number)
    beyond = f"CASE WHEN {name} < 0 THEN {name} + {_GREATEST} + 1 ELSE {name} - {_GREATEST} - 1 END"
    return sa.literal_column(f"printf('%016x', {beyond})", sa.Text)


@cache
def _spells_reals() -> bool:
    """Whether SQLite, as it is here, writes the samples as this process does."""
    connection = sqlite3.connect(":memory:")
    learn_quick(connection)
    samples = ", ".join(_exact_real(repr(sample)) for sample in _SAMPLES)
    [[text]] = connection.execute(f"SELECT json_array({samples})")
    connection.close()
    return repr(json.loads(text)) == repr([*_SAMPLES])


def _refused(image: Any) -> None:
    raise ValueError(len(image))


def _exact(column: sa.Column[Any]) -> str:
    """The value, or JSON where it is a real that SQLite's JSON may spell otherwise."""
    return _exact_real(_name(column)) if _holds_reals(column) else _name(column)


def _exact_real(value: str) -> str:
    first, last = map(repr, _OF_FEW_DIGITS)
    is_nearest = f"round({value} * {_PLACES!r}) / {_PLACES!r} = {value}"
    is_exact = f"typeof({value}) <> 'real' OR abs({value}) BETWEEN {first} AND {last} AND {is_nearest}"
    return f"CASE WHEN {is_exact} THEN {value} ELSE json(spelled_real({value})) END"


def _holds_reals(column: sa.Column[Any]) -> bool:
    """Whether the column probably holds reals."""
    affinity, declared = affinity_of(column), column.type.declared.lower()  # type: ignore[attr-defined] # a ServerType
    return affinity == "REAL" or (affinity == "NUMERIC" and any(part in declared for part in _HOLD_REALS))


def _is_plain(column: sa.Column[Any], number: sa.Column[Any] | None) -> str | None:
    """Whether the value is none of those that its column seldom has, and that JSON may not spell exactly; None where it
    has no such ones."""
    affinity, is_row_number = affinity_of(column), column.type.is_row_number  # type: ignore[attr-defined]
    if column is number and not is_row_number:
        return f"typeof({_name(column)}) = 'integer'"
    if affinity == "TEXT" or is_row_number or _holds_reals(column):
        return None  # a column for texts turns a real into one, and JSON refuses bytes
    kinds = "'real', 'blob'" if affinity == "BLOB" else "'real'"
    return f"typeof({_name(column)}) NOT IN ({kinds})"


def _size(column: sa.Column[Any]) -> str:
    """How many bytes the value has. SQLite need not read a large one to say so."""
    return f"ifnull(length(CAST({_name(column)} AS BLOB)), 0)"


def _name(column: sa.Column[Any]) -> str:
    table: Any = column.table
    return f"{spelled_table(_SPELLING, table)}.{spelled_column(_SPELLING, table, column.name)}"
