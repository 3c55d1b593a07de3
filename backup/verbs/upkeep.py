"""When a service's purges and verifies are due, and a verify in parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from backup.core.run_values import Run, Status, Verb
from backup.core.timeline import AHEAD
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.verification import Depth, verify
from backup.recycle_bin.bin import RecycleBin
from backup.runs.history import History
from backup.runs.open_runs import is_left_verify
from backup.runs.opening import Opening
from backup.runs.policy import Policy
from backup.runs.session import Session

_EARLY = timedelta(hours=1)  # a timer does not fire at the same second every week
_CLOCKS_APART = timedelta(minutes=5)  # at most, between the clock of the backup's server and that of the timer
_SECONDS_BETWEEN_SAVES = 1.0


@dataclass(frozen=True)
class Due:
    """What a service needs now. `later`: more may be due before the schedule's next time, once a sync has ended."""

    purge: bool = False
    verify: bool = False
    later: bool = False


def due(
    history: History,
    opening: Opening,
    recycled: RecycleBin,
    service: str,
    policy: Policy,
    verify_every_days: float,
    night: datetime,
    now: datetime,
    *,
    synced: bool = False,
) -> Due:
    """What has been due since `night`, the schedule's last time, and is not done yet.

    Nothing is due while a sync is open, or before a sync has ended since then. A purge would stand in its way, and a
    verify would report what the sync is about to put right. A purge is due while the bin holds images that were too old
    at that time. A verify is due when the last one began `verify_every_days` before, and while an open one waits for
    its next part. A verify that has failed since then is not due again. A run that lies ahead of `now`, the time of the
    clock that writes them, does not count: its clock was wrong.
    """
    since, latest = night - _CLOCKS_APART, now + AHEAD
    is_open = any(not run.only_compares for run in opening.open_runs)
    if is_open or not (synced or _has_synced(history, opening, service, since, latest)):
        return Due(later=True)
    oldest = recycled.oldest()
    return Due(
        purge=oldest is not None and oldest < policy.kept_since(opening.confirmed(night, policy.recycle_days)),
        verify=verify_every_days > 0 and _verify_is_due(history, opening, service, verify_every_days, night, latest),
    )


def _has_synced(history: History, opening: Opening, service: str, since: datetime, latest: datetime) -> bool:
    """Whether a sync has ended between these times, as Completed or Failed."""

    def has_ended(run: Run) -> bool:
        is_sync = run.verb is Verb.SYNC and not run.dry_run
        return is_sync and run.completed_at is not None and since < run.completed_at < latest

    return any(map(has_ended, opening.newest)) or (not opening.is_whole and history.has_synced(service, since, latest))


def _verify_is_due(
    history: History, opening: Opening, service: str, every_days: float, night: datetime, latest: datetime
) -> bool:
    if any(map(is_left_verify, opening.open_runs)):
        return True
    newest = opening.first(lambda run: run.only_compares, lambda: history.newest_verify(service))
    last = opening.first(
        lambda run: run.only_compares and run.status is Status.COMPLETED, lambda: history.last_verified(service)
    )
    if newest is not None and newest.status is Status.FAILED and night - _CLOCKS_APART <= newest.started_at <= latest:
        return False
    return last is None or not night - timedelta(days=every_days) + _EARLY < last.started_at <= latest


def verify_on(session: Session, depth: Depth) -> None:
    """Resumes a verify from the session's checkpoint. When its time is up, it leaves the session unfinished, with a new
    checkpoint."""
    session.backup.catalog.match(session.source)
    tally, saved_at = session.tally, time.monotonic()
    tally.failures, tally.counts = dict(session.run.failures), session.run.counts  # of earlier calls

    def save(at: Checkpoint) -> None:
        nonlocal saved_at
        if time.monotonic() - saved_at >= _SECONDS_BETWEEN_SAVES:
            _save(session, at)
            saved_at = time.monotonic()

    try:
        stopped_at = verify(
            *(session.source, session.backup, depth, session.report, session.start, session.steps.seconds_left, save),
            refuse=tally.set_aside,
        )
    finally:
        session.tally.proof = session.report.proof
    if stopped_at is not None:
        _save(session, stopped_at)
        session.unfinished = True


def progress_of(session: Session) -> Callable[[Checkpoint], None]:
    """Returns what a comparison in one part calls after each chunk. It tells the session's observer how far it is,
    writes nothing, and lets the observer stop it by an error."""

    def tell(at: Checkpoint) -> None:
        session.observer.progress(session.run.service, session.tally.counts)
        session.run = replace(session.run, percent=_percent(session, at))
        session.observer.walked(session.run)

    return tell


def _save(session: Session, at: Checkpoint) -> None:
    tally, percent = session.tally, _percent(session, at)
    session.become(counts=tally.counts, failures=(*tally.failures.items(),), checkpoint=at.to_text(), percent=percent)


def _percent(session: Session, at: Checkpoint) -> int | None:
    last = session.last_synced()
    records = last.proof.source.records if last is not None and last.proof is not None else 0
    return min(99, at.source_records * 100 // records) if records else None
