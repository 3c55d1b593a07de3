"""SyncHistory: one entry a run, from its start, kept beside the backup."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from backup.log import event
from backup.models import SYNCS, Counts, Now, Proof, Run, Status, Total, Trigger
from backup.stores import Shape, Sibling, Store

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
    },
)
_INTERRUPTED = "The run was interrupted before its end: its process was stopped or lost its connection."
_OPEN_AT_ONCE = 100
_LOOKED_BACK = 1_000
_ALL = 1_000_000
_TICK = timedelta(milliseconds=1)
_COUNTED = ("Inserted", "Updated", "Deleted", "Skipped", "Failed")


class History:
    """The runs of one backup. Only a run that holds the service's lock may leave an entry in progress."""

    def __init__(self, backup: Store) -> None:
        self._entries: Sibling = backup.sibling(HISTORY)

    def create(self) -> None:
        """Makes the table or container when it is missing."""
        self._entries.create()

    def save(self, run: Run) -> None:
        """Writes the run's entry as it stands; may be repeated."""
        self._entries.put([_entry(run)])

    def open_runs(self, service: str) -> Sequence[Run]:
        """The runs InProgress, newest first. For who holds the lock none of them is alive."""
        return self._find(service, _OPEN_AT_ONCE, Status=Status.IN_PROGRESS.value)

    def close_interrupted(self, run: Run, now: datetime) -> None:
        """Ends as Failed what a dead run left InProgress. The caller holds the lock."""
        event("sync.interrupted", level=logging.WARNING, service=run.service, sync_id=run.sync_id)
        self.save(run.ended(Status.FAILED, now, run.counts, _INTERRUPTED))

    def last_synced(self, service: str) -> Run | None:
        """The newest sync that completed."""
        triggers = sorted(trigger.value for trigger in SYNCS)
        found = self._find(service, 1, Status=Status.COMPLETED.value, DryRun=False, Trigger=triggers)
        return next(iter(found), None)

    def first_synced(self, service: str) -> Run | None:
        """The oldest sync that completed."""
        triggers = sorted(trigger.value for trigger in SYNCS)
        where = {"ServiceName": service, "Status": Status.COMPLETED.value, "DryRun": False, "Trigger": triggers}
        return next(map(_run, self._entries.find(where, order_by="CompletedAt", limit=1)), None)

    def latest(self, service: str, limit: int) -> Sequence[Run]:
        """Up to `limit` runs of the service, newest first."""
        return self._find(service, limit)

    def newest(self, service: str, trigger: Trigger) -> Run | None:
        """The newest run with this trigger."""
        return next(iter(self._find(service, 1, Trigger=trigger.value)), None)

    def get(self, service: str, sync_id: str) -> Run | None:
        """The service's run with this SyncId."""
        return next(iter(self._find(service, 1, SyncId=sync_id)), None)

    def since(self, service: str, moment: datetime) -> list[Run]:
        """The runs that ended after this moment and may have changed the backup, newest first."""
        found = self._entries.find(
            {"ServiceName": service}, order_by="CompletedAt", descending=True, above=moment, limit=_ALL
        )
        runs = [run for run in map(_run, found) if run.may_change_backup]
        return sorted(runs, key=lambda run: run.started_at, reverse=True)

    def columns_to_fill(self, service: str, shared: Collection[str]) -> set[str]:
        """Those of the columns that both sides have whose old rows have not their source's values.

        Runs added them and did not live to fill them, or the source had lost them at the last sync and has them again.
        """
        columns: set[str] = set()
        for run in self._find(service, _LOOKED_BACK, DryRun=False):
            columns.update(run.removed_columns)
            if run.status is Status.COMPLETED and run.trigger in SYNCS:
                break
            columns.update(run.added_columns)
        known = {name.lower() for name in columns}
        return {name for name in shared if name.lower() in known}

    def clock(self, service: str, now: Now, kept_at: datetime | None) -> Now:
        """A clock that never goes back behind the service's runs: what they did is in the order of its times.

        `kept_at` is the time of the bin's newest entry, for a run that died has no end in here.
        """
        # A run that was gone on with may end after one that began after it.
        last = self._entries.find({"ServiceName": service}, order_by="SyncedAt", descending=True, limit=1)
        times = [time for time in (*(entry["SyncedAt"] for entry in last), kept_at) if time]
        earliest = max(times) + _TICK if times else now()

        def steady() -> datetime:
            nonlocal earliest
            earliest = max(earliest, now())
            return earliest

        return steady

    def _find(self, service: str, limit: int, **where: Any) -> list[Run]:
        where["ServiceName"] = service
        return list(map(_run, self._entries.find(where, order_by="StartedAt", descending=True, limit=limit)))


def _entry(run: Run) -> dict[str, Any]:
    proof = run.proof
    return {
        "SyncId": run.sync_id,
        "ServiceName": run.service,
        "SyncedAt": run.completed_at or run.started_at,
        "StartedAt": run.started_at,
        "CompletedAt": run.completed_at,
        "Status": run.status.value,
        "Trigger": run.trigger.value,
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
        "Place": run.place,
        "RunNumber": run.number,
        "Owner": run.owner,
        "Attempt": run.attempt,
        "HeartbeatAt": run.heartbeat_at,
        "FailedCount": run.counts.failed,
        "Failures": json.dumps(run.failures) if run.failures else None,
        "Scratch": run.scratch,
    }


def _run(entry: dict[str, Any]) -> Run:
    run = Run(
        entry["ServiceName"],
        Trigger(entry["Trigger"]),
        bool(entry["Forced"]),
        entry["StartedAt"],
        entry["SyncId"],
    )
    return replace(
        run,
        status=Status(entry["Status"]),
        counts=Counts(
            *(entry[f"{what}Count"] or 0 for what in ("Inserted", "Updated", "Deleted", "Skipped", "Failed"))
        ),
        completed_at=entry["CompletedAt"],
        error=entry["ErrorMessage"],
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


def _proof(entry: dict[str, Any]) -> Proof | None:
    if entry["SourceCount"] is None:
        return None
    return Proof(
        Total(entry["SourceCount"], int(entry["SourceChecksum"], 16)),
        Total(entry["BackupCount"], int(entry["BackupChecksum"], 16)),
        entry["DifferingCount"],
        entry["InFlightCount"],
    )
