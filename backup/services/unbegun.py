"""Which copies of a set no run has begun: a first sync of an earlier release was killed before it made SyncHistory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing

from backup.core.errors import BackupError
from backup.core.log import event
from backup.recycle_bin.entries import RECYCLE_BIN
from backup.runs.history_entries import HISTORY
from backup.runs.upgrade import OWN_NAMES
from backup.services.set_specs import SetSpecs
from backup.stores import Listed, Rules, Shape
from backup.stores.sides import open_store

MARK_OF_COPIES = "SyncedAt"
"""The column by which a table says that this app has made it."""


def without_unbegun(specs: SetSpecs, in_backup: Sequence[Listed]) -> Sequence[Listed]:
    """`in_backup` without the copies that no run has begun: the next sync makes what they lack, as for new ones.

    A run made a copy, then the recycle bin, then SyncHistory, and only then wrote. So without SyncHistory all copies
    and the bin are empty, and none is left out if one of them is not: somebody has dropped SyncHistory since. Asks
    nobody where SyncHistory is there; else one seek for each copy, up to the first with records. Raises no error.
    """
    if _named(in_backup, HISTORY):
        return in_backup
    copies = [listed for listed in in_backup if _is_copy(specs, listed)]
    try:
        if not copies or any(_has_records(specs, listed) for listed in (*copies, *_named(in_backup, RECYCLE_BIN))):
            return in_backup
    except BackupError as error:  # each service will say that it is not initialized
        event("set.not_listed", level=logging.WARNING, set=specs.name, error=error, hint=error.hint)
        return in_backup
    names = {listed.name for listed in copies}
    event("set.not_begun", set=specs.name, tables=", ".join(names))
    return [listed for listed in in_backup if listed.name not in names]


def _is_copy(specs: SetSpecs, listed: Listed) -> bool:
    is_own = _last_part(listed) in OWN_NAMES
    is_marked = specs.section.is_cosmos or any(column.name == MARK_OF_COPIES for column in listed.columns)
    return is_marked and not is_own and specs.takes(listed.name)


def _named(in_backup: Sequence[Listed], shape: Shape) -> list[Listed]:
    names = {shape.name.lower(), shape.container}
    return [listed for listed in in_backup if _last_part(listed) in names]


def _last_part(listed: Listed) -> str:
    return listed.name.rpartition(".")[2].lower()


def _has_records(specs: SetSpecs, listed: Listed) -> bool:
    with closing(open_store(specs.side("backup", listed.name), Rules(of_set=True), specs.limits)) as store:
        return store.has_records()
