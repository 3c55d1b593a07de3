"""Deletes old entries of the recycle bin, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from backup.recycle_bin import entry_pages
from backup.stores import Sibling


def delete_older(
    entries: Sibling,
    where: Mapping[str, Any],
    before: datetime,
    moment_of: Callable[[Mapping[str, Any]], datetime],
    seconds_left: Callable[[], float],
    *,
    above: datetime | None = None,
    below: datetime | None = None,
) -> int:
    """Deletes the entries with these fields that `moment_of` says were made earlier than `before`. Returns how many.

    Looks only at entries whose own time is after `above` and before `below`, oldest first. It deletes at least one
    batch, and stops when no time is left.
    """
    deleted = 0
    while True:
        page = entries.find(
            where,
            order_by="RecycledAt",
            above=above,
            below=below,
            limit=entry_pages.PAGE,
            fields=("EntryId", "RecycledAt"),
        )
        # All parts of an entry have the same id.
        old = list(dict.fromkeys(entry["EntryId"] for entry in page if moment_of(entry) < before))
        entries.delete(old)
        deleted += len(old)
        if len(page) < entry_pages.PAGE or seconds_left() <= 0:
            return deleted
        # All entries of the page are younger than their times say, so the next page begins behind them. It may pass
        # over entries of the same time; the next purge deletes those.
        if not old:
            above = page[-1]["RecycledAt"]
            if not isinstance(above, datetime):
                return deleted
