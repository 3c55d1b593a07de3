"""The services that the settings configure: works on one of them, or on all side by side."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import wait
from contextlib import suppress
from datetime import datetime
from functools import partial

from backup.config.settings import Settings
from backup.core.errors import BackupError, Locked, SetFailed
from backup.core.log import event
from backup.core.memory import give_back_large_pieces
from backup.core.model import SIDES, Now, utc_now
from backup.core.retry import Retry
from backup.core.run_values import Run, Trigger, Verb
from backup.mirror.verification import Depth
from backup.runs.lock import open_lock
from backup.runs.outcome import NOBODY, Observer, Outcome, Turn
from backup.services.directory import Directory
from backup.services.group_sync import GroupSync
from backup.services.nightly import Upkeep, purge_and_verify
from backup.services.service import NO_OPTIONS, Health, Options, SyncService
from backup.services.several_as_one import CallOfSeveral, ProgressAsOne, RunSoFar, as_one
from backup.services.spec import ServiceSpec
from backup.services.turns import AT_ONCE, SyncInTurn, could_not_begin, new_run_of_several, side_by_side
from backup.services.unchanged import SetLook
from backup.stores import Limits, SideName
from backup.stores.sides import kept_open

_PINGS_AT_ONCE = 32  # a ping only waits for a server, and needs no memory


class Registry:
    """The services that the settings and backup.toml configure, in the order of every answer. Several threads may use
    it at once. `directory` says what names stand for."""

    def __init__(
        self,
        settings: Settings,
        unanswered_attempts: int | None = None,
        now: Now = utc_now,
        specs: Sequence[ServiceSpec] | None = None,
        watcher: Observer = NOBODY,
    ) -> None:
        """`unanswered_attempts`: how often to try a call to an address where nothing listens; None: as often as any
        call. `specs` are the services (default: those of the settings). The `watcher` hears of every run.

        Raises what `Directory` raises."""
        give_back_large_pieces()
        self._settings, self._now, self._watcher = settings, now, watcher
        self._limits = limits_of(settings, unanswered_attempts)
        self._lock = open_lock(settings, self._limits.retry)
        self.directory = Directory(settings, self._limits, specs)

    @property
    def limits(self) -> Limits:
        """The limits of each call."""
        return self._limits

    @property
    def wait_seconds(self) -> float:
        """How many seconds an HTTP request waits for its syncs."""
        return self._settings.wait_seconds

    def get(self, name: str) -> SyncService:
        """Returns the service of this name. Raises what `Directory.find` raises, and ConfigError when one of the
        service's sides is missing."""
        spec, others = self.directory.find(name)
        return SyncService(spec, self._settings, self._limits, self._lock, self._now, others, self._watcher)

    def ping(self) -> list[Health]:
        """Asks every side of every configured service, 32 at once; returns how each answers."""

        def ping_side(service_and_side: tuple[str, SideName]) -> Health:
            service, side = service_and_side
            try:
                return self.get(service).ping(side)
            except BackupError as error:
                return Health(service, side, 0, error)

        sides = [(name, side) for name in self.directory.own_names for side in SIDES]
        for service_set in self.directory.sets.values():  # its services share a source: one of them asks it
            names = service_set.names()
            sides += [(name, SIDES[0]) for name in names[:1]]
            # The set's own name stands for no table: its error says nothing about the backup.
            sides += [(name, SIDES[1]) for name in names if name != service_set.name]
        answers = side_by_side(ping_side, sides, _PINGS_AT_ONCE)
        for health in answers:
            if health.error is not None:
                event(
                    "health.down",
                    level=logging.WARNING,
                    service=health.service,
                    side=health.side,
                    error=health.error,
                )
        return answers

    def sync(
        self,
        name: str,
        trigger: Trigger,
        options: Options = NO_OPTIONS,
        observer: Observer = NOBODY,
        wait_seconds: float | None = None,
        but: Collection[str] = (),
        *,
        tells_sets: bool = True,
    ) -> list[Outcome]:
        """Syncs the service, or all services side by side. A service that fails does not disturb the others. Leaves out
        the services and sets in `but`. The watcher hears of each service's run and, if `tells_sets`, of a whole set as
        of one run.

        A sync stops after `SliceSeconds`, except from the command line. Then its outcome's run is in progress, and
        `resume` resumes it. Returns after `wait_seconds` at the latest (None: when all have ended). A sync that is at
        work then goes on in the background; its outcome's run is in progress too. A sync that has not had its turn by
        then has a run without an id. A timer's sync waits some seconds for the lock. It has an entry in SyncHistory
        even if it could not begin.
        """
        with kept_open(self.directory.sides_of_sets(name), self._limits):
            turns = self._turns(name, trigger, options, observer, but)
            observer.expects(len(turns))
            group_sync = GroupSync(self.directory, turns)
            look = partial(self._look, trigger=trigger) if options == NO_OPTIONS else None
            wait(group_sync.begin(look), wait_seconds)
            group_sync.end(all_have_ended=wait_seconds is None)
            if not options.dry_run:
                group_sync.keep_foreign_keys()
            for set_name, outcomes in group_sync.whole_sets(name) if tells_sets else ():
                # Numbers and pages show a set as one. A set that goes on is shown once a job has ended it.
                outcome = self._as_one(new_run_of_several(set_name, trigger, options), outcomes)
                if not outcome.in_progress:
                    self._watcher.ended(outcome)
        return group_sync.outcomes()

    def _turns(
        self, name: str, trigger: Trigger, options: Options, observer: Observer, but: Collection[str]
    ) -> list[SyncInTurn]:
        seconds_left = self._countdown(trigger)
        turns = []
        for service in self.directory.chosen(name, but):
            service_set = self.directory.set_with(service)
            at_once, of_set = (AT_ONCE, False) if service_set is None else (service_set.at_once, True)
            turn = SyncInTurn(service, self.get, self.failed, trigger, options, observer, seconds_left, at_once, of_set)
            turns.append(turn)
        return turns

    def _look(self, syncs: Sequence[SyncInTurn], trigger: Trigger) -> None:
        """Settles those of a set's syncs of which one look says that nothing has changed."""
        sync_of, services = {sync.service: sync for sync in syncs}, []
        for name in sync_of:
            with suppress(BackupError):  # its own run says what is wrong
                services.append(self.get(name))
        look = SetLook(self._limits, self._lock, self._now, syncs[0].snapshot)
        stops: list[BackupError] = []
        for outcome in look.unchanged(services, trigger, lambda: 0.0 if stops else syncs[0].seconds_left()):
            self._watcher.ended(outcome)
            try:
                sync_of[outcome.run.service].settle(outcome)
            except BackupError as stop:  # what has its entry is settled all the same; the others hear it in their runs
                stops.append(stop)

    def sync_as_one(self, so_far: RunSoFar, options: Options, observer: Observer) -> Outcome:
        """Syncs the services that the run's `service` stands for, a set or a pattern, for `SliceSeconds`. Returns the
        outcome of all as that of this run; the observer and the watcher hear of it as of one run.

        When the time is up, syncs are in progress. The next call goes on with these alone. Raises UnknownService when
        there is no such service.
        """
        run, progress = so_far.run, ProgressAsOne(so_far.run, observer, so_far.call)
        trigger = run.trigger or Trigger.JOB
        if so_far.call is not CallOfSeveral.FIRST:
            seconds_left = self._countdown(trigger)

            def go_on(service: str) -> Outcome:
                try:
                    opened, turn = self.get(service), Turn(seconds_left())
                    return opened.resume(trigger, turn, progress) or opened.sync(trigger, options, progress, turn)
                except BackupError as error:
                    return self.failed(service, Verb.SYNC, trigger, options, error)

            services = self.directory.open_services(run.service)
            progress.expects(len(services))
            outcomes = side_by_side(go_on, services)
        else:
            self._watcher.started(run)
            outcomes = self.sync(run.service, trigger, options, progress, tells_sets=False)
        outcome = self._as_one(progress.run, outcomes, so_far.failure)
        self._watcher.ended(outcome)
        return outcome

    def _as_one(self, run: Run, outcomes: Sequence[Outcome], failure: SetFailed | None = None) -> Outcome:
        service_set = self.directory.sets.get(run.service.lower())
        return as_one(run, outcomes, failure, consistent=service_set is not None and service_set.is_consistent)

    def verify(
        self, name: str, depth: Depth, *, drilled: bool = False, trigger: Trigger = Trigger.CLI
    ) -> list[Outcome]:
        """Verifies the service, or all services side by side. A service that fails does not disturb the others."""

        def verify(service: str) -> Outcome:
            try:
                return self.get(service).verify(depth, drilled=drilled, trigger=trigger)
            except BackupError as error:
                return self.failed(service, Verb.DRILL if drilled else Verb.VERIFY, trigger, NO_OPTIONS, error)

        with kept_open(self.directory.sides_of_sets(name), self._limits):
            return side_by_side(verify, self.directory.chosen(name))

    def resume(self, trigger: Trigger, *, but: Collection[str] = ()) -> list[Outcome]:
        """Resumes every open sync, side by side, for `SliceSeconds` in all. Leaves out the services in `but`.

        Returns an outcome for each service with an open sync, but none where a run is at work now.
        """
        seconds_left = self._countdown(trigger)
        names = self.directory.to_look_after(but).services

        def resume(service: str) -> Outcome | None:
            try:
                outcome = self.get(service).resume(trigger, Turn(seconds_left()))
            except BackupError as error:
                return could_not_begin(service, Verb.SYNC, trigger, NO_OPTIONS, error)
            return None if outcome is None or isinstance(outcome.error, Locked) else outcome

        return [outcome for outcome in side_by_side(resume, names) if outcome is not None]

    def look_after(self, name: str, night: datetime, seconds_left: Callable[[], float], *, nightly: bool) -> Upkeep:
        """Purges and verifies the service, as `purge_and_verify` does."""
        return purge_and_verify(self.get, name, self._settings, night, seconds_left, nightly=nightly)

    def failed(self, service: str, verb: Verb, trigger: Trigger, options: Options, error: BackupError) -> Outcome:
        """Returns the outcome of a run that could not begin, and tells the watcher."""
        outcome = could_not_begin(service, verb, trigger, options, error)
        self._watcher.ended(outcome)
        return outcome

    def _countdown(self, trigger: Trigger) -> Callable[[], float | None]:
        """Returns what tells a service, at its turn, how many seconds are left of this call; None: no limit.

        A service whose turn comes late has 0 seconds left. It works on one part all the same and leaves the rest to
        `resume`.
        """
        if trigger is Trigger.CLI:
            return lambda: None
        seconds_left = Turn(self._settings.slice_seconds).countdown()
        return lambda: max(0.0, seconds_left())


def limits_of(settings: Settings, unanswered_attempts: int | None = None) -> Limits:
    """Returns the limits that the settings name, and how often calls are tried. `unanswered_attempts`: as `Registry`
    has it."""
    return Limits(
        chunk_size=settings.chunk_size,
        batch_size=settings.batch_size,
        batch_bytes=settings.batch_bytes,
        parallelism=settings.parallelism,
        max_statement_seconds=settings.max_statement_seconds,
        max_call_seconds=settings.max_call_seconds,
        max_request_units_per_second=settings.max_request_units_per_second,
        retry=Retry(
            settings.retry_max_attempts,
            settings.retry_base_seconds,
            settings.retry_max_seconds,
            unanswered_attempts,
        ),
    )
