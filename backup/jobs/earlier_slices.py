"""What the earlier slices of a job of several services have made of its run. Reads the records alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from backup.core.errors import SetFailed, SetNotWhole
from backup.core.run_values import Counts, Proof, Run, Status, Verb
from backup.core.suggestions import quantity
from backup.jobs.job import Job, State
from backup.jobs.listing import PAGE_AT_MOST
from backup.jobs.run_records import RunRecords
from backup.services.several_as_one import CallOfSeveral, RunSoFar, first_of


def run_so_far(run: Run, job: Job, records: RunRecords) -> RunSoFar:
    """Returns what the job's slices before this one have made of the run, which has done nothing yet. Cost: none, or
    after a worker that died a reading of the job's runs."""
    if job.sync_id is None:
        return RunSoFar(_as_left(run, job, records) if _has_died(job) else run)
    run = replace(run, sync_id=job.sync_id, started_at=job.started_at or run.started_at, percent=job.percent)
    failure = _failure(job.error, job.hint, is_whole=job.error_kind != SetNotWhole.__name__) if job.error else None
    if not _has_died(job):
        proof = None if job.proof is None else Proof.from_json(job.proof)
        return RunSoFar(replace(run, counts=_counts(job.counts), proof=proof), CallOfSeveral.NEXT, failure)
    # The job does not say how the runs ended that this worker ended, and it counts what they did after their last
    # checkpoints: the next call does that again. Nobody knows what they have proven.
    ended = list(_ended(job, job.sync_id, records))
    counts = sum((_counts(of_service.get("counts", {})) for of_service in ended), Counts())
    newest = {of_service["service"]: of_service for of_service in reversed(ended)}
    failed = [of_service for of_service in newest.values() if of_service["status"] == Status.FAILED]
    if failed:
        names = first_of([f"{of_service['service']} ({of_service.get('errorKind')})" for of_service in failed])
        text = (
            f"{quantity(len(failed), 'service')} of {run.service} failed: {names}. "
            f"{failed[0]['service']}: {failed[0].get('error')}"
        )
        is_whole = run.service not in {of_service["service"] for of_service in failed}
        failure = _failure(text, failed[0].get("hint"), is_whole=is_whole)
    return RunSoFar(replace(run, counts=counts, proof=None), CallOfSeveral.AFTER_DEATH, failure)


def _counts(stored: Mapping[str, Any]) -> Counts:
    return Counts(**{name: stored.get(name, 0) for name in asdict(Counts())})


def _failure(text: str, hint: str | None, *, is_whole: bool) -> SetFailed:
    return (SetFailed if is_whole else SetNotWhole)(text, hint=hint or None, errors=())


def _ended(job: Job, sync_id: str, records: RunRecords) -> Iterator[Mapping[str, Any]]:
    """The runs of services, newest first, that have ended since the job's run of this id began."""
    cursor, whole = None, records.get(sync_id)
    since = datetime.fromisoformat(whole["startedAt"]) if whole else job.started_at
    while True:
        page = records.page(verb=Verb.SYNC, text=job.job_id, since=since, limit=PAGE_AT_MOST, cursor=cursor)
        yield from (run for run in page.runs if run.get("completedAt") and run["syncId"] != sync_id)
        cursor = page.cursor
        if cursor is None:
            return


def _as_left(run: Run, job: Job, records: RunRecords) -> Run:
    """The run with the id that a worker gave it which died in its first slice. That slice may not have begun all of the
    services, so all are synced; but it is one run, and none stays in progress for ever."""
    page = records.page(service=run.service, status=Status.IN_PROGRESS, text=job.job_id)
    for left_run in page.runs:
        return replace(run, sync_id=left_run["syncId"], started_at=datetime.fromisoformat(left_run["startedAt"]))
    return run


def _has_died(job: Job) -> bool:
    """Whether the worker before this one left the job without a word."""
    return len(job.history) > 1 and job.history[-2].state is State.PROCESSING
