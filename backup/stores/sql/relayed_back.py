"""Relays records back into a place that others write to as well, as a restore does. Each transaction compares what is
there in the end with the backup, and is rolled back unless it is the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa

from backup.core.model import Action, Fingerprint, Image, Key, Stamps
from backup.stores.keeping import Keep
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.batch import SqlBatch
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.engines.relayed import RelayedRows
from backup.stores.sql.relay import OthersWrote, RelayedParts, may_relay, relayed_rows
from backup.stores.sql.staged import Staged
from backup.stores.values import Limits, NotRelayed, RelayedPart


class SqlRelaysBack:
    """The relays of single records of a backup into one table."""

    def __init__(self, access: SqlAccess, catalog: SqlCatalog, limits: Limits) -> None:
        self._access, self._catalog, self._limits = access, catalog, limits
        self._inserts, self._updates = RelayedParts(limits), RelayedParts(limits)

    def insert(self, backup: SqlCatalog, keys: Sequence[Key]) -> Iterator[RelayedPart]:
        """As `Relational.relay_new`."""
        if not self._may_relay(backup, keys):
            raise NotRelayed(keys)
        filters = max(shape.filter_parameters for shape in (self._catalog.shape, backup.shape))
        at_most = self._access.dialect.max_parameters - filters
        return self._inserts.of(
            keys, lambda rest, rows: _cut(rest, min(rows, at_most)), lambda part: self._insert(backup, part)
        )

    def update(self, backup: SqlCatalog, stamps: Stamps, keep: Keep) -> Iterator[RelayedPart]:
        """As `Relational.relay_over`."""
        shape, keys = self._catalog.shape, [*stamps]
        # Where a column makes its values, or has another form of them by a declared type, two stamps may be of the same
        # record. Then it is left as it is.
        makes_values = any(column.computed or column.identity for column in shape.columns)
        if makes_values or self._catalog.declared or backup.declared or not self._may_relay(backup, keys):
            raise NotRelayed(keys)
        at_most = self._inserts.first  # the images are in memory
        return self._updates.of(
            keys,
            lambda rest, rows: _cut(rest, min(rows, at_most)),
            lambda part: self._update(backup, {key: stamps[key] for key in part}, keep),
        )

    def may_leave_out(self, backup: SqlCatalog, keys: Sequence[Key]) -> bool:
        """As `Relational.may_leave_out`."""
        shape, original = self._catalog.shape, backup.shape
        may_list = shape.lists(keys) and original.lists(keys) if keys else True
        return may_list and not original.keeps_deleted and original.marks is None and self._may_relay(backup, keys)

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

    def _insert(self, backup: SqlCatalog, keys: Sequence[Key]) -> RelayedPart | None:
        dialect = self._access.dialect
        rows = self._rows(backup, keys)
        for attempt in self._access.attempts("relay records", writes=True):
            with attempt as cx, self._inserts.size.measuring() as measured:
                relayed = dialect.relay(cx, rows, backup.access.dialect)
                if relayed is not None:
                    measured.records = relayed.number
                    self._refuse_others(cx, backup, keys)
        return None if relayed is None else RelayedPart(len(keys))

    def _update(self, backup: SqlCatalog, stamps: Stamps, keep: Keep) -> RelayedPart | None:
        shape, dialect, keys = self._catalog.shape, self._access.dialect, [*stamps]
        rows = self._rows(backup, keys)
        for attempt in self._access.attempts("relay records", writes=True):
            with attempt as cx:
                staged = dialect.stage(cx, rows, backup.access.dialect)
                if staged is not None:
                    if staged.number != len(keys) or {*rows.names} <= {*shape.key_names}:
                        raise OthersWrote
                    images = self._locked(cx, stamps)
                    Staged(shape, staged, rows.names, (), compared=False).update(cx)
                    self._refuse_others(cx, backup, keys)
                    keep(images, cx)
        return None if staged is None else RelayedPart(updated=len(keys))

    def _rows(self, backup: SqlCatalog, keys: Sequence[Key]) -> RelayedRows:
        original = backup.shape
        return relayed_rows(backup, self._catalog.shape, [original.is_one_of(keys), *original.filters], None)

    def _locked(self, cx: sa.Connection, stamps: Stamps) -> list[Image]:
        """The images of the rows with these stamps, which nobody else changes from now on. Raises OthersWrote where a
        row has another stamp, or none, and where they have too many bytes for memory."""
        batch = SqlBatch(cx, self._catalog.shape, self._access.dialect, self._limits)
        images, _ = batch.images([*stamps], Action.UPDATED, locked=True, to_decide=True)
        if {image.key: image.stamp for image in images} != stamps:
            raise OthersWrote
        return images

    def _refuse_others(self, cx: sa.Connection, backup: SqlCatalog, keys: Sequence[Key]) -> None:
        """Raises OthersWrote unless both sides have the same values under each of these keys. What waits for the commit
        runs before."""
        self._access.dialect.run_waiting(cx)
        here = _content(cx, self._catalog, keys)
        for attempt in backup.access.attempts("read the fingerprint of the content", single=True):
            with attempt as backup_cx:
                there = _content(backup_cx, backup, keys)
        if here is None or here != there or here.records != len(keys):
            raise OthersWrote


def _content(cx: sa.Connection, catalog: SqlCatalog, keys: Sequence[Key]) -> Fingerprint | None:
    """The fingerprint of all values that both tables share, in the rows of these keys."""
    shape, dialect = catalog.shape, catalog.access.dialect
    conditions = [shape.is_one_of(keys), *shape.filters]
    by_bucket: Mapping[None, Fingerprint] | None = dialect.fingerprints(cx, shape.contents(dialect), conditions)
    return None if by_bucket is None else by_bucket[None]


def _cut(keys: Sequence[Key], rows: int) -> tuple[Sequence[Key], Sequence[Key] | None]:
    return keys[:rows], keys[rows:] or None
