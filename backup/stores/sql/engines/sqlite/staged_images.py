"""Rows that SQLite makes of images, in a temporary table, and how it compares a table's rows with their images.

Reals and bytes, which SQLite's JSON does not read exactly or does not have, are read by a function of this process.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from backup.stores.exact_json import key_from_text, record_from_text
from backup.stores.sql.engines.images_to_stage import ImageRows, ImagesToStage, StagedImages, image_rows
from backup.stores.sql.engines.relayed import StagedRows
from backup.stores.sql.engines.sqlite.images import OF_VALUES, learn_functions, spelled_image
from backup.stores.sql.engines.sqlite.literals import text_literal
from backup.stores.sql.engines.sqlite.relay import empty_staging_table
from backup.stores.sql.engines.tables import TableAlone

_VALUE_OF, _ARE_ALIKE = "value_of_json", "are_alike"
_COMPARES_IMAGES = "compares images"
_BY_FUNCTION = ("real", "object")  # kinds of JSON
_Value = sa.ColumnElement[Any]


def stage_images(cx: sa.Connection, images: ImagesToStage) -> StagedImages | None:
    """As `Dialect.stage_images`. None also where SQLite would not find a value by the column's name."""
    if isinstance(images.copy, TableAlone) or any('"' in name for name in images.names):
        return None
    _learn(cx)
    staged = empty_staging_table(cx, images.copy, tuple(images.names), with_text=True)
    if staged is None:
        return None
    rows = images.rows(_decoded(images.record, images.columns))
    insert = staged.insert().from_select(staged.columns.keys(), rows, include_defaults=False)
    try:
        number = cx.execute(insert.execution_options(preserve_rowcount=True)).rowcount
    except sa.exc.DBAPIError as error:
        if not _is_of_values(error):
            raise
        return None  # only the statement was undone, not the transaction
    return StagedImages(StagedRows(staged, number), images)


def rows_of_images(cx: sa.Connection, images: sa.Table, columns: tuple[sa.Column[Any], ...]) -> ImageRows | None:
    """As `Dialect.rows_of_images`. None also where SQLite would not find a value by the column's name."""
    if any('"' in column.name for column in columns):
        return None
    _learn(cx)
    return _rows_of_images(images, columns)


@lru_cache(maxsize=64)
def _rows_of_images(images: sa.Table, columns: tuple[sa.Column[Any], ...]) -> ImageRows:
    return image_rows(images, columns, _decoded(images.c["Record"], columns), _are_equal)


def count_equal(cx: sa.Connection, staged: StagedImages) -> int:
    """As `Dialect.count_equal`."""
    try:
        return int(cx.scalar(staged.equal_rows(_are_equal)) or 0)
    except sa.exc.DBAPIError as error:
        if not _is_of_values(error):
            raise
        return 0


def _learn(cx: sa.Connection) -> None:
    learn_functions(cx)
    if not cx.info.get(_COMPARES_IMAGES):
        driver: Any = cx.connection.driver_connection
        driver.create_function(_VALUE_OF, 1, _value_of_json, deterministic=True)
        driver.create_function(_ARE_ALIKE, 2, _are_alike, deterministic=True)
        cx.info[_COMPARES_IMAGES] = True


def _is_of_values(error: sa.exc.DBAPIError) -> bool:
    return any(cause in str(error.orig) for cause in (*OF_VALUES, "malformed JSON"))


def _are_equal(columns: Sequence[sa.Column[Any]], other: sa.Column[Any]) -> sa.ColumnElement[bool]:
    image = spelled_image(columns)
    return sa.case((image == other, sa.true()), else_=getattr(sa.func, _ARE_ALIKE)(image, other))


@lru_cache(maxsize=64)
def _decoded(record: sa.Column[Any], columns: tuple[sa.Column[Any], ...]) -> Sequence[_Value]:
    """The values of these columns in an image."""
    return [_value(record, column) for column in columns]


def _value(record: sa.Column[Any], column: sa.Column[Any]) -> _Value:
    # A release may compare a name as it is spelled: an image of this process has no letter beyond ASCII.
    spelled, in_ascii = (json.dumps(column.name, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    value = _at(record, spelled, column)
    if spelled == in_ascii:
        return value
    is_there = sa.func.json_type(record, _path(spelled)).is_not(None)
    return sa.case((is_there, value), else_=_at(record, in_ascii, column))


def _at(record: sa.Column[Any], name: str, column: sa.Column[Any]) -> _Value:
    plain: _Value = record.op("->>")(_path(name))
    if column.type.is_row_number:  # type: ignore[attr-defined] # a ServerType
        return plain
    exact = getattr(sa.func, _VALUE_OF)(record.op("->")(_path(name)))
    return sa.case((sa.func.json_type(record, _path(name)).in_(map(text_literal, _BY_FUNCTION)), exact), else_=plain)


def _path(name: str) -> Any:
    return text_literal(f'$."{name}"')


def _value_of_json(text: str) -> Any:
    """The value that this process reads from the JSON of a real, or of a value with a tag."""
    return key_from_text(f"[{text}]")[0] if text.startswith("{") else float(text)


def _are_alike(image: str, other: str) -> bool:
    """Whether both say the same of the same columns, however they are spelled."""
    return _spelled(image) == _spelled(other)


def _spelled(image: str) -> list[tuple[str, str]]:
    return sorted((name, repr(value)) for name, value in record_from_text(image).items())
