"""One transaction's work on a table: it looks up keys as the server compares them, makes images, writes, deletes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Literal

import sqlalchemy as sa

from backup.core.batched import batched
from backup.core.errors import StoreError
from backup.core.model import Action, Image, Key, Record, Stamps
from backup.core.suggestions import quantity
from backup.stores.keeping import Accept, Keep
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.prepared import Prepared, Row, values_at
from backup.stores.sql.foreign_keys import refuse_replacing, refuse_to_touch_others, unique_columns
from backup.stores.sql.rows import first_rows, has_large, note_large, values_of
from backup.stores.sql.server_images import ServerImages
from backup.stores.sql.table import TableShape
from backup.stores.values import Limits, Written

_COMPOSITE_KEYS_AT_ONCE = 200  # SQLite refuses a condition of a thousand parts; 50 to 400 at once take as long
_NOT_WHOLE = (
    "Its masked or transformed columns cannot be restored, so no record can be inserted. Nothing of the batch was "
    "written."
)


class Replacing(Enum):
    """What happens to existing rows before they are written, so that rows can exchange unique values."""

    EMPTIED = "emptied"
    DELETED = "deleted"


class SqlBatch:
    """One transaction's work on one table. All of it may be repeated if the transaction has to be."""

    def __init__(
        self,
        cx: sa.Connection,
        shape: TableShape,
        dialect: Dialect,
        limits: Limits,
        by_server: ServerImages | None = None,
    ) -> None:
        """`by_server` has the server make the images where it can."""
        self._cx, self._shape, self._dialect, self._limits, self._by_server = cx, shape, dialect, limits, by_server

    def matching(self, keys: Sequence[Key], filters: Sequence[sa.ColumnElement[bool]] = ()) -> set[Key]:
        """The keys that have a row. Takes no more keys than `key_batches` gives at once."""
        shape, asked_keys = self._shape, set(keys)
        query = sa.select(*shape.key).where(*filters)
        row_keys = {tuple(row) for row in self._cx.execute(query.where(shape.is_one_of(keys)))}
        if row_keys <= asked_keys:
            return row_keys
        # The server spells some of these keys in another way. Ask which ones, key by key.
        for key in asked_keys - row_keys:
            if self._cx.execute(query.where(shape.is_one_of([key]))).first() is not None:
                row_keys.add(key)
        return row_keys & asked_keys

    def images(
        self, keys: Sequence[Key], action: Action, *, locked: bool = False, to_decide: bool = False
    ) -> tuple[list[Image], int]:
        """Images of the first rows of these keys, up to the byte limit, and their size in bytes.

        No image means that none of the keys has a row. `locked`: nobody else changes these rows until the transaction
        ends. `to_decide`: the images have stamps, nobody inserts one of these keys where the server can hold that, and
        a server that ignores locks of a query is made to lock.
        """
        shape, asked_keys = self._shape, set(keys)
        select = self._dialect.locked(shape.select, gaps=to_decide) if locked else shape.select
        plain_names = (c.name for c in shape.columns if not (c.computed or c.identity or c.key_position))
        if to_decide and (name := next(plain_names, None)) is not None:
            self._dialect.lock(self._cx, shape.table.c[name], shape.is_one_of(keys))
        query = select.where(shape.is_one_of(keys))
        largest = self._dialect.largest_row_bytes(self._cx, shape.table, query)
        rows, size, complete, _ = first_rows(self._cx, query, self._limits.batch_bytes, largest)
        records = shape.records(shape.names, rows)
        by_row_key = {image.key: image for image in (self._image(record, action) for record in records)}
        images = {key: image for key, image in by_row_key.items() if key in asked_keys}
        if len(images) < len(by_row_key) and (complete or not images):  # the server spells some in another way
            for key in asked_keys - images.keys():
                row = self._cx.execute(select.where(shape.is_one_of([key]))).first()
                if row is not None:
                    [record] = shape.records(shape.names, [tuple(row)])
                    images[key] = dataclasses.replace(self._image(record, action), key=key)
        return (self._stamped(images.values()) if to_decide else list(images.values())), size

    def _stamped(self, images: Collection[Image]) -> list[Image]:
        """The images, with a stamp where the row belongs to the service."""
        shape = self._shape
        row_keys = {image.key: shape.key_of(image.record) for image in images if image.record is not None}
        stamps: Stamps = {}
        if row_keys:
            query = shape.stamp_query(self._dialect).where(shape.is_one_of([*row_keys.values()]), *shape.filters)
            stamps = shape.stamps_of(tuple(row) for row in self._cx.execute(query))
        return [dataclasses.replace(image, stamp=stamps.get(row_keys[image.key])) for image in images]

    def _image(self, record: Record, action: Action) -> Image:
        """The image. A row that is marked as deleted was not a record of the service, so a write of it is an insert."""
        shape = self._shape
        if shape.is_deleted(record):
            action = Action.INSERTED if action is Action.UPDATED else action
            return Image(shape.key_of(record), action, shape.image(record))
        return Image(shape.key_of(record), action, shape.image(record), tuple(record[c.name] for c in shape.version))

    def write(
        self,
        records: Sequence[Record],
        keep: Keep | None,
        *,
        absent: bool = False,
        accept: Accept | None = None,
        replace: Replacing | None = None,
    ) -> Written:
        """Inserts or overwrites these records, which all have the same columns, and keeps an image of each.

        Looks up first which rows exist, as the server compares keys: a key that changed only in case meets its old row.
        It ignores the filters, for a key is unique without them. `absent`: inserts the records without looking them up,
        and the primary key refuses a record that exists. Leaves alone what `accept` refuses. `replace` says what
        happens to existing rows before anything is written: their unique columns are emptied, or they are deleted.
        """
        shape, dialect = self._shape, self._cx.dialect
        if has_large(records):
            note_large(self._cx)
        names = {c.name: name for name in records[0] if (c := shape.find(name)) and shape.may_write(c)}
        columns = tuple(name for name in shape.names if name in names)
        rows = values_of(records, [names[name] for name in columns])
        keys = values_at([columns.index(name) for name in shape.key_names], rows)
        looked_up = _LookedUp() if absent else self._look_up(keys, keep, accept)
        if looked_up.not_accepted:
            rows = [row for row, key in zip(rows, keys, strict=True) if key not in looked_up.not_accepted]
            keys = [key for key in keys if key not in looked_up.not_accepted]
        old, new, new_keys = _split(rows, keys, looked_up.existing)
        if old and replace is Replacing.EMPTIED:
            self._empty(columns, [*looked_up.existing])
        if old and replace is Replacing.DELETED:
            self._insert_anew(columns, old, [*looked_up.existing])
        elif old and not shape.identity.issuperset(columns):
            self._dialect.update_rows(self._cx, _prepared(shape, "update", columns, dialect), old)
        if new and shape.withholds:
            gone = quantity(len(new), "record is", "records are")
            raise StoreError(f"{gone} not in the {shape.label} any more. {_NOT_WHOLE}")
        if new:
            insert = _prepared(shape, "insert", columns, dialect)
            self._dialect.insert_rows(self._cx, insert, new, identity=not shape.identity.isdisjoint(columns))
        if keep is not None:
            keep(looked_up.waiting, self._cx, new_keys)
        return Written(
            frozenset(new_keys), frozenset(looked_up.existing), not_accepted=frozenset(looked_up.not_accepted)
        )

    def _empty(self, columns: Collection[str], keys: Sequence[Key]) -> None:
        """Sets the unique columns among these to NULL where they may be, so that other rows can take the values. It
        empties no column that the batch does not write, because nothing would fill it again."""
        shape = self._shape
        unique = set().union(*unique_columns(self._cx, shape)).intersection(columns) - {*shape.key_names}
        names = [c.name for c in shape.columns if c.name in unique and c.nullable and not (c.computed or c.identity)]
        for part in key_batches(keys, shape, self._dialect, self._limits) if names else ():
            update = shape.table.update().where(shape.is_one_of(part)).values(dict.fromkeys(names))
            self._cx.execute(update)

    def _insert_anew(self, columns: tuple[str, ...], rows: Sequence[Row], keys: Sequence[Key]) -> None:
        """Deletes the rows of these keys and inserts them with the values of `rows`. Other values stay: also those of
        columns that are masked or not copied."""
        shape = self._shape.whole
        whole_batch = SqlBatch(self._cx, shape, self._dialect, self._limits)
        refuse_replacing(self._cx, shape, self._dialect)
        names = tuple(c.name for c in shape.columns if not c.computed)
        before: dict[Key, Record] = {}
        for part in key_batches(keys, shape, self._dialect, self._limits):
            refuse_to_touch_others(self._cx, shape, self._dialect, part, stays=True)
            keys_left = list(part)
            while keys_left:
                images, _ = whole_batch.images(keys_left, Action.UPDATED)
                before |= {image.key: image.record for image in images if image.record is not None}
                keys_left = keys_without_image(keys_left, images)
        places = {name: columns.index(name) for name in columns}
        key_places = [places[name] for name in shape.key_names]
        whole_rows = []
        for row in rows:
            record = before[tuple(row[place] for place in key_places)]
            whole_rows.append(tuple(row[places[name]] if name in places else record[name] for name in names))
        for part in key_batches(keys, shape, self._dialect, self._limits):
            self._cx.execute(shape.table.delete().where(shape.is_one_of(part)))
        insert = _prepared(shape, "insert", names, self._cx.dialect)
        identity = not shape.identity.isdisjoint(names)
        self._dialect.insert_rows(self._cx, insert, whole_rows, identity=identity)

    def _look_up(self, keys: Sequence[Key], keep: Keep | None, accept: Accept | None) -> _LookedUp:
        """Which keys have rows; with `keep`, also their images.

        Images that fill the byte limit are kept at once, the rest after the change: on SQL Server only a transaction's
        first write may be the fast one (`mssql/parameters.py`).
        """
        if keep is None and accept is None:
            existing = (self.matching(part) for part in key_batches(keys, self._shape, self._dialect, self._limits))
            return _LookedUp(set().union(*existing))
        return self._keep_most(keys, Action.UPDATED, keep, accept)

    def _keep_most(self, keys: Sequence[Key], action: Action, keep: Keep | None, accept: Accept | None) -> _LookedUp:
        looked_up = _LookedUp()
        for part in key_batches(keys, self._shape, self._dialect, self._limits):
            made = None
            if self._by_server is not None and keep is not None and accept is None:
                made = self._by_server.make(self._cx, self._shape, keep, part, action, self.matching)
            if made is not None:
                looked_up.existing |= made
                continue
            keys_left = list(part)
            while keys_left:
                images, size = self.images(keys_left, action, locked=True, to_decide=accept is not None)
                keys_left = keys_without_image(keys_left, images)
                if accept is not None:
                    refused = {image.key for image in images if not accept(image)}
                    looked_up.not_accepted |= refused
                    images = [image for image in images if image.key not in refused]
                looked_up.existing.update(image.key for image in images)
                if keep is None:
                    continue
                if looked_up.waiting and looked_up.waiting_bytes + size > self._limits.batch_bytes:
                    keep(looked_up.waiting, self._cx)
                    looked_up.waiting, looked_up.waiting_bytes = [], 0
                looked_up.waiting += images
                looked_up.waiting_bytes += size
                del images  # else memory would hold them beside the next ones
                if looked_up.waiting_bytes > self._limits.batch_bytes:  # too much to hold while the batch is written
                    keep(looked_up.waiting, self._cx)
                    looked_up.waiting, looked_up.waiting_bytes = [], 0
        return looked_up

    def _keep_all(self, keys: Sequence[Key], keep: Keep | None, accept: Accept | None) -> _LookedUp:
        """As `_keep_most`, of rows to be deleted, and keeps the last images, too."""
        looked_up = self._keep_most(keys, Action.DELETED, keep, accept)
        if keep is not None:
            keep(looked_up.waiting, self._cx)
        return looked_up

    def keep_deleted(self, keys: Sequence[Key], keep: Keep) -> list[Key]:
        """Keeps an image of each row of these keys, as of a delete. Returns which of them have a row."""
        return [*self._keep_all(keys, keep, None).existing]

    def delete(self, keys: Sequence[Key], keep: Keep | None, accept: Accept | None = None) -> Written:
        """Deletes the rows of these keys and keeps an image of each. Leaves alone what `accept` refuses."""
        looked_up = _LookedUp(set(keys))
        if keep is not None or accept is not None:
            looked_up = self._keep_all(keys, keep, accept)
        for part in key_batches([*looked_up.existing], self._shape, self._dialect, self._limits):
            refuse_to_touch_others(self._cx, self._shape, self._dialect, part)
            self._cx.execute(self._shape.table.delete().where(self._shape.is_one_of(part)))
        return Written(deleted=frozenset(looked_up.existing), not_accepted=frozenset(looked_up.not_accepted))


@dataclass
class _LookedUp:
    """The keys of a batch whose rows it changes, those that `accept` refuses, and images still to keep."""

    existing: set[Key] = field(default_factory=set)
    not_accepted: set[Key] = field(default_factory=set)
    waiting: list[Image] = field(default_factory=list)
    waiting_bytes: int = 0


def key_batches(keys: Sequence[Key], shape: TableShape, dialect: Dialect, limits: Limits) -> Iterator[Sequence[Key]]:
    """The keys in parts. A part has no more keys than one statement can name beside the values of the filter."""
    width = len(shape.key)
    step = min(limits.batch_size, max(1, (dialect.max_parameters - shape.filter_parameters) // width))
    step = min(step, _COMPOSITE_KEYS_AT_ONCE) if width > 1 and not shape.lists(keys) else step
    return batched(keys, step)


def keys_without_image(keys: Sequence[Key], images: Sequence[Image]) -> list[Key]:
    """The keys that have no image yet. Empty if there is no image at all, because then no other key has a row."""
    image_keys = {image.key for image in images}
    return [key for key in keys if key not in image_keys] if image_keys else []


def _split(rows: Sequence[Row], keys: Sequence[Key], existing: set[Key]) -> tuple[list[Row], list[Row], list[Key]]:
    """The rows whose keys exist, then the new rows, then the keys of the new rows."""
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
    shape: TableShape, statement: Literal["insert", "update"], names: tuple[str, ...], dialect: sa.Dialect
) -> Prepared:
    places = {f"v{i}": i for i in range(len(names))}
    if statement == "insert":
        return Prepared.of(shape.insert(names), names, places, dialect)
    places |= {f"k{i}": names.index(name) for i, name in enumerate(shape.key_names)}
    return Prepared.of(shape.update(names), names, places, dialect)
