"""A table's buckets: parts of a chunk, which the server computes from the keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from backup.core.model import Chunk, Fingerprint, StampRow
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.chunks import SqlChunks


class SqlBuckets:
    """The buckets of one table, as `Dialect.bucket` computes them."""

    def __init__(self, access: SqlAccess, catalog: SqlCatalog, chunks: SqlChunks) -> None:
        self._access, self._catalog, self._chunks = access, catalog, chunks

    def fingerprints(self, chunk: Chunk) -> Mapping[int, Fingerprint] | None:
        shape = self._catalog.shape
        bucket = self._access.dialect.bucket(shape.key)
        if bucket is None:
            return None
        return self._chunks.fingerprints("read the fingerprints of buckets", shape, chunk, bucket)

    def stamp_rows(self, chunk: Chunk, buckets: Collection[int]) -> set[StampRow]:
        shape = self._catalog.shape
        bucket: Any = self._access.dialect.bucket(shape.key)  # never None: `fingerprints` has named these buckets
        conditions = [*shape.within(chunk), bucket.type.has_one_of(bucket, sorted(buckets))]
        return self._chunks.stamp_rows("read the stamps", shape, conditions)
