"""Images that SQLite makes of a table's rows: their JSON, and the ids of their entries.

What SQLite's own JSON does not say exactly, and the hash of each key, come from functions of this process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from backup.stores.exact_json import key_to_text
from backup.stores.key_hash import key_hash
from backup.stores.sql.engines.images_to_make import LARGEST_BYTES, EntryIds, ImagesToMake
from backup.stores.sql.engines.sqlite.fingerprint import INTEGERS
from backup.stores.sql.engines.sqlite.literals import number_literal, text_literal
from backup.stores.sql.engines.sqlite.quick_images import learn_quick, may_be_quick, quick_entries
from backup.stores.sql.engines.sqlite.types import affinity_of

_EXACT_VALUE, _CHECKED_IMAGE = "exact_value", "checked_image"
_HASH_OF_KEY, _TEXT_OF_KEY, _ID_OF_ENTRY = "hash_of_key", "text_of_key", "id_of_entry"
_MAKES_IMAGES = "makes images"
_ARE_OTHERS = "has rows whose images are not quick"
OF_VALUES = ("user-defined function raised", "JSON cannot hold BLOB values", "malformed JSON")
"""What SQLite says of a value that a statement does not spell exactly. It undoes only that statement."""
_PARTS_OF_KEYS = {int, str, bytes}
_BLOB = sa.LargeBinary()
_Text = sa.ColumnElement[Any]


def make_images(cx: sa.Connection, images: ImagesToMake, condition: sa.ColumnElement[bool]) -> int | None:
    """As `Dialect.make_images`, in a file whose texts are in UTF-8. One statement; no row passes this process.

    None, and nothing was done, also where a text of a row is not valid, and where a part of a key is a real.
    """
    learn_functions(cx)
    if not images.columns:
        return _add(cx, images, _key_fields(images), condition)
    of_table = images.table.info
    may_be_integer = affinity_of(images.key[0]) in INTEGERS
    if may_be_integer and may_be_quick(images) and not of_table.get(_ARE_OTHERS):
        added = _add(cx, images, *quick_entries(images, condition))
        if added is not None:
            return added
        of_table[_ARE_OTHERS] = True
    return _add(cx, images, _exact_entries(images), condition)


def learn_functions(cx: sa.Connection) -> None:
    """Lets the connection call the functions of this process."""
    if not cx.info.get(_MAKES_IMAGES):
        driver: Any = cx.connection.driver_connection
        for name, function in _FUNCTIONS.items():
            driver.create_function(name, -1, function, deterministic=True)
        learn_quick(driver)
        cx.info[_MAKES_IMAGES] = True


def _add(
    cx: sa.Connection, images: ImagesToMake, made: Mapping[str, _Text], condition: sa.ColumnElement[bool]
) -> int | None:
    """Adds the entries. None, and nothing was done, where a value of a row is none that they spell exactly."""
    entries = images.entries(made, condition)
    add = sqlite_insert(images.bin).from_select([*made, *images.fields], entries, include_defaults=False)
    try:
        return cx.execute(add.on_conflict_do_nothing().execution_options(preserve_rowcount=True)).rowcount
    except sa.exc.DBAPIError as error:
        if not any(cause in str(error.orig) for cause in OF_VALUES):
            raise
        return None  # only the statement was undone, not the transaction


def _exact_entries(images: ImagesToMake) -> dict[str, _Text]:
    """The fields that make the entries of whatever a row has."""
    return {
        **_key_fields(images),
        "Version": _separated("[", [("", _json(column)) for column in images.version], "]"),
        "Record": _called(_CHECKED_IMAGE, sa.case((_is_small(images.columns), spelled_image(images.columns)))),
    }


def _key_fields(images: ImagesToMake) -> dict[str, _Text]:
    """The fields that say whose entry it is, whatever the key has but reals."""
    return {
        "EntryId": _called(_ID_OF_ENTRY, *map(sa.literal, images.ids), *images.key),
        "KeyHash": _called(_HASH_OF_KEY, *images.key),
        "RecordKey": _called(_TEXT_OF_KEY, *images.key),
    }


def _exact_value(value: Any) -> str:
    """The value as `exact_json` spells it."""
    return repr(value) if type(value) is float and isfinite(value) else key_to_text((value,))[1:-1]


def _hash_of_key(*key: Any) -> str:
    return _spelled(*key)[0]


def _text_of_key(*key: Any) -> str:
    return _spelled(*key)[1]


def _id_of_entry(id_start: str, digest_start: str, digested: str, *key: Any) -> str:
    """The id of the entry. Raises ValueError for a key with another part than an integer, a text or bytes."""
    if not {*map(type, key)} <= _PARTS_OF_KEYS:
        raise ValueError
    return EntryIds(id_start, digest_start, digested).of(key, _text_of_key(*key))


@lru_cache(maxsize=64, typed=True)  # SQLite asks for both texts of a key, one right after the other
def _spelled(*key: Any) -> tuple[str, str]:
    return key_hash(key), key_to_text(key)


def _checked_image(image: Any) -> str:
    """The image, which came here, so its texts are valid. Raises ValueError for None, in place of a large one."""
    if image is None:
        raise ValueError
    return str(image)


_FUNCTIONS: dict[str, Callable[..., str]] = {
    _EXACT_VALUE: _exact_value,
    _HASH_OF_KEY: _hash_of_key,
    _TEXT_OF_KEY: _text_of_key,
    _ID_OF_ENTRY: _id_of_entry,
    _CHECKED_IMAGE: _checked_image,
}


def _is_small(columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[bool]:
    """Whether the row has no more than `LARGEST_BYTES`. SQLite need not read a large value to say how long it is."""
    sizes = [
        sa.case((_has_kind(column, "text", "blob"), sa.func.length(sa.cast(column, _BLOB))), else_=number_literal(8))
        for column in columns
        if not column.type.is_row_number  # type: ignore[attr-defined] # a ServerType
    ]
    size: sa.ColumnElement[int] = _joined(sizes or [number_literal(0)], "+")
    is_small: sa.ColumnElement[bool] = size <= number_literal(LARGEST_BYTES)
    return is_small


def spelled_image(columns: Sequence[sa.Column[Any]]) -> _Text:
    """The columns' values as a JSON object."""
    return _separated("{", [(f"{json.dumps(column.name)}:", _json(column)) for column in columns], "}")


def _separated(start: str, items: Sequence[tuple[str, _Text]], end: str) -> _Text:
    """The items, each with its name before it, with commas between them."""
    parts = [
        part
        for place, (name, value) in enumerate(items)
        for part in (text_literal(f"{',' if place else start}{name}"), value)
    ]
    return _joined([*parts, text_literal(end if items else f"{start}{end}")])


def _json(column: sa.Column[Any]) -> _Text:
    """The column's value as JSON, as `exact_json` reads it. SQLite spells not every REAL exactly, and no BLOB."""
    quoted: _Text = sa.func.json_quote(column)
    if column.type.is_row_number:  # type: ignore[attr-defined] # a ServerType
        return quoted
    exact = _called(_EXACT_VALUE, column)
    # SQLite would not quote JSON that a generated column has just made; joined with nothing, it is a text.
    text = sa.func.json_quote(_joined([column, text_literal("")]))
    return sa.case((_has_kind(column, "text"), text), (_has_kind(column, "real", "blob"), exact), else_=quoted)


def _has_kind(column: sa.Column[Any], *kinds: str) -> sa.ColumnElement[bool]:
    return sa.func.typeof(column).in_([text_literal(kind) for kind in kinds])


def _called(name: str, *values: Any) -> _Text:
    result: _Text = getattr(sa.func, name)(*values)
    return result


def _joined(parts: Sequence[_Text], operator: str = "||") -> _Text:
    """The parts one behind the other, in pairs of pairs: SQLite bounds how deep an expression may be."""
    if len(parts) == 1:
        return parts[0]
    pairs = [parts[start : start + 2] for start in range(0, len(parts), 2)]
    joined = [pair[0] if len(pair) == 1 else pair[0].op(operator)(pair[1]).self_group() for pair in pairs]
    return _joined(joined, operator)
