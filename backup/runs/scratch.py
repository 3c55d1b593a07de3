"""The scratch place of a drill: its name, and its end when the drill's process died."""

from __future__ import annotations

import logging

from backup.core.errors import BackupError
from backup.core.log import event
from backup.core.run_values import Run
from backup.stores import Store


def name_of(sync_id: str) -> str:
    """The name of a run's scratch database or container. It has the run's id, so nothing else can be there."""
    return f"drill_{sync_id.replace('-', '_')}"


def drop_left(backup: Store, run: Run) -> bool:
    """Drops what the run left of its scratch place. Returns whether nothing is left of it.

    It drops only what has the run's own name, whatever the entry says. It logs a failure, which fails no other run.
    """
    if run.scratch is None:
        return True
    scratch = backup.catalog.beside(name_of(run.sync_id))
    try:
        scratch.catalog.drop()
    except BackupError as error:
        event("drill.not_dropped", level=logging.WARNING, service=run.service, sync_id=run.sync_id, error=error)
        return False
    finally:
        scratch.close()
    event("drill.dropped", service=run.service, sync_id=run.sync_id)
    return True
