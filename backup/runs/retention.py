"""How long SyncHistory keeps its entries; deletes those that it need not keep. Never touches a record or an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from backup.core.run_values import Run, Status
from backup.recycle_bin.bin import RecycleBin
from backup.runs.history import SYNCED, History, is_synced
from backup.runs.history_entries import run_of
from backup.runs.policy import Policy

_PAGE = 100
_GUARDED_DAYS = 8
"""The guard counts what syncs deleted in the last week. One day more, for clocks and time zones."""


def purge_history(
    history: History,
    recycled: RecycleBin,
    service: str,
    policy: Policy,
    now: datetime,
    seconds_left: Callable[[], float] = lambda: float("inf"),
) -> int:
    """Deletes the entries of the service's runs that began more than `history_days` ago; returns how many.

    It keeps what a later run, a restore or a person may still need:

    - open runs, the newest completed run of each verb, and every run after the newest completed sync;
    - runs whose images are in the bin, and the run that says how far back a restore may reach;
    - runs that changed records, as long as the bin keeps images of that time, and as long as the guard looks back.

    Newest first, a page at a time, until `seconds_left` says that time is up. The caller holds the service's lock.
    Costs one lookup if no entry is so old, else a lookup in the bin for each entry.
    """
    last = history.last_synced(service)
    if last is None:
        return 0
    last_verified = history.last_verified(service)
    before, kept_since = policy.history_since(now), policy.kept_since(now)
    young = min(kept_since, now - timedelta(days=_GUARDED_DAYS))
    # A restore reaches no further back than the end of the first sync that completed.
    reaches = _ended_before(last, kept_since) or _synced_between(history, service, before, kept_since)
    purged = 0
    for page in _begun_before(history, service, before):
        ids = []
        for run in page:
            if not reaches and _ended_before(run, kept_since):
                reaches = True
            elif not (
                run.status in (Status.PENDING, Status.IN_PROGRESS)
                or run.scratch is not None
                or (run.number or 0) >= (last.number or 0)
                or (last_verified is not None and run.sync_id == last_verified.sync_id)
                or (run.counts.processed > 0 and run.started_at > young)
                or recycled.has_any_of(run.sync_id)
            ):
                ids.append(run.sync_id)
        history.entries.delete(ids, service)
        purged += len(ids)
        if seconds_left() <= 0:
            break
    return purged


def oldest_run(history: History, service: str) -> datetime | None:
    """When the oldest run of the history began; None for an empty history."""
    entries = history.entries.find(history.about(service), order_by="StartedAt", limit=1, fields=("StartedAt",))
    return next((entry["StartedAt"] for entry in entries if isinstance(entry["StartedAt"], datetime)), None)


def _begun_before(history: History, service: str, moment: datetime) -> Iterator[list[Run]]:
    """The runs that began before the moment, latest first, a page at a time. It leaves out runs that began at the very
    time of a page's last run."""
    below: Any = moment
    while isinstance(below, datetime):
        page = history.entries.find(
            history.about(service), order_by="StartedAt", descending=True, below=below, limit=_PAGE
        )
        yield list(filter(None, map(run_of, page)))
        below = page[-1]["StartedAt"] if len(page) == _PAGE else None


def _synced_between(history: History, service: str, after: datetime, before: datetime) -> bool:
    """Whether a sync that completed, and left no changes, has ended between these times."""
    where = history.about(service) | SYNCED
    return bool(
        history.entries.find(where, order_by="CompletedAt", above=after, below=before, limit=1, fields=("SyncId",))
    )


def _ended_before(run: Run, moment: datetime) -> bool:
    """Whether the run is a sync that completed before the moment."""
    return is_synced(run) and run.completed_at is not None and run.completed_at < moment
