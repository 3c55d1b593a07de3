"""What goes over HTTP and what `--json` prints: requests parsed, answers shaped, errors mapped to statuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer, ValidationError
from pydantic.alias_generators import to_pascal

from backup import errors
from backup.log import redact
from backup.models import Now, Run, Status, Trigger, utc_now
from backup.registry import Registry, side_by_side
from backup.services import Health, Outcome, foreseen

STATUS_OF: list[tuple[type[errors.BackupError], int]] = [
    (errors.ConfigError, 400),
    (errors.BadRequest, 400),
    (errors.UnknownService, 404),
    (errors.Locked, 409),
    (errors.LockLost, 409),
    (errors.GuardTripped, 409),
    (errors.StoreUnavailable, 503),
]
"""The one place that maps errors to HTTP; every other error is 500."""


def _time(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(_time)]


class SyncRequest(BaseModel):
    """The body of TriggerSync."""

    model_config = ConfigDict(extra="forbid", strict=True)

    service: str = "all"
    forceFullSync: bool = False  # noqa: N815 - the name on the wire


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, populate_by_name=True)


class SyncResult(_Body):
    """One run, as callers see it."""

    sync_id: str
    service_name: str
    status: Status
    inserted_count: int
    updated_count: int
    deleted_count: int
    skipped_count: int
    total_processed: int
    started_at: Time
    completed_at: Time | None
    duration_ms: int | None
    error_message: str | None

    @classmethod
    def of(cls, run: Run) -> SyncResult:
        return cls(
            sync_id=run.sync_id,
            service_name=run.service,
            status=run.status,
            inserted_count=run.counts.inserted,
            updated_count=run.counts.updated,
            deleted_count=run.counts.deleted,
            skipped_count=run.counts.skipped,
            total_processed=run.counts.processed,
            started_at=run.started_at,
            completed_at=run.completed_at,
            duration_ms=run.duration_ms,
            error_message=run.error,
        )


@dataclass(frozen=True)
class Answer:
    """A status and a body that `json` writes."""

    status: int
    body: dict[str, Any]

    @property
    def json(self) -> str:
        """The body as JSON text."""
        return json.dumps(self.body, ensure_ascii=False)


def parse_sync_request(body: bytes) -> SyncRequest:
    """The request; no body means all services, not forced. Raises BadRequest that names the field."""
    if not body.strip():
        return SyncRequest()
    try:
        return SyncRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "body"
        raise errors.BadRequest(
            f"The request body is malformed: {field}: {first['msg']}.",
            hint='Send {"service": "all" | "customer" | "order", "forceFullSync": true | false}, or no body.',
        ) from None


def parse_flag(query: Mapping[str, str], name: str) -> bool:
    """The value of `?name=true|false`, false without it. Raises BadRequest for another value or another parameter."""
    check_query(query, name)
    value = query.get(name, "false")
    if value.lower() not in ("true", "false"):
        raise errors.BadRequest(f"{name} is {value!r}.", hint=f"Use ?{name}=true or ?{name}=false.")
    return value.lower() == "true"


def check_query(query: Mapping[str, str], *known: str) -> None:
    """Raises BadRequest for a query parameter that is neither `known` nor one of the host's own."""
    unknown = sorted(query.keys() - {*known, "code", "clientId"})
    if unknown:
        hint = f"This route knows {', '.join(known)}." if known else "This route takes no query parameters."
        raise errors.BadRequest(f"There is no query parameter {unknown[0]!r}.", hint=hint)


def check_no_body(body: bytes) -> None:
    """Raises BadRequest for a body that says something; `{}` does not."""
    if body.strip() not in (b"", b"{}"):
        raise errors.BadRequest("This route takes no body.", hint="Only POST /api/backup/sync takes one.")


def trigger_sync(registry: Registry, query: Mapping[str, str], body: bytes, now: Now = utc_now) -> Answer:
    """Runs what the body asks for: 200 when all completed, 207 when some failed, else a failure's own status."""
    check_query(query)
    request = parse_sync_request(body)
    return shape_syncs(registry.sync(request.service, Trigger.HTTP, force=request.forceFullSync), now)


def sync_one(registry: Registry, service: str, query: Mapping[str, str], body: bytes) -> Answer:
    """Runs one service; its result stands at the top level, with `Success` beside it."""
    force = parse_flag(query, "force")
    check_no_body(body)
    [outcome] = registry.sync(service, Trigger.HTTP, force=force)
    result = _dump(SyncResult.of(outcome.run))
    if outcome.error is None:
        return Answer(200, {"Success": True, **result})
    return Answer(status_of(outcome.error), {**_error_body(outcome.error), **result})


def shape_syncs(outcomes: Sequence[Outcome], now: Now = utc_now) -> Answer:
    """The answer of TriggerSync for these outcomes."""
    results = [_dump(SyncResult.of(outcome.run)) for outcome in outcomes]
    return _together(results, [outcome.error for outcome in outcomes], "syncs completed successfully", now)


def shape_history(runs: Sequence[Run], now: Now = utc_now) -> Answer:
    """Runs of the past, as results."""
    return Answer(
        200,
        {"Success": True, "Results": [_dump(SyncResult.of(run)) for run in runs], "Timestamp": _time(now())},
    )


def trigger_initialize(registry: Registry, query: Mapping[str, str], body: bytes) -> Answer:
    """Initializes every configured service; takes neither parameters nor a body."""
    check_query(query)
    check_no_body(body)
    return initialize(registry)


def initialize(registry: Registry, now: Now = utc_now) -> Answer:
    """Initializes every configured service, each whatever becomes of the others."""

    def one(service: str) -> tuple[dict[str, Any], errors.BackupError | None]:
        try:
            registry.get(service).initialize()
        except Exception as caught:
            error = foreseen(caught)
            return {"Service": service, "Status": "Failed", "ErrorMessage": redact(str(error))}, error
        return {"Service": service, "Status": "Initialized"}, None

    results, failures = zip(*side_by_side(one, registry.chosen("all")), strict=True)
    return _together(results, failures, "backups initialized", now)


def health(open_registry: Callable[[], Registry], query: Mapping[str, str], now: Now = utc_now) -> Answer:
    """That the app is up; with `?deep=true` also how each side answers, 503 when one does not.

    Anybody may ask, so a side's failure is named by its kind alone; the log has the message.
    """
    deep = parse_flag(query, "deep")
    body: dict[str, Any] = {"Status": "Healthy", "Service": "BackupServices", "Timestamp": _time(now())}
    if deep:
        checks = open_registry().ping()
        if any(check.error for check in checks):
            body["Status"] = "Unhealthy"
        body["Checks"] = [_check(check) for check in checks]
    return Answer(200 if body["Status"] == "Healthy" else 503, body)


def error_answer(error: errors.BackupError) -> Answer:
    """The answer to a request that failed as a whole."""
    return Answer(status_of(error), _error_body(error))


def status_of(error: errors.BackupError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in STATUS_OF if isinstance(error, kind)), 500)


def _together(
    results: Sequence[dict[str, Any]], failures: Sequence[errors.BackupError | None], done: str, now: Now
) -> Answer:
    failed = [error for error in failures if error is not None]
    body: dict[str, Any] = {"Success": not failed, "Message": f"All {done}"}
    status = 200
    if failed:
        status = 207 if len(failed) < len(results) else max(map(status_of, failed))
        body = _error_body(failed[0]) | {"Message": f"{len(results) - len(failed)} of {len(results)} {done}"}
    return Answer(status, body | {"Results": list(results), "Timestamp": _time(now())})


def _error_body(error: errors.BackupError) -> dict[str, Any]:
    return {
        "Success": False,
        "Message": redact(str(error)),
        "Error": type(error).__name__,
        "Hint": redact(error.hint) or None,
    }


def _check(check: Health) -> dict[str, Any]:
    return {
        "Service": check.service,
        "Side": check.side,
        "Status": "Unhealthy" if check.error else "Healthy",
        "DurationMs": check.duration_ms,
        "Error": type(check.error).__name__ if check.error else None,
    }


def _dump(result: BaseModel) -> dict[str, Any]:
    return result.model_dump(mode="json", by_alias=True)
