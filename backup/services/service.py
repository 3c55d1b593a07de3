"""What a service does: sync, verify, undo, restore, and what is told of it. Its spec says what it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any

from backup.config.settings import Settings
from backup.core.errors import BackupError, BadRequest, UnknownRun
from backup.core.log import event
from backup.core.model import Action, Key, Now, Record, Run, Trigger, Verb, utc_now
from backup.core.retry import Retry
from backup.mirror.comparison import Depth, verify
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import Kept
from backup.runs import listing, upgrade
from backup.runs.changes import RunChanges, changes_since
from backup.runs.clock import clock_of
from backup.runs.condition import Concern, concerns_of
from backup.runs.history import History
from backup.runs.lock import Lock
from backup.runs.open_runs import drop_all_scratches
from backup.runs.opening import Opening
from backup.runs.policy import Policy
from backup.runs.retention import oldest_run, purge_history
from backup.runs.runner import (
    NOBODY,
    WHOLE_TURN,
    Observer,
    Outcome,
    Runner,
    RunRequest,
    Session,
    Turn,
    foreseen,
)
from backup.runs.scratch import name_of
from backup.services.places import Places
from backup.services.spec import ServiceSpec, spec_of
from backup.stores import Limits, SideName, Store, open_store
from backup.verbs.drill import drill
from backup.verbs.restore import restore
from backup.verbs.restoring import Wish
from backup.verbs.sync import refuse_expiring, sync_with_schema
from backup.verbs.undo import undo
from backup.verbs.upkeep import Due, due, verify_on


@dataclass(frozen=True)
class Options:
    """What a caller may ask of one run."""

    force: bool = False
    dry_run: bool = False
    allow_mass_delete: bool = False


NO_OPTIONS = Options()


@dataclass(frozen=True)
class Shown:
    """One record's past: its key, the record now or as of the time asked for, and its changes, oldest first."""

    key: list[Any]
    record: Record | None
    changes: Sequence[Kept]

    @property
    def is_known(self) -> bool:
        """Whether there is such a record, or the bin has an image of one."""
        return self.record is not None or len(self.changes) > 0


@dataclass(frozen=True)
class Ran:
    """A past run and some of what it changed; whether there is `more`, and whether images of it `may_be_purged`."""

    run: Run
    changes: Sequence[Kept]
    more: bool
    may_be_purged: bool
    key_to_json: Callable[[Key], list[Any]]


@dataclass(frozen=True)
class Purged:
    """How many images a purge has deleted from the recycle bin, and how many runs from SyncHistory."""

    images: int = 0
    runs: int = 0


@dataclass(frozen=True)
class Health:
    """One side's answer to a ping; `error` is None when it is up. `concerns` are what the backup's history says."""

    service: str
    side: SideName
    duration_ms: int
    error: BackupError | None
    concerns: Sequence[Concern] = ()


class SyncService:
    """Runs the syncs of one service, and what else is done with it.

    Each run opens its stores anew, so that it sees the schema as it is.
    """

    def __init__(
        self,
        spec: ServiceSpec,
        settings: Settings,
        limits: Limits,
        lock: Lock,
        now: Now = utc_now,
        others: Sequence[ServiceSpec] = (),
        watcher: Observer = NOBODY,
    ) -> None:
        """`others` are the other services that are configured. The `watcher` is told of every run.

        Raises ConfigError when a connection string is missing.
        """
        self.name, self._rules = spec.name, spec.rules
        self._places = Places(spec, others, limits)
        self._limits, self._lock, self._now = limits, lock, now
        self._next_due = settings.next_due if settings.schedule_enabled else None
        self._policy = Policy(
            spec.guard,
            settings.on_new_column,
            settings.recycle_days,
            settings.overlap_seconds,
            settings.full_every_days,
            settings.max_failed_records,
            settings.history_days,
            spec.filter_text,
        )
        self._runner = Runner(self.name, self._policy, lock, limits, now, self._places.other_tables, watcher)

    def stores(self) -> AbstractContextManager[tuple[Store, Store]]:
        """Source and backup, closed at the end. Raises ConfigError when they cannot be the two sides of one service, by
        what the settings say."""
        return self._places.stores()

    @contextmanager
    def _recorded(self) -> Iterator[tuple[Store, History, Opening, Now]]:
        """The backup, its history with the app's tables brought up to date, what that says now, and the clock."""
        with self.stores() as (_, backup):
            opening = upgrade.opening_of(
                backup, self.name, self._places.other_tables, lambda: self._lock(self.name, backup.place.location)
            )
            yield backup, History(backup), opening, clock_of(backup, self._now)

    def sync(
        self,
        trigger: Trigger,
        options: Options = NO_OPTIONS,
        observer: Observer = NOBODY,
        turn: Turn = WHOLE_TURN,
    ) -> Outcome:
        """Makes the backup equal to its source. Like every verb that gives an Outcome, it never raises an error.

        A sync that was left open is gone on with, and then covers what changed since as well. When the turn's time is
        up the outcome's run is in progress, and `resume` goes on with it.
        """
        run = self._new_run(Verb.SYNC, trigger, options.dry_run, options.allow_mass_delete, forced=options.force)
        request = RunRequest(run, self.stores, sync_with_schema, turn, observer, self._places.tell_apart)
        return _certain(self._runner.run(request))

    def resume(self, trigger: Trigger, turn: Turn = WHOLE_TURN, observer: Observer = NOBODY) -> Outcome | None:
        """Goes on with the sync that was left open, from its checkpoint; None if there is none."""
        run, tell_apart = self._new_run(Verb.SYNC, trigger), self._places.tell_apart
        request = RunRequest(run, self.stores, sync_with_schema, turn, observer, tell_apart, only_resumes=True)
        return self._runner.run(request)

    def leave_entry(self, run: Run) -> bool:
        """Records a run that ended before it had an entry, if the backup can be written. Tries once, takes no lock."""
        backup = open_store(self._places.backup, self._rules, replace(self._limits, retry=Retry(max_attempts=1)))
        try:
            History(backup).add(run)
        except BackupError as error:
            event("history.not_saved", level=logging.WARNING, service=self.name, sync_id=run.sync_id, error=error)
            return False
        finally:
            backup.close()
        return True

    def verify(self, depth: Depth, *, drilled: bool = False, trigger: Trigger = Trigger.CLI) -> Outcome:
        """Compares source and backup, or (drilled) the source and what a restore of the backup gives.

        Takes no lock and writes nothing but its entry, which a drill has from its start. An outcome without an error
        may be one that is not verified.
        """

        def work(session: Session) -> None:
            try:
                if drilled:
                    drill(session)
                else:
                    session.backup.catalog.match(session.source)
                    aside = session.tally.set_aside
                    verify(session.source, session.backup, depth, session.report, refuse=aside)
                    if depth.full:
                        session.note("Every record was compared whole.")
            finally:
                session.tally.proof = session.report.proof

        run = self._new_run(Verb.DRILL if drilled else Verb.VERIFY, trigger)
        if drilled:
            run = replace(run, scratch=name_of(run.sync_id))
        return _certain(self._runner.run(RunRequest(run, self.stores, work)))

    def verify_on(self, depth: Depth, turn: Turn) -> Outcome | None:
        """Goes on with the verify that was left open, or begins one; it stays open, for the next call, when the turn's
        time is up. None while another call is at it."""
        run = self._new_run(Verb.VERIFY, Trigger.TIMER)
        return self._runner.run(RunRequest(run, self.stores, partial(verify_on, depth=depth), turn, in_parts=True))

    def undo(
        self,
        sync_id: str,
        *,
        through: bool = False,
        dry_run: bool = False,
        observer: Observer = NOBODY,
        trigger: Trigger = Trigger.CLI,
    ) -> Outcome:
        """Makes the backup what it was before that run."""
        undone = sync_id.lower()

        def work(session: Session) -> None:
            undo(session, undone, through=through)

        run = self._new_run(Verb.UNDO, trigger, dry_run)
        request = RunRequest(run, self.stores, work, observer=observer, tell_apart=self._places.tell_apart)
        return _certain(self._runner.run(request))

    def restore(
        self,
        wish: Wish,
        options: Options = NO_OPTIONS,
        to: str | None = None,
        observer: Observer = NOBODY,
        trigger: Trigger = Trigger.CLI,
    ) -> Outcome:
        """Writes the backup's state into the source, or into the database of the connection string `to`."""

        def work(session: Session) -> None:
            restore(session, session.source, wish, elsewhere=to is not None)

        run = self._new_run(Verb.RESTORE, trigger, options.dry_run, options.allow_mass_delete)
        tell_apart = partial(self._places.tell_apart, is_target=to is not None)
        request = RunRequest(run, partial(self._places.stores, to), work, observer=observer, tell_apart=tell_apart)
        return _certain(self._runner.run(request))

    def _new_run(
        self,
        verb: Verb,
        trigger: Trigger,
        dry_run: bool = False,
        allow_mass_delete: bool = False,
        forced: bool = False,
    ) -> Run:
        run = Run(self.name, trigger, forced, self._now(), verb=verb)
        return replace(run, dry_run=dry_run, allow_mass_delete=allow_mass_delete)

    def show(self, key: str, at: datetime | None = None) -> Shown:
        """One record's past. Raises BadRequest for a key that is none or a time beyond the bin; the stores' errors."""
        with self._recorded() as (backup, history, _, now):
            asked = backup.keys.from_text(key)
            recycled = RecycleBin(backup, self.name, lambda: history.timeline(self.name, now()))
            record = next((i.record for images in backup.images([asked], Action.UPDATED) for i in images), None)
            if at is not None and at < self._policy.kept_since(now()):
                raise BadRequest(f"What was at {at:%Y-%m-%d %H:%M:%S %Z} is not known any more, after RecycleDays.")
            if at is not None:
                history.refuse_unplaced(self.name, at)
                first = recycled.first_after([asked], at).get(asked)
                record = first.record if first else record
            return Shown(backup.keys.to_json(asked), record, recycled.of_keys([asked]))

    def ran(self, sync_id: str, limit: int, skip: int = 0, only: Action | None = None) -> Ran:
        """The run of this id, with up to `limit` of its changes after the first `skip`. Raises UnknownRun.

        Costs a walk over the bin's entries of the run up to those changes; holds no more than asked for.
        """
        with self._recorded() as (backup, history, _, now):
            run = history.get(self.name, sync_id)
            if run is None:
                raise UnknownRun(f"The service {self.name} has no run {sync_id} about {backup.place.label}.")
            recycled = RecycleBin(backup, self.name, lambda: history.timeline(self.name, now()))
            every = (kept for some in recycled.of_run(sync_id, only, records=False) for kept in some)
            changes = list(islice(every, skip, skip + limit + 1))
            purged = run.started_at < self._policy.kept_since(now())
            return Ran(run, changes[:limit], len(changes) > limit, purged, backup.keys.to_json)

    def changes(self, since: datetime) -> list[RunChanges]:
        """What each run did to the backup that began since then, newest first; as `changes_since` says."""
        with self._recorded() as (backup, history, _, now):
            recycled = RecycleBin(backup, self.name, lambda: history.timeline(self.name, now()))
            return changes_since(history, recycled, self.name, self._policy, since, now())

    def purge(
        self, before: datetime | None = None, seconds: float = float("inf"), history_days: float | None = None
    ) -> Purged:
        """Deletes from the recycle bin what is older than RecycleDays, now or at the time `before`, and then from
        SyncHistory what is older than `history_days`, by default RetentionDays.

        Stops after so many seconds; what is left is as due as it was. Raises Locked during a run.
        """
        ends_at = time.monotonic() + seconds
        policy = self._policy if history_days is None else replace(self._policy, history_days=history_days)
        with self._recorded() as (backup, history, _, now), self._lock(self.name, backup.place.location):

            def seconds_left() -> float:
                return ends_at - time.monotonic()

            drop_all_scratches(backup, history, self.name, now())
            recycled = RecycleBin(backup, self.name, lambda: history.timeline(self.name, now()))
            until = min(before or now(), now())  # whatever the clock of `before` says
            images = recycled.purge(policy.kept_since(until), seconds_left)
            runs = purge_history(history, recycled, self.name, policy, until, seconds_left) if seconds_left() > 0 else 0
            return Purged(images, runs)

    def purge_if_due(self, seconds: float = float("inf")) -> Purged:
        """The same, but without a lock where nothing is that old."""
        with self._recorded() as (backup, history, _, now):
            recycled = RecycleBin(backup, self.name, lambda: history.timeline(self.name, now()))
            oldest, first = recycled.oldest(), oldest_run(history, self.name)
            images = oldest is not None and oldest < self._policy.kept_since(now())
            runs = first is not None and first < self._policy.history_since(now())
        return self.purge(seconds=seconds) if images or runs else Purged()

    def due(self, night: datetime, verify_every_days: float, *, synced: bool = False) -> Due:
        """What has been due since the schedule's last time, `night`, and has not been done; `synced` if the sync of
        that time is known to have ended. Takes no lock."""
        with self._recorded() as (backup, history, opening, now):
            recycled = RecycleBin(backup, self.name, lambda: history.timeline(self.name, now()))
            return due(history, opening, recycled, self.name, self._policy, verify_every_days, night, synced=synced)

    def runs_named(self, text: str, limit: int) -> list[str]:
        """The ids of up to `limit` of its runs that begin with the text, or the one that is the text; also of those
        whose entries do not say what they are about."""
        with self._recorded() as (_, history, _, _):
            return listing.named(history, self.name, text, limit)

    def last_verified(self) -> Run | None:
        """The newest verify that came to its end."""
        with self._recorded() as (_, history, _, _):
            return history.last_verified(self.name)

    def initialize(self) -> None:
        """Makes the backup's database, schema, table or container, and SyncHistory, where missing. Safe to repeat."""
        with self.stores() as (source, backup):
            self._places.try_to_tell_apart(source, backup)
            backup.catalog.initialize(source)
            upgrade.create(backup, self.name)
            refuse_expiring(backup, self._policy)
        event("backup.initialized", service=self.name)

    def history(
        self, limit: int, *, since: datetime | None = None, failed: bool = False, every: bool = True
    ) -> Sequence[Run]:
        """Up to `limit` runs, newest first: those that began `since` then, or only those that `failed`; not `every`
        run, but those that were neither dry nor refused."""
        with self._recorded() as (_, history, _, _):
            return listing.listed(history, self.name, limit, since=since, failed=failed, every=every)

    def count(self) -> int:
        """Records in the source; reads an index from end to end."""
        with self.stores() as (source, _):
            return source.count()

    def ping(self, side: SideName) -> Health:
        """How one side answers, and what the history of a backup says; one try. Never raises an error."""
        started = time.perf_counter()
        error = None
        concerns: Sequence[Concern] = ()
        try:
            with self.stores() as (source, backup):
                (source if side == "source" else backup).ping()
                if side == "backup":
                    concerns = concerns_of(backup, self.name, self._now(), self._next_due)
        except Exception as caught:
            error = foreseen(caught)
        return Health(self.name, side, round((time.perf_counter() - started) * 1000), error, concerns)


class CustomerSyncService(SyncService):
    """Customers: a SQL table, its primary key, and the column `Version`. Arguments are those behind the spec."""

    def __init__(self, settings: Settings, *arguments: Any, **named: Any) -> None:
        super().__init__(spec_of(settings, "customer"), settings, *arguments, **named)


class OrderSyncService(SyncService):
    """Orders: documents of type Order by (partition key, id), or rows with JSON columns, by lastModified and status."""

    def __init__(self, settings: Settings, *arguments: Any, **named: Any) -> None:
        super().__init__(spec_of(settings, "order"), settings, *arguments, **named)


def _certain(outcome: Outcome | None) -> Outcome:
    """The outcome of a run that always has one."""
    assert outcome is not None  # noqa: S101 - for mypy; only one that resumes or goes on in parts may have nothing to do
    return outcome
