"""Records, and lets tell, how runs ended whose processes were gone before they could. SyncHistory says it."""

from __future__ import annotations

import logging
from collections.abc import Collection

from backup.core.errors import BackupError, UnknownRun, UnknownService
from backup.core.log import event
from backup.jobs.job_queue import JobQueue
from backup.jobs.listing import PAGE_AT_MOST
from backup.jobs.records import SILENCE
from backup.jobs.resting import is_of
from backup.jobs.run_keeper import RunKeeper
from backup.services.registry import Registry


def record_late_ends(registry: Registry, job_queue: JobQueue, busy: Collection[str] = ()) -> None:
    """Looks in SyncHistory for the end of each run that began minutes ago and has none in the records. Puts its event
    into the outbox, too. Leaves out the services that jobs are `busy` with.

    Cost: a read of the open runs, and a look into SyncHistory for each of these runs. Raises what the records raise. A
    SyncHistory that cannot be read is logged: the next call looks again.
    """
    for open_run in job_queue.runs.open_runs(job_queue.now(), PAGE_AT_MOST) or ():
        is_busy = any(is_of(open_run.service, name.lower()) for name in busy)
        if open_run.age <= SILENCE or is_busy or registry.directory.is_group(open_run.service):
            continue  # the job of a set ends the set's run
        try:
            run = registry.get(open_run.service).past.ran(open_run.sync_id, 0).run
        except (UnknownRun, UnknownService):
            continue
        except BackupError as error:
            event("runs.not_looked_at", level=logging.WARNING, sync_id=open_run.sync_id, error=error, hint=error.hint)
            continue
        if run.completed_at is not None:
            job = job_queue.records.get(open_run.job_id) if open_run.job_id else None
            RunKeeper(job_queue.runs, job).found(run)
