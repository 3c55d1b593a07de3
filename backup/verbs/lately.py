"""What runs of the last seven days have deleted already, for the guard of the next one. Reads SyncHistory alone."""

from __future__ import annotations

from datetime import timedelta

from backup.core.model import Run, Status, Verb
from backup.runs.runner import Session

_WEEK = timedelta(days=7)
ELSEWHERE = "Restored into the "
"""How the note begins of a restore whose place is not the source."""


def deleted_lately(session: Session) -> int:
    """How many of the backup's records syncs of the last week have deleted that were not allowed to delete many, and
    whose deletes were not taken back since."""
    taken_back: set[str] = set()
    deleted = 0
    for run in _of_the_week(session):
        if run.sync_id in taken_back:
            continue
        if run.status is Status.COMPLETED:
            taken_back.update(run.undone)
        if run.verb is Verb.SYNC and not run.allow_mass_delete:
            deleted += run.counts.deleted
    return deleted


def deleted_from_source_lately(session: Session) -> int:
    """How many of the source's records restores of the last week have deleted that were not allowed to delete many."""
    runs = (run for run in _of_the_week(session, restores=True) if not run.allow_mass_delete)
    return sum(run.counts.deleted for run in runs if not any(note.startswith(ELSEWHERE) for note in run.notes))


def _of_the_week(session: Session, *, restores: bool = False) -> list[Run]:
    """The runs but this one, newest first."""
    service, now, history = session.run.service, session.steps.now(), session.history
    runs = history.since(service, now - _WEEK, history.timeline(service, now), restores=restores)
    return [run for run in runs if run.sync_id != session.run.sync_id]
