"""How long SyncHistory keeps its entries: those that may go, and their going. Never touches a record or an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from backup.core.model import Run, Status, Verb
from backup.recycle_bin.bin import RecycleBin
from backup.runs.history import History, is_synced
from backup.runs.history_entries import asked_for, run_of
from backup.runs.policy import Policy

_PAGE = 100
_GUARDED_DAYS = 8
"""The guard looks back a week at what syncs have deleted; and a day more, for clocks and time zones."""


def purge_history(
    history: History,
    recycled: RecycleBin,
    service: str,
    policy: Policy,
    now: datetime,
    seconds_left: Callable[[], float] = lambda: float("inf"),
) -> int:
    """Deletes the entries of the service's runs that began more than `history_days` ago; returns how many.

    What a later run, a restore or a person may still ask for stays: open runs; the newest completed run of each verb,
    and whatever came after the newest completed sync; runs of which the bin holds an image; the run that says how far
    back a restore may reach. What changed records stays as long as the bin may be asked about that time, and the guard
    about that week. Newest first, a page at a time, while there is time. The caller holds the service's lock. Costs one
    lookup where nothing is that old, else one in the bin for each entry.
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
        going = []
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
                going.append(run.sync_id)
        history.entries.delete(going, service)
        purged += len(going)
        if seconds_left() <= 0:
            break
    return purged


def oldest_run(history: History, service: str) -> datetime | None:
    """When the oldest run began that is still there."""
    found = history.entries.find(history.about(service), order_by="StartedAt", limit=1, fields=("StartedAt",))
    return next((entry["StartedAt"] for entry in found if isinstance(entry["StartedAt"], datetime)), None)


def _begun_before(history: History, service: str, moment: datetime) -> Iterator[list[Run]]:
    """The runs that began before then, latest first, some at a time; those that end a page may be left out."""
    below: Any = moment
    while isinstance(below, datetime):
        page = history.entries.find(
            history.about(service), order_by="StartedAt", descending=True, below=below, limit=_PAGE
        )
        yield list(filter(None, map(run_of, page)))
        below = page[-1]["StartedAt"] if len(page) == _PAGE else None


def _synced_between(history: History, service: str, after: datetime, before: datetime) -> bool:
    """Whether a sync that completed has ended between these times."""
    where = history.about(service) | {"Status": Status.COMPLETED.value, "DryRun": False}
    where |= {"Trigger": asked_for(Verb.SYNC)}
    found = history.entries.find(where, order_by="CompletedAt", above=after, below=before, limit=1, fields=("SyncId",))
    return bool(found)


def _ended_before(run: Run, moment: datetime) -> bool:
    """Whether it is a sync that completed before then."""
    return is_synced(run) and run.completed_at is not None and run.completed_at < moment
