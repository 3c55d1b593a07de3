"""Reads entries of the recycle bin in pages, so that memory holds a page at a time. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backup.recycle_bin.entries import RECYCLE_BIN
from backup.stores import Sibling

PAGE = 500
"""How many entries a page has at most."""

WITHOUT_RECORD = tuple(name for name in RECYCLE_BIN.fields if name != "Record")
"""The fields of an entry but for its record, which may be large."""

_FIRST_PAGE = 16  # entries: nobody knows yet how large they are
_PAGE_CHARACTERS = 8 * 1024 * 1024
_HASHES_AT_ONCE = 100  # values of a parameter


def pages_of(
    entries: Sibling,
    where: Mapping[str, Any],
    above: str | None = None,
    below: str | None = None,
    transaction: Any = None,
    *,
    records: bool = True,
) -> Iterator[list[dict[str, Any]]]:
    """Yields entries in pages, in the order of their ids, with ids between `above` and `below` (exclusive).

    A page has 1 to 500 entries: the larger they are, the fewer. Without `records` the field Record is left out.
    """
    last, size = above, _FIRST_PAGE if records else PAGE
    fields = () if records else WITHOUT_RECORD
    while page := entries.find(
        where,
        order_by="EntryId",
        above=last,
        below=below,
        limit=size,
        fields=fields,
        transaction=transaction,
        max_bytes=_PAGE_CHARACTERS if records else None,
    ):
        last, sizes = page[-1]["EntryId"], [len(entry.get("Record") or "") + len(entry["RecordKey"]) for entry in page]
        is_last = len(page) < size and sum(sizes) <= _PAGE_CHARACTERS
        yield page
        del page  # else it stays in memory beside the next page
        if is_last:
            return
        size = max(1, min(PAGE, size * 4, _PAGE_CHARACTERS // max(sizes)))


def pages_of_hashes(
    entries: Sibling, hashes: Sequence[str], where: Mapping[str, Any], transaction: Any = None, *, records: bool = True
) -> Iterator[list[dict[str, Any]]]:
    """Yields the entries with one of these values of KeyHash, in pages."""
    for start in range(0, len(hashes), _HASHES_AT_ONCE):
        part = {"KeyHash": list(hashes[start : start + _HASHES_AT_ONCE])}
        yield from pages_of(entries, {**part, **where}, transaction=transaction, records=records)
