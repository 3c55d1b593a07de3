"""What SyncHistory's table holds: an entry for each run, made of the run and read again. No I/O."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from backup.core.log import event
from backup.core.model import Counts, Proof, Run, Status, Total, Trigger, Verb
from backup.stores import Shape

VERSION = 3
"""Of the entries: 3 have a verb beside who asked; 2 a place, a number, an owner, a heartbeat; 1 had no version."""

HISTORY = Shape(
    name="SyncHistory",
    container="sync-history",
    key="SyncId",
    partition="ServiceName",
    fields={
        "SyncId": "name",
        "ServiceName": "name",
        "SyncedAt": "time",
        "StartedAt": "time",
        "CompletedAt": "time",
        "Status": "name",
        "Trigger": "name",
        "Forced": "flag",
        "DryRun": "flag",
        "AllowMassDelete": "flag",
        "InsertedCount": "integer",
        "UpdatedCount": "integer",
        "DeletedCount": "integer",
        "SkippedCount": "integer",
        "Success": "flag",
        "Verified": "flag",
        "SourceCount": "integer",
        "SourceChecksum": "name",
        "BackupCount": "integer",
        "BackupChecksum": "name",
        "DifferingCount": "integer",
        "InFlightCount": "integer",
        "AddedColumns": "text",
        "RemovedColumns": "text",
        "UndoneRuns": "text",
        "Percent": "integer",
        "Checkpoint": "text",
        "Watermark": "name",
        "RequestCharge": "decimal",
        "Notes": "text",
        "ErrorMessage": "text",
        "Place": "place",
        "RunNumber": "integer",
        "Owner": "name",
        "Attempt": "name",
        "HeartbeatAt": "time",
        "FailedCount": "integer",
        "Failures": "text",
        "Scratch": "name",
        "ErrorKind": "name",
        "SchemaVersion": "integer",
        "Verb": "name",
        "TriggeredBy": "name",
    },
)
_COUNTED = ("Inserted", "Updated", "Deleted", "Skipped", "Failed")
_ALWAYS = frozenset(("SyncId", "ServiceName", "StartedAt", "Trigger", "Status"))
# Not every database holds a column to its type.
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "place", "text", "json"), str),
    "integer": int,
    "decimal": (int, float, Decimal),
    "time": datetime,
    "flag": (bool, int),
}


_SYNC_TRIGGERS = frozenset(trigger.value for trigger in Trigger)


def asked_for(*verbs: Verb) -> list[str]:
    """What `Trigger` has in the entries of these verbs' runs: who asked for a sync, of other runs the verb.

    So it is in every release; Verb and TriggeredBy are not in the entries of earlier ones. A drill is a verify there.
    """
    others = {trigger_column(verb, None) for verb in verbs if verb is not Verb.SYNC}
    return sorted(others | (_SYNC_TRIGGERS if Verb.SYNC in verbs else set()))


def trigger_column(verb: Verb, trigger: Trigger | None) -> str:
    """What the entry's `Trigger` says, as in earlier releases: who asked for a sync, of another run the verb."""
    if verb is Verb.SYNC and trigger is not None:
        return trigger.value
    return (Verb.VERIFY if verb is Verb.DRILL else verb).value


def entry_of(run: Run) -> dict[str, Any]:
    """The run's entry as it stands."""
    proof = run.proof
    return {
        "SyncId": run.sync_id,
        "ServiceName": run.service,
        "SyncedAt": run.completed_at or run.started_at,
        "StartedAt": run.started_at,
        "CompletedAt": run.completed_at,
        "Status": run.status.value,
        "Trigger": trigger_column(run.verb, run.trigger),
        "Forced": run.forced,
        "DryRun": run.dry_run,
        "AllowMassDelete": run.allow_mass_delete,
        "InsertedCount": run.counts.inserted,
        "UpdatedCount": run.counts.updated,
        "DeletedCount": run.counts.deleted,
        "SkippedCount": run.counts.skipped,
        "Success": run.status is Status.COMPLETED,
        "Verified": run.verified,
        "SourceCount": proof and proof.source.records,
        "SourceChecksum": proof and f"{proof.source.checksum:032x}",
        "BackupCount": proof and proof.backup.records,
        "BackupChecksum": proof and f"{proof.backup.checksum:032x}",
        "DifferingCount": proof and proof.differing,
        "InFlightCount": proof and proof.in_flight,
        "AddedColumns": json.dumps(run.added_columns) if run.added_columns else None,
        "RemovedColumns": json.dumps(run.removed_columns) if run.removed_columns else None,
        "UndoneRuns": json.dumps(run.undone) if run.undone else None,
        "Percent": run.percent,
        "Checkpoint": run.checkpoint,
        "Watermark": run.watermark,
        "RequestCharge": run.request_charge,
        "Notes": "\n".join(run.notes) or None,
        "ErrorMessage": run.error,
        "ErrorKind": run.error_kind,
        "Place": run.place,
        "RunNumber": run.number,
        "Owner": run.owner,
        "Attempt": run.attempt,
        "HeartbeatAt": run.heartbeat_at,
        "FailedCount": run.counts.failed,
        "Failures": json.dumps(run.failures) if run.failures else None,
        "Scratch": run.scratch,
        "SchemaVersion": VERSION,
        "Verb": run.verb.value,
        "TriggeredBy": run.trigger and run.trigger.value,
    }


def run_of(entry: dict[str, Any]) -> Run | None:
    """The entry's run; None, with a line in the log, of one that cannot be read, which counts as not there."""
    try:
        return _read(entry)
    except (ValueError, TypeError, KeyError) as error:
        sync_id, kind = entry.get("SyncId"), type(error).__name__
        event("history.not_read", level=logging.WARNING, service=entry.get("ServiceName"), sync_id=sync_id, error=kind)
        return None


def _read(entry: dict[str, Any]) -> Run:
    for name, kind in HISTORY.fields.items():
        value = entry[name]
        if not isinstance(value, _TYPES[kind]) and (value is not None or name in _ALWAYS):
            raise TypeError(name)
    verb, trigger = _verb_and_trigger(entry)
    run = Run(
        entry["ServiceName"],
        trigger,
        bool(entry["Forced"]),
        entry["StartedAt"],
        entry["SyncId"],
    )
    return replace(
        run,
        verb=verb,
        status=Status(entry["Status"]),
        counts=Counts(
            *(entry[f"{what}Count"] or 0 for what in ("Inserted", "Updated", "Deleted", "Skipped", "Failed"))
        ),
        completed_at=entry["CompletedAt"],
        error=entry["ErrorMessage"],
        error_kind=entry["ErrorKind"],
        dry_run=bool(entry["DryRun"]),
        allow_mass_delete=bool(entry["AllowMassDelete"]),
        added_columns=tuple(json.loads(entry["AddedColumns"] or "[]")),
        removed_columns=tuple(json.loads(entry["RemovedColumns"] or "[]")),
        undone=tuple(json.loads(entry["UndoneRuns"] or "[]")),
        proof=_proof(entry),
        notes=tuple((entry["Notes"] or "").splitlines()),
        percent=entry["Percent"],
        checkpoint=entry["Checkpoint"],
        watermark=entry["Watermark"],
        request_charge=entry["RequestCharge"],
        place=entry["Place"],
        number=entry["RunNumber"],
        owner=entry["Owner"],
        attempt=entry["Attempt"],
        heartbeat_at=entry["HeartbeatAt"],
        failures=tuple((key, reason) for key, reason in json.loads(entry["Failures"] or "[]")),
        scratch=entry["Scratch"],
    )


def _verb_and_trigger(entry: dict[str, Any]) -> tuple[Verb, Trigger | None]:
    trigger = entry["Trigger"]
    if entry["Verb"] is None:  # of an earlier release
        return (Verb.SYNC, Trigger(trigger)) if trigger in _SYNC_TRIGGERS else (Verb(trigger), None)
    verb = Verb(entry["Verb"])
    asked_by = None if entry["TriggeredBy"] is None else Trigger(entry["TriggeredBy"])
    if trigger != trigger_column(verb, asked_by):
        raise ValueError(trigger)
    return verb, asked_by


def _proof(entry: dict[str, Any]) -> Proof | None:
    if entry["SourceCount"] is None:
        return None
    return Proof(
        Total(entry["SourceCount"], int(entry["SourceChecksum"], 16)),
        Total(entry["BackupCount"], int(entry["BackupChecksum"], 16)),
        entry["DifferingCount"],
        entry["InFlightCount"],
    )
