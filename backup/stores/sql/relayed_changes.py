"""Relays changed records. The server of the copy makes the images of the rows that they replace, gets the records in a
temporary table, and writes them from there. One transaction has all of it, and the fence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from backup.core.errors import NotInitialized, StoreError, StoreUnavailable
from backup.core.model import Action, Key
from backup.stores.chunk_size import ChunkSize
from backup.stores.codecs import CopyNote
from backup.stores.keeping import Keep
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.batch import SqlBatch
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.engines.relayed import RelayedRows
from backup.stores.sql.engines.tables import refusing
from backup.stores.sql.relay import may_relay, relayed_rows
from backup.stores.sql.server_images import ServerImages
from backup.stores.sql.table import TableShape
from backup.stores.values import ChangesNotRelayed, Limits, Written

_GROWTH = 4


class _Moved(StoreError):
    """The source has other records of these keys than it had a moment ago."""


class SqlRelayedChanges:
    """The relays of changes into one table, for any number of threads.

    The first transaction has as many records as a batch, and each further one up to four times as many: as many as a
    chunk, or as fit into half of `max_statement_seconds`.
    """

    def __init__(self, access: SqlAccess, catalog: SqlCatalog, limits: Limits) -> None:
        self._access, self._catalog = access, catalog
        self._size = ChunkSize(limits.chunk_size, limits.max_statement_seconds)
        self._limits, self._rows = limits, min(limits.batch_size, limits.chunk_size)
        self._may_stage = True

    def write(self, source: SqlCatalog, keys: Sequence[Key], note: CopyNote, keep: Keep) -> Iterator[Written]:
        """As `Relational.relay_changes`."""
        dialect, shape = self._access.dialect, self._catalog.shape
        if not (self._may_stage and may_relay(source, self._access)) or shape.identity or shape.marks is not None:
            raise ChangesNotRelayed(keys)
        while keys:
            part = keys[: min(self._rows, dialect.max_parameters - source.shape.filter_parameters)]
            try:
                written = self._transaction(source, part, note, keep)
            except StoreUnavailable:
                raise
            except (StoreError, NotInitialized) as error:
                raise ChangesNotRelayed(keys, None if isinstance(error, _Moved) else error) from None
            if written is None:
                raise ChangesNotRelayed(keys)
            yield written
            self._rows = min(self._size.chunk_size, max(self._rows, len(part)) * _GROWTH)
            keys = keys[len(part) :]

    def _transaction(self, source: SqlCatalog, keys: Sequence[Key], note: CopyNote, keep: Keep) -> Written | None:
        conditions = [source.shape.is_one_of(keys), *source.shape.filters]
        rows = relayed_rows(source, self._catalog.shape, conditions, note)
        for attempt in self._access.attempts("relay records", writes=True):
            with attempt as cx, self._size.measuring(len(keys)):
                written = self._write(cx, source, rows, keys, keep)
        return written

    def _write(
        self, cx: sa.Connection, source: SqlCatalog, rows: RelayedRows, keys: Sequence[Key], keep: Keep
    ) -> Written | None:
        """Writes the rows of these keys. None, and nothing was done, where the servers cannot."""
        shape, dialect = self._catalog.shape, self._access.dialect
        batch = SqlBatch(cx, shape, dialect, self._limits)
        existing_keys = ServerImages(dialect).make(cx, shape, keep, keys, Action.UPDATED, batch.matching)
        if existing_keys is None:
            return None
        staged = dialect.stage(cx, rows, source.access.dialect)
        self._may_stage = staged is not None
        if staged is None or staged.number != len(keys):
            raise _Moved  # which takes the images back, too
        new_keys = [key for key in keys if key not in existing_keys]
        _update(cx, shape, staged.table, rows.names)
        if new_keys and _insert(cx, shape, staged.table, rows.names) != len(new_keys):
            raise _Moved
        keep([], cx, new_keys)
        return Written(frozenset(new_keys), frozenset(existing_keys))


def _update(cx: sa.Connection, shape: TableShape, staged: sa.Table, names: Sequence[str]) -> None:
    """Gives the rows of the table the values of the staged rows with the same keys."""
    places = enumerate(names)
    values = {shape.table.c[name]: staged.columns[place] for place, name in places if name not in shape.key_names}
    if values:
        cx.execute(refusing(shape.table.update()).values(values).where(*_same_key(shape, staged, names)))


def _insert(cx: sa.Connection, shape: TableShape, staged: sa.Table, names: Sequence[str]) -> int:
    """Inserts the staged rows whose keys have no row, and returns their number."""
    is_there = sa.exists().where(*_same_key(shape, staged, names))
    query = sa.select(*staged.columns).where(~is_there)
    insert = refusing(shape.table.insert()).from_select([*names], query, include_defaults=False)
    return cx.execute(insert.execution_options(preserve_rowcount=True)).rowcount


def _same_key(shape: TableShape, staged: sa.Table, names: Sequence[str]) -> list[sa.ColumnElement[bool]]:
    return [shape.table.c[name] == staged.columns[names.index(name)] for name in shape.key_names]
