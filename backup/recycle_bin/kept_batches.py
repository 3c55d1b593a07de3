"""Takes what the entries of a page say in batches, so that memory holds few records at a time. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backup.recycle_bin import entries
from backup.recycle_bin.entries import KeptImage

_AT_ONCE = 500
_BYTES_AT_ONCE = 8 * 1024 * 1024  # as a page of entries


def batches(page: list[dict[str, Any]], keys_at_once: int) -> Iterator[list[KeptImage]]:
    """Yields what the entries of a page say, in batches. Empties the page.

    A batch is at most 500 keys and about 8 MiB. It may be `keys_at_once` keys, if their records have no texts or were
    left out.
    """
    batch, size = list[KeptImage](), 0
    page.reverse()
    while page:
        for kept in entries.kept(page.pop()):
            batch.append(kept)
            size += _size(kept)
            at_once = max(_AT_ONCE, keys_at_once) if size == 0 else _AT_ONCE
            if len(batch) >= at_once or size > _BYTES_AT_ONCE:
                yield batch
                batch, size = [], 0
            del kept  # else it stays in memory beside the next one
    if batch:
        yield batch


def _size(kept: KeptImage) -> int:
    return sum(len(value) for value in (kept.record or {}).values() if isinstance(value, str | bytes))
