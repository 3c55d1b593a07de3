"""Images of rows whose values SQLite's own JSON spells exactly: half the work than to spell each value by itself.

Functions of this process, which are functions of C, see each image and spell the reals that SQLite may not. They refuse
the first image that is not exact.
"""

from __future__ import annotations

import json
import sqlite3
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from backup.stores.sql.engines.images_to_make import LARGEST_BYTES, ImagesToMake
from backup.stores.sql.engines.sqlite.types import affinity_of

_LENGTH_OF, _SPELLED_REAL, _REFUSED = "length_of", "spelled_real", "refused"
_MOST_COLUMNS = 60  # a function takes 127 arguments
_HOLD_REALS = ("dec", "num")  # in a declared type of this affinity, which dates and flags have too
_UNBOUNDED = ("TEXT", "BLOB")
"""The affinities of columns that may have large values."""
_BLOB = sa.LargeBinary()
_ALL_ROWS: Any = sa.literal_column("-1")
_GREATEST = (1 << 63) - 1
_PLACES = 10_000.0
_OF_FEW_DIGITS = (0.0001, 9e10)
"""Between these, a real that is the nearest one to a decimal of four places has fifteen digits at most. SQLite writes
fifteen, and of such a real they are that decimal."""

_SAMPLES = (0.0001, 0.07, 4.35, -19.99, 1234567.891, 89_999_999_999.9999, 0.1 + 0.2, 1e-7, 1 / 3, -0.0, 1e22, 5e-324)
_Value = sa.ColumnElement[Any]


def may_be_quick(images: ImagesToMake) -> bool:
    """Whether the rows may be such: under keys of one integer. A generated column may make JSON, which is no text to
    SQLite's JSON."""
    is_narrow = len(images.key) == 1 and len(images.columns) <= _MOST_COLUMNS
    return is_narrow and not images.computed and _spells_reals()


def learn_quick(driver: sqlite3.Connection) -> None:
    """Lets the connection call the functions."""
    # Not deterministic: SQLite would call them once for all rows where it takes their arguments for constants.
    driver.create_function(_LENGTH_OF, 1, len)
    driver.create_function(_SPELLED_REAL, 1, float.__repr__)
    driver.create_function(_REFUSED, 1, _refused)


def quick_entries(
    images: ImagesToMake, condition: sa.ColumnElement[bool]
) -> tuple[dict[str, _Value], sa.ColumnElement[bool]]:
    """The fields that make the entries of the rows that fulfil the condition, and the condition on what they are made
    of.

    Executing them fails with an error of a function or of JSON at a row that has other values, or too many bytes.
    """
    [key] = images.key
    sizes = (_size(column) for column in images.columns if affinity_of(column) in _UNBOUNDED)
    is_small = sum(sizes, _number(0)) <= _number(LARGEST_BYTES)
    are_plain = (_is_plain(column, key) for column in images.columns)
    values = (part for column in images.columns for part in (_text(column.name), _exact(column)))
    made_of = {
        "number": key,
        "digits": _digits_of(key),
        "image": sa.case((sa.and_(*are_plain, is_small), sa.func.json_object(*values))),
        "version": sa.func.json_array(*map(_exact, images.version)),
    }
    # With a LIMIT inside and a WHERE outside, SQLite makes each of these once. It would make the image twice.
    inner = sa.select(*(value.label(name) for name, value in made_of.items())).where(condition)
    rows = inner.limit(_ALL_ROWS).subquery("rows").c
    number = sa.type_coerce(rows.number, sa.Text)
    made = {
        "EntryId": _text(images.ids.id_start).concat(rows.digits),
        "KeyHash": rows.digits,
        "RecordKey": _text("[").concat(number).concat(_text("]")),
        "Version": rows.version,
        "Record": rows.image,
    }
    # The function gets the image, so its texts are valid. It fails for NULL, in place of one that was not made.
    is_small = sa.func.length_of(rows.image) <= _number(LARGEST_BYTES)
    return made, sa.case((is_small, _number(1)), else_=sa.func.refused(rows.number)) == _number(1)


def _digits_of(key: _Value) -> _Value:
    """The sixteen hexadecimal digits of the key plus 2^63, none of whose steps is beyond 64 bits."""
    number, greatest, one = (sa.type_coerce(value, sa.BigInteger) for value in (key, _number(_GREATEST), _number(1)))
    beyond = sa.case((number < _number(0), number + greatest + one), else_=number - greatest - one)
    return sa.func.printf(_text("%016x"), beyond)


@cache
def _spells_reals() -> bool:
    """Whether SQLite, as it is here, writes the samples as this process does."""
    samples = (_exact_real(_number(repr(sample))) for sample in _SAMPLES)
    query = sa.select(sa.func.json_array(*samples)).compile(
        dialect=SQLiteDialect(), compile_kwargs={"literal_binds": True}
    )
    connection = sqlite3.connect(":memory:")
    learn_quick(connection)
    [[text]] = connection.execute(str(query))
    connection.close()
    return repr(json.loads(text)) == repr([*_SAMPLES])


def _refused(number: Any) -> None:
    raise ValueError(number)


def _exact(column: _Value) -> _Value:
    """The value, or JSON where it is a real that SQLite's JSON may spell otherwise."""
    return _exact_real(column) if isinstance(column, sa.Column) and _holds_reals(column) else column


def _exact_real(value: _Value) -> _Value:
    real = sa.type_coerce(value, sa.Float)
    places = sa.literal_column(repr(_PLACES), sa.Float)
    first, last = (sa.literal_column(repr(end), sa.Float) for end in _OF_FEW_DIGITS)
    is_nearest = sa.func.round(real * places).op("/")(places) == real
    has_few_digits = sa.and_(sa.func.abs(real).between(first, last), is_nearest)
    is_other = sa.func.typeof(value) != _text("real")
    return sa.case((sa.or_(is_other, has_few_digits), value), else_=sa.func.json(sa.func.spelled_real(value)))


def _holds_reals(column: sa.Column[Any]) -> bool:
    """Whether the column probably holds reals."""
    affinity, declared = affinity_of(column), column.type.declared.lower()  # type: ignore[attr-defined] # a ServerType
    return affinity == "REAL" or (affinity == "NUMERIC" and any(part in declared for part in _HOLD_REALS))


def _is_plain(column: sa.Column[Any], key: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """Whether the value is none of those that its column seldom has, and that JSON may not spell exactly."""
    affinity, is_row_number = affinity_of(column), column.type.is_row_number  # type: ignore[attr-defined]
    if column is key and not is_row_number:
        is_integer: sa.ColumnElement[bool] = sa.func.typeof(column) == _text("integer")
        return is_integer
    if affinity == "TEXT" or is_row_number or _holds_reals(column):
        return sa.true()  # a column for texts turns a real into one, and JSON refuses bytes
    kinds = ["real", "blob"] if affinity == "BLOB" else ["real"]
    return sa.and_(*(sa.func.typeof(column) != _text(kind) for kind in kinds))


def _size(column: sa.Column[Any]) -> _Value:
    """How many bytes the value has. SQLite need not read a large one to say so."""
    return sa.func.ifnull(sa.func.length(sa.cast(column, _BLOB)), _number(0))


def _text(text: str) -> Any:
    return sa.literal(text, sa.Text, literal_execute=True)  # no parameter: a statement takes so many only


def _number(number: int | str) -> Any:
    return sa.literal_column(str(number), sa.BigInteger)
