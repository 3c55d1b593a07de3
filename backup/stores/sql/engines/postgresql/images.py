"""Images that PostgreSQL makes of a table's rows: their JSON, and the ids and hashes of their keys.

Every value has the form that this process would give it, so both kinds of images are read by the same code. Values
that this process reads as the server's text are that same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert

from backup.stores.sql.engines.images_to_make import ImagesToMake
from backup.stores.sql.engines.postgresql.json_texts import TAGS, json_list, kind_of_column, literal_text, tagged_text
from backup.stores.sql.engines.postgresql.key_texts import key_texts
from backup.stores.sql.engines.postgresql.types import IntegerType, NativeType, TextType

_EXACT = {IntegerType, NativeType, TextType}
_Text = sa.ColumnElement[Any]


def make_images(cx: sa.Connection, images: ImagesToMake, condition: sa.ColumnElement[bool]) -> int | None:
    """As `Dialect.make_images`. Few statements; no row passes this process, and of keys only those that the server does
    not spell."""
    # In an encoding of its own, or in none, a server takes texts that nobody could read again.
    encoding = cx.connection.driver_connection.info.parameter_status("server_encoding")  # type: ignore[union-attr]
    if encoding != "UTF8" or not {type(column.type) for column in (*images.key, *images.columns)} <= {*_EXACT}:
        return None
    of_keys = key_texts(cx, images, condition)
    made = {**of_keys.fields}
    if images.columns:
        made |= {"Version": json_list(images.version), "Record": spelled_image(images.columns)}
    entries = images.entries(made, condition).select_from(of_keys.rows)
    if images.columns:
        # Locked, so that nobody changes a row between its image and what this transaction does to it.
        entries = entries.with_for_update(of=images.table, key_share=True)
    # To look for each entry costs a quarter more than one look for all, and ON CONFLICT twice as much. If two
    # transactions add one entry, the second is refused, and tried again.
    if images.ends is not None and cx.scalar(sa.select(sa.exists().where(images.may_have_id(images.ends)))):
        kept_before = images.bin.alias()
        entries = entries.where(~sa.exists().where(kept_before.c["EntryId"] == made["EntryId"]))
    add = postgresql_insert(images.bin).from_select([*made, *images.fields], entries, include_defaults=False)
    if images.ends is None:  # ids without an order: to look for each would read the whole bin for each batch
        add = add.on_conflict_do_nothing()
    return cx.execute(add.execution_options(preserve_rowcount=True)).rowcount


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
    kind = kind_of_column(column)
    if kind in TAGS:
        tagged = sa.func.json_build_object(literal_text(TAGS[kind]), tagged_text(column))
        return sa.case((column.is_not(None), tagged))
    return sa.cast(column, sa.Text) if isinstance(column.type, TextType) else column
