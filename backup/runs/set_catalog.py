"""The foreign keys of a set's source, kept beside its backup: they are still known when the source is gone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import NamedTuple

from backup.core.errors import NotInitialized
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
    """Returns what was kept of the set; None if nothing was. Costs one query. Raises what a store raises."""
    try:
        entries = backup.sibling(SET_CATALOG).find({"SetName": set_name}, order_by="SetName", limit=1)
    except NotInitialized:
        return None
    if not entries:
        return None
    [entry] = entries
    return KeptForeignKeys([ForeignKey(**fields) for fields in json.loads(entry["ForeignKeys"])], entry["SavedAt"])


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
