"""Writes and deletes a table's rows in batches, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backup.core.errors import ConstraintRefused, StoreError, StoreUnavailable
from backup.core.model import Key, Record
from backup.stores.keeping import Accept, Keep
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.batch import Replacing, SqlBatch
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.server_images import ServerImages
from backup.stores.values import Limits, Written


class SqlWrites:
    """The writes of one table, for any number of threads."""

    def __init__(self, access: SqlAccess, catalog: SqlCatalog, limits: Limits) -> None:
        self._access, self._catalog, self._limits = access, catalog, limits
        self._asks_for_images = True

    def write(
        self,
        records: Sequence[Record],
        keep: Keep | None,
        accept: Accept | None = None,
        *,
        absent: bool = False,
        exchange: bool = False,
    ) -> Written:
        """As `Store.write`; with `absent` as `Relational.insert`, with `exchange` as `Relational.exchange`."""
        ways: list[Replacing | None] = [Replacing.EMPTIED, Replacing.DELETED] if exchange else [None]
        if absent or accept is not None:  # a record may exist after all, perhaps since a moment ago: try twice
            ways.insert(0, ways[0])
        for place, way in enumerate(ways if records else ()):
            try:
                is_absent = absent and place == 0
                return self._transaction(
                    "write records",
                    lambda batch, way=way, is_absent=is_absent: batch.write(  # type: ignore[misc] # mypy knows no defaults here
                        records, keep, absent=is_absent, accept=accept, replace=way
                    ),
                )
            except StoreUnavailable:
                raise
            except StoreError as error:
                is_unique_clash = isinstance(error, ConstraintRefused) and error.unique
                if place == len(ways) - 1 or (way is not None and not is_unique_clash):
                    raise
        return Written()

    def delete(self, keys: Sequence[Key], keep: Keep | None, accept: Accept | None = None) -> Written:
        """As `Store.delete`."""
        if not keys:
            return Written()
        return self._transaction("delete records", lambda batch: batch.delete(keys, keep, accept))

    def _transaction(self, operation: str, work: Callable[[SqlBatch], Written]) -> Written:
        """Does the work in a transaction. If the server refuses to make the images, the transaction is rolled back.
        Then this process makes them, now and in all later batches."""
        by_server = ServerImages(self._access.dialect) if self._asks_for_images else None
        try:
            return self._attempts(operation, work, by_server)
        except StoreUnavailable:
            raise
        except StoreError:
            if by_server is None or not by_server.refused:
                raise
        self._asks_for_images = False
        return self._attempts(operation, work, None)

    def _attempts(self, operation: str, work: Callable[[SqlBatch], Written], by_server: ServerImages | None) -> Written:
        shape, dialect = self._catalog.shape, self._access.dialect
        for attempt in self._access.attempts(operation, writes=True):
            with attempt as cx:
                written = work(SqlBatch(cx, shape, dialect, self._limits, by_server))
        return written
