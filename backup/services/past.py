"""What SyncHistory and the recycle bin know of one service: read, and purged. Changes nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from backup.core.errors import BadRequest, UnknownRecord, UnknownRun
from backup.core.model import Action, Now, typed_key
from backup.core.run_values import Run, Status
from backup.core.timeline import AHEAD
from backup.recycle_bin.bin import RecycleBin
from backup.runs import listing, upgrade
from backup.runs.changes import RunChanges, changes_since
from backup.runs.clock import clock_of
from backup.runs.history import History
from backup.runs.lock import Lock
from backup.runs.open_runs import drop_all_scratches
from backup.runs.opening import Opening
from backup.runs.outcome import Turn
from backup.runs.ownership import refuse_alive
from backup.runs.policy import Policy
from backup.runs.retention import oldest_run, purge_history
from backup.services.past_values import ChangedPage, ChangedRecord, Purged, Ran, Shown
from backup.services.places import Places
from backup.stores import Store
from backup.verbs.past_run import PastRun
from backup.verbs.upkeep import Due, due

_LOOKED_AT = 20


class _Opened(NamedTuple):
    """A backup that is open, with what the app keeps beside it, what SyncHistory says now, and the clock."""

    backup: Store
    history: History
    recycle_bin: RecycleBin
    opening: Opening
    now: Now


class Past:
    """The past of one service. Each call opens its backup again. Several threads may use it at once.

    Every method raises the errors of the stores, and ConfigError when source and backup cannot be the two sides of one
    service.
    """

    def __init__(self, service: str, places: Places, policy: Policy, lock: Lock, now: Now) -> None:
        self._service, self._places, self._policy, self._lock, self._now = service, places, policy, lock, now

    @contextmanager
    def _opened(self) -> Iterator[_Opened]:
        """Brings the app's tables up to date first."""
        with self._places.stores() as (_, backup):
            opening = upgrade.opening_of(
                backup,
                self._service,
                self._places.other_tables,
                lambda: self._lock(self._service, backup.place.location),
            )
            history, now = History(backup), clock_of(backup, self._now, opening.server_time)
            recycle_bin = RecycleBin(backup, self._service, lambda: history.timeline(self._service, now()))
            yield _Opened(backup, history, recycle_bin, opening, now)

    def last_sync(self) -> tuple[Run | None, str]:
        """Returns the newest sync that an undo may take back; else None, and why there is none.

        There is none if the newest sync changed nothing, or if a later undo has taken it back. Dry runs do not count.
        """
        with self._opened() as opened:
            history, recycled = opened.history, opened.recycle_bin
            sync = next(iter(history.newest_syncs(self._service, 1)), None)
            if sync is None:
                return None, "It has no sync to take back."
            if not (sync.counts.processed or recycled.counted(sync.sync_id).processed):
                return None, f"Its last sync {sync.sync_id} changed nothing."
            undone: dict[str, str] = {}
            for run in history.later(sync, opened.opening):  # newest first: an undo that was undone counts for nothing
                if run.undone and run.status is Status.COMPLETED and run.sync_id not in undone:
                    undone |= dict.fromkeys(run.undone, run.sync_id)
            if sync.sync_id in undone:
                return None, f"Its last sync {sync.sync_id} was taken back already by {undone[sync.sync_id]}."
            return sync, ""

    def last_begun(self) -> datetime | None:
        """Returns when the newest sync began; None without one. Dry runs do not count, nor do syncs that leave changes,
        and those that lie ahead: their clock was wrong."""
        with self._opened() as opened:
            runs, latest = opened.history.newest_syncs(self._service, _LOOKED_AT), opened.now() + AHEAD
            return next((run.started_at for run in runs if not run.is_partial and run.started_at <= latest), None)

    def show(self, key: str, at: datetime | None = None) -> Shown:
        """Returns one record's past. Raises BadRequest for a text that is not a key, and for a time that the bin does
        not reach any more."""
        with self._opened() as (backup, history, recycle_bin, _, now):
            parsed_key = backup.keys.from_text(key)
            images = (image for batch in backup.images([parsed_key], Action.UPDATED) for image in batch)
            record = next((image.record for image in images), None)
            if at is not None and at < self._policy.kept_since(now()):
                raise BadRequest(
                    f"The recycle bin does not reach back to {at:%Y-%m-%d %H:%M:%S %Z}.",
                    hint="It keeps images for RecycleDays. Name a later time.",
                )
            if at is not None:
                history.refuse_unplaced(self._service, at)
                first_change = recycle_bin.first_after([parsed_key], at).get(parsed_key)
                record = first_change.record if first_change else record
            return Shown(backup.keys.to_json(parsed_key), record, recycle_bin.of_keys([parsed_key]))

    def ran(self, sync_id: str, limit: int, skip: int = 0, only: Action | None = None) -> Ran:
        """Returns the run of this id, with up to `limit` of its changes after the first `skip`. Raises UnknownRun.

        Cost: reads the bin's entries of the run up to those changes. Holds only the changes that it returns.
        """
        with self._opened() as (backup, history, recycle_bin, _, now):
            run = self._run_of(history, backup, sync_id)
            all_changes = (kept for batch in recycle_bin.of_run(sync_id, only, records=False) for kept in batch)
            changes = list(islice(all_changes, skip, skip + limit + 1))
            may_be_purged = run.started_at < self._policy.kept_since(now())
            return Ran(run, changes[:limit], len(changes) > limit, may_be_purged, backup.keys.to_json)

    def _run_of(self, history: History, backup: Store, sync_id: str) -> Run:
        run = history.get(self._service, sync_id)
        if run is None:
            raise UnknownRun(f"The service {self._service} has no run {sync_id} about {backup.place.label}.")
        return run

    def changed(self, sync_id: str, limit: int, cursor: str | None = None, only: Action | None = None) -> ChangedPage:
        """Returns a page of what the run did to records, or of what it did by this action alone.

        A page may have fewer than `limit` changes and still have a cursor. Raises UnknownRun, and BadRequest for a
        cursor that is not from such a page. Cost: reads what the page shows, however large the run was.
        """
        with self._opened() as (backup, history, recycle_bin, _, now):
            run = self._run_of(history, backup, sync_id)
            changes, next_cursor = PastRun(run, only, backup, recycle_bin).page(limit, cursor)
            rows = [(backup.keys.to_json(change.kept.key), change.action, change.kept.side) for change in changes]
            return ChangedPage(run, rows, next_cursor, run.started_at < self._policy.kept_since(now()))

    def changed_record(self, sync_id: str, key: str) -> ChangedRecord:
        """Returns one record that the run changed, before and after. Raises UnknownRun; UnknownRecord when the run did
        not change it or its image was purged; BadRequest for a text that is not a key."""
        with self._opened() as (backup, history, recycle_bin, _, _):
            run, parsed_key = self._run_of(history, backup, sync_id), backup.keys.from_text(key)
            change = PastRun(run, None, backup, recycle_bin).change_of(parsed_key)
            if change is None:
                raise UnknownRecord(
                    f"The recycle bin has no image of {typed_key(backup.keys.to_json(parsed_key))} by run {sync_id}.",
                    hint="The run did not change the record, or its image was purged after RecycleDays.",
                )
            kept, later = change.kept, change.later
            images = [image for image in (kept, later) if image is not None]
            whole = {image.entry_id: image.record for batch in recycle_bin.with_records(images) for image in batch}
            if later is None:
                now_there = (image for batch in backup.images([kept.key], Action.UPDATED) for image in batch)
                new = next((image.record for image in now_there), None)
            else:
                new = whole.get(later.entry_id)
            shown_key, later_run = backup.keys.to_json(kept.key), later.sync_id if later else None
            old = whole.get(kept.entry_id)
            return ChangedRecord(run, shown_key, change.action, kept.side, kept.at, old, new, later_run)

    def changes(self, since: datetime) -> list[RunChanges]:
        """Returns what each run that began since then did to the backup, newest first; see `changes_since`."""
        with self._opened() as (_, history, recycle_bin, _, now):
            return changes_since(history, recycle_bin, self._service, self._policy, since, now())

    def history(
        self, limit: int, *, since: datetime | None = None, failed: bool = False, every: bool = True
    ) -> Sequence[Run]:
        """Returns up to `limit` runs, newest first.

        `since`: only runs that began since then. `failed`: only runs that failed. Without `every`: neither dry runs nor
        refused ones.
        """
        with self._opened() as opened:
            return listing.listed(opened.history, self._service, limit, since=since, failed=failed, every=every)

    def runs_named(self, text: str, limit: int) -> list[str]:
        """Returns the ids of up to `limit` runs that begin with the text, or the one id that equals it.

        Includes runs whose entries name no place.
        """
        with self._opened() as opened:
            return listing.named(opened.history, self._service, text, limit)

    def last_verified(self) -> Run | None:
        """Returns the newest verify that reached its end; None without one."""
        with self._opened() as opened:
            return opened.history.last_verified(self._service)

    def purge(
        self, before: datetime | None = None, seconds: float = float("inf"), history_days: float | None = None
    ) -> Purged:
        """Deletes from the recycle bin what was older than RecycleDays at the time `before` (default: now). Then
        deletes from SyncHistory what was older than `history_days` (default: RetentionDays).

        Images wait for a later run if the time is long after that of the run before (`Opening.confirmed`). Stops after
        so many seconds; the next purge deletes the rest. Raises Locked while a run is at work.
        """
        seconds_left = Turn(seconds).countdown()
        policy = self._policy if history_days is None else replace(self._policy, history_days=history_days)
        with (
            self._opened() as (backup, history, recycle_bin, opening, now),
            self._lock(self._service, backup.place.location),
        ):
            for run in opening.open_runs:  # of an instance with another kind of lock
                if not run.only_compares:
                    refuse_alive(run, now())
            drop_all_scratches(backup, history, self._service, now())
            until = min(before or now(), now())  # the clock of `before` may be ahead
            images = recycle_bin.purge(policy.kept_since(opening.confirmed(until, policy.recycle_days)), seconds_left)
            runs = 0
            if seconds_left() > 0:
                runs = purge_history(history, recycle_bin, self._service, policy, until, seconds_left)
            return Purged(images, runs)

    def purge_if_due(self, seconds: float = float("inf")) -> Purged:
        """Purges if an image or a run is old enough. Takes no lock otherwise."""
        with self._opened() as (_, history, recycle_bin, opening, now):
            oldest_image, first_run = recycle_bin.oldest(), oldest_run(history, self._service)
            until = opening.confirmed(now(), self._policy.recycle_days)
            images_due = oldest_image is not None and oldest_image < self._policy.kept_since(until)
            runs_due = first_run is not None and first_run < self._policy.history_since(now())
        return self.purge(seconds=seconds) if images_due or runs_due else Purged()

    def due(self, night: datetime, verify_every_days: float, *, synced: bool = False) -> Due:
        """Returns which upkeep has been due since `night`, the schedule's last time, and was not done yet.

        `synced`: the caller knows that the sync of that time has ended. Takes no lock.
        """
        with self._opened() as (_, history, recycle_bin, opening, now):
            return due(
                *(history, opening, recycle_bin, self._service, self._policy, verify_every_days, night, now()),
                synced=synced,
            )
