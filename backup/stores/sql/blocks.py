"""A table's blocks: ranges of neighbouring integer keys, whose stamps the server sums up in one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backup.core.errors import StoreError
from backup.core.key_ranges import EqualRanges
from backup.core.model import Chunk, Fingerprint, StampRow
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.chunks import SqlChunks
from backup.stores.sql.engines.base import ServerBlocks
from backup.stores.sql.key_ranges import ends_query, is_integer
from backup.stores.sql.unread import may_be_of_rows


class SqlBlocks:
    """The blocks of one table, for any number of threads."""

    def __init__(self, access: SqlAccess, catalog: SqlCatalog, chunks: SqlChunks) -> None:
        self._access, self._catalog, self._chunks = access, catalog, chunks

    def are_known(self) -> bool:
        """Whether the server has blocks of the table's keys: each is one integer, and names one row."""
        shape, dialect = self._catalog.shape, self._access.dialect
        if dialect.blocks is None or not dialect.reads_in_parts(shape.stamps(dialect)):
            return False
        return is_integer(shape.key) and not (shape.nullable_key or shape.key_may_repeat)

    @property
    def _of_server(self) -> ServerBlocks:
        of_server = self._access.dialect.blocks
        assert of_server is not None  # noqa: S101 - for mypy; `are_known` has said so
        return of_server

    def ends(self, part: Chunk) -> tuple[int, int] | None:
        """As `KeyBlocks.ends`."""
        shape = self._catalog.shape
        [key] = shape.key
        ends = ends_query(key, [*shape.within(part), *shape.filters])
        for attempt in self._access.attempts("find the first and the last key", single=True):
            with attempt as cx:
                first, last = cx.execute(ends).one()
        return None if first is None or last is None else (first, last)

    def fingerprints(self, blocks: EqualRanges) -> Mapping[int, Fingerprint] | None:
        """As `KeyBlocks.fingerprints`."""
        shape, dialect = self._catalog.shape, self._access.dialect
        try:
            for attempt in self._chunks.attempts("read the fingerprints of blocks", single=True):
                stamps = shape.stamps(dialect)  # a second try may have to hash in another way
                with attempt as cx, self._chunks.chunk_size.measuring() as measured:
                    fingerprints = self._of_server.fingerprints(cx, stamps, shape.filters, blocks)
                    measured.records = sum(fingerprint.records for fingerprint in (fingerprints or {}).values())
        except StoreError as error:
            if not may_be_of_rows(error):
                raise
            return None
        return fingerprints

    def stamp_rows(self, starts: Sequence[int], width: int) -> set[StampRow]:
        """As `KeyBlocks.stamp_rows`."""
        shape = self._catalog.shape
        condition = self._of_server.contain(shape.key[0], starts, width)
        return self._chunks.stamp_rows("read the stamps", shape, [condition])
