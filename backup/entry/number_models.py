"""The answers under /api/sync that are numbers: of a day, a service, a queue, a connection. As models."""

from __future__ import annotations

from pydantic import Field

from backup.core.run_values import Verb
from backup.entry.job_models import CamelAnswer


class Processed(CamelAnswer):
    """How many records the runs of a day settled."""

    total_processed: int
    total_success: int
    total_failed: int


class DaySummary(Processed):
    """The numbers of a day."""

    total_jobs: int
    success_jobs: int
    failed_jobs: int
    running_jobs: int
    success_rate: float | None


class TypeRow(Processed):
    """The numbers of a day, of one service."""

    sync_type: str
    count: int
    success: int
    failed: int


class QueueStats(CamelAnswer):
    """How many jobs are in each state, and how many processes work on jobs."""

    enqueued: int
    processing: int
    succeeded: int
    failed: int
    scheduled: int
    servers: int


class SummaryAnswer(CamelAnswer):
    """The numbers of one day, by service a page at a time; `hangfireStats` is another name of `queueStats`."""

    date: str
    summary: DaySummary
    by_type: list[TypeRow]
    cursor: str | None
    queue_stats: QueueStats
    hangfire_stats: QueueStats


class LastRun(CamelAnswer):
    """A service's last run of a kind."""

    at: str
    started_at: str | None = None
    sync_id: str
    verb: Verb | None = None
    error: str | None
    error_kind: str | None
    verified: bool | None = None
    records: int | None = None


class DayChanges(CamelAnswer):
    """Changed records of a day."""

    date: str
    inserted: int
    updated: int
    deleted: int


class StatsRow(CamelAnswer):
    """The numbers of one service."""

    service: str
    runs: int
    success_rate: float | None
    runs_made: int
    runs_due: int
    sla: float | None
    median_duration_ms: int | None
    p95_duration_ms: int | None = Field(alias="p95DurationMs")
    records_per_second: float | None
    changes_by_day: list[DayChanges]
    last_success: LastRun | None
    last_success_age_seconds: int | None
    last_failure: LastRun | None
    last_verify: LastRun | None
    last_restore_drill: LastRun | None
    next_occurrence: str | None


class StatsAnswer(CamelAnswer):
    """A page of services with their numbers."""

    days: int
    services: list[StatsRow]
    cursor: str | None


class DayRow(DayChanges):
    """One day of the calendar."""

    runs_due: int
    runs_made: int
    share: float | None
    runs: int
    completed: int
    failed: int
    median_duration_ms: int | None
    p95_duration_ms: int | None = Field(alias="p95DurationMs")


class CalendarAnswer(CamelAnswer):
    """Days, oldest first."""

    service: str | None
    days: list[DayRow]


class LoginFields(CamelAnswer):
    """A login: since when, until when, how often renewed. `remainingTime` is in seconds."""

    current_session_id: str | None
    created_at: str | None
    expires_at: str | None
    remaining_time: int | None
    refresh_count: int
    last_refresh_at: str | None
    is_valid: bool


class ConnectionRow(LoginFields):
    """A pool of connections, with its login."""

    kind: str
    server: str
    open: int
    idle: int
    reconnects: int
    last_used_at: str | None


class SessionStatsAnswer(LoginFields):
    """The login that was used last, and all pools."""

    connections: list[ConnectionRow]
