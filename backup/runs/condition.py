"""What SyncHistory says about the state of a service's mirror: how its last sync ended, whether a sync is overdue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from backup.core import errors
from backup.core.run_values import Run, Status, Verb
from backup.core.timeline import AHEAD
from backup.runs.clock import clock_of
from backup.runs.history import History
from backup.runs.upgrade import read
from backup.stores import SideName, Store

_LATE = timedelta(hours=1)
"""Timers fire late, and a sync may wait for the end of another run."""

_LOOKED_AT = 20


@dataclass(frozen=True)
class Concern:
    """A reason why all is not well. Anybody may read it, except `detail`: it names servers and is for operators."""

    reason: str
    service: str | None = None
    side: SideName | None = None
    sync_id: str | None = None
    error: str | None = None
    since: datetime | None = None
    detail: str = ""
    detail_hint: str = ""

    @property
    def hint(self) -> str:
        """What to do about errors of this kind on any server."""
        return hint_of(self.error) or "`python -m backup health` says more, and so does the log."


def hint_of(kind: str | None) -> str:
    """The default hint of errors of this kind; empty for an unknown kind."""
    named = getattr(errors, kind or "", None)
    return named.hint if isinstance(named, type) and issubclass(named, errors.BackupError) else ""


def concerns_of(
    backup: Store, service: str, now: datetime, next_due: Callable[[datetime], datetime] | None
) -> list[Concern]:
    """The concerns about the service: its last sync has failed, or none has completed yet; the backup is empty; no sync
    began when the schedule wanted one.

    `next_due` is the schedule, or None without one. A service that has never synced is not late. A sync that lies
    ahead, by a clock that was wrong, does not stand for that of a night. Writes nothing.
    Costs four lookups, and up to three more when the newest runs are not whole syncs. Raises NotInitialized without a
    SyncHistory, and the stores' errors.
    """
    opening, history = read(backup, service), History(backup)
    if opening is None:
        return []  # an earlier release's tables; the next run brings them up to date
    latest = clock_of(backup, lambda: now, opening.server_time)() + AHEAD

    def is_whole(run: Run) -> bool:
        """Whether the run is a sync that leaves no changes. A sync with a limit does not stand for the night's."""
        return _is_sync(run) and not run.is_partial and _last_sign(run) <= latest

    begun = opening.first(is_whole, lambda: next(filter(is_whole, history.newest_syncs(service, _LOOKED_AT)), None))

    def older_ended() -> Run | None:
        newest = history.newest_syncs(service, _LOOKED_AT, ended=True)
        return next(filter(_has_ended, newest), None) or history.last_synced(service)  # many had limits, or no lock

    ended = opening.first(_has_ended, older_ended)
    concerns: list[Concern] = []
    if ended is None:
        hint = "A sync copies everything; the first one that completes clears this."
        concerns.append(Concern("No whole sync has completed yet.", service, detail_hint=hint))
    elif ended.status is Status.FAILED:
        concerns.append(
            Concern(
                *("The last sync that ended has failed.", service, None, ended.sync_id, ended.error_kind),
                since=ended.completed_at,
                detail=ended.error or "",
                detail_hint=hint_of(ended.error_kind) or "The next sync that completes clears this.",
            )
        )
    if ended is not None and ended.proof is not None and ended.proof.backup.records > 0 and not backup.has_records():
        reason = "The backup has no record, though the last sync that ended had left some."
        hint = "Somebody else has emptied it, or a run was undone. The next sync copies everything again."
        concerns.append(Concern(reason, service, sync_id=ended.sync_id, since=ended.completed_at, detail_hint=hint))
    if begun is not None and next_due is not None:
        due = next_due(_last_sign(begun))
        if due + _LATE < now:
            reason = "A sync is overdue: the schedule wanted one, and none has begun."
            hint = "Does the function app run? Where nothing keeps the schedule, BackupSchedule__Enabled is false."
            concerns.append(Concern(reason, service, sync_id=begun.sync_id, since=due, detail_hint=hint))
    return concerns


def _is_sync(run: Run) -> bool:
    return run.verb is Verb.SYNC and not run.dry_run


def _last_sign(run: Run) -> datetime:
    return max(filter(None, (run.started_at, run.heartbeat_at, run.completed_at)))


def _has_ended(run: Run) -> bool:
    """Whether the run is a sync that began and ended. If another run kept it from beginning, or if its limit left
    changes, it does not say that the mirror is well."""
    has_begun = run.error_kind != errors.Locked.__name__
    has_ended = run.status is Status.FAILED or (run.status is Status.COMPLETED and not run.is_partial)
    return _is_sync(run) and has_ended and has_begun
