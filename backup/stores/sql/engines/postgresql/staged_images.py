"""Rows that PostgreSQL makes of images, in a temporary table, and how it compares a table's rows with their images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name

from backup.stores.sql.engines.column import ServerType
from backup.stores.sql.engines.images_to_stage import ImageRows, ImagesToStage, StagedImages, image_rows
from backup.stores.sql.engines.postgresql.copy import staging_table
from backup.stores.sql.engines.postgresql.images import spelled_image
from backup.stores.sql.engines.postgresql.json_texts import TAGS, kind_of_column
from backup.stores.sql.engines.postgresql.types import TextType
from backup.stores.sql.engines.relayed import StagedRows

_JSON, _JSONB = ServerType("json"), ServerType("jsonb")
_Value = sa.ColumnElement[Any]


def stage_images(cx: sa.Connection, images: ImagesToStage) -> StagedImages:
    """As `Dialect.stage_images`. A value is read from its text by its type, as `COPY` reads it."""
    staged = staging_table(cx, images.copy, images.names, with_text=True)
    image, values = _decoded(images.record, images.columns)
    insert = staged.insert().from_select(staged.columns.keys(), images.rows(values, image), include_defaults=False)
    number = cx.execute(insert.execution_options(preserve_rowcount=True)).rowcount
    return StagedImages(StagedRows(staged, number), images)


@lru_cache(maxsize=64)
def rows_of_images(images: sa.Table, columns: tuple[sa.Column[Any], ...]) -> ImageRows:
    """As `Dialect.rows_of_images`."""
    image, values = _decoded(images.c["Record"], columns)
    # A text is one of its column's type: `character` has spaces at its end.
    typed = [
        sa.cast(value, ServerType(_declared(column))) if _is_text(column) else value
        for column, value in zip(columns, values, strict=True)
    ]
    return image_rows(images, columns, typed, _are_equal, image)


def count_equal(cx: sa.Connection, staged: StagedImages) -> int:
    """As `Dialect.count_equal`."""
    return int(cx.scalar(staged.equal_rows(_are_equal)) or 0)


def _are_equal(columns: Sequence[sa.Column[Any]], other: sa.Column[Any]) -> sa.ColumnElement[bool]:
    image = spelled_image(columns)
    # Text by text is enough for images that this server has made of such columns. Others have other escapes and spaces.
    return sa.case((image == other, sa.true()), else_=sa.cast(image, _JSONB) == sa.cast(other, _JSONB))


@lru_cache(maxsize=64)
def _decoded(
    record: sa.Column[Any], columns: tuple[sa.Column[Any], ...]
) -> tuple[sa.FromClause, Sequence[sa.ColumnElement[Any]]]:
    """What the server reads of an image, and the values of these columns in it."""
    # Quoted, for these are names of the table's columns, which may be any text.
    parts = (sa.column(quoted_name(column.name, quote=True), _part_type(column)) for column in columns)
    function = sa.func.json_to_record(sa.cast(record, _JSON)).table_valued(*parts)
    image = function.render_derived(name="image", with_types=True).lateral()
    return image, [_value(column, image.c[column.name]) for column in columns]


def _part_type(column: sa.Column[Any]) -> ServerType:
    """The type as which `json_to_record` reads the value from the image."""
    kind = kind_of_column(column)
    if kind in TAGS:
        return _JSON
    return ServerType(_declared(column) if kind in (int, bool) else "text")


def _value(column: sa.Column[Any], part: _Value) -> _Value:
    kind = kind_of_column(column)
    if kind in TAGS:
        text = part.op("->>")(sa.literal(TAGS[kind], sa.Text))
        return sa.func.decode(text, "base64") if kind is bytes else sa.cast(text, ServerType(_declared(column)))
    return sa.cast(part, ServerType(column.type.own)) if isinstance(column.type, TextType) else part


def _is_text(column: sa.Column[Any]) -> bool:
    return kind_of_column(column) is str and not isinstance(column.type, TextType)


def _declared(column: sa.Column[Any]) -> str:
    declared: str = column.type.declared  # type: ignore[attr-defined] # a ServerType
    return declared.split(" COLLATE ")[0]
