"""The copies of deleted records that stay in a backup's table, marked with the time of their delete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import sqlalchemy as sa

from backup.core.errors import SchemaMismatch, StoreError
from backup.core.model import Action, Key, Record
from backup.stores.keeping import Keep
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.batch import SqlBatch, key_batches
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.copies import milliseconds
from backup.stores.sql.reads import SqlReads
from backup.stores.sql.table import TableShape
from backup.stores.values import Limits


class SqlKeptDeletes:
    """The marked rows of one backup."""

    def __init__(self, access: SqlAccess, catalog: SqlCatalog, reads: SqlReads, limits: Limits) -> None:
        self._access, self._catalog, self._reads, self._limits = access, catalog, reads, limits

    def mark(self, keys: Sequence[Key], keep: Keep, at: datetime) -> None:
        shape, dialect, limits = self._catalog.shape, self._access.dialect, self._limits
        marked = {_mark_of(shape).name: milliseconds(at)}
        for attempt in self._access.attempts("mark records as deleted", writes=True) if keys else ():
            with attempt as cx:
                existing = SqlBatch(cx, shape, dialect, limits).keep_deleted(keys, keep)
                for part in key_batches(existing, shape, dialect, limits):
                    cx.execute(shape.table.update().where(shape.is_one_of(part)).values(marked))

    def mask(self, check: Callable[[], None]) -> int:
        all_masked, looked_at = 0, 1
        while looked_at:
            check()
            for attempt in self._access.attempts("mask the copies of deleted records", writes=True):
                with attempt as cx:
                    looked_at, masked = self._mask_some(cx)
            all_masked += masked
        return all_masked

    def _mask_some(self, cx: sa.Connection) -> tuple[int, int]:
        """Masks marked rows, up to a batch: how many it has looked at, and how many it has masked. Those it has looked
        at get a stamp by which it knows them. Nothing else asks for the stamp of such a row."""
        shape, dialect, limits = self._catalog.shape, self._access.dialect, self._limits
        if shape.masked is None or shape.own_deleted is None or shape.own_stamp is None:
            return 0, 0
        batch = SqlBatch(cx, shape, dialect, limits)
        deleted, stamp = (shape.table.c[own.name] for own in (shape.own_deleted, shape.own_stamp))
        seen = dialect.keyed_hash(shape.key, shape.stamping)
        query = sa.select(*shape.key).where(deleted.is_not(None), sa.or_(stamp.is_(None), stamp != seen))
        keys = [tuple(row) for row in cx.execute(query.limit(limits.batch_size))]
        keys = list(next(key_batches(keys, shape, dialect, limits), ()))
        images, _ = batch.images(keys, Action.UPDATED, locked=True) if keys else ((), 0)
        rows = [image.record for image in images if image.record is not None]
        own = {deleted.name, stamp.name}
        masked = [
            {name: value for name, value in row.items() if name not in own}
            for row in rows
            if not shape.masked.made(row[stamp.name])
        ]
        if masked:
            _refuse_to_empty(shape, masked)
            batch.write(masked, None)
        if rows:
            looked_at = shape.is_one_of([shape.key_of(row) for row in rows])
            cx.execute(shape.table.update().where(looked_at).values({stamp.name: seen}))
        return len(rows), len(masked)

    def count(self) -> int:
        shape = self._catalog.shape
        if shape.own_deleted is None:
            return 0
        return self._reads.count(shape, [_mark_of(shape).is_not(None)])


def _mark_of(shape: TableShape) -> sa.Column[str]:
    """The column with the time of a delete."""
    if shape.own_deleted is None:
        raise StoreError(f"The {shape.label} has no column for the time of a delete. Nothing was changed.")
    column: sa.Column[str] = shape.table.c[shape.own_deleted.name]
    return column


def _refuse_to_empty(shape: TableShape, records: Sequence[Record]) -> None:
    """Raises SchemaMismatch if one of these has no value where the table wants one."""
    wanted = [column.name for column in shape.columns if shape.may_write(column) and not column.nullable]
    fixed = [name for name in wanted if any(record.get(name, "") is None for record in records)]
    if fixed:
        marked = sa.delete(shape.table).where(_mark_of(shape).is_not(None))
        raise SchemaMismatch(
            f"Copies of deleted records in the {shape.label} still have values that the masks may have to hide: "
            f"the column {fixed[0]} is NOT NULL, so it cannot be emptied. What the source has is masked.",
            hint=f"Let {', '.join(fixed)} be NULL in the backup's table, or delete these copies: {marked}. Then sync.",
        )
