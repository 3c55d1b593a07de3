"""What SyncHistory beside a backup says of all services that lie there, about any place."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from backup.core.run_values import Status, Verb
from backup.runs.history_entries import asked_for
from backup.runs.listing import ids_of, is_beginning
from backup.stores import Sibling

_LOOKED_BACK = 1_000
_ENOUGH = 20


def services_at_work(entries: Sibling) -> list[str]:
    """Returns the services that have an InProgress run, in the order of their names; of the first thousand runs. On SQL
    it costs a look at the index of the services' runs, and none at the table."""
    syncs = entries.find(
        {"Status": Status.IN_PROGRESS.value}, order_by="ServiceName", limit=_LOOKED_BACK, fields=("ServiceName",)
    )
    return list(dict.fromkeys(str(entry["ServiceName"]) for entry in syncs))


def services_with_run(entries: Sibling, text: str, services: Collection[str]) -> set[str]:
    """Returns those of the services that have the run whose id is the text, or else those with runs whose ids begin so:
    all, or at least twenty. Their names are in small letters. Costs a query or two, and more where a hundred ids begin
    so."""
    text = text.lower()
    if same := entries.find({"SyncId": text}, order_by="SyncId", limit=1, fields=("ServiceName",)):
        return {str(same[0]["ServiceName"]).lower()}
    having = set[str]()
    for _, service in ids_of(entries, {}, text) if is_beginning(text) else ():
        if service.lower() in services:  # another set may have its entries here, too
            having.add(service.lower())
        if len(having) >= _ENOUGH:
            break
    return having


def newest_starts(entries: Sibling, before: datetime) -> list[tuple[str, datetime]]:
    """Returns the services and starts of the newest thousand syncs that began before this time, newest first. Dry runs
    are not among them."""
    syncs = entries.find(
        {"DryRun": False, "Trigger": asked_for(Verb.SYNC)},
        order_by="StartedAt",
        descending=True,
        below=before,
        limit=_LOOKED_BACK,
        fields=("ServiceName", "StartedAt"),
    )
    pairs = ((entry["ServiceName"], entry["StartedAt"]) for entry in syncs)
    return [(str(service), at) for service, at in pairs if isinstance(at, datetime)]
