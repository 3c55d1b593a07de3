"""The app's own tables beside a backup: made, and brought up to date when an earlier release made them."""

from __future__ import annotations

import logging
from collections.abc import Collection

from backup.core.errors import ConfigError, NotInitialized, StoreError, StoreUnavailable
from backup.core.log import event
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import RECYCLE_BIN
from backup.runs.history import History
from backup.runs.history_entries import HISTORY, VERSION
from backup.stores import Store

OWN_NAMES = frozenset(name.lower() for shape in (HISTORY, RECYCLE_BIN) for name in (shape.name, shape.container))
"""The names, in small letters, that no backup of a service may have."""


def are_current(backup: Store, service: str) -> bool:
    """Whether the service's newest entry is as this release writes it; true where it has none.

    Raises NotInitialized where there is no SyncHistory, ConfigError for that of a later release; costs one lookup.
    """
    try:
        version = History(backup).version(service)
    except (NotInitialized, StoreUnavailable):
        raise
    except StoreError:  # an earlier release's table has not the column
        return False
    if version > VERSION:
        raise ConfigError(
            f"SyncHistory beside the {backup.place.label} is of version {version}, written by a later release; this "
            f"one knows {VERSION}. Nothing was changed.",
            hint="Deploy the later release again.",
        )
    return version == VERSION


def create(backup: Store, service: str) -> None:
    """Makes them, or what they lack. May be repeated, by several at once."""
    History(backup).create()
    RecycleBin(backup, service).create()


def bring_up_to_date(backup: Store, service: str, others: Collection[str]) -> None:
    """Makes them current, and says of the service's runs of an earlier release what they are about.

    The caller holds the service's lock. Those runs are taken for this place, unless the schema (or database) has copies
    of other tables too, but for `others`: those that the other services' settings name. Then nobody knows, and they
    stay unplaced. May be repeated; raises what the store raises.
    """
    if not are_current(backup, service):
        create(backup, service)
    history = History(backup)
    unplaced, newest = history.unplaced(service), history.latest(service, 1)
    if not unplaced or (newest and unplaced[-1].started_at < newest[0].started_at):
        return  # there is none, or it has been decided
    beside = [
        place for place in backup.catalog.copies_beside() if _table(place) not in {*map(_table, others), *OWN_NAMES}
    ]
    if beside:
        tables = ", ".join(beside)
        event("history.unplaced", level=logging.WARNING, service=service, runs=len(unplaced), tables=tables)
        return
    history.place_runs(unplaced)
    event("history.placed", service=service, runs=len(unplaced), place=history.place)


def _table(place: str) -> str:
    return place.rpartition(".")[2].lower()
