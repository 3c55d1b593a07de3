"""The scheduled run: a sync of everything, the purge, a verify when it is due, and a log to read in the morning."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import datetime, timedelta

from backup.errors import BackupError
from backup.log import event
from backup.models import Now, Status, Trigger, utc_now
from backup.ncrontab import next_due
from backup.recorded import Outcome
from backup.registry import Registry
from backup.settings import Settings
from backup.verify import Depth

_EARLY = timedelta(hours=1)
"""A timer does not fire at the same second every week."""


def run_scheduled(
    settings: Settings, registry: Registry, *, past_due: bool = False, now: Now = utc_now
) -> list[Outcome]:
    """Syncs every configured service and logs start, a line each, a summary and the next occurrence. Then purges the
    recycle bins and, every so many days, compares a sample of whole records.

    With the schedule disabled it only says so. Failures are in the log and in SyncHistory; it does not raise for them.
    """
    upcoming = next_due(settings.schedule, now())
    if not settings.schedule_enabled:
        event("schedule.disabled", setting="BackupSchedule__Enabled", next=upcoming)
        return []
    event("schedule.started", services=",".join(registry.names()), past_due=past_due)
    outcomes = registry.sync("all", Trigger.TIMER)
    for outcome in outcomes:
        run = outcome.run
        event(
            "schedule.service",
            service=run.service,
            status=run.status,
            **asdict(run.counts),
            duration_ms=run.duration_ms,
        )
    for outcome in outcomes:
        if not outcome.in_progress:
            _after_sync(registry, outcome.run.service, settings, now())
    failed = sum(outcome.error is not None for outcome in outcomes)
    completed = sum(outcome.run.status is Status.COMPLETED for outcome in outcomes)
    level = logging.ERROR if failed else logging.INFO
    event("schedule.finished", level=level, completed=completed, failed=failed, next=upcoming)
    return outcomes


def resume_open(registry: Registry) -> list[Outcome]:
    """Goes on with every sync that was left open and logs a line for each; failures are in SyncHistory as well."""
    outcomes = registry.resume(Trigger.TIMER)
    for outcome in outcomes:
        run = outcome.run
        event("schedule.resumed", service=run.service, sync_id=run.sync_id, status=run.status, percent=run.percent)
    return outcomes


def _after_sync(registry: Registry, name: str, settings: Settings, now: datetime) -> None:
    """Purges the service's recycle bin, and compares a sample of it when that is due. Failures are logged."""
    try:
        service = registry.get(name)
        event("schedule.purged", service=name, entries=service.purge())
        last = service.last_verified() if settings.verify_every_days else None
        if settings.verify_every_days and (
            last is None or now - last.started_at >= timedelta(days=settings.verify_every_days) - _EARLY
        ):
            run = service.verify(Depth(sample=settings.verify_sample)).run
            level = logging.INFO if run.verified else logging.ERROR
            event("schedule.verified", level=level, service=name, sync_id=run.sync_id, verified=run.verified)
    except BackupError as error:
        event("schedule.not_finished", level=logging.ERROR, service=name, error=error, hint=error.hint)
