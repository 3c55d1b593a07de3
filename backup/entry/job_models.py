"""What the endpoints under /api/sync answer, as models. They describe the answers; what makes an answer uses none."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from backup.core.model import Action, SideName, Status, Trigger, Verb
from backup.entry.service_states import ServiceState
from backup.jobs.job import State


class CamelAnswer(BaseModel):
    """An answer whose names are in camelCase, with these fields and no other."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, defer_build=True)


class StartedAnswer(CamelAnswer):
    """A queued sync."""

    success: Literal[True]
    message: str
    job_id: str
    sync_type: str
    sync_mode: Literal["async"]
    dashboard_url: str
    job_ids: list[str] = Field([], description="Of all services: the job of each.")


class VerifyStartedAnswer(CamelAnswer):
    """Queued verifies or drills."""

    message: str
    job_id: str
    job_ids: list[str]
    verb: Literal["verify", "drill"]


class RunCounts(CamelAnswer):
    """How many records; of a job that has not begun, none of them."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    skipped: int = 0
    failed: int = 0
    remaining: int = 0


class AskedFor(CamelAnswer):
    """What a job was asked for."""

    sync_type: str
    service: str
    verb: Verb
    force_full_sync: bool
    dry_run: bool
    allow_mass_delete: bool
    full: bool
    sample: int
    limit: int | None


class JobRow(CamelAnswer):
    """A job, as a row of a list. Times are in UTC."""

    job_id: str
    state: State
    created_at: str
    job: AskedFor
    trigger: str
    requested_by: str | None
    state_at: str | None
    due_at: str | None
    started_at: str | None
    ended_at: str | None
    progress: int
    counts: RunCounts
    attempt: int
    sync_id: str | None
    error: str | None
    error_kind: str | None
    hint: str | None
    cancelled: bool


class StateRow(CamelAnswer):
    """A state that a job entered."""

    state_name: State
    created_at: str
    reason: str


class JobAnswer(JobRow):
    """A job and its states."""

    history: list[StateRow]


class RunSummary(CamelAnswer):
    """The summary of a run. What it has not got is left out."""

    sync_id: str
    service: str
    verb: Verb
    status: Status
    started_at: str
    counts: RunCounts
    forced: bool
    dry_run: bool
    trigger: Trigger | None = None
    limit: int = 0
    completed_at: str = ""
    duration_ms: int = 0
    percent: int = 0
    verified: bool = False
    error: str = ""
    error_kind: str = ""
    hint: str = ""
    notes: list[str] = []
    failures: list[list[str]] = Field([], description="The first records that were set aside: key and reason.")
    job_id: str = ""
    requested_by: str = ""


class RunDetails(RunSummary):
    """The summary of a run, and whether it is of several services."""

    of_several: bool = Field(description="Of a set or a pattern: the runs of its services have the changes.")


class JobDetailsAnswer(JobAnswer):
    """A job with its run and its log."""

    run: RunSummary | None
    log: list[str]


class JobsAnswer(CamelAnswer):
    """A page of jobs."""

    jobs: list[JobRow]
    cursor: str | None


class JobDoneAnswer(CamelAnswer):
    """What was done to a job."""

    message: str
    job_id: str


class BulkRow(JobDoneAnswer):
    """What became of one of many jobs; `status` is that of the route for one job."""

    status: int


class BulkAnswer(CamelAnswer):
    """What became of many jobs."""

    action: Literal["retry", "delete"]
    done: int
    refused: int
    jobs: list[BulkRow]


class RunsAnswer(CamelAnswer):
    """A page of runs."""

    runs: list[RunSummary]
    cursor: str | None


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


class JobAtWork(CamelAnswer):
    """The job that is worked on for a service."""

    job_id: str
    progress: int
    verb: Verb


class CallerAnswer(CamelAnswer):
    """Who asks: a signed-in person or program; null where Easy Auth is not in front of the app."""

    name: str | None
    roles: list[str] = Field(description="Those of this app.")
    may_write: bool


class OverviewRow(CamelAnswer):
    """One service at a glance."""

    service: str
    state: ServiceState
    overdue: bool
    last_success: LastRun | None
    last_success_age_seconds: int | None
    allowed_age_seconds: int | None
    last_failure: LastRun | None
    records: int | None = Field(description="Of the backup, at the last success.")
    versions_proven: LastRun | None
    contents_proven: LastRun | None
    last_verify: LastRun | None
    last_restore_drill: LastRun | None
    next_occurrence: str | None
    job: JobAtWork | None


class StateTotals(CamelAnswer):
    """How many services are in each state, and how many jobs are worked on."""

    services: int
    overdue: int
    failed: int
    differs: int
    safe: int
    running: int


class OverviewAnswer(CamelAnswer):
    """A page of services, the worst first."""

    now: str
    totals: StateTotals
    services: list[OverviewRow]
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


class ChangedKeyRow(CamelAnswer):
    """What a run did to one record."""

    key: list[Any]
    change: Action
    side: SideName


class ChangesAnswer(CamelAnswer):
    """A page of what a run did to records."""

    sync_id: str
    service: str
    changes: list[ChangedKeyRow]
    cursor: str | None
    may_be_purged: bool


class ColumnRow(CamelAnswer):
    """A column of a record, or a property of a document."""

    name: str
    differs: bool


class ChangedRecordAnswer(CamelAnswer):
    """A record before and after a run."""

    service: str
    sync_id: str
    key: list[Any]
    change: Action
    side: SideName
    changed_at: str
    old: dict[str, Any] | None
    new: dict[str, Any] | None
    later_run: str | None
    columns: list[ColumnRow]


class SinkRow(CamelAnswer):
    """Whether a sink took the test event."""

    sink: str
    label: str
    sent: bool
    error: str | None
    hint: str | None


class SinksAnswer(CamelAnswer):
    """Whether the sinks took the test event."""

    success: bool
    message: str
    sinks: list[SinkRow]
