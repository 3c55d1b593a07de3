"""What goes over HTTP and what `--json` prints: verbs called, answers shaped, errors mapped to statuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_pascal

from backup import errors
from backup.log import redact
from backup.models import Now, Record, Run, Status, Trigger, utc_now
from backup.proof import Kind
from backup.recorded import Outcome, foreseen
from backup.registry import Registry, side_by_side
from backup.requests import (
    RestoreRequest,
    SyncRequest,
    UndoRequest,
    VerifyRequest,
    check_no_body,
    check_query,
    parse_body,
    parse_flag,
)
from backup.restoring import Wish
from backup.services import Health, Options, Shown
from backup.stores.exact import record_to_text
from backup.verify import Depth

STATUS_OF: list[tuple[type[errors.BackupError], int]] = [
    (errors.ConfigError, 400),
    (errors.BadRequest, 400),
    (errors.UnknownService, 404),
    (errors.UnknownRun, 404),
    (errors.Locked, 409),
    (errors.LockLost, 409),
    (errors.GuardTripped, 409),
    (errors.Conflict, 409),
    (errors.Interrupted, 503),
    (errors.StoreUnavailable, 503),
]
"""The one place that maps errors to HTTP; every other error is 500."""


_UNSEEN = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""Half characters, and those that nobody sees: beyond ASCII's own, which JSON escapes by itself."""


def _time(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(_time)]


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, populate_by_name=True, defer_build=True)


class Failed(_Body):
    """A record that was set aside: its key, as a request may name it, and the reason."""

    key: Any
    reason: str


class SyncResult(_Body):
    """One run, as callers see it."""

    sync_id: str
    service_name: str
    trigger: Trigger
    status: Status
    dry_run: bool
    inserted_count: int
    updated_count: int
    deleted_count: int
    skipped_count: int
    failed_count: int
    total_processed: int
    verified: bool | None
    started_at: Time
    completed_at: Time | None
    duration_ms: int | None
    error_message: str | None
    percent: int | None
    request_charge: float | None
    notes: tuple[str, ...]
    failures: tuple[Failed, ...]

    @classmethod
    def of(cls, run: Run) -> SyncResult:
        return cls(
            sync_id=run.sync_id,
            service_name=run.service,
            trigger=run.trigger,
            status=run.status,
            dry_run=run.dry_run,
            inserted_count=run.counts.inserted,
            updated_count=run.counts.updated,
            deleted_count=run.counts.deleted,
            skipped_count=run.counts.skipped,
            failed_count=run.counts.failed,
            total_processed=run.counts.processed,
            verified=run.verified,
            started_at=run.started_at,
            completed_at=run.completed_at,
            duration_ms=run.duration_ms,
            error_message=run.error,
            percent=run.percent,
            request_charge=run.request_charge,
            notes=run.notes,
            failures=tuple(Failed(key=json.loads(key), reason=reason) for key, reason in run.failures),
        )


@dataclass(frozen=True)
class Answer:
    """A status and a body that `json` writes."""

    status: int
    body: dict[str, Any]

    @property
    def json(self) -> str:
        """The body as JSON text, without characters that a terminal obeys or no encoding knows."""
        return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], json.dumps(self.body, ensure_ascii=False))


def trigger_sync(registry: Registry, query: Mapping[str, str], body: bytes, now: Now = utc_now) -> Answer:
    """Runs what the body asks for: 200 when all completed, 207 when some failed, else a failure's own status; 202 when
    none failed and some have not ended after `SyncWaitSeconds`."""
    check_query(query)
    request = parse_body(SyncRequest, body)
    options = Options(request.force_full_sync, request.dry_run, request.allow_mass_delete)
    return shape_syncs(registry.sync(request.service, Trigger.HTTP, options, wait_seconds=registry.wait_seconds), now)


def sync_one(registry: Registry, service: str, query: Mapping[str, str], body: bytes) -> Answer:
    """Runs one service; its result stands at the top level, with `Success` beside it. 202 when it has not ended after
    `SyncWaitSeconds`."""
    check_query(query, "force", "dryRun", "allowMassDelete")
    options = Options(*(parse_flag(query, name) for name in ("force", "dryRun", "allowMassDelete")))
    check_no_body(body)
    [outcome] = registry.sync(service, Trigger.HTTP, options, wait_seconds=registry.wait_seconds)
    return shape_one(outcome)


def undo(registry: Registry, sync_id: str, query: Mapping[str, str], body: bytes) -> Answer:
    """Takes a run back, or says what that would change."""
    check_query(query)
    request = parse_body(UndoRequest, body)
    service = registry.with_run(sync_id)
    return shape_one(service.undo(sync_id, through=request.through, dry_run=not request.confirm))


def restore(registry: Registry, service: str, query: Mapping[str, str], body: bytes) -> Answer:
    """Restores the service's source, or says what that would change."""
    check_query(query)
    request = parse_body(RestoreRequest, body)
    wish = Wish(request.at, tuple(request.keys), request.overwrite_newer, request.delete_extra)
    options = Options(dry_run=not request.confirm, allow_mass_delete=request.allow_mass_delete)
    return shape_one(registry.get(service).restore(wish, options))


def verify(registry: Registry, service: str, query: Mapping[str, str], body: bytes) -> Answer:
    """Compares source and backup: 200 whether they are equal or not, `Verified` says which."""
    check_query(query)
    request = parse_body(VerifyRequest, body)
    return shape_verify(registry.get(service).verify(Depth(request.full, request.sample), drilled=request.drill))


def shape_one(outcome: Outcome) -> Answer:
    """The answer to one run: its result with `Success` beside it; of a dry run also what would change."""
    result = _result(outcome)
    if outcome.error is None:
        return Answer(202 if outcome.in_progress else 200, {"Success": True, **result})
    return Answer(status_of(outcome.error), {**_error_body(outcome.error), **result})


def shape_verify(outcome: Outcome) -> Answer:
    """The answer to a verify: its result, counts by kind, and the first thousand differences."""
    answer = shape_one(outcome)
    if outcome.report is None or not isinstance(outcome.error, errors.RecordsSetAside | None):
        return answer
    report = outcome.report
    found = [
        {"Key": outcome.key_to_json(one.key), "Kind": one.kind, "Names": list(one.names)} for one in report.differences
    ]
    return Answer(
        answer.status,
        answer.body
        | {
            "SourceCount": report.proof.source.records,
            "BackupCount": report.proof.backup.records,
            **{kind.title(): report.counts[kind] for kind in Kind},
            "InFlight": report.proof.in_flight,
            "RecordsCompared": report.compared,
            "Differences": found,
        },
    )


def shape_syncs(outcomes: Sequence[Outcome], now: Now = utc_now) -> Answer:
    """The answer of TriggerSync for these outcomes."""
    answer = _together(
        list(map(_result, outcomes)), [outcome.error for outcome in outcomes], "syncs completed successfully", now
    )
    going_on = sum(outcome.in_progress for outcome in outcomes)
    if answer.status != 200 or not going_on:
        return answer
    return Answer(202, answer.body | {"Message": f"{going_on} of {len(outcomes)} syncs are in progress"})


def shape_past(shown: Shown) -> Answer:
    """One record's past; records as the recycle bin writes them."""

    def text(record: Record | None) -> Any:
        return None if record is None else json.loads(record_to_text(record, zipped=False))

    changes = [
        {
            "ChangedAt": _time(kept.at),
            "Change": kept.action,
            "SyncId": kept.sync_id,
            "VersionBefore": None if kept.version is None else list(map(str, kept.version)),
            "RecordBefore": text(kept.record),
        }
        for kept in shown.changes
    ]
    return Answer(200, {"Success": True, "Key": shown.key, "Record": text(shown.record), "Changes": changes})


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
    check_query(query, "deep")
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


def _result(outcome: Outcome) -> dict[str, Any]:
    result = _dump(SyncResult.of(outcome.run))
    if outcome.changes or outcome.run.dry_run:
        result["Changes"] = [{"Key": outcome.key_to_json(key), "Change": what} for key, what in outcome.changes]
    return result


def _dump(result: BaseModel) -> dict[str, Any]:
    return result.model_dump(mode="json", by_alias=True)
