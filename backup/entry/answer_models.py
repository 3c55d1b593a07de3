"""What the endpoints under /api/backup answer, as models. They describe the answers; what makes an answer uses none."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_pascal

from backup.core.run_values import Status, Trigger, Verb


class PascalAnswer(BaseModel):
    """An answer whose names are in PascalCase, with these fields and no other."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_pascal, defer_build=True)


class ErrorAnswer(PascalAnswer):
    """A request that failed as a whole."""

    success: Literal[False]
    message: str
    error: str
    hint: str | None


class FailureRow(PascalAnswer):
    """A record that was set aside."""

    key: Any
    reason: str


class ChangeRow(PascalAnswer):
    """A record that a run would change or has left alone."""

    key: list[Any]
    change: str


class RunResult(PascalAnswer):
    """One run: what SyncHistory says of it."""

    sync_id: str
    service_name: str
    started_at: str
    completed_at: str | None
    duration_ms: int | None
    status: Status
    trigger: str
    dry_run: bool
    inserted_count: int
    updated_count: int
    deleted_count: int
    skipped_count: int
    total_processed: int
    verified: bool | None
    percent: int | None
    request_charge: float | None
    notes: list[str]
    error_message: str | None
    failed_count: int
    failures: list[FailureRow]
    verb: Verb
    triggered_by: Trigger | None
    change_limit: int | None
    remaining_count: int
    read_as_of: str | None
    changes: list[ChangeRow] = Field([], description="Of a dry run, and of a restore: the first thousand of each kind.")


class RunAnswer(RunResult):
    """One run, and whether it failed."""

    success: bool
    message: str = Field("", description="Why it failed.")
    error: str = ""
    hint: str | None = None


class DifferenceRow(PascalAnswer):
    """A record that differs on the two sides."""

    key: list[Any]
    kind: str
    names: list[str]


class VerifyResult(RunResult):
    """One verify. The counts are missing where it could not compare."""

    source_count: int = 0
    backup_count: int = 0
    missing: int = 0
    extra: int = 0
    stale: int = 0
    content: int = 0
    in_flight: int = 0
    records_compared: int = 0
    differences: list[DifferenceRow] = Field([], description="The first thousand.")


class VerifyAnswer(VerifyResult):
    """One verify, and whether it failed."""

    success: bool
    message: str = ""
    error: str = ""
    hint: str | None = None


class ResultsAnswer(PascalAnswer):
    """What several services answered; `error` and `hint` are those of the first failure."""

    success: bool
    message: str
    timestamp: str
    error: str = ""
    hint: str | None = None


class SyncsAnswer(ResultsAnswer):
    """Syncs of several services."""

    results: list[RunResult]


class VerifiesAnswer(ResultsAnswer):
    """Verifies of several services."""

    results: list[VerifyResult]
    verified: bool


class InitializeRow(PascalAnswer):
    """What became of one service's backup."""

    service: str
    status: Literal["Initialized", "Failed"]
    error_message: str = ""


class InitializeAnswer(ResultsAnswer):
    """What was initialized."""

    results: list[InitializeRow]


class HealthCheckRow(PascalAnswer):
    """How one side answered."""

    service: str
    side: Literal["source", "backup"]
    status: Literal["Healthy", "Degraded", "Unhealthy"]
    duration_ms: int
    error: str | None


class HealthReasonRow(PascalAnswer):
    """Something that is not well."""

    service: str | None
    side: Literal["source", "backup"] | None
    sync_id: str | None
    error: str | None
    reason: str
    since: str | None
    hint: str | None


class HealthAnswer(PascalAnswer):
    """The app's health; `checks` and `reasons` only of `?deep=true`."""

    status: Literal["Healthy", "Degraded", "Unhealthy"]
    service: str
    timestamp: str
    checks: list[HealthCheckRow] = []
    reasons: list[HealthReasonRow] = []


class DoctorRow(PascalAnswer):
    """What one check has found, and what to do."""

    status: Literal["ok", "warning", "failed"]
    subject: str
    check: str
    message: str
    hint: str | None
    duration_ms: int


class DoctorCounts(PascalAnswer):
    """How many checks ended so."""

    failed: int
    warning: int
    ok: int


class DoctorAnswer(PascalAnswer):
    """What an examination of the set-up has found; `success` unless a check has failed."""

    success: bool
    status: Literal["ok", "warning", "failed"]
    counts: DoctorCounts
    checks: list[DoctorRow]
    timestamp: str
