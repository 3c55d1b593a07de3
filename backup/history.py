"""SyncHistory: one entry a run, from its start, kept beside the backup."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from backup.log import event
from backup.models import Counts, Run, Status, Trigger
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
        "InsertedCount": "integer",
        "UpdatedCount": "integer",
        "DeletedCount": "integer",
        "SkippedCount": "integer",
        "Success": "flag",
        "ErrorMessage": "text",
    },
)
_INTERRUPTED = "The run was interrupted before its end: its process was stopped or lost its connection."
_OPEN_AT_ONCE = 100


class History:
    """The runs of one backup. Only a run that holds the service's lock may write."""

    def __init__(self, backup: Store) -> None:
        self._entries: Sibling = backup.sibling(HISTORY)

    def create(self) -> None:
        """Makes the table or container when it is missing."""
        self._entries.create()

    def save(self, run: Run) -> None:
        """Writes the run's entry as it stands; may be repeated."""
        self._entries.put([_entry(run)])

    def close_interrupted(self, service: str, now: datetime) -> None:
        """Ends as Failed what dead runs left InProgress. The caller holds the lock, so none of them is alive."""
        found = self._entries.find(
            {"ServiceName": service, "Status": Status.IN_PROGRESS.value},
            newest_by="StartedAt",
            limit=_OPEN_AT_ONCE,
        )
        for run in map(_run, found):
            event("sync.interrupted", level=logging.WARNING, service=service, sync_id=run.sync_id)
            self.save(run.ended(Status.FAILED, now, run.counts, _INTERRUPTED))

    def latest(self, service: str, limit: int) -> Sequence[Run]:
        """Up to `limit` runs of the service, newest first."""
        return [
            _run(entry) for entry in self._entries.find({"ServiceName": service}, newest_by="StartedAt", limit=limit)
        ]


def _entry(run: Run) -> dict[str, Any]:
    return {
        "SyncId": run.sync_id,
        "ServiceName": run.service,
        "SyncedAt": run.completed_at or run.started_at,
        "StartedAt": run.started_at,
        "CompletedAt": run.completed_at,
        "Status": run.status.value,
        "Trigger": run.trigger.value,
        "Forced": run.forced,
        "InsertedCount": run.counts.inserted,
        "UpdatedCount": run.counts.updated,
        "DeletedCount": run.counts.deleted,
        "SkippedCount": run.counts.skipped,
        "Success": run.status is Status.COMPLETED,
        "ErrorMessage": run.error,
    }


def _run(entry: dict[str, Any]) -> Run:
    counts = Counts(entry["InsertedCount"], entry["UpdatedCount"], entry["DeletedCount"], entry["SkippedCount"])
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
        counts=counts,
        completed_at=entry["CompletedAt"],
        error=entry["ErrorMessage"],
    )
