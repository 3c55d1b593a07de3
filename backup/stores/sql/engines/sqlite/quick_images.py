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
_BLOB = sa.LargeBinary()
_NOTHING: Any = sa.literal_column("NULL")
_ALL_ROWS: Any = sa.literal_column("-1")
_Value = sa.ColumnElement[Any]


def may_be_quick(images: ImagesToMake) -> bool:
    """Whether the rows may be such. A generated column may make JSON, which is no text to SQLite's JSON."""
    return len(images.columns) <= _MOST_COLUMNS and not images.computed


def quick_entries(
    images: ImagesToMake, condition: sa.ColumnElement[bool], spelled: Callable[[_Value], tuple[_Value, _Value]]
) -> tuple[dict[str, _Value], sa.ColumnElement[bool]]:
    """The fields that make the entries of the rows that fulfil the condition, and the condition on what they are made
    of. `spelled` gives the EntryId and the RecordKey of a key.

    Executing them fails with an error of a function or of JSON at a row that has other values, or too many bytes.
    """
    size: Any = sum((_size(column) for column in images.columns), _number(0))
    is_small = size <= _number(LARGEST_BYTES)
    values = (part for column in images.columns for part in (_text(column.name), column))
    reals = [_real(column) for column in images.columns if _holds_reals(column)]
    made_of = {
        "number": images.key,
        "image": sa.case((is_small, sa.func.json_object(*values))),
        "version": sa.func.json_array(*images.version),
        **{f"real{place}": real for place, real in enumerate(reals)},
    }
    # With a LIMIT inside and a WHERE outside, SQLite makes each of these once. It would make the image twice.
    inner = sa.select(*(value.label(name) for name, value in made_of.items())).where(condition)
    rows = inner.limit(_ALL_ROWS).subquery("rows").c
    checked = (part for place in range(len(reals)) for part in _with_text(rows[f"real{place}"]))
    number = sa.type_coerce(rows.number, images.key.type)
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

    The image came here, so its texts are valid. Raises ValueError for None, in place of one that is large or has reals
    in other columns, and for a real whose text is not the one that this process would write.
    """
    if image is None or type(key) is not int:
        raise ValueError
    for real, text in zip(reals[::2], reals[1::2], strict=True):
        if real is not None and repr(real) != text:
            raise ValueError
    return hash_of_integer(key)


def _holds_reals(column: sa.Column[Any]) -> bool:
    """Whether the column probably holds reals. One in any other column makes its image None."""
    affinity, declared = affinity_of(column), column.type.declared.lower()  # type: ignore[attr-defined] # a ServerType
    return affinity == "REAL" or (affinity == "NUMERIC" and any(part in declared for part in _HOLD_REALS))


def _size(column: sa.Column[Any]) -> _Value:
    """About how many bytes the value has. SQLite need not read a large one to say so. NULL for a real that nobody
    would check."""
    eight: _Value = _number(8)
    if column.type.is_row_number:  # type: ignore[attr-defined] # a ServerType
        return eight
    size: _Value = sa.func.coalesce(sa.func.length(sa.cast(column, _BLOB)), _number(0))
    if affinity_of(column) == "TEXT":  # which turns a real into a text
        return size
    return sa.case((_is_real(column), eight if _holds_reals(column) else _NOTHING), else_=size)


def _real(column: sa.Column[Any]) -> _Value:
    return sa.case((_is_real(column), column))


def _with_text(real: _Value) -> tuple[_Value, _Value]:
    return real, sa.func.json_quote(real)


def _is_real(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    is_real: sa.ColumnElement[bool] = sa.func.typeof(column) == _text("real")
    return is_real


def _text(text: str) -> Any:
    return sa.literal(text, sa.Text, literal_execute=True)  # no parameter: a statement takes so many only


def _number(number: int) -> Any:
    return sa.literal_column(str(number), sa.BigInteger)
