"""A restore drill: restores the newest state into a scratch place, compares it with the source, and drops it."""

from __future__ import annotations

import time
from dataclasses import replace

from backup.core.run_values import Counts
from backup.core.suggestions import quantity
from backup.mirror.verification import Depth, verify
from backup.runs.scratch import name_of
from backup.runs.session import Session
from backup.verbs.restore import restore
from backup.verbs.restore_spec import RestoreSpec
from backup.verbs.upkeep import progress_of


def drill(session: Session) -> None:
    """Restores everything into a new database (or container) beside the backup, and compares whole records.

    The scratch place has the name of the run, so nothing else can be there. The drill drops it, whatever happens. If
    this process dies, the next run or purge drops it, because the run's entry names it from the start. `session.report`
    has the differences; the run's notes say how long the restore took. Costs the space of the backup once more, and
    the right to create and drop databases. Raises what the stores raise.
    """
    scratch = session.backup.catalog.beside(name_of(session.run.sync_id))
    started = time.perf_counter()
    try:
        scratch.catalog.make_like(session.source)
        restore(session, scratch, RestoreSpec(), elsewhere=True)
        seconds = time.perf_counter() - started
        restored, session.tally.counts = session.tally.counts.inserted, Counts()  # a verify changes nothing
        session.note(f"Restored {quantity(restored, 'record')} into a scratch place in {seconds:.1f} s.")
        scratch.catalog.match(session.source)
        save, refuse = progress_of(session), session.tally.set_aside
        verify(session.source, scratch, Depth(full=True), session.report, save=save, refuse=refuse)
    finally:
        try:
            scratch.catalog.drop()
            session.run = replace(session.run, scratch=None)
        finally:
            scratch.close()
