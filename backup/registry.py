"""The services that the settings configure, one by one or all of them side by side."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ClassVar, TypeVar

from backup.errors import BackupError, UnknownRun, UnknownService
from backup.locks import open_lock
from backup.log import event, redact
from backup.models import Counts, Run, Status, Trigger, utc_now
from backup.recorded import Outcome, Progress, no_progress
from backup.retry import Retry
from backup.services import NO_OPTIONS, CustomerSyncService, Health, Options, OrderSyncService, SyncService
from backup.settings import Settings
from backup.stores import Limits, SideName

SIDES: tuple[SideName, SideName] = ("source", "backup")

Item = TypeVar("Item")
Result = TypeVar("Result")


class Registry:
    """The services the settings configure, in the order they are answered."""

    _PRESETS: ClassVar[dict[str, type[SyncService]]] = {
        preset.name: preset for preset in (CustomerSyncService, OrderSyncService)
    }

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        retry = Retry(settings.retry_max_attempts, settings.retry_base_seconds, settings.retry_max_seconds)
        self._limits = Limits(settings.chunk_size, settings.batch_size, settings.batch_bytes, retry)
        self._lock = open_lock(settings, retry)

    def names(self) -> list[str]:
        """Services with a setting of their own; one of them may still lack another, which `get` then names."""
        return [name for name in self._PRESETS if self._settings.mentions(name)]

    def get(self, name: str) -> SyncService:
        """Raises UnknownService for a service that is not configured, ConfigError for one that is only half."""
        if name not in self.names():
            raise UnknownService(
                f"No service {name!r} is configured.",
                hint=f"Configured: {', '.join(self.names()) or 'none'}. README lists the settings of each.",
            )
        return self._PRESETS[name](self._settings, self._limits, self._lock)

    def chosen(self, name: str) -> list[str]:
        """The names that `name` or "all" stands for. Raises UnknownService when there is none."""
        if name != "all":
            self.get(name)
            return [name]
        if not self.names():
            raise UnknownService("No service is configured.", hint="README lists the settings of customer and order.")
        return self.names()

    def ping(self) -> list[Health]:
        """How every side of every configured service answers, asked all at once."""

        def one(which: tuple[str, SideName]) -> Health:
            service, side = which
            try:
                return self.get(service).ping(side)
            except BackupError as error:
                return Health(service, side, 0, error)

        found = side_by_side(one, [(name, side) for name in self.names() for side in SIDES])
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

    def with_run(self, sync_id: str) -> SyncService:
        """The service that has this run. Raises UnknownRun, or what kept a service from being asked."""
        failure: BackupError = UnknownRun(f"No service has a run {sync_id!r}.")
        for name in self.names():
            try:
                service = self.get(name)
                if service.has_run(sync_id):
                    return service
            except BackupError as error:
                failure = error
        raise failure

    def sync(
        self, name: str, trigger: Trigger, options: Options = NO_OPTIONS, progress: Progress = no_progress
    ) -> list[Outcome]:
        """Syncs the service, or all of them side by side; one that fails does not disturb the others."""

        def one(service: str) -> Outcome:
            try:
                return self.get(service).sync(trigger, options, progress)
            except BackupError as error:
                now = utc_now()
                run = replace(
                    Run(service, trigger, options.force, now),
                    dry_run=options.dry_run,
                    allow_mass_delete=options.allow_mass_delete,
                )
                run = run.ended(Status.FAILED, now, Counts(), redact(str(error)))
                event("sync.failed", level=logging.ERROR, service=service, error=error, hint=error.hint)
                return Outcome(run, error)

        return side_by_side(one, self.chosen(name))


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """The results in the order of the items, each worked on in a thread of its own."""
    with ThreadPoolExecutor(max_workers=max(1, len(items))) as pool:
        return list(pool.map(work, items))
