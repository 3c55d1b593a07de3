"""The timers' work: syncs, purges and verifies when the schedule is due, and every minute what was left.

ScheduledSync does what fits into its time. ResumeSync reads in history and recycle bin what is left, and does it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from backup.config.ncrontab import was_due
from backup.config.settings import Settings
from backup.core.errors import BackupError, Locked, NotInitialized
from backup.core.log import event
from backup.core.model import Now, utc_now
from backup.core.run_values import Status, Trigger
from backup.runs.outcome import Outcome, Turn
from backup.services.directory import ToLookAfter
from backup.services.registry import Registry

_FIRST_OCCURRENCE = timedelta(minutes=10)  # what was due before a service was there is not missed
_CLOCKS_APART = timedelta(minutes=1)  # at most, between the clock of the backup's server and this one


def run_scheduled(
    settings: Settings,
    registry: Registry,
    *,
    past_due: bool = False,
    last: datetime | None = None,
    now: Now = utc_now,
) -> list[Outcome]:
    """Syncs every configured service that has no schedule of its own; `run_own_schedules` does the others. Then, while
    there is time, purges the recycle bins and verifies what is due.

    Logs a line at the start, a line for each service, and a summary with the next occurrence. A verify compares a
    sample of whole records every `BackupVerify__EveryDays` days.

    Only logs a line when the schedule is disabled. So too when the schedule has its own time zone and was not due in
    it since the timer fired before; for a late firing (`past_due`) that is `last`.

    Raises BackupError after the last service if one failed. A sync that could not begin because another run had the
    lock is in SyncHistory, and is not a failure here.
    """
    started, seconds_left = now(), Turn(settings.slice_seconds).countdown()
    upcoming = settings.shared_schedule.next_due(started)
    if not settings.schedule_enabled:
        event("schedule.disabled", setting="BackupSchedule__Enabled", next=upcoming)
        return []
    if _has_own_zone(settings) and not was_due(settings.schedule, settings.zone, started, last if past_due else None):
        event("schedule.not_due", next=upcoming)
        return []
    own = settings.with_own_schedule(registry.directory.entries)
    services = [name for name in registry.directory.entries if name not in own]
    event("schedule.started", services=",".join(services), past_due=past_due)
    outcomes = registry.sync("all", Trigger.TIMER, but=own)
    failures = _failures_of(outcomes)
    for outcome in outcomes:
        _log_service(outcome, upcoming)
    for outcome in outcomes:
        if not outcome.in_progress and seconds_left() > 0:
            failures += registry.look_after(outcome.run.service, now(), seconds_left, nightly=True).failures
    failed = sum(outcome.error is not None for outcome in outcomes)
    completed = sum(outcome.run.status is Status.COMPLETED for outcome in outcomes)
    level = logging.ERROR if failures else logging.INFO
    event("schedule.finished", level=level, completed=completed, failed=failed, next=upcoming)
    _raise_if_any(failures)
    return outcomes


def run_own_schedules(
    settings: Settings, registry: Registry, *, busy: Collection[str] = (), now: Now = utc_now
) -> list[Outcome]:
    """Syncs the services with schedules of their own of which an occurrence has passed and no sync has begun since.

    The host's timer knows one schedule, so these are looked for each minute, in SyncHistory. A missed occurrence is
    caught up once. A service that has never synced waits for its first occurrence. Logs a line for each sync, with the
    next occurrence. A service whose history cannot be read gets a warning, and the next minute looks again. Leaves out
    services that jobs are `busy` with.

    Raises BackupError after the last service if a sync failed.
    """
    at = now()
    own = settings.with_own_schedule(registry.directory.entries) if settings.schedule_enabled else []
    due = [
        name
        for name in own
        if name not in busy and _has_missed(registry, name, settings.schedule_of(name).last_due(at), at)
    ]
    if not due:
        return []
    outcomes = registry.sync("all", Trigger.TIMER, but=[name for name in registry.directory.entries if name not in due])
    for outcome in outcomes:
        _log_service(outcome, settings.schedule_of(outcome.run.service).next_due(at))
    _raise_if_any(_failures_of(outcomes))
    return outcomes


def _has_missed(registry: Registry, name: str, due: datetime, now: datetime) -> bool:
    try:
        service_set = registry.directory.sets.get(name.lower())
        begun = service_set.last_begun(lambda: now) if service_set else registry.get(name).past.last_begun()
    except NotInitialized:
        begun = None
    except BackupError as error:
        event("schedule.not_looked_at", level=logging.WARNING, service=name, error=error, hint=error.hint)
        return False
    return due > now - _FIRST_OCCURRENCE if begun is None else begun < due - _CLOCKS_APART


def _log_service(outcome: Outcome, upcoming: datetime) -> None:
    run, counts = outcome.run, asdict(outcome.run.counts)
    event(
        "schedule.service",
        service=run.service,
        status=run.status,
        **counts,
        duration_ms=run.duration_ms,
        next=upcoming,
    )


def resume_open(
    settings: Settings,
    registry: Registry,
    *,
    busy: Collection[str] = (),
    now: Now = utc_now,
    note_rest: Callable[[str, datetime], None] = lambda *_: None,
) -> list[Outcome]:
    """Resumes every unfinished sync, and logs a line for each. Leaves out services and sets in `busy`.

    Then does the purges and verifies that have been due since the schedule's last time: while there is time or, if no
    sync was resumed, at least a part of them. `note_rest` is told of each service and set that has nothing left to do,
    and of the schedule's last time.

    Raises BackupError after the last service if a sync or a verify failed.
    """
    seconds_left = Turn(settings.slice_seconds).countdown()
    outcomes = registry.resume(Trigger.TIMER, but=busy)
    for outcome in outcomes:
        run = outcome.run
        event("schedule.resumed", service=run.service, sync_id=run.sync_id, status=run.status, percent=run.percent)
    failures = _failures_of(outcomes)
    resumed = {outcome.run.service: outcome for outcome in outcomes}
    at = now()
    look = registry.directory.to_look_after(but=busy) if settings.schedule_enabled else ToLookAfter([], [])
    for name in look.quiet_sets:
        note_rest(name, settings.schedule_of(name).last_due(at))
    for name in look.services:
        of_service = resumed.get(name)
        if (of_service is None or not of_service.in_progress) and (not outcomes or seconds_left() > 0):
            night = settings.schedule_of(name).last_due(at)
            upkeep = registry.look_after(name, night, seconds_left, nightly=False)
            failures += upkeep.failures
            if upkeep.nothing_left and of_service is None and name in registry.directory.own_names:
                note_rest(name, night)
    _raise_if_any(failures)
    return outcomes


def last_firing(status: Mapping[str, str] | None) -> datetime | None:
    """When the timer fired before, in UTC, as its host says; None when the host does not say."""
    try:
        fired_at = datetime.fromisoformat((status or {}).get("Last") or "")
    except ValueError:
        return None
    return fired_at.astimezone(UTC) if fired_at.year > 1 else None


def _failures_of(outcomes: Sequence[Outcome]) -> list[str]:
    errors = ((outcome.run.service, outcome.error) for outcome in outcomes)
    return [f"{name}: {type(error).__name__}" for name, error in errors if error and not isinstance(error, Locked)]


def _raise_if_any(failures: Sequence[str]) -> None:
    if failures:
        raise BackupError(f"Not everything was done: {', '.join(failures)}.", hint="The log and SyncHistory say why.")


def _has_own_zone(settings: Settings) -> bool:
    """Whether the timer fires more often than the schedule is due, because its host knows only UTC."""
    return settings.schedule_time_zone.upper() != "UTC"
