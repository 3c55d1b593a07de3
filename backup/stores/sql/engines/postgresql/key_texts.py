"""What an entry of the bin says of a key, as PostgreSQL spells it of a table's rows: the texts that this process makes.

The server spells integers, uuids, times, and texts of printable ASCII, whose letters it makes small as `key_hash`
does. No function of a server folds other letters as `key_hash.key_hash` does. So of other keys this process makes
the texts, and hands them to the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from backup.core.model import Key
from backup.stores.exact_json import key_to_text
from backup.stores.key_hash import key_hash
from backup.stores.sql.engines.images_to_make import ImagesToMake
from backup.stores.sql.engines.postgresql.json_texts import joined_texts, json_list, kind_of_column, literal_text
from backup.stores.sql.engines.postgresql.types import IntegerType, TextType, unnested

_LOWEST = -(1 << 63)
_PRINTABLE = "^[ -~]*$"
_FIELDS = ("EntryId", "KeyHash", "RecordKey")
_Text = sa.ColumnElement[Any]


class KeyTexts(NamedTuple):
    """The fields of an entry that say whose it is, and the rows that have them: the table, perhaps joined."""

    fields: dict[str, _Text]
    rows: sa.FromClause


def key_texts(cx: sa.Connection, images: ImagesToMake, condition: sa.ColumnElement[bool]) -> KeyTexts:
    """What spells the keys of the rows that fulfil the condition. The EntryId is NULL of a row that another program has
    just added, if the server does not spell its key."""
    text = json_list(images.key)
    own = dict(zip(_FIELDS, (_id_of(images, text), _hash_of(images.key), text), strict=True))
    of_parts = [is_spelled for column in images.key if (is_spelled := _is_spelled(column)) is not None]
    if not of_parts:
        return KeyTexts(own, images.table)
    are_spelled = sa.and_(*of_parts)
    query = sa.select(*images.key).where(condition, sa.not_(are_spelled))
    others = [tuple(row) for row in cx.execute(query)]
    if not others:
        return KeyTexts({**own, "EntryId": sa.case((are_spelled, own["EntryId"]))}, images.table)
    listed = _made_here(images, others)
    fields: dict[str, _Text] = {name: sa.func.coalesce(listed.c[name], own[name]) for name in _FIELDS}
    fields["EntryId"] = sa.case((are_spelled, own["EntryId"]), else_=listed.c["EntryId"])
    has_key = (column == listed.c[f"part_{place}"] for place, column in enumerate(images.key))
    return KeyTexts(fields, images.table.outerjoin(listed, sa.and_(*has_key)))


def _made_here(images: ImagesToMake, keys: Sequence[Key]) -> sa.FromClause:
    """The keys, each with the texts that this process makes of it."""
    texts = zip(*((images.ids.of(key), key_hash(key), key_to_text(key)) for key in keys), strict=True)
    query = unnested([column.type for column in images.key], keys, dict(zip(_FIELDS, texts, strict=True)))
    names = (*(f"part_{place}" for place in range(len(images.key))), *_FIELDS)
    return query.columns(*map(sa.column, names)).subquery("listed")


def _is_spelled(column: sa.Column[Any]) -> sa.ColumnElement[bool] | None:
    """Whether the server spells the value; None if it spells each of the column."""
    if isinstance(column.type, TextType | IntegerType) or kind_of_column(column) is UUID:
        return None
    if kind_of_column(column) is str:
        text = sa.cast(column, sa.Text).collate("C")
        return text.op("~", is_comparison=True)(literal_text(_PRINTABLE))
    return sa.false()


def _id_of(images: ImagesToMake, text: _Text) -> _Text:
    """The id of the entry whose key has this text."""
    if not _is_one_integer(images.key):
        digest = _digest_of(joined_texts([literal_text(images.ids.digested), text]))
        return joined_texts([literal_text(images.ids.digest_start), digest])
    return joined_texts([literal_text(images.ids.id_start), _digits_of(*images.key)])


def _digits_of(key: sa.Column[Any]) -> _Text:
    """The sixteen hexadecimal digits of the key plus 2^63."""
    beyond = sa.cast(key, sa.BigInteger).op("#")(sa.literal(_LOWEST, sa.BigInteger))  # changes the sign's bit
    return sa.func.lpad(sa.func.to_hex(beyond), 16, "0")


def _is_one_integer(key: Sequence[sa.Column[Any]]) -> bool:
    return len(key) == 1 and isinstance(key[0].type, IntegerType)


def _hash_of(key: Sequence[sa.Column[Any]]) -> _Text:
    """What `key_hash.key_hash` makes of the key."""
    if _is_one_integer(key):
        return _digits_of(*key)
    parts = [
        part for place, column in enumerate(key) for part in (literal_text(", " if place else "["), *_alike(column))
    ]
    return _digest_of(joined_texts([*parts, literal_text("]")]))


def _digest_of(text: _Text) -> _Text:
    return sa.func.left(sa.func.encode(sa.func.sha256(sa.func.convert_to(text, "UTF8")), "hex"), 32)


def _alike(column: sa.Column[Any]) -> Sequence[_Text]:
    """The value as a hash of a key has it."""
    text, kind = sa.cast(column, sa.Text), kind_of_column(column)
    if kind is int:
        return literal_text('{"$number": "'), _number(column), literal_text('"}')
    if kind is UUID:
        return literal_text('{"$uuid": "'), text, literal_text('"}')
    if kind is str:  # of ASCII: with other letters, it is not the server that spells the key
        folded = sa.func.rtrim(sa.func.lower(text.collate("C")))
        return [sa.cast(sa.func.to_json(folded), sa.Text)]
    return [literal_text("")]  # this process spells it


def _number(key: sa.Column[Any]) -> _Text:
    """The number as a hash of a key has it: 1200 is 1.2E+3; 12 is 12."""
    number = sa.cast(key, sa.Text)
    digits = sa.func.ltrim(number, "-")
    whole = sa.func.rtrim(digits, "0")
    sign = sa.case((key < 0, literal_text("-")), else_=literal_text(""))
    point = sa.case((sa.func.length(whole) > 1, literal_text(".")), else_=literal_text(""))
    exponent = sa.cast(sa.func.length(digits) - 1, sa.Text)
    parts = [sign, sa.func.left(whole, 1), point, sa.func.substr(whole, 2), literal_text("E+"), exponent]
    return sa.case((key == 0, literal_text("0")), (key % 10 == 0, joined_texts(parts)), else_=number)
