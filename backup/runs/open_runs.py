"""Runs that other calls left open: which of them another may go on with, and what becomes of the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from backup.core.errors import Locked, NotInitialized, StoreError, StoreUnavailable
from backup.core.log import event
from backup.core.model import Now, Run, Status, Verb
from backup.runs.clock import clock_of
from backup.runs.history import History
from backup.runs.ownership import is_alive, refuse_alive
from backup.runs.scratch import drop_left
from backup.stores import Store


def is_left_sync(run: Run) -> bool:
    """Whether the open run is a sync that another call may go on with; whether it is alive the lock says."""
    return run.checkpoint is not None and run.verb is Verb.SYNC


def is_left_verify(run: Run) -> bool:
    """Whether the open run is a verify that another call may go on with; no lock says whether it is alive."""
    return run.checkpoint is not None and run.verb is Verb.VERIFY


def has_left_sync(backup: Store, history: History, service: str, now: Now) -> bool:
    """Whether a sync was left open; what cannot be read is no reason to fail, for no run has begun."""
    try:
        found = list(filter(is_left_sync, history.open_runs(service)))
        moment = clock_of(backup, now)() if found else None
        return moment is not None and not any(is_alive(run, moment) for run in found)
    except (StoreUnavailable, NotInitialized) as error:
        event("sync.not_looked_for", level=logging.WARNING, service=service, error=error)
        return False
    except StoreError:  # a table of an earlier release; under the lock it gets what it lacks
        return True


def take_over(history: History, service: str, now: datetime, clock: Now, goes_on: Callable[[Run], bool]) -> Run | None:
    """The newest open run that `goes_on`; the others are closed. Raises Locked while one of them is alive.

    A verify that is alive, or that another call may go on with, is let alone: it needs no lock.
    """
    moment = clock()
    runs = [
        run
        for run in history.open_runs(service)
        if not is_left_verify(run) and not (run.only_compares and is_alive(run, moment))
    ]
    for run in runs:
        refuse_alive(run, moment)
    found = next(filter(goes_on, runs), None)
    for run in runs:
        if run is not found and not history.close_interrupted(run, now):
            raise Locked(f"Another process has just taken over a run of {service}.")
    return found


def drop_scratches(backup: Store, history: History, service: str, moment: datetime) -> None:
    """Drops what dead drills have left; their entries then say so."""
    for run in history.with_scratch(service):
        if not is_alive(run, moment) and drop_left(backup, run):
            if run.status is Status.IN_PROGRESS:
                history.close_interrupted(replace(run, scratch=None), moment)
            else:
                history.save(replace(run, scratch=None))
