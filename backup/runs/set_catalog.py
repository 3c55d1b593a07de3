"""The foreign keys of a set's source, kept beside its backup: they are still known when the source is gone."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple

from backup.core.errors import NotInitialized
from backup.core.log import event
from backup.stores import ForeignKey, Shape, Store

SET_CATALOG = Shape(
    name="SetCatalog",
    container="set-catalog",
    key="SetName",
    partition="SetName",
    fields={"SetName": "name", "ForeignKeys": "text", "SavedAt": "time"},
)


class KeptForeignKeys(NamedTuple):
    """The foreign keys between a set's tables as the source had them, and since when they have been these."""

    foreign_keys: Sequence[ForeignKey]
    saved_at: datetime


def kept_foreign_keys(backup: Store, set_name: str) -> KeptForeignKeys | None:
    """Returns what was kept of the set; None if nothing was, or
    what cannot be read. Costs one query. Raises what a store raises."""
    try:
        entries = backup.sibling(SET_CATALOG).find({"SetName": set_name}, order_by="SetName", limit=1)
    except NotInitialized:
        return None
    if not entries:
        return None
    return _read(entries[0])


def _read(entry: Mapping[str, Any]) -> KeptForeignKeys | None:
    """What the entry says. None, and a line in the log, for one that cannot be read: the next sync writes it again."""
    try:
        foreign_keys = [ForeignKey(**fields) for fields in json.loads(entry["ForeignKeys"])]
        names = [name for key in foreign_keys for name in (key.name, key.table, key.referred)]
        if not isinstance(entry["SavedAt"], datetime) or not all(isinstance(name, str) for name in names):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        kind = type(error).__name__
        event("set.foreign_keys_not_read", level=logging.WARNING, set=entry.get("SetName"), error=kind)
        return None
    return KeptForeignKeys(foreign_keys, entry["SavedAt"])


def keep_foreign_keys(backup: Store, set_name: str, foreign_keys: Sequence[ForeignKey], now: datetime) -> None:
    """Keeps these foreign keys, unless the same are kept already. Makes the table if it is missing.

    Costs one query, and a write where something has changed. Raises what a store raises; then what was kept before
    stays.
    """
    listed = _text_of(foreign_keys)
    kept = kept_foreign_keys(backup, set_name)
    if kept is not None and _text_of(kept.foreign_keys) == listed:
        return
    sibling = backup.sibling(SET_CATALOG)
    if kept is None:
        sibling.create()
    sibling.put([{"SetName": set_name, "ForeignKeys": listed, "SavedAt": now}])


def _text_of(foreign_keys: Sequence[ForeignKey]) -> str:
    return json.dumps(
        [asdict(key) for key in sorted(foreign_keys, key=lambda key: (key.table, key.name, key.referred))]
    )
