"""Images in the bin of which a server makes rows by itself, so that they never become values here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name

from backup.stores.sql.engines.relayed import StagedRows


class ImagesToStage(NamedTuple):
    """Images of rows of one table, in the bin of the same database.

    - `record`: the bin's column of them. Each is JSON as `exact_json.plain_json` or a server spells it.
    - `conditions`: which entries of the bin.
    - `columns`: the table's columns that get their values from them.
    - `imaged`: all columns of the table, which an image made now would have.
    """

    record: sa.Column[Any]
    conditions: Sequence[sa.ColumnElement[bool]]
    columns: tuple[sa.Column[Any], ...]
    imaged: tuple[sa.Column[Any], ...]

    @property
    def copy(self) -> sa.Table:
        """The table whose rows they were."""
        table = self.columns[0].table
        assert isinstance(table, sa.Table)  # noqa: S101 - for mypy
        return table

    @property
    def names(self) -> list[str]:
        """The names of the columns that get a value."""
        return [column.name for column in self.columns]

    def rows(self, values: Sequence[sa.ColumnElement[Any]], beside: sa.FromClause | None = None) -> sa.Select[Any]:
        """The values of each entry, and its image behind them. Each entry has one row `beside` it."""
        entries = self.record.table
        joined = entries if beside is None else entries.join(beside, sa.true())
        return sa.select(*values, self.record).select_from(joined).where(*self.conditions)


class ImageRows(NamedTuple):
    """A query for the rows that a server makes of all images in a bin.

    - `rows`: it has the columns of the table whose rows they were, with their types.
    - `entry_id`: the column of it that says of which entry a row is made.
    - `is_exact`: the condition that an image which the server would make of the row is the one of the entry.
    """

    rows: sa.Subquery
    entry_id: sa.Column[str]
    is_exact: sa.ColumnElement[bool]


def image_rows(
    images: sa.Table,
    columns: Sequence[sa.Column[Any]],
    values: Sequence[sa.ColumnElement[Any]],
    are_equal: Callable[..., sa.ColumnElement[bool]],
    beside: sa.FromClause | None = None,
    hint: tuple[str, str] | None = None,
) -> ImageRows:
    """The rows with these `values`, one for each of the table's `columns`, of a bin of `images`. `beside`, `are_equal`:
    as in `ImagesToStage.rows` and `StagedImages.equal_rows`. `hint`: what stands behind the bin's name, in the SQL of
    which dialect."""
    names = {column.name.lower() for column in columns}
    entry_id, image = (next(name for name in _unlike(start) if name not in names) for start in ("entry_id", "image"))
    named = [
        sa.type_coerce(value, column.type).label(quoted_name(column.name, quote=True))
        for column, value in zip(columns, values, strict=True)
    ]
    selected = sa.select(*named, images.c["EntryId"].label(entry_id), images.c["Record"].label(image))
    joined = images if beside is None else images.join(beside, sa.true())
    selected = selected.select_from(joined)
    rows = (selected if hint is None else selected.with_hint(images, *hint)).subquery("images")
    of_rows: Any = rows.c
    is_exact = are_equal([of_rows[column.name] for column in columns], of_rows[image])
    return ImageRows(rows, of_rows[entry_id], is_exact)


def _unlike(start: str) -> Iterator[str]:
    return (f"{start}{'_' * length}" for length in count())


class StagedImages(NamedTuple):
    """The rows that a server has made of images. The temporary table has one more column, behind those of the rows:
    the image of each."""

    rows: StagedRows
    images: ImagesToStage

    def equal_rows(self, are_equal: Callable[..., sa.ColumnElement[bool]]) -> sa.Select[Any]:
        """Counts the table's rows with the keys of staged ones that have their images. `are_equal` compares the image
        that would be made now, of the columns that it takes, with the other one."""
        return _equal_rows(are_equal, self.rows.table, self.images.columns, self.images.imaged)


@lru_cache(maxsize=64)  # it takes as long as the work on a thousand rows
def _equal_rows(
    are_equal: Callable[..., sa.ColumnElement[bool]],
    staged: sa.Table,
    columns: tuple[sa.Column[Any], ...],
    imaged: tuple[sa.Column[Any], ...],
) -> sa.Select[Any]:
    *values, image = staged.columns
    same_key = [column == value for column, value in zip(columns, values, strict=True) if column.primary_key]
    query = sa.select(sa.func.count()).select_from(staged, imaged[0].table)
    return query.where(*same_key, are_equal(imaged, image))
