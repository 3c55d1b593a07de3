"""What the endpoints answer that only the page needs, as models: the overview, a run's changes, the caller."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from backup.core.model import Action, SideName
from backup.core.run_values import Verb
from backup.entry.job_models import CamelAnswer
from backup.entry.number_models import LastRun
from backup.entry.service_states import ServiceState


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
    services: int | None = Field(description="How many a set is known to have; null for what is not a set.")
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
