"""The names of what a set's source had when the set began, kept beside its backup: none of these is a later table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

from backup.core.errors import ConstraintRefused, NotInitialized, StoreError
from backup.stores import Shape, Store

SET_TABLES = Shape(
    name="SetTables",
    container="sync-history",  # a container of its own would have its price; no service has the name of a set
    key="ServiceName",
    partition="ServiceName",
    fields={"ServiceName": "name", "Tables": "text", "BegunAt": "time"},
)


def keep_first_tables(backup: Store, set_name: str, tables: Iterable[str], now: datetime) -> None:
    """Keeps these names, beside those that an earlier beginning of the set has kept. Makes the table if it is missing,
    but no database. May be repeated, also by several processes at once. Raises what a store raises."""
    sibling = backup.sibling(SET_TABLES)
    sibling.create()
    entry = {"ServiceName": set_name, "Tables": json.dumps(sorted(tables)), "BegunAt": now}
    with suppress(ConstraintRefused):  # another process has just added it
        sibling.add([entry])
    kept = first_tables(backup, set_name) or frozenset()
    if not kept.issuperset(tables):
        sibling.put([{**entry, "Tables": json.dumps(sorted(kept.union(tables)))}])


def first_tables(backup: Store, set_name: str) -> frozenset[str] | None:
    """Returns the names that were kept; None for a set that has not begun, or that an earlier release has begun. Costs
    one query. Raises StoreError for an entry that cannot be read, and what a store raises."""
    try:
        entries = backup.sibling(SET_TABLES).find({"ServiceName": set_name}, order_by="ServiceName", limit=1)
    except NotInitialized:
        return None
    return _read(set_name, entries[0]["Tables"]) if entries else None


def _read(set_name: str, text: object) -> frozenset[str]:
    try:
        names = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise StoreError(
            f"What SetTables beside the backup says of the set {set_name} cannot be read, so nobody can tell which of "
            "its tables are new.",
            hint="Delete this entry. Each table without a copy counts as new then: name those that you want in "
            "backup.toml.",
        )
    return frozenset(names)
