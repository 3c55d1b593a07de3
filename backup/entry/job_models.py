"""What the endpoints under /api/sync answer about jobs and runs, as models. What makes an answer uses none of them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from backup.core.run_values import Status, Trigger, Verb
from backup.jobs.job import State

_SUCCEEDED_SINCE = "In a list, of what failed: whether a sync of the service, or of its whole set, has succeeded since."


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
    succeeded_since: bool = Field(False, description=_SUCCEEDED_SINCE)


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
    read_as_of: str = Field("", description="The moment as of which all of the source was read, of a consistent set.")
    percent: int = 0
    verified: bool = False
    error: str = ""
    error_kind: str = ""
    hint: str = ""
    notes: list[str] = []
    failures: list[list[str]] = Field([], description="The first records that were set aside: key and reason.")
    job_id: str = ""
    requested_by: str = ""
    succeeded_since: bool = Field(False, description=_SUCCEEDED_SINCE)


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
