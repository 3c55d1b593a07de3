"""Images that SQLite makes of a table's rows: their JSON, and the ids of their entries.

What SQLite's own JSON does not say exactly, and the hash of each key, come from functions of this process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from backup.stores.exact_json import key_to_text
from backup.stores.key_hash import key_hash
from backup.stores.sql.engines.images_to_make import LARGEST_BYTES, EntryIds, ImagesToMake
from backup.stores.sql.engines.sqlite.fingerprint import INTEGERS
from backup.stores.sql.engines.sqlite.literals import number_literal, text_literal
from backup.stores.sql.engines.sqlite.quick_images import digits_of, is_made, learn_quick, may_be_quick, quick_parts
from backup.stores.sql.engines.sqlite.types import affinity_of

_EXACT_VALUE, _SPELLED_KEY = "exact_value", "spelled_key"
_MAKES_IMAGES = "makes images"
_ARE_OTHERS = "has rows whose images are not quick"
OF_VALUES = ("user-defined function raised", "JSON cannot hold BLOB values", "malformed JSON")
"""What SQLite says of a value that a statement does not spell exactly. It undoes only that statement."""
_PARTS_OF_KEYS = {int, str, bytes}
_HASH_WIDTH = 32  # the hexadecimal digits of an id's digest, and of a KeyHash
_ALL_ROWS: Any = sa.literal_column("-1")
_BLOB = sa.LargeBinary()
_Text = sa.ColumnElement[Any]


def make_images(cx: sa.Connection, images: ImagesToMake, condition: sa.ColumnElement[bool]) -> int | None:
    """As `Dialect.make_images`, in a file whose texts are in UTF-8. One statement; no row passes this process.

    None, and nothing was done, also where a text of a row is not valid, and where a part of a key is a real.
    """
    learn_functions(cx)
    of_any_key = {"spelled": _called(_SPELLED_KEY, *map(sa.literal, images.ids), *images.key)}
    if not images.columns:
        return _add(cx, images, of_any_key, condition)
    of_table = images.table.info
    [first, *others] = images.key
    number = first if not others and affinity_of(first) in INTEGERS else None
    if may_be_quick(images) and not of_table.get(_ARE_OTHERS):
        of_key = of_any_key if number is None else {"number": number, "digits": digits_of(number)}
        added = _add(cx, images, {**of_key, **quick_parts(images, number)}, condition, LARGEST_BYTES)
        if added is not None:
            return added
        of_table[_ARE_OTHERS] = True
    return _add(cx, images, {**of_any_key, **_exact_parts(images)}, condition)


def learn_functions(cx: sa.Connection) -> None:
    """Lets the connection call the functions of this process."""
    if not cx.info.get(_MAKES_IMAGES):
        driver: Any = cx.connection.driver_connection
        for name, function in _FUNCTIONS.items():
            driver.create_function(name, -1, function, deterministic=True)
        learn_quick(driver)
        cx.info[_MAKES_IMAGES] = True


def _add(
    cx: sa.Connection,
    images: ImagesToMake,
    parts: Mapping[str, _Text],
    condition: sa.ColumnElement[bool],
    longest: int | None = None,
) -> int | None:
    """Adds the entries that are made of these parts of the rows. None, and nothing was done, where a value of a row is
    none that they spell exactly, or an image is longer than the `longest`."""
    # With a LIMIT inside and a WHERE outside, SQLite makes each part once. It would make a part for each use of it.
    inner = sa.select(*(value.label(name) for name, value in parts.items())).where(condition)
    rows = inner.select_from(images.table).limit(_ALL_ROWS).subquery("rows").c
    made = _key_fields(rows, images.ids)
    if "image" in parts:
        made |= {"Version": rows.version, "Record": rows.image}
        entries = images.entries(made, is_made(rows.image, longest))
    else:
        entries = images.entries(made, rows.spelled.is_not(None))
    add = sqlite_insert(images.bin).from_select([*made, *images.fields], entries, include_defaults=False)
    try:
        return cx.execute(add.on_conflict_do_nothing().execution_options(preserve_rowcount=True)).rowcount
    except sa.exc.DBAPIError as error:
        if not any(cause in str(error.orig) for cause in OF_VALUES):
            raise
        return None  # only the statement was undone, not the transaction


def _exact_parts(images: ImagesToMake) -> dict[str, _Text]:
    """Version and image of whatever a row has; no image of a large row."""
    return {
        "version": _separated("[", [("", _json(column)) for column in images.version], "]"),
        "image": sa.case((_is_small(images.columns), spelled_image(images.columns))),
    }


def _key_fields(rows: Any, ids: EntryIds) -> dict[str, _Text]:
    """The fields that say whose entry it is."""
    if "number" in rows:
        number = sa.type_coerce(rows.number, sa.Text)
        of_number = sa.literal(ids.id_start, sa.Text).concat(rows.digits)
        text = text_literal("[").concat(number).concat(text_literal("]"))
        return {"EntryId": of_number, "KeyHash": rows.digits, "RecordKey": text}
    width = _width_of(ids)
    ends = [(1, width), (width + 1, _HASH_WIDTH), (width + _HASH_WIDTH + 1,)]
    entry_id, of_key, text = (sa.func.substr(rows.spelled, *map(number_literal, places)) for places in ends)
    return {"EntryId": sa.func.rtrim(entry_id), "KeyHash": sa.func.rtrim(of_key), "RecordKey": text}


def _width_of(ids: EntryIds) -> int:
    """How many characters no id is longer than."""
    return max(len(ids.id_start), len(ids.digest_start)) + _HASH_WIDTH


def _spelled_key(id_start: str, digest_start: str, digested: str, *key: Any) -> str:
    """The three fields of `_key_fields` one behind the other, the first two padded with spaces. Raises ValueError for a
    key with another part than an integer, a text or bytes."""
    if not {*map(type, key)} <= _PARTS_OF_KEYS:
        raise ValueError
    ids, text = EntryIds(id_start, digest_start, digested), key_to_text(key)
    return f"{ids.of(key, text).ljust(_width_of(ids))}{key_hash(key).ljust(_HASH_WIDTH)}{text}"


def _exact_value(value: Any) -> str:
    """The value as `exact_json` spells it."""
    return repr(value) if type(value) is float and isfinite(value) else key_to_text((value,))[1:-1]


_FUNCTIONS: dict[str, Callable[..., str]] = {_EXACT_VALUE: _exact_value, _SPELLED_KEY: _spelled_key}


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
