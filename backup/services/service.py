"""What a service does: sync, resume, verify, undo, restore. `spec` says what a service is, `past` what it did."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial

from backup.config.settings import Settings
from backup.core.errors import BackupError
from backup.core.log import event
from backup.core.model import Now, utc_now
from backup.core.retry import Retry
from backup.core.run_values import Run, Trigger, Verb
from backup.core.unexpected import as_backup_error
from backup.mirror.verification import COMPARED_WHOLE, Depth, verify
from backup.runs.condition import Concern, concerns_of
from backup.runs.history import History
from backup.runs.lock import Lock
from backup.runs.outcome import NOBODY, WHOLE_TURN, Observer, Outcome, Turn
from backup.runs.runner import Runner
from backup.runs.scratch import name_of
from backup.runs.session import RunRequest, Session
from backup.services.past import Past
from backup.services.places import Places
from backup.services.planning import Planning
from backup.services.set_snapshot import SetSnapshot, SourceReading
from backup.services.setup import Setup
from backup.services.spec import ServiceSpec
from backup.stores import Limits, SideName, Store
from backup.stores.sides import open_store
from backup.stores.values import Place
from backup.verbs.drill import drill
from backup.verbs.restore import restore
from backup.verbs.restore_spec import RestoreSpec
from backup.verbs.sync import sync_with_schema
from backup.verbs.unchanged import find_unchanged
from backup.verbs.undo import undo
from backup.verbs.upkeep import progress_of, verify_on


@dataclass(frozen=True)
class Options:
    """The options that a caller may set for one run. `limit` is the greatest number of changes of a sync."""

    force: bool = False
    dry_run: bool = False
    allow_mass_delete: bool = False
    limit: int | None = None


NO_OPTIONS = Options()


def new_run(service: str, verb: Verb, trigger: Trigger, options: Options, now: datetime) -> Run:
    """A run that has done nothing yet."""
    run = Run(service, trigger, options.force, now, verb=verb)
    return replace(run, dry_run=options.dry_run, allow_mass_delete=options.allow_mass_delete, limit=options.limit)


@dataclass(frozen=True)
class Health:
    """One side's answer to a ping. `error` is None for a side that is up; `concerns` come from the backup's history."""

    service: str
    side: SideName
    duration_ms: int
    error: BackupError | None
    concerns: Sequence[Concern] = ()


class SyncService:
    """One service: runs its verbs. Several threads may use it at once; the lock lets one of them write.

    `spec` and `policy` are what the settings say of it. Each call opens its stores again, so that it sees the schema as
    it is.
    """

    def __init__(
        self,
        spec: ServiceSpec,
        settings: Settings,
        limits: Limits,
        lock: Lock,
        now: Now = utc_now,
        other_specs: Sequence[ServiceSpec] = (),
        watcher: Observer = NOBODY,
    ) -> None:
        """`other_specs` are the other configured services. The `watcher` hears of every run.

        Raises ConfigError when a connection string is missing.
        """
        self.name, self.spec = spec.name, spec
        self._places = Places(spec, other_specs, limits)
        self._settings, self._limits, self._lock, self._now = settings, limits, lock, now
        self._other_specs, self._watcher = other_specs, watcher
        self.policy = spec.policy(settings)

    # What most calls do not need is made when somebody asks for it: one look at a set makes a hundred services.

    @cached_property
    def _runner(self) -> Runner:
        other_tables = self._places.other_tables
        return Runner(self.name, self.policy, self._lock, self._limits, self._now, other_tables, self._watcher)

    @cached_property
    def _setup(self) -> Setup:
        return Setup(self.name, self._places, *self._old, self.policy, self._lock, self.spec.beginning)

    @cached_property
    def planning(self) -> Planning:
        """What a sync would do."""
        return Planning(*self._old, self.policy.on_new_column, self.spec.selection)

    @cached_property
    def past(self) -> Past:
        """What runs left."""
        return Past(self.name, self._places, self.policy, self._lock, self._now)

    @cached_property
    def _old(self) -> tuple[str, Places]:
        """The name and the places under which its copy still lies; its own, unless its table was renamed."""
        if self.spec.renamed_from is None:
            return self.name, self._places
        old = replace(self.spec, backup=self.spec.renamed_from)
        return old.backup.service, Places(old, self._other_specs, self._limits)

    def may_share(self, source: Place, backup: Place) -> bool:
        """Whether the settings may name one of its places for another service too. Asks nobody."""
        same = source.location.lower() == backup.location.lower()
        return same or self._places.may_share(source) or self._places.may_share(backup)

    def stores(self) -> AbstractContextManager[tuple[Store, Store]]:
        """Source and backup, closed at the end. Connects nowhere yet. Raises ConfigError when the settings name two
        sides that cannot be of one service."""
        return self._places.stores()

    def sync(
        self,
        trigger: Trigger,
        options: Options = NO_OPTIONS,
        observer: Observer = NOBODY,
        turn: Turn = WHOLE_TURN,
        snapshot: SetSnapshot | None = None,
    ) -> Outcome:
        """Makes the backup equal to its source. Like every verb that returns an Outcome, it never raises an error.

        Resumes an open sync if there is one, and then also covers what changed since that sync began. When the turn's
        time is up, the outcome's run is in progress; `resume` resumes it. With a `snapshot` of its set, it reads its
        source there.
        """
        run = replace(self._new_run(Verb.SYNC, trigger, options), selection=self.policy.selection)
        reading = SourceReading(self.spec, snapshot)
        stores = partial(self._stores_to_sync, reading, complete=not options.dry_run)
        work = reading.told(sync_with_schema)
        may_be_quiet = options == NO_OPTIONS and self.spec.copies_as_it_is and not self.spec.is_consistent
        request = RunRequest(
            *(run, stores, work, turn, observer, self._places.tell_apart),
            find_unchanged=partial(find_unchanged, policy=self.policy, parallelism=self._limits.parallelism)
            if may_be_quiet
            else None,
        )
        return _certain(self._runner.run(request))

    def resume(
        self, trigger: Trigger, turn: Turn = WHOLE_TURN, observer: Observer = NOBODY, sync_id: str | None = None
    ) -> Outcome | None:
        """Resumes the open sync from its checkpoint; with `sync_id` only the sync of this id. Returns None if no such
        sync is open."""
        run, tell_apart = self._new_run(Verb.SYNC, trigger), self._places.tell_apart
        work = SourceReading(self.spec).told(sync_with_schema)
        request = RunRequest(run, self.stores, work, turn, observer, tell_apart, only_resumes=True)
        request = replace(request, resumes_run=sync_id)
        return self._runner.run(request)

    @contextmanager
    def _stores_to_sync(self, reading: SourceReading, *, complete: bool) -> Iterator[tuple[Store, Store]]:
        """As `stores`, but the source as `reading` says. Raises the error of a service that is refused. `complete`:
        first makes what a new service's backup needs."""
        if complete and self.spec.refused is not None:
            raise self.spec.refused.with_traceback(None)  # a process keeps it: each sync would add its frames
        with self._places.stores(snapshot=reading.begun()) as (source, backup):
            if complete and self.spec.is_new:
                self._setup.complete(source, backup)
            yield source, backup

    def leave_entry(self, run: Run) -> bool:
        """Writes the entry of a run that ended without one; returns whether it could. Tries once, takes no lock."""
        backup = open_store(self.spec.backup, self.spec.rules, replace(self._limits, retry=Retry(max_attempts=1)))
        try:
            History(backup).add(run)
        except BackupError as error:
            event("history.not_saved", level=logging.WARNING, service=self.name, sync_id=run.sync_id, error=error)
            return False
        finally:
            backup.close()
        return True

    def verify(
        self, depth: Depth, *, drilled: bool = False, trigger: Trigger = Trigger.CLI, observer: Observer = NOBODY
    ) -> Outcome:
        """Compares source and backup; if `drilled`, compares the source with what a restore of the backup writes.

        Takes no lock. Writes only its entry; a drill writes its entry before it begins. An outcome without an error may
        still have a run that is not verified.
        """

        def work(session: Session) -> None:
            try:
                if drilled:
                    drill(session)
                else:
                    session.backup.catalog.match(session.source)
                    save, refuse = progress_of(session), session.tally.set_aside
                    verify(session.source, session.backup, depth, session.report, save=save, refuse=refuse)
                    if depth.full:
                        session.note(COMPARED_WHOLE)
            finally:
                session.tally.proof = session.report.proof

        run = self._new_run(Verb.DRILL if drilled else Verb.VERIFY, trigger)
        if drilled:
            run = replace(run, scratch=name_of(run.sync_id))
        return _certain(self._runner.run(RunRequest(run, self.stores, work, observer=observer)))

    def verify_on(self, depth: Depth, turn: Turn) -> Outcome | None:
        """Resumes the open verify, or begins one. When the turn's time is up, it stays open for the next call. Returns
        None while another call works on it."""
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
        """Makes the backup what it was before that run; if `through`, also undoes all later runs."""
        run = self._new_run(Verb.UNDO, trigger, Options(dry_run=dry_run))
        work = partial(undo, sync_id=sync_id.lower(), through=through)
        request = RunRequest(run, self.stores, work, observer=observer, tell_apart=self._places.tell_apart)
        return _certain(self._runner.run(request))

    def restore(
        self,
        spec: RestoreSpec,
        options: Options = NO_OPTIONS,
        to: str | None = None,
        observer: Observer = NOBODY,
        trigger: Trigger = Trigger.CLI,
    ) -> Outcome:
        """Writes the state of the backup that `spec` names into the source, or into the database of the connection
        string `to`."""

        def work(session: Session) -> None:
            restore(session, session.source, spec, elsewhere=to is not None)

        def tell_apart(source: Store, backup: Store) -> None:
            self._places.tell_apart(source, backup, is_target=to is not None)
            for key in spec.keys:
                backup.keys.from_text(key)  # a mistyped key is refused before the run has an entry

        run = self._new_run(Verb.RESTORE, trigger, options)
        request = RunRequest(run, partial(self._places.stores, to), work, observer=observer, tell_apart=tell_apart)
        return _certain(self._runner.run(request))

    def _new_run(self, verb: Verb, trigger: Trigger, options: Options = NO_OPTIONS) -> Run:
        return new_run(self.name, verb, trigger, options, self._now())

    def initialize(self) -> None:
        """Creates what is missing of the backup's database, schema, table or container, and SyncHistory. Safe to
        repeat."""
        with self.stores() as (source, backup):
            self._setup.complete(source, backup)

    def count(self) -> int:
        """Returns the number of records in the source. Cost: reads an index from end to end."""
        with self.stores() as (source, _):
            return source.count()

    def ping(self, side: SideName) -> Health:
        """Returns how one side answers and, of a backup, what its history says. Tries once. Never raises an error."""
        started = time.perf_counter()
        error = None
        concerns: Sequence[Concern] = ()
        try:
            with self.stores() as (source, backup):
                asked = source if side == "source" else backup
                asked.ping()
                asked.catalog.check_there()
                if side == "backup":
                    has_schedule = self._settings.schedule_enabled
                    next_due = self._settings.schedule_of(self.name).next_due if has_schedule else None
                    concerns = concerns_of(backup, self.name, self._now(), next_due)
        except Exception as caught:
            error = as_backup_error(caught)
        return Health(self.name, side, round((time.perf_counter() - started) * 1000), error, concerns)


def _certain(outcome: Outcome | None) -> Outcome:
    """The outcome of a request that always makes a run."""
    assert outcome is not None  # noqa: S101 - for mypy; only a resume and a verify in parts may have nothing to do
    return outcome
