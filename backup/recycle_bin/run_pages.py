"""Reads a run's entries of the recycle bin a page at a time, from where the page before ended. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, Self

from backup.core.errors import BadRequest
from backup.core.model import Action
from backup.recycle_bin import entries
from backup.recycle_bin.entries import RECYCLE_BIN, KeptImage
from backup.recycle_bin.entry_pages import WITHOUT_RECORD
from backup.stores import Store

_TEXT = re.compile(r"([0-9a-g]{32,80})\.(\d{1,9})", re.A)


class Position(NamedTuple):
    """Where a page ended: in this entry, after so many of its keys."""

    entry_id: str
    keys: int

    @classmethod
    def from_text(cls, text: str, sync_id: str) -> Self:
        """Returns the position that `str` of one gives as text. Raises BadRequest for any other text, and for a
        position in the entries of another run."""
        match = _TEXT.fullmatch(text)
        if match is None or not match[1].startswith(entries.prefix(sync_id)):
            raise BadRequest("The cursor is not from a page of this run's changes.", hint="Begin without a cursor.")
        return cls(match[1], int(match[2]))

    def __str__(self) -> str:
        return f"{self.entry_id}.{self.keys}"


def page_of_run(
    backup: Store, service: str, sync_id: str, action: Action | None, after: Position | None, limit: int
) -> tuple[list[KeptImage], Position | None]:
    """Returns up to `limit` keys that the run changed, in any way or by this `action`, without their records.

    Their order is always the same. Also returns the position of the next page; None at the end. Cost: a seek in the
    index of the entries' ids; reads the entries of the page alone.
    """
    sibling = backup.sibling(RECYCLE_BIN)
    where: dict[str, str | list[str]] = {"SyncId": sync_id, "ServiceName": service}
    if action is not None:
        where["Action"] = action.value
    start, _, end = entries.bounds(sync_id)
    begun: Sequence[dict[str, object]] = ()
    if after is not None:
        begun = sibling.find({**where, "EntryId": [after.entry_id]}, order_by="EntryId", limit=1, fields=WITHOUT_RECORD)
        start = after.entry_id
    following = sibling.find(where, order_by="EntryId", above=start, below=end, limit=limit + 1, fields=WITHOUT_RECORD)
    page: list[KeptImage] = []
    position = after
    for entry in (*begun, *following):
        skipped = after.keys if after is not None and entry["EntryId"] == after.entry_id else 0
        for number, kept in enumerate(islice(entries.kept(entry), skipped, None), skipped + 1):
            if len(page) == limit:
                return page, position
            page.append(kept)
            position = Position(kept.entry_id, number)
    return page, None
