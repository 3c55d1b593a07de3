"""Images of rows whose values SQLite's own JSON spells exactly: a third less work than to spell each value by itself.

A function of this process gets each image, with its reals, and refuses the first that is not exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from backup.stores.exact_json import hash_of_integer
from backup.stores.sql.engines.images_to_make import LARGEST_BYTES, ImagesToMake
from backup.stores.sql.engines.sqlite.types import affinity_of

HASH_OF_PLAIN = "hash_of_plain"
_MOST_COLUMNS = 60  # a function takes 127 arguments
_HOLD_REALS = ("dec", "num")  # in a declared type of this affinity, which dates and flags have too
_UNBOUNDED = ("TEXT", "BLOB")
"""The affinities of columns that may have large values."""
_BLOB = sa.LargeBinary()
_ALL_ROWS: Any = sa.literal_column("-1")
_Value = sa.ColumnElement[Any]


def may_be_quick(images: ImagesToMake) -> bool:
    """Whether the rows may be such: under keys of one integer. A generated column may make JSON, which is no text to
    SQLite's JSON."""
    return len(images.key) == 1 and len(images.columns) <= _MOST_COLUMNS and not images.computed


def quick_entries(
    images: ImagesToMake, condition: sa.ColumnElement[bool], spelled: Callable[[_Value], tuple[_Value, _Value]]
) -> tuple[dict[str, _Value], sa.ColumnElement[bool]]:
    """The fields that make the entries of the rows that fulfil the condition, and the condition on what they are made
    of. `spelled` gives the EntryId and the RecordKey of a key.

    Executing them fails with an error of a function or of JSON at a row that has other values, or too many bytes.
    """
    [key] = images.key
    sizes = (_size(column) for column in images.columns if affinity_of(column) in _UNBOUNDED)
    is_small = sum(sizes, _number(0)) <= _number(LARGEST_BYTES)
    are_plain = (_is_plain(column) for column in images.columns)
    values = (part for column in images.columns for part in (_text(column.name), column))
    reals = [_real(column) for column in images.columns if _holds_reals(column)]
    made_of = {
        "number": key,
        "image": sa.case((sa.and_(*are_plain, is_small), sa.func.json_object(*values))),
        "version": sa.func.json_array(*images.version),
        **{f"real{place}": real for place, real in enumerate(reals)},
    }
    # With a LIMIT inside and a WHERE outside, SQLite makes each of these once. It would make the image twice.
    inner = sa.select(*(value.label(name) for name, value in made_of.items())).where(condition)
    rows = inner.limit(_ALL_ROWS).subquery("rows").c
    checked = (part for place in range(len(reals)) for part in _with_text(rows[f"real{place}"]))
    number = sa.type_coerce(rows.number, key.type)
    entry_id, record_key = spelled(number)
    made = {
        "EntryId": entry_id,
        "KeyHash": getattr(sa.func, HASH_OF_PLAIN)(rows.number, rows.image, *checked),
        "RecordKey": record_key,
        "Version": rows.version,
        "Record": rows.image,
    }
    return made, rows.number.is_not(None)


def hash_of_plain(key: Any, image: Any, *reals: Any) -> str:
    """The hash of the key of a row, if its image is exact. `reals` has each real and its text, and None for others.

    The image came here, so its texts are valid. Raises ValueError for None, in place of one that is large or has other
    kinds of values, for a large one, and for a real whose text is not the one that this process would write.
    """
    if image is None or len(image) > LARGEST_BYTES or type(key) is not int:
        raise ValueError
    for place in range(0, len(reals), 2):
        if reals[place] is not None and repr(reals[place]) != reals[place + 1]:
            raise ValueError
    return hash_of_integer(key)


def _holds_reals(column: sa.Column[Any]) -> bool:
    """Whether the column probably holds reals."""
    affinity, declared = affinity_of(column), column.type.declared.lower()  # type: ignore[attr-defined] # a ServerType
    return affinity == "REAL" or (affinity == "NUMERIC" and any(part in declared for part in _HOLD_REALS))


def _is_plain(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """Whether the value is none of those that its column seldom has, and that JSON may not spell exactly."""
    affinity = affinity_of(column)
    if affinity == "TEXT" or column.type.is_row_number or _holds_reals(column):  # type: ignore[attr-defined]
        return sa.true()  # a column for texts turns a real into one, and JSON refuses bytes
    kinds = ["real", "blob"] if affinity == "BLOB" else ["real"]
    return sa.and_(*(sa.func.typeof(column) != _text(kind) for kind in kinds))


def _size(column: sa.Column[Any]) -> _Value:
    """How many bytes the value has. SQLite need not read a large one to say so."""
    return sa.func.ifnull(sa.func.length(sa.cast(column, _BLOB)), _number(0))


def _real(column: sa.Column[Any]) -> _Value:
    return sa.case((sa.func.typeof(column) == _text("real"), column))


def _with_text(real: _Value) -> tuple[_Value, _Value]:
    return real, sa.func.json_quote(real)


def _text(text: str) -> Any:
    return sa.literal(text, sa.Text, literal_execute=True)  # no parameter: a statement takes so many only


def _number(number: int) -> Any:
    return sa.literal_column(str(number), sa.BigInteger)
