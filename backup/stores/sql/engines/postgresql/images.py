"""Images that PostgreSQL makes of a table's rows: their JSON, and the ids and hashes of their keys.

Every value has the form that this process would give it, so both kinds of images are read by the same code. Values
that this process reads as the server's text are that same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from backup.core.batched import batched
from backup.stores.sql.engines.images_to_make import ImagesToMake
from backup.stores.sql.engines.postgresql.types import IntegerType, NativeType, TextType

_ARGUMENTS = 100  # that a function takes on any server
_LOWEST = -(1 << 63)
_Text = sa.ColumnElement[Any]
_TAGS = {Decimal: "$decimal", UUID: "$uuid", bytes: "$bytes"}


def make_images(cx: sa.Connection, images: ImagesToMake, condition: sa.ColumnElement[bool]) -> int | None:
    """As `Dialect.make_images`. Two statements; no row passes this process."""
    # In an encoding of its own, or in none, a server takes texts that nobody could read again.
    encoding = cx.connection.driver_connection.info.parameter_status("server_encoding")  # type: ignore[union-attr]
    types = [type(column.type) for column in images.columns]
    if encoding != "UTF8" or type(images.key.type) is not IntegerType or not {*types} <= {*_EXACT}:
        return None
    number = sa.cast(images.key, sa.Text)
    made = {
        "EntryId": _joined([sa.literal(images.id_start, sa.Text), _id_of(images.key)]),
        "KeyHash": _key_hash(images.key, number),
        "RecordKey": _joined([_plain("["), number, _plain("]")]),
        "Version": _listed(images.version),
        "Record": _record(images.columns),
    }
    # Locked, so that nobody changes a row between its image and what this transaction does to it.
    entries = images.entries(made, condition).with_for_update(of=images.key.table, key_share=True)
    # To look for each entry costs a quarter more than this one look, and ON CONFLICT twice as much. If two transactions
    # add one entry, the second is refused, and tried again.
    if cx.scalar(sa.select(sa.exists().where(images.ids()))):
        kept_before = images.bin.alias()
        entries = entries.where(~sa.exists().where(kept_before.c["EntryId"] == made["EntryId"]))
    add = images.bin.insert().from_select([*made, *images.fields], entries, include_defaults=False)
    return cx.execute(add.execution_options(preserve_rowcount=True)).rowcount


_EXACT = {IntegerType, NativeType, TextType}


def _id_of(key: sa.Column[Any]) -> _Text:
    """The sixteen hexadecimal digits of the key plus 2^63."""
    beyond = sa.cast(key, sa.BigInteger).op("#")(sa.literal(_LOWEST, sa.BigInteger))  # changes the sign's bit
    return sa.func.lpad(sa.func.to_hex(beyond), 16, "0")


def _key_hash(key: sa.Column[Any], number: _Text) -> _Text:
    """What `exact_json.key_hash` makes of the key. There 1200 is 1.2E+3; 12 is 12."""
    digits = sa.func.ltrim(number, "-")
    whole = sa.func.rtrim(digits, "0")
    sign = sa.case((key < 0, _plain("-")), else_=_plain(""))
    point = sa.case((sa.func.length(whole) > 1, _plain(".")), else_=_plain(""))
    exponent = sa.cast(sa.func.length(digits) - 1, sa.Text)
    rounded = _joined([sign, sa.func.left(whole, 1), point, sa.func.substr(whole, 2), _plain("E+"), exponent])
    spelled = sa.case((key == 0, _plain("0")), (key % 10 == 0, rounded), else_=number)
    text = _joined([_plain('[{"$number": "'), spelled, _plain('"}]')])
    return sa.func.left(sa.func.encode(sa.func.sha256(sa.func.convert_to(text, "UTF8")), "hex"), 32)


def _listed(columns: Sequence[sa.Column[Any]]) -> _Text:
    """The columns' values as a JSON list."""
    return _joined([*_separated("[", [[_json(column)] for column in columns]), _plain("]" if columns else "[]")])


def _record(columns: Sequence[sa.Column[Any]]) -> _Text:
    """The columns' values as a JSON object. One function of the server spells all of it: to join the texts of names and
    values costs twice as much."""
    table = columns[0].table
    named = sa.select(*(_named(column).label(column.name) for column in columns)).correlate(table).lateral("image")
    row: _Text = sa.literal_column("image.*")  # without the star, a column with this name
    whole = sa.select(sa.cast(sa.func.row_to_json(row), sa.Text)).select_from(named)
    return whole.correlate(table).scalar_subquery()


def _named(column: sa.Column[Any]) -> _Text:
    """The column's value as `row_to_json` has to get it."""
    kind = _kind(column)
    if kind in _TAGS:
        return sa.case((column.is_not(None), sa.func.json_build_object(_plain(_TAGS[kind]), _tagged(column, kind))))
    return sa.cast(column, sa.Text) if isinstance(column.type, TextType) else column


def _separated(start: str, items: Sequence[Sequence[_Text]]) -> list[_Text]:
    return [part for place, item in enumerate(items) for part in (_plain("," if place else start), *item)]


def _json(column: sa.Column[Any]) -> _Text:
    """The column's value as JSON, as `exact_json` reads it; null for NULL."""
    return sa.func.coalesce(_value(column), _plain("null"))


def _value(column: sa.Column[Any]) -> _Text:
    text, kind = sa.cast(column, sa.Text), _kind(column)
    if kind in (int, bool):
        return text
    if kind in _TAGS:  # the texts of these have no character that JSON would escape
        start = _plain(f'{{"{_TAGS[kind]}":"')
        return sa.case((column.is_not(None), _joined([start, _tagged(column, kind), _plain('"}')])))
    # Not the text of every column: to cast a character(n) to text would cut the spaces at its end.
    return sa.cast(sa.func.to_json(text if isinstance(column.type, TextType) else column), sa.Text)


def _kind(column: sa.Column[Any]) -> type:
    """The Python type of the column's values."""
    kind: type = str if isinstance(column.type, TextType) else column.type.kinds[0]  # type: ignore[attr-defined]
    return kind


def _tagged(column: sa.Column[Any], kind: type) -> _Text:
    """The text of a value that stands behind its tag."""
    text = sa.cast(column, sa.Text)
    return sa.func.replace(sa.func.encode(column, "base64"), "\n", "") if kind is bytes else text


def _plain(text: str) -> _Text:
    return sa.literal(text, sa.Text)


def _joined(parts: Sequence[_Text]) -> _Text:
    """The texts one behind the other."""
    while len(parts) > 1:
        parts = [sa.func.concat(*some) for some in batched(list(parts), _ARGUMENTS)]
    return parts[0]
