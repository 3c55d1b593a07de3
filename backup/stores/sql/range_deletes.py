"""Deletes the records of ranges of integer keys, with images that the server makes. One transaction has both, and the
fence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from backup.core.errors import NotInitialized, StoreError, StoreUnavailable
from backup.core.key_ranges import KeyRange, count_keys, keys_of, split_at
from backup.core.model import Action, Key
from backup.stores.chunk_size import ChunkSize
from backup.stores.keeping import Keep
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.foreign_keys import references_to, would_change
from backup.stores.sql.key_ranges import is_integer
from backup.stores.sql.server_images import ServerImages
from backup.stores.sql.table import TableShape
from backup.stores.values import Limits, RangesNotDeleted

_GROWTH = 4
_RANGES_NAMED = 20  # more of them are named key by key: a server reads a long list of ranges slowly


class _OtherNumber(StoreError):
    """The bin has got another number of images than the table has lost rows."""


class SqlRangeDeletes:
    """The deletes by ranges in one table.

    The first transaction has as many keys as a batch, each further one up to four times as many: as many as a chunk,
    or as fit into half of `max_statement_seconds`.
    """

    def __init__(self, access: SqlAccess, catalog: SqlCatalog, limits: Limits) -> None:
        self._access, self._catalog, self._limits = access, catalog, limits
        self._size = ChunkSize(limits.chunk_size, limits.max_statement_seconds)
        self._keys = min(limits.batch_size, limits.chunk_size)

    def keys_in(self, ranges: Sequence[KeyRange]) -> list[Key] | None:
        """As `Relational.keys_in`."""
        shape = self._catalog.shape
        if not _has_ranges(shape):
            return None
        keys, rest = list[Key](), list(ranges)
        while rest:
            part, rest = self._cut(rest, count_keys(rest))
            for attempt in self._access.attempts("look up keys", single=True):
                with attempt as cx:
                    of_part = cx.execute(sa.select(*shape.key).where(_are_in(shape, part))).all()
            keys += map(tuple, of_part)
        return keys

    def delete(self, ranges: Sequence[KeyRange], keep: Keep) -> Iterator[tuple[Sequence[KeyRange], int]]:
        """As `Relational.delete_ranges`."""
        shape, rest = self._catalog.shape, list(ranges)
        if not _has_ranges(shape):
            raise RangesNotDeleted(rest)
        while rest:
            part, following = self._cut(rest, self._keys)
            try:
                deleted = self._transaction(shape, part, keep)
            except StoreUnavailable:
                raise
            except (StoreError, NotInitialized) as error:
                raise RangesNotDeleted(rest, None if isinstance(error, _OtherNumber) else error) from None
            if deleted is None:
                raise RangesNotDeleted(rest)
            yield part, deleted
            rest = following
            self._keys = min(self._size.chunk_size, max(self._keys, count_keys(part)) * _GROWTH)

    def _cut(self, ranges: Sequence[KeyRange], size: int) -> tuple[list[KeyRange], list[KeyRange]]:
        """The first `size` keys, or as many as a statement may name, and the others."""
        if len(split_at(ranges, size)[0]) > _RANGES_NAMED:
            size = min(size, self._access.dialect.max_parameters)
        return split_at(ranges, size)

    def _transaction(self, shape: TableShape, part: Sequence[KeyRange], keep: Keep) -> int | None:
        for attempt in self._access.attempts("delete records", writes=True):
            with attempt as cx, self._size.measuring(count_keys(part)):
                deleted = self._delete(cx, shape, part, keep)
        return deleted

    def _delete(self, cx: sa.Connection, shape: TableShape, part: Sequence[KeyRange], keep: Keep) -> int | None:
        """Deletes the rows. None, and nothing was done, where the server cannot make their images, and where the delete
        may change rows of other tables."""
        dialect = self._access.dialect
        if any(would_change(reference, dialect) for reference in references_to(cx, dialect, shape)):
            return None
        condition, ends = _are_in(shape, part), (part[0][0], part[-1][1])
        made = ServerImages(dialect).make_of(cx, shape, keep, Action.DELETED, condition, ends)
        if made is None:
            return None
        delete = shape.table.delete().where(condition).execution_options(preserve_rowcount=True)
        deleted = cx.execute(delete).rowcount
        if deleted != made:  # a trigger has swallowed some of either, or the run has entries about some
            raise _OtherNumber
        return deleted


def _are_in(shape: TableShape, ranges: Sequence[KeyRange]) -> sa.ColumnElement[bool]:
    """The condition that a row's key is in the ranges."""
    if len(ranges) > _RANGES_NAMED:
        return shape.is_one_of(keys_of(ranges))
    [key] = shape.key
    return sa.or_(*(key.between(sa.literal(first, key.type), sa.literal(last, key.type)) for first, last in ranges))


def _has_ranges(shape: TableShape) -> bool:
    """Whether each key of the table is a single integer, and each row belongs to the service."""
    return is_integer(shape.key) and not shape.filters
