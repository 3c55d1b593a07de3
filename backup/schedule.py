"""The scheduled run: everything, not forced, and a log that can be read in the morning."""

from __future__ import annotations

import logging
from dataclasses import asdict

from backup.log import event
from backup.models import Now, Trigger, utc_now
from backup.ncrontab import next_due
from backup.registry import Registry
from backup.services import Outcome
from backup.settings import Settings


def run_scheduled(
    settings: Settings, registry: Registry, *, past_due: bool = False, now: Now = utc_now
) -> list[Outcome]:
    """Syncs every configured service and logs start, a line each, a summary and the next occurrence.

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
    failed = sum(outcome.error is not None for outcome in outcomes)
    level = logging.ERROR if failed else logging.INFO
    event("schedule.finished", level=level, completed=len(outcomes) - failed, failed=failed, next=upcoming)
    return outcomes
