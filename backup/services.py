"""A service: one named thing to back up, its two sides and its rules. The presets for customers and orders."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from backup.errors import BackupError, ConfigError, StoreUnavailable, Unexpected
from backup.history import History
from backup.locks import Held, Lock
from backup.log import event, redact
from backup.models import Counts, Now, Run, Status, Trigger, utc_now
from backup.settings import Settings
from backup.stores import Limits, Rules, Side, SideName, Store, open_store
from backup.sync import Tally, sync

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
    side: SideName
    duration_ms: int
    error: BackupError | None


class SyncService:
    """Runs the sync of one service; a preset names it, its default table and its rules.

    Each run opens its stores anew, so that it sees the schema as it is.
    """

    name: ClassVar[str]
    default_table: ClassVar[str]
    rules: ClassVar[Rules]

    def __init__(self, settings: Settings, limits: Limits, lock: Lock, now: Now = utc_now) -> None:
        """Raises ConfigError when a connection string is missing."""
        self._source, self._backup = _side(settings, self, "source"), _side(settings, self, "backup")
        self._limits, self._lock, self._now = limits, lock, now

    @contextmanager
    def stores(self) -> Iterator[tuple[Store, Store]]:
        """Source and backup, closed at the end. Raises ConfigError when they cannot be the two sides of one service."""
        source = open_store(self._source, self.rules, self._limits)
        backup = open_store(self._backup, self.rules, self._limits)
        if source.kind != backup.kind:
            raise ConfigError(
                f"{self._source.setting} is {source.kind} and {self._backup.setting} is {backup.kind}; an exact copy "
                "needs two of one kind.",
                hint="Give both sides the same product.",
            )
        if source.location.lower() == backup.location.lower():  # no two tables are worth telling apart by case alone
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
        except Exception as error:
            return self._ended(run, tally, foreseen(error))

    def _recorded(self, run: Run, source: Store, backup: Store, history: History, tally: Tally, held: Held) -> Outcome:
        history.close_interrupted(self.name, self._now())
        run = replace(run, status=Status.IN_PROGRESS)
        history.save(run)
        event("sync.started", service=self.name, sync_id=run.sync_id, trigger=run.trigger, forced=run.forced)
        try:
            sync(source, backup, run, tally, held=held, now=self._now, delete_batch=self._limits.batch_size)
            outcome = self._ended(run, tally, None)
        except Exception as error:
            outcome = self._ended(run, tally, foreseen(error))
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
            **asdict(run.counts),
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

    def ping(self, side: SideName) -> Health:
        """How one side answers; one try. Never raises an error."""
        started = time.perf_counter()
        error = None
        try:
            with self.stores() as (source, backup):
                (source if side == "source" else backup).ping()
        except Exception as caught:
            error = foreseen(caught)
        return Health(self.name, side, round((time.perf_counter() - started) * 1000), error)


class CustomerSyncService(SyncService):
    """Customers: a SQL table, its primary key, and the column `Version`."""

    name = "customer"
    default_table = "customer.Customers"
    rules = Rules(version=("Version",))


class OrderSyncService(SyncService):
    """Orders: documents of type Order by (partition key, id), or rows with JSON columns, by lastModified and status."""

    name = "order"
    default_table = "Orders"
    rules = Rules(version=("lastModified", "status"), where={"type": "Order"})


def _side(settings: Settings, service: SyncService, role: SideName) -> Side:
    prefix = f"{role.title()}{service.name.title()}Db"
    given = settings.side(role, service.name)
    if not given["connection"]:
        raise ConfigError(
            f"Setting {prefix}__ConnectionString is missing.", hint="Set it, or remove the service's other settings."
        )
    return Side(
        service=service.name,
        role=role,
        setting=prefix,
        connection_string=given["connection"],
        table=given["table"],
        default_table=service.default_table,
        container=given["container"],
        database=given["database"],
        emulator_hosts=settings.emulator_hosts,
    )


def foreseen(error: Exception) -> BackupError:
    """The error itself if it is the app's own, else Unexpected; then its kind and its places in the code are logged.

    A foreign error's message may quote a record, so that is neither logged nor told.
    """
    if isinstance(error, BackupError):
        return error
    where = "; ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-5:])
    event("unexpected", level=logging.ERROR, error=type(error).__name__, at=where)
    return Unexpected(f"Unexpected {type(error).__name__}; what had been written stays, nothing else was changed.")
