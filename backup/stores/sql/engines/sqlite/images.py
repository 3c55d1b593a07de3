"""Images that SQLite makes of a table's rows: their JSON, and the ids of their entries.

What SQLite's own JSON does not say exactly, and the hash of each key, come from functions of this process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from backup.stores.exact_json import is_one_integer, key_hash, key_to_text
from backup.stores.sql.engines.images_to_make import LARGEST_BYTES, ImagesToMake
from backup.stores.sql.engines.sqlite.fingerprint import INTEGERS
from backup.stores.sql.engines.sqlite.types import affinity_of

_EXACT_VALUE, _HASH_OF_KEY, _CHECKED_IMAGE = "exact_value", "hash_of_key", "checked_image"
_MAKES_IMAGES = "makes images"
_GREATEST = (1 << 63) - 1
_BLOB = sa.LargeBinary()
_Text = sa.ColumnElement[Any]


def make_images(cx: sa.Connection, images: ImagesToMake, condition: sa.ColumnElement[bool]) -> int | None:
    """As `Dialect.make_images`, in a file whose texts are in UTF-8. One statement; no row passes this process.

    None, and nothing was done, also where a text of a row is not valid.
    """
    if affinity_of(images.key) not in INTEGERS:
        return None
    if not cx.info.get(_MAKES_IMAGES):
        driver: Any = cx.connection.driver_connection
        for name, function in _FUNCTIONS.items():
            driver.create_function(name, 1, function, deterministic=True)
        cx.info[_MAKES_IMAGES] = True
    made = {
        "EntryId": _joined([_plain(images.id_start), _digits_of(images.key)]),
        "KeyHash": _called(_HASH_OF_KEY, images.key),
        "RecordKey": _joined([_plain("["), images.key, _plain("]")]),
        "Version": _separated("[", [("", _json(column)) for column in images.version], "]"),
        "Record": _called(_CHECKED_IMAGE, sa.case((_is_small(images.columns), _record(images.columns)))),
    }
    entries = images.entries(made, condition)
    add = sqlite_insert(images.bin).from_select([*made, *images.fields], entries, include_defaults=False)
    try:
        return cx.execute(add.on_conflict_do_nothing().execution_options(preserve_rowcount=True)).rowcount
    except sa.exc.DBAPIError as error:
        if "user-defined function raised" not in str(error.orig):
            raise
        return None  # only the statement was undone, not the transaction


def _exact_value(value: Any) -> str:
    """The value as `exact_json` spells it."""
    return repr(value) if type(value) is float and isfinite(value) else key_to_text((value,))[1:-1]


def _hash_of_key(key: Any) -> str:
    if not is_one_integer((key,)):
        raise ValueError
    return key_hash((key,))


def _checked_image(image: Any) -> str:
    """The image, which came here, so its texts are valid. Raises ValueError for None, in place of a large one."""
    if image is None:
        raise ValueError
    return str(image)


_FUNCTIONS: dict[str, Callable[[Any], str]] = {
    _EXACT_VALUE: _exact_value,
    _HASH_OF_KEY: _hash_of_key,
    _CHECKED_IMAGE: _checked_image,
}


def _digits_of(key: sa.Column[Any]) -> _Text:
    """The sixteen hexadecimal digits of the key plus 2^63, none of whose steps is beyond 64 bits."""
    number, greatest, one = (sa.type_coerce(value, sa.BigInteger) for value in (key, _number(_GREATEST), _number(1)))
    beyond = sa.case((number < _number(0), number + greatest + one), else_=number - greatest - one)
    return sa.func.printf(_plain("%016x"), beyond)


def _is_small(columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[bool]:
    """Whether the row has no more than `LARGEST_BYTES`. SQLite need not read a large value to say how long it is."""
    sizes = [
        sa.case((_has_kind(column, "text", "blob"), sa.func.length(sa.cast(column, _BLOB))), else_=_number(8))
        for column in columns
        if not column.type.is_row_number  # type: ignore[attr-defined] # a ServerType
    ]
    size: sa.ColumnElement[int] = _joined(sizes or [_number(0)], "+")
    is_small: sa.ColumnElement[bool] = size <= _number(LARGEST_BYTES)
    return is_small


def _record(columns: Sequence[sa.Column[Any]]) -> _Text:
    """The columns' values as a JSON object."""
    return _separated("{", [(f"{json.dumps(column.name)}:", _json(column)) for column in columns], "}")


def _separated(start: str, items: Sequence[tuple[str, _Text]], end: str) -> _Text:
    """The items, each with its name before it, with commas between them."""
    parts = [
        part
        for place, (name, value) in enumerate(items)
        for part in (_plain(f"{',' if place else start}{name}"), value)
    ]
    return _joined([*parts, _plain(end if items else f"{start}{end}")])


def _json(column: sa.Column[Any]) -> _Text:
    """The column's value as JSON, as `exact_json` reads it. SQLite spells not every REAL exactly, and no BLOB."""
    quoted: _Text = sa.func.json_quote(column)
    if column.type.is_row_number:  # type: ignore[attr-defined] # a ServerType
        return quoted
    exact = _called(_EXACT_VALUE, column)
    # SQLite would not quote JSON that a generated column has just made; joined with nothing, it is a text.
    text = sa.func.json_quote(_joined([column, _plain("")]))
    return sa.case((_has_kind(column, "text"), text), (_has_kind(column, "real", "blob"), exact), else_=quoted)


def _has_kind(column: sa.Column[Any], *kinds: str) -> sa.ColumnElement[bool]:
    return sa.func.typeof(column).in_([_plain(kind) for kind in kinds])


def _called(name: str, value: Any) -> _Text:
    result: _Text = getattr(sa.func, name)(value)
    return result


def _plain(text: str) -> Any:
    return sa.literal(text, sa.Text, literal_execute=True)  # no parameter: a statement takes so many only


def _number(number: int) -> Any:
    return sa.literal_column(str(number), sa.BigInteger)


def _joined(parts: Sequence[_Text], operator: str = "||") -> _Text:
    """The parts one behind the other, in pairs of pairs: SQLite bounds how deep an expression may be."""
    if len(parts) == 1:
        return parts[0]
    pairs = [parts[start : start + 2] for start in range(0, len(parts), 2)]
    joined = [pair[0] if len(pair) == 1 else pair[0].op(operator)(pair[1]).self_group() for pair in pairs]
    return _joined(joined, operator)
