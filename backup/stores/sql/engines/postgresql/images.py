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
from sqlalchemy.dialects.postgresql import insert as postgresql_insert

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
    of_integers = {type(column.type) for column in images.key} == {IntegerType}
    if encoding != "UTF8" or not of_integers or not {*types} <= {*_EXACT}:
        return None
    text = _joined([*_separated("[", [[sa.cast(column, sa.Text)] for column in images.key]), _plain("]")])
    made = {
        "EntryId": _id_of(images, text),
        "KeyHash": _key_hash(images.key),
        "RecordKey": text,
        "Version": _listed(images.version),
        "Record": spelled_image(images.columns),
    }
    # Locked, so that nobody changes a row between its image and what this transaction does to it.
    entries = images.entries(made, condition).with_for_update(of=images.table, key_share=True)
    # To look for each entry costs a quarter more than one look for all, and ON CONFLICT twice as much. If two
    # transactions add one entry, the second is refused, and tried again.
    if images.ends is not None and cx.scalar(sa.select(sa.exists().where(images.ids(images.ends)))):
        kept_before = images.bin.alias()
        entries = entries.where(~sa.exists().where(kept_before.c["EntryId"] == made["EntryId"]))
    add = postgresql_insert(images.bin).from_select([*made, *images.fields], entries, include_defaults=False)
    if images.ends is None:  # ids without an order: to look for each would read the whole bin for each batch
        add = add.on_conflict_do_nothing()
    return cx.execute(add.execution_options(preserve_rowcount=True)).rowcount


_EXACT = {IntegerType, NativeType, TextType}


def _id_of(images: ImagesToMake, text: _Text) -> _Text:
    """The id of the entry whose key has this text."""
    if len(images.key) > 1:
        return _joined([_plain(images.digest_start), _digest_of(_joined([_plain(images.digested), text]))])
    [key] = images.key
    beyond = sa.cast(key, sa.BigInteger).op("#")(sa.literal(_LOWEST, sa.BigInteger))  # changes the sign's bit
    return _joined([_plain(images.id_start), sa.func.lpad(sa.func.to_hex(beyond), 16, "0")])


def _key_hash(key: Sequence[sa.Column[Any]]) -> _Text:
    """What `exact_json.key_hash` makes of the key."""
    parts = [
        part
        for place, column in enumerate(key)
        for part in (_plain(f'{", " if place else "["}{{"$number": "'), _spelled(column), _plain('"}'))
    ]
    return _digest_of(_joined([*parts, _plain("]")]))


def _digest_of(text: _Text) -> _Text:
    return sa.func.left(sa.func.encode(sa.func.sha256(sa.func.convert_to(text, "UTF8")), "hex"), 32)


def _spelled(key: sa.Column[Any]) -> _Text:
    """The number as a hash of a key has it: 1200 is 1.2E+3; 12 is 12."""
    number = sa.cast(key, sa.Text)
    digits = sa.func.ltrim(number, "-")
    whole = sa.func.rtrim(digits, "0")
    sign = sa.case((key < 0, _plain("-")), else_=_plain(""))
    point = sa.case((sa.func.length(whole) > 1, _plain(".")), else_=_plain(""))
    exponent = sa.cast(sa.func.length(digits) - 1, sa.Text)
    rounded = _joined([sign, sa.func.left(whole, 1), point, sa.func.substr(whole, 2), _plain("E+"), exponent])
    return sa.case((key == 0, _plain("0")), (key % 10 == 0, rounded), else_=number)


def _listed(columns: Sequence[sa.Column[Any]]) -> _Text:
    """The columns' values as a JSON list."""
    return _joined([*_separated("[", [[_json(column)] for column in columns]), _plain("]" if columns else "[]")])


def spelled_image(columns: Sequence[sa.Column[Any]]) -> _Text:
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
