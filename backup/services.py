"""A service: one named thing to back up, its two sides and its rules. The presets for customers and orders."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from backup.errors import BackupError, ConfigError, StoreUnavailable, Unexpected, UnknownService
from backup.history import History
from backup.locks import Held, Lock, open_lock
from backup.log import event, redact
from backup.models import Counts, Now, Run, Status, Trigger, utc_now
from backup.retry import Retry
from backup.settings import Settings
from backup.stores import Limits, Rules, Side, Store, open_store
from backup.sync import Tally, sync

Item = TypeVar("Item")
Result = TypeVar("Result")

Progress = Callable[[str, Counts], None]
"""Told a service's name and its counts so far, after every batch."""


def no_progress(service: str, counts: Counts) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and the error if it failed: for the answer's status and hint."""

    run: Run
    error: BackupError | None = None


@dataclass(frozen=True)
class Health:
    """One side's answer to a ping; `error` is None when it is up."""

    service: str
    side: str
    duration_ms: int
    error: BackupError | None


class SyncService:
    """Runs the sync of one service; each run opens its stores anew, so that it sees the schema as it is."""

    def __init__(
        self,
        name: str,
        source: Side,
        backup: Side,
        rules: Rules,
        limits: Limits,
        lock: Lock,
        now: Now = utc_now,
    ):
        self.name = name
        self._source, self._backup = source, backup
        self._rules, self._limits, self._lock, self._now = rules, limits, lock, now

    @contextmanager
    def stores(self) -> Iterator[tuple[Store, Store]]:
        """Source and backup, closed at the end. Raises ConfigError when they cannot be the two sides of one service."""
        source = open_store(self._source, self._rules, self._limits)
        backup = open_store(self._backup, self._rules, self._limits)
        if source.kind != backup.kind:
            raise ConfigError(
                f"{self._source.setting} is {source.kind} and {self._backup.setting} is {backup.kind}; an exact copy "
                "needs two of one kind.",
                hint="Give both sides the same product.",
            )
        if source.location == backup.location:
            raise ConfigError(
                f"{self._source.setting} and {self._backup.setting} name the same place: {source.location}.",
                hint="A backup beside nothing but itself is none: name another database, table or container.",
            )
        try:
            yield source, backup
        finally:
            source.close()
            backup.close()

    def run(self, trigger: Trigger, *, force: bool = False, progress: Progress = no_progress) -> Outcome:
        """Syncs once, under the lock and with an entry in SyncHistory, and says how it ended; never raises an error.

        A run that finds the lock taken leaves no entry: it has not started.
        """
        run = Run(self.name, trigger, force, self._now())
        tally = Tally(tell=lambda counts: progress(self.name, counts))
        try:
            with ExitStack() as stack:
                source, backup = stack.enter_context(self.stores())
                history = History(backup)
                try:
                    held = stack.enter_context(self._lock(self.name, backup.location))
                except StoreUnavailable as error:
                    return self._saved(history, self._ended(run, tally, error))
                return self._recorded(run, source, backup, history, tally, held)
        except BackupError as error:
            return self._ended(run, tally, error)
        except Exception as error:
            return self._ended(run, tally, unexpected(error))

    def _recorded(self, run: Run, source: Store, backup: Store, history: History, tally: Tally, held: Held) -> Outcome:
        history.close_interrupted(self.name, self._now())
        run = replace(run, status=Status.IN_PROGRESS)
        history.save(run)
        event("sync.started", service=self.name, sync_id=run.sync_id, trigger=run.trigger, forced=run.forced)
        try:
            sync(source, backup, run, tally, held=held, now=self._now, delete_batch=self._limits.batch_size)
            outcome = self._ended(run, tally, None)
        except BackupError as error:
            outcome = self._ended(run, tally, error)
        except Exception as error:
            outcome = self._ended(run, tally, unexpected(error))
        return self._saved(history, outcome)

    def _saved(self, history: History, outcome: Outcome) -> Outcome:
        """The outcome, now in SyncHistory. A run that cannot be recorded fails; an earlier error is kept."""
        try:
            history.save(outcome.run)
        except BackupError as error:
            if outcome.error is None:
                raise
            event(
                "history.not_saved",
                level=logging.ERROR,
                service=self.name,
                sync_id=outcome.run.sync_id,
                error=error,
            )
        return outcome

    def _ended(self, run: Run, tally: Tally, error: BackupError | None) -> Outcome:
        status = Status.FAILED if error else Status.COMPLETED
        run = run.ended(status, self._now(), tally.counts, redact(str(error)) if error else None)
        event(
            "sync.failed" if error else "sync.completed",
            level=logging.ERROR if error else logging.INFO,
            service=self.name,
            sync_id=run.sync_id,
            inserted=run.counts.inserted,
            updated=run.counts.updated,
            deleted=run.counts.deleted,
            skipped=run.counts.skipped,
            duration_ms=run.duration_ms,
            **({"error": error, "hint": error.hint} if error else {}),
        )
        return Outcome(run, error)

    def initialize(self) -> None:
        """Makes the backup's database, schema, table or container, and SyncHistory, where missing. Safe to repeat."""
        with self.stores() as (source, backup):
            backup.initialize(source)
            History(backup).create()
        event("backup.initialized", service=self.name)

    def history(self, limit: int) -> Sequence[Run]:
        """Up to `limit` runs, newest first."""
        with self.stores() as (_, backup):
            return History(backup).latest(self.name, limit)

    def count(self) -> int:
        """Records in the source; reads an index from end to end."""
        with self.stores() as (source, _):
            return source.count()

    def ping(self) -> list[Health]:
        """How the source and the backup answer, in this order; one try each. Raises ConfigError."""
        with self.stores() as (source, backup):
            return [_ping(self.name, "source", source), _ping(self.name, "backup", backup)]


class CustomerSyncService(SyncService):
    """Customers: a SQL table, its primary key, and the column `Version`."""

    def __init__(self, settings: Settings, limits: Limits, lock: Lock) -> None:
        source = Side(
            service="customer",
            role="source",
            setting="SourceCustomerDb",
            connection_string=_needed("SourceCustomerDb__ConnectionString", settings.source_customer_connection),
            table=settings.source_customer_table,
            default_table="customer.Customers",
        )
        backup = Side(
            service="customer",
            role="backup",
            setting="BackupCustomerDb",
            connection_string=_needed("BackupCustomerDb__ConnectionString", settings.backup_customer_connection),
            table=settings.backup_customer_table,
            default_table="customer.Customers",
            database=settings.backup_customer_database,
        )
        super().__init__("customer", source, backup, Rules(version=("Version",)), limits, lock)


class OrderSyncService(SyncService):
    """Orders: documents of type Order by (partition key, id), or rows with JSON columns, by lastModified and status."""

    def __init__(self, settings: Settings, limits: Limits, lock: Lock) -> None:
        hosts = frozenset(host.strip() for host in settings.cosmos_emulator_hosts.split(",") if host.strip())
        source = Side(
            service="order",
            role="source",
            setting="SourceOrderDb",
            connection_string=_needed("SourceOrderDb__ConnectionString", settings.source_order_connection),
            table=settings.source_order_table,
            default_table="Orders",
            container=settings.source_order_container,
            database=settings.source_order_database,
            emulator_hosts=hosts,
        )
        backup = Side(
            service="order",
            role="backup",
            setting="BackupOrderDb",
            connection_string=_needed("BackupOrderDb__ConnectionString", settings.backup_order_connection),
            table=settings.backup_order_table,
            default_table="Orders",
            container=settings.backup_order_container,
            database=settings.backup_order_database,
            emulator_hosts=hosts,
        )
        rules = Rules(version=("lastModified", "status"), where={"type": "Order"})
        super().__init__("order", source, backup, rules, limits, lock)


class Registry:
    """The services the settings configure, in the order they are answered."""

    _PRESETS: ClassVar[dict[str, tuple[type[CustomerSyncService] | type[OrderSyncService], str]]] = {
        "customer": (CustomerSyncService, "_customer_"),
        "order": (OrderSyncService, "_order_"),
    }

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        retry = Retry(settings.retry_max_attempts, settings.retry_base_seconds, settings.retry_max_seconds)
        self._limits = Limits(settings.chunk_size, settings.batch_size, settings.batch_bytes, retry)
        self._lock = open_lock(settings, retry)

    def names(self) -> list[str]:
        """Services with a setting of their own; one of them may still lack another, which `get` then names."""
        return [
            name
            for name, (_, part) in self._PRESETS.items()
            if any(part in field for field in self._settings.model_fields_set)
        ]

    def get(self, name: str) -> SyncService:
        """Raises UnknownService for a service that is not configured, ConfigError for one that is only half."""
        if name not in self.names():
            raise UnknownService(
                f"No service {name!r} is configured.",
                hint=f"Configured: {', '.join(self.names()) or 'none'}. README lists the settings of each.",
            )
        preset, _ = self._PRESETS[name]
        return preset(self._settings, self._limits, self._lock)

    def chosen(self, name: str) -> list[str]:
        """The names that `name` or "all" stands for. Raises UnknownService when there is none."""
        if name != "all":
            self.get(name)
            return [name]
        if not self.names():
            raise UnknownService("No service is configured.", hint="README lists the settings of customer and order.")
        return self.names()

    def ping(self) -> list[Health]:
        """How every side of every configured service answers."""

        def one(service: str) -> list[Health]:
            try:
                return self.get(service).ping()
            except BackupError as error:
                return [Health(service, side, 0, error) for side in ("source", "backup")]

        found = [health for answers in side_by_side(one, self.names()) for health in answers]
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

    def sync(
        self, name: str, trigger: Trigger, *, force: bool = False, progress: Progress = no_progress
    ) -> list[Outcome]:
        """Runs the service, or all of them side by side; one that fails does not disturb the others."""

        def one(service: str) -> Outcome:
            try:
                return self.get(service).run(trigger, force=force, progress=progress)
            except BackupError as error:
                now = utc_now()
                run = Run(service, trigger, force, now).ended(Status.FAILED, now, Counts(), redact(str(error)))
                event("sync.failed", level=logging.ERROR, service=service, error=error, hint=error.hint)
                return Outcome(run, error)

        return side_by_side(one, self.chosen(name))


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """The results in the order of the items, each worked on in a thread of its own."""
    with ThreadPoolExecutor(max_workers=max(1, len(items))) as pool:
        return list(pool.map(work, items))


def _ping(service: str, side: str, store: Store) -> Health:
    started = time.perf_counter()
    error = None
    try:
        store.ping()
    except BackupError as caught:
        error = caught
    return Health(service, side, round((time.perf_counter() - started) * 1000), error)


def _needed(setting: str, value: str | None) -> str:
    if not value:
        raise ConfigError(f"Setting {setting} is missing.", hint="Set it, or remove the service's other settings.")
    return value


def unexpected(error: Exception) -> BackupError:
    """The error to answer with for one that nobody foresaw; its kind and its places in the code are logged.

    Its message may quote a record, so that is neither logged nor told.
    """
    where = "; ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-5:])
    event("unexpected", level=logging.ERROR, error=type(error).__name__, at=where)
    return Unexpected(f"Unexpected {type(error).__name__}; what had been written stays, nothing else was changed.")
