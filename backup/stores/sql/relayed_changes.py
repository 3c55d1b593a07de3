"""Relays records over older copies. The server of the copy gets the records in a temporary table, makes the images of
the rows that they replace, and writes them from there. One transaction has all of it, and the fence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backup.core.errors import RightMissing
from backup.core.model import Chunk, Key
from backup.stores.codecs import CopyNote
from backup.stores.keeping import Keep
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.relay import OthersWrote, RelayedParts, may_relay, relayed_rows
from backup.stores.sql.server_images import ServerImages, may_make
from backup.stores.sql.staged import RowConditions, Staged
from backup.stores.values import Limits, NotRelayed, RelayedPart


class SqlRelayedChanges:
    """The relays over older copies in one table, for any number of threads: of parts of a chunk, or of single keys."""

    def __init__(self, access: SqlAccess, catalog: SqlCatalog, limits: Limits) -> None:
        self._access, self._catalog, self._parts = access, catalog, RelayedParts(limits)
        self._may_stage = True
        self._right_missing: RightMissing | None = None  # for which the server will not stage either

    def overwrite(
        self, source: SqlCatalog, chunk: Chunk, note: CopyNote, keep: Keep, *, changed: bool
    ) -> Iterator[RelayedPart]:
        """As `Relational.overwrite`."""
        shape, original = self._catalog.shape, source.shape
        without_key = original.nullable_key or original.key_may_repeat or shape.nullable_key or shape.key_may_repeat
        if without_key or (changed and not original.has_version) or not self._may_relay(source, keep):
            raise NotRelayed(chunk, self._right_missing)

        def relay(part: Chunk) -> RelayedPart | None:
            conditions = [*original.within(part), *original.filters]
            return self._transaction(source, conditions, note, keep, among=shape.within(part), changed=changed)

        return self._parts.of_chunk(source, chunk, relay)

    def write(self, source: SqlCatalog, keys: Sequence[Key], note: CopyNote, keep: Keep) -> Iterator[RelayedPart]:
        """As `Relational.relay_changes`."""
        original = source.shape
        are_few_parameters = len(original.key) == 1 or original.lists(keys)
        if not (self._may_relay(source, keep) and all(map(original.spells, keys)) and are_few_parameters):
            raise NotRelayed(keys, self._right_missing)
        at_most = self._access.dialect.max_parameters - original.filter_parameters

        def relay(part: Sequence[Key]) -> RelayedPart | None:
            conditions = [original.is_one_of(part), *original.filters]
            return self._transaction(source, conditions, note, keep, number=len(part))

        return self._parts.of_keys(keys, at_most, relay)

    def _may_relay(self, source: SqlCatalog, keep: Keep) -> bool:
        shape = self._catalog.shape
        may_write = self._may_stage and not shape.identity and may_make(shape, keep)
        return may_write and shape.spells_keys_like(source.shape) and may_relay(source, self._access)

    def _transaction(
        self,
        source: SqlCatalog,
        conditions: RowConditions,
        note: CopyNote,
        keep: Keep,
        *,
        among: RowConditions = (),
        number: int | None = None,
        changed: bool = False,
    ) -> RelayedPart | None:
        """Relays the source's rows that fulfil the conditions, which are so many if a `number` is given; if `changed`,
        only those whose copies have another version. Their copies are `among` the rows that fulfil these other
        conditions. None, and nothing was done, where the servers cannot."""
        shape, dialect = self._catalog.shape, self._access.dialect
        rows = relayed_rows(source, shape, conditions, note)
        for attempt in self._access.attempts("relay records", writes=True):
            with attempt as cx, self._parts.size.measuring() as measured:
                of_source, written = source.access.dialect, None
                overlaid = None if changed else dialect.overlay(cx, rows, of_source, number)
                try:
                    staged = overlaid or dialect.stage(cx, rows, of_source)
                except RightMissing as error:
                    self._may_stage, self._right_missing = False, error
                    raise
                self._may_stage = staged is not None
                if staged is not None:
                    if number not in (None, staged.number):
                        raise OthersWrote
                    measured.records = staged.number
                    staged_rows = Staged(shape, staged, rows.names, among, compared=number is None)
                    skipped = staged_rows.drop_unchanged(cx) if changed else 0
                    written = staged_rows.write(cx, ServerImages(dialect), keep, skipped)
        return written
