"""A service: one named thing to back up, its two sides and its rules. The presets for customers and orders."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar

from backup.drill import drill
from backup.entries import Kept
from backup.errors import BackupError, BadRequest, ConfigError
from backup.follow import sync_with_schema
from backup.guard import Guard
from backup.history import History
from backup.locks import Lock
from backup.log import event
from backup.models import Action, Now, Record, Run, Trigger, utc_now
from backup.policy import Policy
from backup.recorded import WHOLE_TURN, Outcome, Progress, Recorder, Session, Turn, foreseen, no_progress
from backup.recycle import RecycleBin
from backup.restore import restore
from backup.restoring import Wish
from backup.settings import Settings
from backup.stores import Limits, Rules, Side, SideName, Store, open_store
from backup.undo import undo
from backup.verify import Depth, verify


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
        self._policy = Policy(
            Guard(**settings.guard(self.name)),
            settings.on_new_column,
            settings.recycle_days,
            settings.overlap_seconds,
            settings.full_every_days,
            settings.max_failed_records,
        )
        self._recorder = Recorder(self.name, self._policy, lock, limits, now)

    def _open(self, side: Side) -> Store:
        return open_store(side, self.rules, self._limits)

    def stores(self) -> AbstractContextManager[tuple[Store, Store]]:
        """Source and backup, closed at the end. Raises ConfigError when they cannot be the two sides of one service."""
        return self._sides(self._source)

    @contextmanager
    def _sides(self, place: Side) -> Iterator[tuple[Store, Store]]:
        source, backup = self._open(place), self._open(self._backup)
        _refuse_same(source, place.setting, backup, self._backup.setting)
        try:
            yield source, backup
        finally:
            source.close()
            backup.close()

    def sync(
        self,
        trigger: Trigger,
        options: Options = NO_OPTIONS,
        progress: Progress = no_progress,
        turn: Turn = WHOLE_TURN,
    ) -> Outcome:
        """Makes the backup equal to its source. Like every verb that gives an Outcome, it never raises an error.

        A sync that was left open is gone on with, and then covers what changed since as well. When the turn's time is
        up the outcome's run is in progress, and `resume` goes on with it.
        """
        run = self._new_run(trigger, options.dry_run, options.allow_mass_delete, forced=options.force)
        return self._recorder.run(run, self.stores, sync_with_schema, progress, turn)

    def resume(self, trigger: Trigger, turn: Turn = WHOLE_TURN) -> Outcome | None:
        """Goes on with the sync that was left open, from its checkpoint; None if there is none."""
        return self._recorder.resume(self._new_run(trigger), self.stores, sync_with_schema, turn=turn)

    def verify(self, depth: Depth, *, drilled: bool = False) -> Outcome:
        """Compares source and backup, or (drilled) the source and what a restore of the backup gives.

        Takes no lock and writes nothing but its entry. An outcome without an error may be one that is not verified.
        """

        def work(session: Session) -> None:
            try:
                if drilled:
                    drill(session)
                else:
                    session.backup.drift(session.source, "ignore")
                    verify(session.source, session.backup, depth, session.report)
            finally:
                session.tally.proof = session.report.proof

        return self._recorder.run(self._new_run(Trigger.VERIFY), self.stores, work, alone=False)

    def undo(
        self, sync_id: str, *, through: bool = False, dry_run: bool = False, progress: Progress = no_progress
    ) -> Outcome:
        """Makes the backup what it was before that run."""
        run, undone = self._new_run(Trigger.UNDO, dry_run), sync_id.lower()
        return self._recorder.run(run, self.stores, lambda session: undo(session, undone, through=through), progress)

    def restore(
        self, wish: Wish, options: Options = NO_OPTIONS, to: str | None = None, progress: Progress = no_progress
    ) -> Outcome:
        """Writes the backup's state into the source, or into the database of the connection string `to`."""

        place = self._source
        if to is not None:  # then the source, which may be gone for good, has no part in it
            place = replace(self._source, role="target place", setting="--to", connection_string=to)

        def work(session: Session) -> None:
            restore(session, session.source, wish, elsewhere=to is not None)

        run = self._new_run(Trigger.RESTORE, options.dry_run, options.allow_mass_delete)
        return self._recorder.run(run, lambda: self._sides(place), work, progress)

    def _new_run(
        self, trigger: Trigger, dry_run: bool = False, allow_mass_delete: bool = False, forced: bool = False
    ) -> Run:
        now = self._now()
        return Run(self.name, trigger, forced, now, dry_run=dry_run, allow_mass_delete=allow_mass_delete)

    def show(self, key: str, at: datetime | None = None) -> Shown:
        """One record's past. Raises BadRequest for a key that is none or a time beyond the bin; the stores' errors."""
        with self.stores() as (_, backup):
            asked = backup.key_from(key)
            recycled = RecycleBin(backup, self.name)
            record = next((i.record for images in backup.images([asked], Action.UPDATED) for i in images), None)
            if at is not None and at < self._policy.kept_since(self._now()):
                raise BadRequest(f"What was at {at:%Y-%m-%d %H:%M:%S %Z} is not known any more, after RecycleDays.")
            if at is not None and (first := recycled.first_after([asked], at).get(asked)):
                record = first.record
            return Shown(backup.key_to_json(asked), record, recycled.of_keys([asked]))

    def purge(self) -> int:
        """Deletes from the recycle bin what is older than RecycleDays; returns how many. Raises Locked during a run."""
        with self.stores() as (_, backup), self._lock(self.name, backup.location):
            return RecycleBin(backup, self.name).purge(self._policy.kept_since(self._now()))

    def has_run(self, sync_id: str) -> bool:
        """Whether the run is one of this service's."""
        with self.stores() as (_, backup):
            return History(backup).get(self.name, sync_id.lower()) is not None

    def last_verified(self) -> Run | None:
        """The newest verify."""
        with self.stores() as (_, backup):
            return History(backup).newest(self.name, Trigger.VERIFY)

    def initialize(self) -> None:
        """Makes the backup's database, schema, table or container, and SyncHistory, where missing. Safe to repeat."""
        with self.stores() as (source, backup):
            backup.initialize(source)
            History(backup).create()
            RecycleBin(backup, self.name).create()
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


def _refuse_same(one: Store, setting: str, other: Store, other_setting: str) -> None:
    if one.kind != other.kind:
        raise ConfigError(
            f"{setting} is {one.kind} and {other_setting} is {other.kind}; an exact copy needs two of one kind.",
            hint="Give both sides the same product.",
        )
    if one.location.lower() == other.location.lower():  # no two tables are worth telling apart by case alone
        raise ConfigError(
            f"{setting} and {other_setting} name the same place: {one.location}.",
            hint="A backup beside nothing but itself is none: name another database, table or container.",
        )
