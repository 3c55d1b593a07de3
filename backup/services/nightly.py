"""What a service needs besides its sync: old images are purged, and its backup is verified, when that is due."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from backup.config.settings import Settings
from backup.core.errors import BackupError, Locked
from backup.core.log import event
from backup.mirror.verification import Depth
from backup.runs.outcome import Turn
from backup.services.service import SyncService
from backup.verbs.upkeep import Due

_PURGE_SECONDS = 30.0
"""The longest time that a purge holds the lock: far less than a scheduled sync waits for it."""


class Upkeep(NamedTuple):
    """What was done: what failed, and whether it is certain that nothing is left to do until the schedule's next time,
    unless somebody begins a run."""

    failures: list[str]
    nothing_left: bool = False


def purge_and_verify(
    open_service: Callable[[str], SyncService],
    name: str,
    settings: Settings,
    night: datetime,
    seconds_left: Callable[[], float],
    *,
    nightly: bool,
) -> Upkeep:
    """Purges and verifies the service, when due.

    A purge that fails is an error in the scheduled run (`nightly`) and a warning in the minutes after it. A purge that
    meets another run is neither: a later minute tries again.
    """
    try:
        service = open_service(name)
        due = service.past.due(night, settings.verify_every_days, synced=nightly)
        if nightly or due.purge:
            purged = service.past.purge(None if nightly else night, min(_PURGE_SECONDS, seconds_left()))
            event("schedule.purged", service=name, entries=purged.images, runs=purged.runs)
    except Locked as error:
        event("schedule.waits", service=name, error=error)
        return Upkeep([])
    except BackupError as error:
        level = logging.ERROR if nightly else logging.WARNING
        event("schedule.not_finished", level=level, service=name, error=error, hint=error.hint)
        return Upkeep([f"{name}: {type(error).__name__}"] if nightly else [])
    if due.verify and (not nightly or seconds_left() > 0):
        return Upkeep(_verify(service, settings, seconds_left()))
    return Upkeep([], nothing_left=due == Due())


def _verify(service: SyncService, settings: Settings, seconds: float) -> list[str]:
    outcome = service.verify_on(Depth(sample=settings.verify_sample), Turn(seconds))
    if outcome is None or outcome.in_progress:
        return []
    run = outcome.run
    level = logging.INFO if run.verified else logging.ERROR
    event("schedule.verified", level=level, service=service.name, sync_id=run.sync_id, verified=run.verified)
    return [] if outcome.error is None else [f"{service.name}: {type(outcome.error).__name__}"]
