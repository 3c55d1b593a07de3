"""How many records the runs of the last seven days deleted; the guard of the next run asks. Reads only SyncHistory."""

from __future__ import annotations

from datetime import datetime, timedelta

from backup.core.run_values import Run, Status, Verb
from backup.runs.history import History
from backup.runs.session import Session

_WEEK = timedelta(days=7)
ELSEWHERE = "Restored into the "
"""The beginning of the note of a restore into another place than the source."""


def deleted_lately(history: History, service: str, now: datetime, but: str = "") -> int:
    """How many records of the backup the syncs of the week before `now` deleted, without the run whose id is `but`.
    Syncs that were allowed a mass delete do not count, nor do those that an undo took back."""
    taken_back: set[str] = set()
    deleted = 0
    for run in _of_the_week(history, service, now, but):
        if run.sync_id in taken_back:
            continue
        if run.status is Status.COMPLETED:
            taken_back.update(run.undone)
        if run.verb is Verb.SYNC and not run.allow_mass_delete:
            deleted += run.counts.deleted
    return deleted


def deleted_from_source_lately(session: Session) -> int:
    """How many records of the source the restores of the last week deleted. Restores that were allowed a mass delete do
    not count."""
    service, now, own = session.run.service, session.steps.now(), session.run.sync_id
    week = _of_the_week(session.history, service, now, own, restores=True)
    runs = (run for run in week if not run.allow_mass_delete)
    return sum(run.counts.deleted for run in runs if not any(note.startswith(ELSEWHERE) for note in run.notes))


def _of_the_week(history: History, service: str, now: datetime, but: str, *, restores: bool = False) -> list[Run]:
    """The runs of the last week except this one, newest first."""
    runs = history.since(service, now - _WEEK, history.timeline(service, now), restores=restores)
    return [run for run in runs if run.sync_id != but]
