"""What SyncHistory beside a backup says of all services that lie there, about any place."""

from __future__ import annotations

from datetime import datetime

from backup.core.run_values import Status, Verb
from backup.runs.history_entries import asked_for
from backup.stores import Sibling

_LOOKED_BACK = 1_000


def services_at_work(entries: Sibling) -> list[str]:
    """Returns the services that have an InProgress run; the first thousand."""
    syncs = entries.find(
        {"Status": Status.IN_PROGRESS.value}, order_by="StartedAt", limit=_LOOKED_BACK, fields=("ServiceName",)
    )
    return list(dict.fromkeys(str(entry["ServiceName"]) for entry in syncs))


def newest_starts(entries: Sibling) -> list[tuple[str, datetime]]:
    """Returns the services and starts of the newest thousand syncs, newest first. Dry runs are not among them."""
    syncs = entries.find(
        {"DryRun": False, "Trigger": asked_for(Verb.SYNC)},
        order_by="StartedAt",
        descending=True,
        limit=_LOOKED_BACK,
        fields=("ServiceName", "StartedAt"),
    )
    pairs = ((entry["ServiceName"], entry["StartedAt"]) for entry in syncs)
    return [(str(service), at) for service, at in pairs if isinstance(at, datetime)]
