"""Shapes runs and errors as answers: what HTTP sends and `--json` prints, each with its HTTP status."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any, Literal

from backup.core import errors
from backup.core.log import redact, time_text
from backup.core.model import Now, Record, typed_key, utc_now
from backup.core.run_values import Counts, Run
from backup.core.suggestions import quantity
from backup.core.unexpected import as_backup_error
from backup.mirror.proof import DifferenceKind
from backup.mirror.verification import Report
from backup.runs.changes import RunChanges, by_service, counts_of
from backup.runs.history_entries import COLUMNS
from backup.runs.outcome import Outcome
from backup.services.past_values import Ran, Shown
from backup.services.turns import side_by_side
from backup.stores.exact_json import plain_json

STATUS_OF: list[tuple[type[errors.BackupError], int]] = [
    (errors.ConfigError, 400),
    (errors.BadRequest, 400),
    (errors.Forbidden, 403),
    (errors.UnknownService, 404),
    (errors.UnknownRun, 404),
    (errors.UnknownRecord, 404),
    (errors.UnknownJob, 404),
    (errors.Locked, 409),
    (errors.LockLost, 409),
    (errors.GuardTripped, 409),
    (errors.Conflict, 409),
    (errors.Cancelled, 409),
    (errors.Interrupted, 503),
    (errors.StoreUnavailable, 503),
]
"""The HTTP status of each kind of error; every other error is 500. No other module maps errors to HTTP."""

By = Literal["day", "run", "service"]
"""What a result of changes stands for."""

_STORED_TIMES = frozenset({"at", "startedAt", "completedAt", "readAsOf"})
_UNSEEN = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""Invisible characters and half surrogate pairs. ASCII's own control characters are not here: JSON escapes them."""


def told_as_stored(stored: Any) -> Any:
    """What the records say of a run, for an answer: with its times as all answers write them."""
    if isinstance(stored, Mapping):
        return {name: _told(name, value) for name, value in stored.items()}
    return stored


def _told(name: str, value: Any) -> Any:
    if name in _STORED_TIMES and isinstance(value, str):
        return time_text(datetime.fromisoformat(value))
    return told_as_stored(value)


def result_of(run: Run) -> dict[str, Any]:
    """One run as answers show it: the columns of SyncHistory that are answered."""
    return {column.name: _json(column.answer(run)) for column in COLUMNS if column.answered}


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return time_text(value)
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Answer:
    """An HTTP status, a body that `json` writes, and headers in addition to the usual ones. An answer that is not JSON
    has a `text` and its `media` type instead."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    media: str = "application/json"

    @property
    def content(self) -> str:
        """What is sent: the text, or the body as JSON."""
        return self.json if self.text is None else self.text

    @property
    def json(self) -> str:
        """The body as JSON text. Characters that control a terminal, or that no encoding has, are escaped."""
        return _UNSEEN.sub(lambda match: json.dumps(match[0])[1:-1], json.dumps(self.body, ensure_ascii=False))


def shape_one(outcome: Outcome) -> Answer:
    """The answer to one run: its result and `Success`; for a dry run also what would change. 202: in progress."""
    result = _result(outcome)
    if outcome.error is None:
        return Answer(202 if outcome.in_progress else 200, {"Success": True, **result})
    return Answer(status_of(outcome.error), {**_error_body(outcome.error), **result})


def shape_verify(outcome: Outcome) -> Answer:
    """The answer to one verify: its result, the counts by kind, and the first thousand differences."""
    answer = shape_one(outcome)
    return Answer(answer.status, answer.body | _compared(outcome))


def shape_verifies(outcomes: Sequence[Outcome]) -> Answer:
    """The answer to verifies of all services: 200 when all completed; `Verified` when none found a difference."""
    results = [_result(outcome) | _compared(outcome) for outcome in outcomes]
    answer = combined(results, [outcome.error for outcome in outcomes], "verifies completed")
    return Answer(answer.status, answer.body | {"Verified": all(outcome.run.verified for outcome in outcomes)})


def report_of(outcome: Outcome) -> Report | None:
    """What a verify saw; None if an error stopped it. Records set aside do not stop it: it read all others."""
    return outcome.report if isinstance(outcome.error, errors.RecordsSetAside | None) else None


def _compared(outcome: Outcome) -> dict[str, Any]:
    report = report_of(outcome)
    if report is None:
        return {}
    return {
        "SourceCount": report.proof.source.records,
        "BackupCount": report.proof.backup.records,
        **{kind.title(): report.counts[kind] for kind in DifferenceKind},
        "InFlight": report.proof.in_flight,
        "RecordsCompared": report.compared,
        "Differences": [
            {"Key": list(difference.key), "Kind": difference.kind, "Names": list(difference.names)}
            for difference in report.differences
        ],
    }


def shape_syncs(outcomes: Sequence[Outcome], now: Now = utc_now) -> Answer:
    """The answer to syncs: as `combined`, but 202 when none failed and some are in progress."""
    answer = _of_all(outcomes, "syncs completed successfully", now)
    in_progress = sum(outcome.in_progress for outcome in outcomes)
    if answer.status != 200 or not in_progress:
        return answer
    of_all = f"{in_progress} of {quantity(len(outcomes), 'sync')} {'is' if in_progress == 1 else 'are'}"
    return Answer(202, answer.body | {"Message": f"{of_all} in progress"})


def shape_restores(outcomes: Sequence[Outcome]) -> Answer:
    """The answer to a restore of several services: as `combined`."""
    return _of_all(outcomes, "restores completed successfully")


def shape_undos(outcomes: Sequence[Outcome]) -> Answer:
    """The answer to an undo of several services: as `combined`."""
    return _of_all(outcomes, "undos completed successfully")


def shape_past(shown: Shown) -> Answer:
    """The answer to `show`: one record and its changes, in the recycle bin's JSON. 404 if backup and bin lack it."""

    def text(record: Record | None) -> Any:
        return None if record is None else json.loads(plain_json(record))

    changes = [
        {
            "ChangedAt": time_text(kept.at),
            "Change": kept.action,
            "SyncId": kept.sync_id,
            "VersionBefore": None if kept.version is None else list(map(str, kept.version)),
            "RecordBefore": text(kept.record),
        }
        for kept in shown.changes
    ]
    past = {"Key": shown.key, "Record": text(shown.record), "Changes": changes}
    if not shown.is_known:
        key = typed_key(shown.key)
        error = errors.UnknownRecord(f"The backup has no record {key}, and the recycle bin has no image of it.")
        return Answer(status_of(error), _error_body(error) | past)
    return Answer(200, {"Success": True, **past})


def shape_history(runs: Sequence[Run]) -> Answer:
    """The answer to `history`: past runs as results."""
    return Answer(200, {"Success": True, "Results": list(map(result_of, runs)), "Timestamp": time_text(utc_now())})


def shape_ran(ran: Ran) -> Answer:
    """The answer to `history RUN_ID`: one past run and one page of its changes; `More`: there are further pages."""
    changes = [{"Key": ran.key_to_json(kept.key), "Change": kept.action, "Side": kept.side} for kept in ran.changes]
    return Answer(200, {"Success": True, **result_of(ran.run), "Changes": changes, "More": ran.has_more})


def shape_changes(service: str, changes: Sequence[RunChanges], since: datetime, by: By) -> Answer:
    """The answer to `changes`: what changed since a time, by day or by run, newest first, or by service; and `Together`
    the total. `service` is the name that was asked for, which may stand for several.

    `Counts` is false for a run that was undone or undid such a run: nothing is left of its changes, so no total has
    them.
    """

    def counted(counts: Counts) -> dict[str, int]:
        return {"InsertedCount": counts.inserted, "UpdatedCount": counts.updated, "DeletedCount": counts.deleted}

    days = ((day, list(group)) for day, group in groupby(changes, key=lambda change: change.run.started_at.date()))
    results: list[dict[str, Any]] = [
        {"Day": day.isoformat(), "Runs": len(day_changes), **counted(counts_of(day_changes))}
        for day, day_changes in days
    ]
    if by == "service":
        results = [
            {"ServiceName": name, "Runs": len(own_changes), **counted(counts_of(own_changes))}
            for name, own_changes in by_service(changes).items()
        ]
    if by == "run":
        results = [
            {
                **{"SyncId": change.run.sync_id, "ServiceName": change.run.service, "Verb": change.run.verb},
                "StartedAt": time_text(change.run.started_at),
                **counted(change.counts),
                **{"UndoneBy": change.undone_by, "Counts": change.stands},
            }
            for change in changes
        ]
    body = {"Success": True, "ServiceName": service, "Since": time_text(since), "Results": results}
    return Answer(200, body | {"Together": counted(counts_of(changes))})


def error_answer(error: errors.BackupError) -> Answer:
    """The answer to a request that failed as a whole."""
    return Answer(status_of(error), _error_body(error))


def status_of(error: errors.BackupError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in STATUS_OF if isinstance(error, kind)), 500)


def answer_each(names: Sequence[str], work: Callable[[str], dict[str, Any]], done: str, now: Now = utc_now) -> Answer:
    """Works on these services side by side, and answers as `combined` with what `work` says of each. A failure of one
    does not stop the others."""

    def result_of_work(name: str) -> tuple[dict[str, Any], errors.BackupError | None]:
        try:
            return {"Service": name, **work(name)}, None
        except Exception as caught:
            error = as_backup_error(caught)
            return {"Service": name, "Status": "Failed", "ErrorMessage": redact(str(error))}, error

    results, failures = zip(*side_by_side(result_of_work, names), strict=True)
    return combined(results, failures, done, now)


def combined(
    results: Sequence[dict[str, Any]], failures: Sequence[errors.BackupError | None], done: str, now: Now = utc_now
) -> Answer:
    """The answer to one verb on several services: 200 when none failed, 207 when some failed, else a failure's status.

    `done` says in the message what was done: "syncs completed successfully".
    """
    failed = [error for error in failures if error is not None]
    body: dict[str, Any] = {"Success": not failed, "Message": f"All {done}"}
    status = 200
    if failed:
        status = 207 if len(failed) < len(results) else max(map(status_of, failed))
        body = _error_body(failed[0]) | {"Message": f"{len(results) - len(failed)} of {len(results)} {done}"}
    return Answer(status, body | {"Results": list(results), "Timestamp": time_text(now())})


def _of_all(outcomes: Sequence[Outcome], done: str, now: Now = utc_now) -> Answer:
    return combined([*map(_result, outcomes)], [outcome.error for outcome in outcomes], done, now)


def _error_body(error: errors.BackupError) -> dict[str, Any]:
    return {
        "Success": False,
        "Message": redact(str(error)),
        "Error": type(error).__name__,
        "Hint": redact(error.hint) or None,
    }


def _result(outcome: Outcome) -> dict[str, Any]:
    result = result_of(outcome.run)
    if outcome.changes or outcome.run.dry_run:
        result["Changes"] = [{"Key": list(key), "Change": change} for key, change in outcome.changes]
    return result
