"""The app's own tables beside a backup: made, and brought up to date when an earlier release made them."""

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
from backup.stores import Store

OWN_NAMES = frozenset(name.lower() for shape in (HISTORY, RECYCLE_BIN) for name in (shape.name, shape.container))
"""The names, in small letters, that no backup of a service may have."""


def create(backup: Store, service: str) -> None:
    """Makes them, or what they lack; SyncHistory last, whose columns tell that all was done. May be repeated, by
    several at once."""
    RecycleBin(backup, service).create()
    History(backup).create()


def opening_of(
    backup: Store, service: str, others: Collection[str], lock: Callable[[], AbstractContextManager[Any]]
) -> Opening:
    """What SyncHistory says as a run begins, with the app's tables as this release has them.

    What an earlier release made is brought up to date inside `lock`. `others` are the tables or containers that the
    settings name for other services' backups. Raises NotInitialized where there is no SyncHistory, ConfigError for that
    of a later release, and what the store and the lock raise: a query that is refused tells of no earlier release.
    """
    history = History(backup)
    opening = read(backup, service)
    if opening is not None and not opening.has_unplaced:
        return opening
    with lock():
        if opening is None:
            create(backup, service)
        _place(backup, history, service, others)
        return history.opening(service)


def read(backup: Store, service: str) -> Opening | None:
    """The same without a change of anything; None for tables of an earlier release that lack columns."""
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


def _place(backup: Store, history: History, service: str, others: Collection[str]) -> None:
    """Says of the service's runs of an earlier release what they are about.

    They are taken for this place, unless the schema (or database) has copies of other tables too, but for `others`.
    Then nobody knows, and they stay unplaced. May be repeated.
    """
    unplaced, newest = history.unplaced(service), history.latest(service, 1)
    if not unplaced or (newest and unplaced[-1].started_at < newest[0].started_at):
        return  # there is none, or it has been decided
    copies = backup.catalog.copies_beside()
    beside = [place for place in copies if _table(place) not in {*map(_table, others), *OWN_NAMES}]
    if beside:
        tables = ", ".join(beside)
        event("history.unplaced", level=logging.WARNING, service=service, runs=len(unplaced), tables=tables)
        return
    history.place_runs(unplaced)
    event("history.placed", service=service, runs=len(unplaced), place=history.place)


def _table(place: str) -> str:
    return place.rpartition(".")[2].lower()
