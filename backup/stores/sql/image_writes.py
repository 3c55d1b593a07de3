"""Writes records as images of the bin say. The server makes rows of these, and compares what is there in the end with
them. One transaction has all of it, the images of what is replaced, and the fence."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.stores.keeping import Keep
from backup.stores.sibling import ImagesToWrite
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.app_tables import SqlSibling
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.engines.images_to_make import LARGEST_BYTES
from backup.stores.sql.engines.images_to_stage import ImagesToStage
from backup.stores.sql.relay import OthersWrote, RelayedParts
from backup.stores.sql.server_images import ServerImages, may_make
from backup.stores.sql.staged import Staged
from backup.stores.values import Limits, NotRelayed, RelayedPart

FEWEST_IMAGES = 200
"""Images of a run: for fewer, to read and to write them here costs as much."""

_PLAIN = "{%"
"""The texts of images that are neither compressed nor in parts."""


_CUT_AT_ONCE = 100
"""Pieces of as many images as a batch."""


class _Piece(NamedTuple):
    """Images up to the entry with this id, how many they are, and how many of them a server may be able to read."""

    upto: str
    number: int
    plain: int


class OtherRows(OthersWrote):
    """A row is not what its image says: a trigger has changed it, or the server has read the image in another way."""


class SqlImageWrites:
    """The writes of images in one table.

    The first transaction has as many of them as a batch, each further one up to four times as many: as many as a chunk,
    or as fit into half of `max_statement_seconds`.
    """

    def __init__(self, access: SqlAccess, catalog: SqlCatalog, limits: Limits) -> None:
        self._access, self._catalog, self._parts = access, catalog, RelayedParts(limits)

    def write(self, images: ImagesToWrite, keep: Keep) -> Iterator[RelayedPart]:
        """As `Relational.write_images`."""
        shape = self._catalog.shape
        has_keys = not (shape.identity or shape.nullable_key or shape.key_may_repeat)
        may_stage = has_keys and may_make(shape, keep)
        if not may_stage or self._catalog.withheld:
            raise NotRelayed(images)
        ahead = deque[_Piece]()

        def cut(rest: ImagesToWrite, rows: int) -> tuple[ImagesToWrite, ImagesToWrite | None]:
            ahead.extend(() if ahead else self._pieces(rest))
            return _first(rest, rows, ahead, some=self._access.dialect.chooses_images)

        return self._parts.of(images, cut, lambda part: self._transaction(part, keep))

    def _pieces(self, images: ImagesToWrite) -> list[_Piece]:
        """The first images, in pieces; the last of all is one without images. They are asked for together: a server
        that does not know yet how many entries a run has reads all of them each time."""
        table, size = _bin(images), self._parts.first
        entry_id, plain = table.c["EntryId"], sa.case((is_plain(table), 1))
        query = sa.select(entry_id.label("id"), plain.label("is_plain")).where(*_conditions(images))
        first = query.order_by(entry_id).limit(_CUT_AT_ONCE * size).subquery("first").c
        place = (sa.func.row_number(type_=sa.Integer).over(order_by=first.id) - 1) // size
        placed = sa.select(first.id, first.is_plain, place.label("place")).subquery("placed").c
        pieces = sa.select(sa.func.max(placed.id), sa.func.count(placed.id), sa.func.count(placed.is_plain))
        for attempt in self._access.attempts("cut the images into parts", single=True):
            with attempt as cx:
                rows = cx.execute(pieces.group_by(placed.place).order_by(placed.place)).all()
        is_end = sum(row[1] for row in rows) < _CUT_AT_ONCE * size
        return [*(_Piece(*row) for row in rows), *([_Piece(images.upto, 0, 0)] if is_end else [])]

    def _transaction(self, part: ImagesToWrite, keep: Keep) -> RelayedPart | None:
        """Writes what these images say, but for those that it leaves. None, and nothing was done, where the server
        cannot."""
        if not part.number:
            return None if part.number is None else RelayedPart()
        shape, dialect = self._catalog.shape, self._access.dialect
        columns = tuple(shape.table.c[column.name] for column in shape.columns if shape.may_write(column))
        plain = [is_plain(_bin(part))] if part.others else []
        left: Sequence[str] = ()
        conditions = [*_conditions(part), *plain]
        images = ImagesToStage(_bin(part).c["Record"], conditions, columns, (*shape.table.columns,))
        for attempt in self._access.attempts("write images", writes=True):
            with attempt as cx, self._parts.size.measuring(part.number):
                staged, written = dialect.stage_images(cx, images), None
                if staged is not None:
                    if staged.rows.number != part.number:  # a purge has deleted some
                        raise OthersWrote
                    rows = Staged(shape, staged.rows, images.names, (), compared=False)
                    written = rows.write(cx, ServerImages(dialect), keep, 0)
                    if written is not None and dialect.count_equal(cx, staged) != part.number:
                        raise OtherRows
                    left = self._others(cx, part)
        return None if written is None else replace(written, left=left)

    def _others(self, cx: sa.Connection, part: ImagesToWrite) -> Sequence[str]:
        """The ids of the entries whose images no server can read."""
        if not part.others:
            return ()
        table = _bin(part)
        return cx.scalars(
            sa.select(table.c["EntryId"]).where(*_conditions(part), sa.case((is_plain(table), 1)).is_(None))
        ).all()


def _first(
    images: ImagesToWrite, rows: int, ahead: deque[_Piece], *, some: bool
) -> tuple[ImagesToWrite, ImagesToWrite | None]:
    """The first pieces, which leave `ahead`, as one part of no more than so many images, and what is left. `some`: the
    server may read some images of a part and leave the others."""
    pieces = [ahead.popleft()]
    while ahead and sum(piece.number for piece in pieces) + ahead[0].number <= rows:
        pieces.append(ahead.popleft())
    number, last = sum(piece.number for piece in pieces), pieces[-1].upto
    is_end, plain = last == images.upto, sum(piece.plain for piece in pieces)
    is_enough = plain >= FEWEST_IMAGES or not is_end or not number
    may_read = is_enough and (plain == number or (some and plain >= FEWEST_IMAGES))
    part = images._replace(upto=last, number=plain if may_read else None, others=number - plain)
    return part, None if is_end else images._replace(above=last)


def is_plain(table: sa.Table) -> sa.ColumnElement[bool]:
    """Whether a server may be able to read the image of an entry in this bin."""
    record = table.c["Record"]
    return sa.and_(record.like(_PLAIN), sa.func.length(record) <= LARGEST_BYTES)


def _bin(images: ImagesToWrite) -> sa.Table:
    assert isinstance(images.table, SqlSibling)  # noqa: S101 - for mypy: it is beside a table
    return images.table.table


def _conditions(images: ImagesToWrite) -> list[sa.ColumnElement[bool]]:
    columns: Any = _bin(images).c
    fields = (columns[name] == value for name, value in images.where.items())
    return [columns["EntryId"] > images.above, columns["EntryId"] <= images.upto, *fields]
