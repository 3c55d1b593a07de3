"""Rows that SQL Server makes of images, in a temporary table, and how it compares a table's rows with their images.

OPENJSON reads integers, flags and texts. Of a text each type makes its value as of that of a parameter. The comparison
proves it, so a value that a server reads otherwise is none that counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from backup.stores.sql.engines.images_to_stage import ImageRows, ImagesToStage, StagedImages, image_rows
from backup.stores.sql.engines.mssql.images import (
    DECIMAL_BASES,
    INTEGER_BASES,
    may_spell,
    spelled_image,
)
from backup.stores.sql.engines.mssql.json import MAX_COLUMNS, Form, written_value
from backup.stores.sql.engines.mssql.relay import empty_staging_table
from backup.stores.sql.engines.relayed import StagedRows

_TAGS = {**dict.fromkeys(DECIMAL_BASES, '."$decimal"'), "date": '."$date"'}
_LONG = "nvarchar(max)"


def stage_images(cx: sa.Connection, images: ImagesToStage) -> StagedImages | None:
    """As `Dialect.stage_images`. None also where no image could be compared, and where it is not documented how a path
    of JSON spells the name of a column."""
    if not _may_read(images.columns, images.imaged):
        return None
    staged = empty_staging_table(cx, images.copy, tuple(images.names), with_text=True)
    read, values = _decoded(images.columns)
    query = images.rows(values).with_hint(images.record.table, read, "mssql")
    insert = staged.insert().from_select(staged.columns.keys(), query, include_defaults=False)
    number = cx.execute(insert.execution_options(preserve_rowcount=True)).rowcount
    return StagedImages(StagedRows(staged, number), images)


@lru_cache(maxsize=64)
def rows_of_images(images: sa.Table, columns: tuple[sa.Column[Any], ...]) -> ImageRows | None:
    """As `Dialect.rows_of_images`. None also where no image could be compared."""
    if not _may_read(columns, columns):
        return None
    read, values = _decoded(columns)
    return image_rows(images, columns, values, _are_equal, hint=(read, "mssql"))


def count_equal(cx: sa.Connection, staged: StagedImages) -> int:
    """As `Dialect.count_equal`. Two spellings of the same values count as different."""
    return int(cx.scalar(staged.equal_rows(_are_equal)) or 0)


def _may_read(columns: Sequence[sa.Column[Any]], imaged: Sequence[sa.Column[Any]]) -> bool:
    """Whether an image of all `imaged` columns of a table can be compared, and how a path of JSON spells the names of
    these columns is documented."""
    key = [column for column in imaged if column.primary_key]
    is_spelled = all({'"', "\\"}.isdisjoint(column.name) for column in columns)
    return may_spell(key, imaged) and is_spelled and len(columns) <= MAX_COLUMNS


def _are_equal(columns: Sequence[sa.Column[Any]], other: sa.Column[Any]) -> sa.ColumnElement[bool]:
    is_equal: sa.ColumnElement[bool] = spelled_image(columns) == other
    return is_equal


@lru_cache(maxsize=64)
def _decoded(columns: tuple[sa.Column[Any], ...]) -> tuple[str, Sequence[sa.ColumnElement[Any]]]:
    """What stands behind the bin's table, so that each entry has the parts of its image beside it, and the values of
    these columns in them."""
    forms = [Form(_part_type(column.type), ()) for column in columns]
    parts = ", ".join(f"c{n} {form.declared} {_path(columns[n])}" for n, form in enumerate(forms))
    values = [written_value(column.type, form, n) for n, (column, form) in enumerate(zip(columns, forms, strict=True))]
    return f"CROSS APPLY OPENJSON([Record]) WITH ({parts}) AS j".replace("%", "%%"), values


def _part_type(type_: Any) -> str:
    """The type as which OPENJSON reads a value. It may cut a text that is longer, which then is another one."""
    if type_.base in INTEGER_BASES:
        return "bigint"
    return "bit" if type_.base == "bit" else _LONG


def _path(column: sa.Column[Any]) -> str:
    spelled = f'$."{column.name}"{_TAGS.get(column.type.base, "")}'.replace("'", "''")  # type: ignore[attr-defined]
    return f"'{spelled}'" if spelled.isascii() else f"N'{spelled}'"  # not every server that speaks T-SQL takes the N
