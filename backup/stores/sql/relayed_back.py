"""Relays records back into a place that others write to as well, as a restore does. Each transaction compares what is
there in the end with what should be, and is rolled back unless it is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import sqlalchemy as sa

from backup.core.model import Action, Image, Key, Stamps
from backup.stores.keeping import Keep
from backup.stores.sibling import ImagesOfKeys
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.batch import SqlBatch
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.relay import OthersWrote, RelayedParts, may_relay
from backup.stores.sql.rows_to_restore import RowsOfCopies, RowsOfImages, RowsToRestore, content_of
from backup.stores.sql.staged import Staged
from backup.stores.values import Limits, NotRelayed, RelayedPart


class SqlRelaysBack:
    """The relays of single records into one table: of a backup, or of images in its bin."""

    def __init__(self, access: SqlAccess, catalog: SqlCatalog, limits: Limits) -> None:
        self._access, self._catalog, self._limits = access, catalog, limits
        self._inserts, self._updates = RelayedParts(limits), RelayedParts(limits)

    def insert(
        self, backup: SqlCatalog, keys: Sequence[Key], images: ImagesOfKeys | None = None
    ) -> Iterator[RelayedPart]:
        """As `Relational.relay_new`."""
        if not self._may_relay_rows(backup, keys, images):
            raise NotRelayed(keys)
        rows = _rows(backup, images)
        filters = max(shape.filter_parameters for shape in (self._catalog.shape, backup.shape))
        at_most = (self._access.dialect.max_parameters - filters) // (1 if images is None else 2)
        yield from self._parts(self._inserts, rows, keys, at_most, lambda part: self._insert(backup, rows, part))

    def update(
        self, backup: SqlCatalog, stamps: Stamps, keep: Keep, images: ImagesOfKeys | None = None
    ) -> Iterator[RelayedPart]:
        """As `Relational.relay_over`."""
        shape, keys = self._catalog.shape, [*stamps]
        # Where a column makes its values, or has another form of them by a declared type, two stamps may be of the same
        # record. Then it is left as it is.
        makes_values = any(column.computed or column.identity for column in shape.columns)
        if makes_values or self._catalog.declared or backup.declared:
            raise NotRelayed(keys)
        if not self._may_relay_rows(backup, keys, images):
            raise NotRelayed(keys)
        rows, at_most = _rows(backup, images), self._inserts.first  # the images are in memory

        def relay(part: Sequence[Key]) -> RelayedPart | None:
            return self._update(backup, rows, {key: stamps[key] for key in part}, keep)

        yield from self._parts(self._updates, rows, keys, at_most, relay)

    def _parts(
        self,
        parts: RelayedParts,
        rows: RowsToRestore,
        keys: Sequence[Key],
        at_most: int,
        relay: Callable[[Sequence[Key]], RelayedPart | None],
    ) -> Iterator[RelayedPart]:
        """Has `relay` pass on one part of the keys after the other, but for those that the servers cannot read."""
        readable = rows.readable(keys)
        others = [] if len(readable) == len(keys) else [key for key in keys if key not in {*readable}]
        try:
            if readable:
                yield from parts.of_keys(readable, at_most, relay)
        except NotRelayed as refused:
            raise NotRelayed([*refused.rest, *others], refused.error) from None
        if others:
            raise NotRelayed(others)

    def may_leave_out(self, backup: SqlCatalog, keys: Sequence[Key]) -> bool:
        """As `Relational.may_leave_out`."""
        shape, original = self._catalog.shape, backup.shape
        may_list = shape.lists(keys) and original.lists(keys) if keys else True
        return may_list and self._may_relay(backup, keys)

    def may_relay_images(self, backup: SqlCatalog, keys: Sequence[Key] = ()) -> bool:
        """As `Relational.may_relay_images`, of these keys."""
        if not self._may_relay(backup, keys):
            return False
        return self._access.dialect.reads_images_of(backup.access.dialect)

    def _may_relay_rows(self, backup: SqlCatalog, keys: Sequence[Key], images: ImagesOfKeys | None) -> bool:
        return self._may_relay(backup, keys) if images is None else self.may_relay_images(backup, keys)

    def _may_relay(self, backup: SqlCatalog, keys: Sequence[Key]) -> bool:
        shape, original = self._catalog.shape, backup.shape
        is_plain = shape.reads_as_stored and shape.marks is None and not self._catalog.withheld
        have_keys = not any(
            (s.nullable_key or s.key_may_repeat or not s.key_is_spelled_once) for s in (shape, original)
        )
        if not (is_plain and have_keys and shape.spells_keys_like(original) and may_relay(backup, self._access)):
            return False
        are_few_parameters = len(shape.key) == 1 or (shape.lists(keys) and original.lists(keys))
        return are_few_parameters and all(map(original.spells, keys))

    def _insert(self, backup: SqlCatalog, rows: RowsToRestore, keys: Sequence[Key]) -> RelayedPart | None:
        dialect, relayed = self._access.dialect, None
        for attempt in self._access.attempts("relay records", writes=True):
            with attempt as cx, self._inserts.size.measuring() as measured:
                wanted = rows.of(keys, cx, self._catalog.shape)
                relayed = None if wanted is None else dialect.relay(cx, wanted, backup.access.dialect)
                if relayed is not None:
                    measured.records = relayed.number
                    self._refuse_others(cx, rows, keys)
        return None if relayed is None else RelayedPart(len(keys))

    def _update(self, backup: SqlCatalog, rows: RowsToRestore, stamps: Stamps, keep: Keep) -> RelayedPart | None:
        shape, dialect, keys, same = self._catalog.shape, self._access.dialect, [*stamps], set[Key]()
        for attempt in self._access.attempts("relay records", writes=True):
            with attempt as cx:
                wanted = rows.of(keys, cx, shape)
                staged = None if wanted is None else dialect.stage(cx, wanted, backup.access.dialect)
                if wanted is not None and staged is not None:
                    if staged.number != len(keys) or {*wanted.names} <= {*shape.key_names}:
                        raise OthersWrote
                    images = self._locked(cx, stamps)
                    staged_rows = Staged(shape, staged, wanted.names, (), compared=False)
                    same = staged_rows.drop_equal(cx, dialect.content_hash)
                    staged_rows.update(cx)
                    self._refuse_others(cx, rows, keys)
                    keep([image for image in images if image.key not in same], cx)
        return None if staged is None else RelayedPart(updated=len(keys) - len(same), skipped=len(same))

    def _locked(self, cx: sa.Connection, stamps: Stamps) -> list[Image]:
        """The images of the rows with these stamps, which nobody else changes from now on. Raises OthersWrote where a
        row has another stamp, or none, and where they have too many bytes for memory."""
        batch = SqlBatch(cx, self._catalog.shape, self._access.dialect, self._limits)
        images, _ = batch.images([*stamps], Action.UPDATED, locked=True, to_decide=True)
        if {image.key: image.stamp for image in images} != stamps:
            raise OthersWrote
        return images

    def _refuse_others(self, cx: sa.Connection, rows: RowsToRestore, keys: Sequence[Key]) -> None:
        """Raises OthersWrote unless both sides have the same values under each of these keys. What waits for the commit
        runs before."""
        shape, dialect = self._catalog.shape, self._access.dialect
        dialect.run_waiting(cx)
        here = content_of(cx, dialect, shape.contents(dialect), [shape.is_one_of(keys), *shape.filters])
        if here is None or here.records != len(keys) or here != rows.content(keys):
            raise OthersWrote


def _rows(backup: SqlCatalog, images: ImagesOfKeys | None) -> RowsToRestore:
    return RowsOfCopies(backup) if images is None else RowsOfImages(backup, images)
