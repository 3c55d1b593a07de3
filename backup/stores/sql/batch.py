"""What is done in one transaction of a table: lookups by the server's own equality of keys, images, writes, deletes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Literal

import sqlalchemy as sa

from backup.core.batched import batched
from backup.core.model import Action, Image, Key, Record, Stamps
from backup.stores.base import Accept, Keep
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.prepared import Prepared, Row, values_at
from backup.stores.sql.foreign_keys import refuse_replacing, refuse_to_touch_others, unique_columns
from backup.stores.sql.rows import Rows, first_rows, is_large, values_of
from backup.stores.sql.table import TableShape
from backup.stores.values import Limits, Written

_COMPOSITE_KEYS_AT_ONCE = 200


class Replacing(Enum):
    """What becomes of rows before they are written anew, so that they can exchange values that are unique."""

    EMPTIED = "emptied"
    DELETED = "deleted"


class SqlBatch:
    """One transaction's work on one table. All of it may be repeated when the transaction has to be."""

    def __init__(self, cx: sa.Connection, shape: TableShape, dialect: Dialect, limits: Limits) -> None:
        self._cx, self._shape, self._dialect, self._limits = cx, shape, dialect, limits

    def matching(self, keys: Sequence[Key], filters: Sequence[sa.ColumnElement[bool]] = ()) -> set[Key]:
        """Those of `keys` that have a row; no more keys than `key_batches` gives at once."""
        shape, asked = self._shape, set(keys)
        query = sa.select(*shape.key).where(*filters)
        rows = {tuple(row) for row in self._cx.execute(query.where(shape.is_one_of(keys)))}
        if rows <= asked:
            return rows
        # The server has some under another spelling: ask which ones, key by key.
        for key in asked - rows:
            if self._cx.execute(query.where(shape.is_one_of([key]))).first() is not None:
                rows.add(key)
        return rows & asked

    def images(self, keys: Sequence[Key], action: Action, *, locked: bool = False) -> tuple[list[Image], int]:
        """Images of the first of these keys, up to the byte limit, and their bytes; none when no row has one. `locked`:
        nobody else changes these rows until the transaction ends, and they are told with their stamps."""
        shape, asked = self._shape, set(keys)
        select = self._dialect.locked(shape.select) if locked else shape.select
        plain = (c.name for c in shape.columns if not (c.computed or c.identity or c.key_position))
        if locked and (name := next(plain, None)) is not None:
            self._dialect.lock(self._cx, shape.table.c[name], shape.is_one_of(keys))
        query = select.where(shape.is_one_of(keys))
        largest = self._dialect.largest(self._cx, shape.table, query)
        rows, size, complete, _ = first_rows(self._cx, query, self._limits.batch_bytes, largest)
        images = {image.key: image for image in (self._image(record, action) for record in Rows(shape.names, rows))}
        found = {key: image for key, image in images.items() if key in asked}
        if len(found) < len(images) and (complete or not found):  # the server has some under another spelling
            for key in asked - found.keys():
                one = self._cx.execute(select.where(shape.is_one_of([key]))).first()
                if one is not None:
                    [record] = Rows(shape.names, [tuple(one)])
                    found[key] = dataclasses.replace(self._image(record, action), key=key)
        return (self._stamped(found.values()) if locked else list(found.values())), size

    def _stamped(self, images: Collection[Image]) -> list[Image]:
        """The images with the stamps of those that are the service's."""
        shape = self._shape
        own = {image.key: shape.key_of(image.record) for image in images if image.record is not None}
        stamps: Stamps = {}
        if own:
            query = shape.stamp_query(self._dialect).where(shape.is_one_of([*own.values()]), *shape.filters)
            stamps = shape.stamps_of(tuple(row) for row in self._cx.execute(query))
        return [dataclasses.replace(image, stamp=stamps.get(own[image.key])) for image in images]

    def _image(self, record: Record, action: Action) -> Image:
        return Image(self._shape.key_of(record), action, record, tuple(record[c.name] for c in self._shape.version))

    def write(
        self,
        records: Sequence[Record],
        keep: Keep | None,
        *,
        absent: bool = False,
        accept: Accept | None = None,
        replace: Replacing | None = None,
    ) -> Written:
        """Inserts or overwrites these records, which have all the same columns, and keeps an image of each.

        Which rows exist is asked here, by the server's own equality: a key that changed only in case meets its old row.
        The filters have no say: a key is unique without them. Records taken for `absent` are inserted without asking,
        and the primary key refuses one that is there. What `accept` refuses is left alone. `replace` says what becomes
        of the rows that are there before anything is written: their unique columns are emptied, or they are deleted.
        """
        shape, dialect = self._shape, self._cx.dialect
        if getattr(records, "large", False):
            is_large(self._cx)
        names = {c.name: name for name in records[0] if (c := shape.find(name)) and not c.computed}
        own = tuple(name for name in shape.names if name in names)
        rows = values_of(records, [names[name] for name in own])
        keys = values_at([own.index(name) for name in shape.key_names], rows)
        there = _There() if absent else self._look_up(keys, keep, accept)
        if there.left:
            rows = [row for row, key in zip(rows, keys, strict=True) if key not in there.left]
            keys = [key for key in keys if key not in there.left]
        old, new, new_keys = _split(rows, keys, there.existing)
        if old and replace is Replacing.EMPTIED:
            self._empty([*there.existing])
        if old and replace is Replacing.DELETED:
            self._insert_anew(own, old, [*there.existing])
        elif old and not shape.identity.issuperset(own):
            self._dialect.update_rows(self._cx, _prepared(shape, "update", own, dialect), old)
        if new:
            insert = _prepared(shape, "insert", own, dialect)
            self._dialect.insert_rows(self._cx, insert, new, identity=not shape.identity.isdisjoint(own))
        if keep is not None:
            keep(there.waiting, self._cx, new_keys)
        return Written(frozenset(new_keys), frozenset(there.existing), left=frozenset(there.left))

    def _empty(self, keys: Sequence[Key]) -> None:
        """Takes from these rows what others may be waiting for: the values of unique columns that may be NULL."""
        shape = self._shape
        named = set().union(*unique_columns(self._cx, shape)) - {*shape.key_names}
        columns = [c.name for c in shape.columns if c.name in named and c.nullable and not (c.computed or c.identity)]
        for part in key_batches(keys, shape, self._dialect, self._limits) if columns else ():
            emptied = shape.table.update().where(shape.is_one_of(part)).values(dict.fromkeys(columns))
            self._cx.execute(emptied)

    def _insert_anew(self, own: tuple[str, ...], rows: Sequence[Row], keys: Sequence[Key]) -> None:
        """Deletes the rows of these keys and inserts them as they are to be; what `rows` do not say stays as it was."""
        shape = self._shape
        refuse_replacing(self._cx, shape, self._dialect)
        names = tuple(c.name for c in shape.columns if not c.computed)
        before: dict[Key, Record] = {}
        for part in key_batches(keys, shape, self._dialect, self._limits):
            refuse_to_touch_others(self._cx, shape, self._dialect, part, stays=True)
            left = list(part)
            while left:
                found, _ = self.images(left, Action.UPDATED)
                before |= {image.key: image.record for image in found if image.record is not None}
                left = rest(left, found)
        places = {name: own.index(name) for name in own}
        key_places = [places[name] for name in shape.key_names]
        whole = []
        for row in rows:
            record = before[tuple(row[place] for place in key_places)]
            whole.append(tuple(row[places[name]] if name in places else record[name] for name in names))
        for part in key_batches(keys, shape, self._dialect, self._limits):
            self._cx.execute(shape.table.delete().where(shape.is_one_of(part)))
        insert = _prepared(shape, "insert", names, self._cx.dialect)
        identity = not shape.identity.isdisjoint(names)
        self._dialect.insert_rows(self._cx, insert, whole, identity=identity)

    def _look_up(self, keys: Sequence[Key], keep: Keep | None, accept: Accept | None) -> _There:
        """Which keys have rows; with `keep`, their images. Those of too many bytes are kept by now, the others after
        the change: on SQL Server only a transaction's first write may be the fast one (`mssql/parameters.py`)."""
        if keep is None and accept is None:
            found = (self.matching(part) for part in key_batches(keys, self._shape, self._dialect, self._limits))
            return _There(set().union(*found))
        return self._keep_most(keys, Action.UPDATED, keep, accept)

    def _keep_most(self, keys: Sequence[Key], action: Action, keep: Keep | None, accept: Accept | None) -> _There:
        there = _There()
        for part in key_batches(keys, self._shape, self._dialect, self._limits):
            left = list(part)
            while left:
                found, size = self.images(left, action, locked=accept is not None)
                left = rest(left, found)
                if accept is not None:
                    refused = {image.key for image in found if not accept(image)}
                    there.left |= refused
                    found = [image for image in found if image.key not in refused]
                there.existing.update(image.key for image in found)
                if keep is None:
                    continue
                if there.waiting and there.waiting_bytes + size > self._limits.batch_bytes:
                    keep(there.waiting, self._cx)
                    there.waiting, there.waiting_bytes = [], 0
                there.waiting += found
                there.waiting_bytes += size
                del found  # or it would be held beside the next
                if there.waiting_bytes > self._limits.batch_bytes:  # too much to hold while the others are written
                    keep(there.waiting, self._cx)
                    there.waiting, there.waiting_bytes = [], 0
        return there

    def delete(self, keys: Sequence[Key], keep: Keep | None, accept: Accept | None = None) -> Written:
        """Deletes the rows of these keys and keeps an image of each; what `accept` refuses is left alone."""
        there = _There(set(keys))
        if keep is not None or accept is not None:
            there = self._keep_most(keys, Action.DELETED, keep, accept)
            if keep is not None:
                keep(there.waiting, self._cx)
        for part in key_batches([*there.existing], self._shape, self._dialect, self._limits):
            refuse_to_touch_others(self._cx, self._shape, self._dialect, part)
            self._cx.execute(self._shape.table.delete().where(self._shape.is_one_of(part)))
        return Written(deleted=frozenset(there.existing), left=frozenset(there.left))


@dataclass
class _There:
    """Which keys of a batch have rows that the batch is to change, and which have rows that are `left` alone; images
    that wait to be kept."""

    existing: set[Key] = field(default_factory=set)
    left: set[Key] = field(default_factory=set)
    waiting: list[Image] = field(default_factory=list)
    waiting_bytes: int = 0


def key_batches(keys: Sequence[Key], shape: TableShape, dialect: Dialect, limits: Limits) -> Iterator[Sequence[Key]]:
    """The keys, as many at a time as one statement can name."""
    width = len(shape.key)
    step = min(limits.batch_size, dialect.max_parameters // width)
    step = min(step, _COMPOSITE_KEYS_AT_ONCE) if width > 1 else step
    return batched(keys, step)


def rest(keys: Sequence[Key], found: Sequence[Image]) -> list[Key]:
    """The keys after those found; none when nothing was, for then nothing more is there."""
    got = {image.key for image in found}
    return [key for key in keys if key not in got] if got else []


def _split(rows: Sequence[Row], keys: Sequence[Key], existing: set[Key]) -> tuple[list[Row], list[Row], list[Key]]:
    """The rows whose keys exist; the others, and their keys."""
    if not existing:
        return [], list(rows), list(keys)
    pairs = list(zip(rows, keys, strict=True))
    return (
        [row for row, key in pairs if key in existing],
        [row for row, key in pairs if key not in existing],
        [key for key in keys if key not in existing],
    )


@lru_cache(maxsize=64)
def _prepared(
    shape: TableShape, what: Literal["insert", "update"], names: tuple[str, ...], dialect: sa.Dialect
) -> Prepared:
    places = {f"v{i}": i for i in range(len(names))}
    if what == "insert":
        return Prepared.of(shape.insert(names), names, places, dialect)
    places |= {f"k{i}": names.index(name) for i, name in enumerate(shape.key_names)}
    return Prepared.of(shape.update(names), names, places, dialect)
