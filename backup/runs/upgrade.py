"""Creates the app's own tables beside a backup, and brings those of an earlier release up to date."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any

from backup.core.errors import ColumnMissing, ConfigError
from backup.core.log import event
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import RECYCLE_BIN
from backup.runs.history import History
from backup.runs.history_entries import HISTORY, VERSION
from backup.runs.opening import Opening
from backup.runs.set_catalog import SET_CATALOG
from backup.runs.set_tables import SET_TABLES
from backup.stores import Store

_OWN_SHAPES = (HISTORY, RECYCLE_BIN, SET_CATALOG, SET_TABLES)
OWN_NAMES = frozenset(name.lower() for shape in _OWN_SHAPES for name in (shape.name, shape.container))
"""The names, in lower case, that no backup of a service may have."""


def create(backup: Store, service: str) -> None:
    """Creates the app's tables, or the columns that they lack. SyncHistory comes last: its columns tell that all was
    done. May be repeated, also by several processes at once."""
    RecycleBin(backup, service).create()
    History(backup).create()


def opening_of(
    backup: Store, service: str, other_tables: Collection[str], lock: Callable[[], AbstractContextManager[Any]]
) -> Opening:
    """What SyncHistory says as a run begins. First brings tables of an earlier release up to date, inside `lock`.

    `other_tables` are the tables or containers that the settings name for other services' backups. Raises
    NotInitialized without a SyncHistory, ConfigError for a SyncHistory of a later release, and what the store and the
    lock raise: a query that the server refuses is not a sign of an earlier release.
    """
    history = History(backup)
    opening = read(backup, service)
    if opening is not None and not opening.has_unplaced:
        return opening
    with lock():
        if opening is None:
            create(backup, service)
        _place(backup, history, service, other_tables)
        return history.opening(service)


def read(backup: Store, service: str) -> Opening | None:
    """What SyncHistory says as a run begins; None for tables of an earlier release that lack columns. Changes nothing.

    Raises what `opening_of` raises.
    """
    try:
        opening = History(backup).opening(service)
    except ColumnMissing:
        return None
    if opening.version > VERSION:
        raise ConfigError(
            f"SyncHistory beside the {backup.place.label} is of version {opening.version}, written by a later release; "
            f"this one knows {VERSION}. Nothing was changed.",
            hint="Deploy the later release again.",
        )
    return opening


def _place(backup: Store, history: History, service: str, other_tables: Collection[str]) -> None:
    """Writes the place into the entries of the service's runs that an earlier release made.

    It takes them to be about this place. If the schema (or database) has copies of tables other than `other_tables`,
    nobody knows their place, and they stay unplaced. May be repeated.
    """
    unplaced, newest = history.unplaced(service), history.latest(service, 1)
    if not unplaced or (newest and unplaced[-1].started_at < newest[0].started_at):
        return  # there are none, or an earlier run has decided
    copies = backup.catalog.copies_beside()
    beside = [place for place in copies if _table(place) not in {*map(_table, other_tables), *OWN_NAMES}]
    if beside:
        tables = ", ".join(beside)
        event("history.unplaced", level=logging.WARNING, service=service, runs=len(unplaced), tables=tables)
        return
    history.place_runs(unplaced)
    event("history.placed", service=service, runs=len(unplaced), place=history.place)


def _table(place: str) -> str:
    return place.rpartition(".")[2].lower()
