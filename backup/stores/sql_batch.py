"""What is done in one transaction of a table: lookups by the server's own equality of keys, images, writes, deletes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import sqlalchemy as sa

from backup.models import Action, Image, Key, Record
from backup.stores.base import Keep, Limits
from backup.stores.dialects import Dialect
from backup.stores.dialects.base import Prepared, values_at
from backup.stores.sql_rows import Row, Rows, first_rows, values_of
from backup.stores.sql_table import TableShape

_COMPOSITE_KEYS_AT_ONCE = 200


class SqlBatch:
    """One transaction's work on one table. All of it may be repeated when the transaction has to be."""

    def __init__(self, cx: sa.Connection, shape: TableShape, dialect: Dialect, limits: Limits) -> None:
        self._cx, self._shape, self._dialect, self._limits = cx, shape, dialect, limits

    def matching(self, keys: Sequence[Key], filters: Sequence[sa.ColumnElement[bool]] = ()) -> set[Key]:
        """Those of `keys` that have a row; no more keys than `parts` gives at once."""
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

    def images(self, keys: Sequence[Key], action: Action) -> tuple[list[Image], int]:
        """Images of the first of these keys, up to the byte limit, and their bytes; none when no row has one."""
        shape, asked = self._shape, set(keys)
        query = shape.select.where(shape.is_one_of(keys))
        rows, size, complete = first_rows(self._cx, query, self._limits.batch_bytes)
        images = {image.key: image for image in (self._image(record, action) for record in Rows(shape.names, rows))}
        found = {key: image for key, image in images.items() if key in asked}
        if len(found) < len(images) and (complete or not found):  # the server has some under another spelling
            for key in asked - found.keys():
                one = self._cx.execute(shape.select.where(shape.is_one_of([key]))).first()
                if one is not None:
                    [record] = Rows(shape.names, [tuple(one)])
                    found[key] = replace(self._image(record, action), key=key)
        return list(found.values()), size

    def _image(self, record: Record, action: Action) -> Image:
        return Image(self._shape.key_of(record), action, record, tuple(record[c.name] for c in self._shape.version))

    def write(self, records: Sequence[Record], keep: Keep | None, *, absent: bool) -> None:
        """Inserts or overwrites these records, which have all the same columns, and keeps an image of each.

        Which rows exist is asked here, by the server's own equality: a key that changed only in case meets its old row.
        The filters have no say: a key is unique without them. Records taken for `absent` are inserted without asking,
        and the primary key refuses one that is there.
        """
        shape, dialect = self._shape, self._cx.dialect
        names = {c.name: name for name in records[0] if (c := shape.find(name)) and not c.computed}
        own = tuple(name for name in shape.names if name in names)
        rows = values_of(records, [names[name] for name in own])
        keys = values_at([own.index(name) for name in shape.key_names], rows)
        existing, waiting, kept_some = (set(), [], False) if absent else self._look_up(keys, keep)
        old, new, new_keys = _split(rows, keys, existing)
        if old and not shape.identity.issuperset(own):
            self._dialect.update_rows(self._cx, _prepared(shape, "update", own, dialect), old, first=not kept_some)
        if new:
            first = not (old or kept_some)
            insert = _prepared(shape, "insert", own, dialect)
            self._dialect.insert_rows(self._cx, insert, new, identity=not shape.identity.isdisjoint(own), first=first)
        if keep is not None:
            keep(waiting, self._cx, new_keys)

    def _look_up(self, keys: Sequence[Key], keep: Keep | None) -> tuple[set[Key], list[Image], bool]:
        """Which keys have rows; with `keep`, their images, and whether some, of too many bytes, are kept by now.

        The others are kept after the change, for on SQL Server a transaction's first write is the fast one.
        """
        if keep is None:
            found = (self.matching(part) for part in parts(keys, self._shape, self._dialect, self._limits))
            return set().union(*found), [], False
        return self._keep_most(keys, Action.UPDATED, keep)

    def _keep_most(self, keys: Sequence[Key], action: Action, keep: Keep) -> tuple[set[Key], list[Image], bool]:
        existing: set[Key] = set()
        waiting: list[Image] = []
        waiting_bytes, kept_some = 0, False
        for part in parts(keys, self._shape, self._dialect, self._limits):
            left = list(part)
            while left:
                found, size = self.images(left, action)
                if waiting and waiting_bytes + size > self._limits.batch_bytes:
                    keep(waiting, self._cx)
                    waiting, waiting_bytes, kept_some = [], 0, True
                waiting += found
                waiting_bytes += size
                existing.update(image.key for image in found)
                left = rest(left, found)
        return existing, waiting, kept_some

    def delete(self, keys: Sequence[Key], keep: Keep | None) -> None:
        """Deletes the rows of these keys and keeps an image of each."""
        if keep is not None:
            _, images, _ = self._keep_most(keys, Action.DELETED, keep)
            keep(images, self._cx)
        for part in parts(keys, self._shape, self._dialect, self._limits):
            self._cx.execute(self._shape.table.delete().where(self._shape.is_one_of(part)))


def parts(keys: Sequence[Key], shape: TableShape, dialect: Dialect, limits: Limits) -> Iterator[Sequence[Key]]:
    """The keys, as many at a time as one statement can name."""
    width = len(shape.key)
    step = min(limits.batch_size, dialect.max_parameters // width)
    step = min(step, _COMPOSITE_KEYS_AT_ONCE) if width > 1 else step
    return (keys[start : start + step] for start in range(0, len(keys), step))


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
