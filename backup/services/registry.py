"""The services that the settings configure, one by one or all of them side by side."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

from backup.config.given_services import ALL, known_names
from backup.config.settings import Settings
from backup.core.errors import (
    BackupError,
    BadRequest,
    ConfigError,
    Locked,
    UnknownRun,
    UnknownService,
)
from backup.core.log import event
from backup.core.model import SIDES, Now, Trigger, Verb, utc_now
from backup.core.retry import Retry
from backup.core.suggestions import did_you_mean, quoted
from backup.mirror.comparison import Depth
from backup.runs.lock import open_lock
from backup.runs.runner import NOBODY, Observer, Outcome, Turn
from backup.services.service import NO_OPTIONS, Health, Options, SyncService
from backup.services.spec import ServiceSpec, specs_of
from backup.services.turns import AT_ONCE, SyncInTurn, could_not_begin, side_by_side
from backup.stores import Limits, SideName

_LONGEST_SYNC_ID = 100
_CANDIDATES = 10
"""How many runs are named, at the most, that begin alike."""

_PINGS_AT_ONCE = 32  # each waits for a server, and holds nothing
_LISTED = "docs/configuration.md lists the settings of each."


class Registry:
    """The services the settings configure, in the order they are answered."""

    def __init__(
        self,
        settings: Settings,
        unanswered_attempts: int | None = None,
        now: Now = utc_now,
        specs: Sequence[ServiceSpec] | None = None,
        watcher: Observer = NOBODY,
    ) -> None:
        """Where nothing listens at a server's address, a call is tried `unanswered_attempts` times; None: as often as
        any. `specs` are the services, by default those of the settings. The `watcher` is told of every run.

        Raises ConfigError for two services whose names differ in nothing but case."""
        self._settings, self._now, self._watcher = settings, now, watcher
        self._specs: dict[str, ServiceSpec] = {}
        for spec in specs_of(settings) if specs is None else specs:
            if self._specs.setdefault(spec.name.lower(), spec) is not spec:
                raise ConfigError(f"Two services are called {quoted(spec.name)}.", hint="Case does not count in names.")
        retry = Retry(settings.retry_max_attempts, settings.retry_base_seconds, settings.retry_max_seconds)
        retry = replace(retry, unanswered_attempts=unanswered_attempts)
        self._limits = Limits(
            chunk_size=settings.chunk_size,
            batch_size=settings.batch_size,
            batch_bytes=settings.batch_bytes,
            parallelism=settings.parallelism,
            max_statement_seconds=settings.max_statement_seconds,
            max_call_seconds=settings.max_call_seconds,
            max_request_units_per_second=settings.max_request_units_per_second,
            retry=retry,
        )
        self._lock = open_lock(settings, retry)

    @property
    def wait_seconds(self) -> float:
        """How long an HTTP request waits for its syncs."""
        return self._settings.wait_seconds

    def names(self) -> list[str]:
        """Services with a setting of their own; one of them may still lack another, which `get` then names."""
        return [spec.name for spec in self._specs.values()]

    def get(self, name: str) -> SyncService:
        """The service of this name, in any case. Raises UnknownService for one that is not configured, ConfigError for
        one that is only half."""
        spec = self._specs.get(name.lower())
        if spec is None:
            raise self._unknown(name)
        others = [other for other in self._specs.values() if other is not spec]
        return SyncService(spec, self._settings, self._limits, self._lock, self._now, others, self._watcher)

    def chosen(self, name: str) -> list[str]:
        """The names that `name` or "all", in any case, stands for. Raises UnknownService when there is none."""
        if name.lower() != ALL:
            return [self.get(name).name]
        if not self._specs:
            raise UnknownService("No service is configured.", hint=_LISTED)
        return self.names()

    def _unknown(self, name: str) -> UnknownService:
        names = ", ".join(self.names()) or "none"
        if name.lower() == ALL:
            return UnknownService("This is done for one service at a time, not for all.", hint=f"Configured: {names}.")
        meant = did_you_mean(name, [*self.names(), ALL])
        if not meant and name.lower() in known_names():
            title = name.capitalize()
            begin = f"Its settings begin with Source{title}Db__ and Backup{title}Db__"
            hint = f"Configured: {names}. {begin}; docs/configuration.md lists them."
            return UnknownService(f"No service {quoted(name)} is configured: it has no setting.", hint=hint)
        return UnknownService(
            f"No service {quoted(name)} is configured.{meant}", hint=f"Configured: {names}. {_LISTED}"
        )

    def ping(self) -> list[Health]:
        """How every side of every configured service answers, asked all at once."""

        def one(which: tuple[str, SideName]) -> Health:
            service, side = which
            try:
                return self.get(service).ping(side)
            except BackupError as error:
                return Health(service, side, 0, error)

        found = side_by_side(one, [(name, side) for name in self.names() for side in SIDES], _PINGS_AT_ONCE)
        for health in found:
            if health.error is not None:
                event(
                    "health.down",
                    level=logging.WARNING,
                    service=health.service,
                    side=health.side,
                    error=health.error,
                )
        return found

    def run_named(self, text: str, service: str = ALL) -> tuple[SyncService, str]:
        """The service with this run, and the run's id: the text is that, or its beginning, in any case.

        Raises UnknownRun; BadRequest, which names the runs, where several begin so; what kept a service from being
        asked, unless another has the run with this very id.
        """
        names = self.names() if service.lower() == ALL else self.chosen(service)
        could_be_one = text != "" and text.isascii() and text.isprintable() and len(text) <= _LONGEST_SYNC_ID

        def look(name: str) -> list[tuple[SyncService, str]] | BackupError:
            try:
                asked = self.get(name)
                return [(asked, sync_id) for sync_id in asked.runs_named(text, _CANDIDATES)]
            except BackupError as error:
                return error

        answers = side_by_side(look, names if could_be_one else ())
        found = [one for answer in answers if not isinstance(answer, BackupError) for one in answer]
        for one in found:
            if one[1] == text.lower():
                return one
        for answer in answers:
            if isinstance(answer, BackupError):
                raise answer
        if not found:
            nobody = "No service has a" if service.lower() == ALL else f"The service {service.lower()} has no"
            raise UnknownRun(f"{nobody} run {quoted(text)}.")
        if len(found) > 1:
            named = ", ".join(f"{sync_id} of {asked.name}" for asked, sync_id in found[:_CANDIDATES])
            more = " …" if len(found) > _CANDIDATES else ""
            raise BadRequest(f"Several runs begin with {quoted(text)}: {named}{more}.", hint="Give more of the id.")
        return found[0]

    def sync(
        self,
        name: str,
        trigger: Trigger,
        options: Options = NO_OPTIONS,
        observer: Observer = NOBODY,
        wait_seconds: float | None = None,
    ) -> list[Outcome]:
        """Syncs the service, or all of them side by side; one that fails does not disturb the others.

        Syncs stop after `SliceSeconds`, but for those from the command line; then an outcome's run is in progress, and
        `resume` goes on with it. So it is for what has not ended after `wait_seconds` (None: however long it takes),
        which goes on in the background; what has not had its turn by then is pending, without an id. One of a timer
        waits for a lock that is held for a moment, and has an entry in SyncHistory even if it could not begin.
        """
        seconds_left = self._countdown(trigger)
        syncs = [
            SyncInTurn(service, self.get, self.failed, trigger, options, observer, seconds_left)
            for service in self.chosen(name)
        ]
        pool = ThreadPoolExecutor(min(len(syncs), AT_ONCE), thread_name_prefix="sync")
        wait([pool.submit(sync.run) for sync in syncs], wait_seconds)
        pool.shutdown(wait=wait_seconds is None)
        return [sync.outcome() for sync in syncs]

    def verify(
        self, name: str, depth: Depth, *, drilled: bool = False, trigger: Trigger = Trigger.CLI
    ) -> list[Outcome]:
        """Verifies the service, or all of them side by side; one that fails does not disturb the others."""

        def one(service: str) -> Outcome:
            try:
                return self.get(service).verify(depth, drilled=drilled, trigger=trigger)
            except BackupError as error:
                return self.failed(service, Verb.DRILL if drilled else Verb.VERIFY, trigger, NO_OPTIONS, error)

        return side_by_side(one, self.chosen(name))

    def resume(self, trigger: Trigger, *, but: Collection[str] = ()) -> list[Outcome]:
        """Goes on with every sync that was left open, but for those services, for `SliceSeconds` in all; side by side.

        There is an outcome for each service that had one, but for those that are running just now.
        """
        seconds_left = self._countdown(trigger)
        names = [name for name in self.names() if name not in but]

        def one(service: str) -> Outcome | None:
            try:
                outcome = self.get(service).resume(trigger, Turn(seconds_left()))
            except BackupError as error:
                return could_not_begin(service, Verb.SYNC, trigger, NO_OPTIONS, error)
            return None if outcome is None or isinstance(outcome.error, Locked) else outcome

        return [outcome for outcome in side_by_side(one, names) if outcome is not None]

    def failed(self, service: str, verb: Verb, trigger: Trigger, options: Options, error: BackupError) -> Outcome:
        """The outcome of a run that could not begin, of which the watcher is told."""
        outcome = could_not_begin(service, verb, trigger, options, error)
        self._watcher.ended(outcome)
        return outcome

    def _countdown(self, trigger: Trigger) -> Callable[[], float | None]:
        """The seconds that are left of this call, from now on, for a service whose turn comes; None: as many as it
        takes. One that comes late has none, does a part all the same, and leaves the rest to `resume`."""
        if trigger is Trigger.CLI:
            return lambda: None
        ends_at = time.monotonic() + self._settings.slice_seconds
        return lambda: max(0.0, ends_at - time.monotonic())
