"""SyncHistory: one entry a run, from its start, kept beside the backup."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import uuid4

from backup.core.errors import BadRequest, Interrupted, Undecoded
from backup.core.log import event
from backup.core.run_values import Run, Status, Trigger, Verb
from backup.core.timeline import Timeline
from backup.runs.clock import ServerTime, elapsed
from backup.runs.history_entries import HISTORY, VERSION, Runs, asked_for, entry_of, is_out_of_range, run_of
from backup.runs.opening import NEWEST, NOTHING_KNOWN, Opening
from backup.stores import Sibling, Store
from backup.stores.sibling import Look

_INTERRUPTED = "The run was interrupted before its end: its process was stopped or lost its connection."
_OPEN_AT_ONCE = 100
EVERY_RUN = 1_000_000
"""A limit that no history reaches."""
_PAGE = 100

SYNCED: dict[str, Any] = {
    "Status": Status.COMPLETED.value,
    "DryRun": False,
    "Trigger": asked_for(Verb.SYNC),
    "RemainingCount": None,
}
"""The condition of the entries of syncs for which `is_synced` is true."""

T = TypeVar("T")


class History:
    """The runs of one backup's table or container. It never returns the runs of another one in the same schema.

    An entry of an earlier release does not say its place. It is `unplaced` until `place_runs` writes its place.
    """

    def __init__(self, backup: Store) -> None:
        self.backup = backup
        self.entries: Sibling = backup.sibling(HISTORY)

    @property
    def place(self) -> str:
        """The table or container that its runs are about."""
        return self.backup.catalog.qualified_name()

    def create(self) -> None:
        """Creates the table or container of SyncHistory, or the columns that it lacks."""
        self.entries.create()

    def opening(self, service: str) -> Opening:
        """The state of the service's runs, as a run reads it when it begins. Costs one query; on Cosmos DB three.
        Raises ColumnMissing for a table of an earlier release, and what the store raises."""
        about = self.about(service)
        in_progress = {**about, "Status": Status.IN_PROGRESS.value}
        (entries, unplaced, still_open), at = self.entries.look(
            [
                Look(about, "RunNumber", NEWEST, descending=True),
                Look({"ServiceName": service, "Place": None}, "StartedAt", 1, descending=True),
                Look(in_progress, "RunNumber", _OPEN_AT_ONCE, descending=True),
            ]
        )
        server_time = None if at is None else ServerTime(at, elapsed())
        newest = Runs(entries)
        began = unplaced[0]["StartedAt"] if unplaced else None
        with_scratch = [entry for entry in (*entries, *still_open) if entry["Scratch"] is not None]
        return Opening(
            newest,
            len(entries) < NEWEST,
            # By the time that a server reads an entry, its run may have ended.
            [run for run in filter(None, map(run_of, still_open)) if run.status is Status.IN_PROGRESS],
            next(_each(int, "RunNumber", entries), 0) + 1,
            bool(unplaced) and not (isinstance(began, datetime) and newest and began < newest[0].started_at),
            max(_each(int, "SchemaVersion", (*entries, *unplaced)), default=VERSION),
            [*_each(datetime, "SyncedAt", entries)],
            server_time,
            list({run.sync_id: run for run in filter(None, map(run_of, with_scratch))}.values()),
        )

    def save(self, run: Run, *, new: bool = False) -> None:
        """Writes the run's entry as it stands; may be repeated. `new`: this is its first time."""
        self._write(run, lambda entry: self.entries.put([entry], new=new))

    def add(self, run: Run) -> None:
        """Writes the entry of a run that failed before it could begin. Another run may be in progress."""
        self.save(replace(run, place=self.place, number=self.next_number(run.service)))

    def next_number(self, service: str) -> int:
        """The number of the next run. A caller without the lock may get the number of another run."""
        entries = self.entries.find(
            self.about(service), order_by="RunNumber", descending=True, limit=_PAGE, fields=("RunNumber",)
        )
        return next(_each(int, "RunNumber", entries), 0) + 1

    def change(self, run: Run, owners: Sequence[str | None], attempts: Sequence[str | None]) -> bool:
        """Writes the run's entry as it stands, if the entry belongs to one of these owners and attempts, and its status
        is InProgress or already the new one. Returns whether it wrote. May be repeated."""
        statuses = list({Status.IN_PROGRESS.value, run.status.value})
        only_if = {"Owner": owners, "Attempt": attempts, "Status": statuses}

        def write(entry: Mapping[str, Any]) -> bool:
            fields = {name: value for name, value in entry.items() if name != HISTORY.key}
            return self.entries.change(run.sync_id, only_if, fields)

        return self._write(run, write)

    def _write(self, run: Run, write: Callable[[dict[str, Any]], T]) -> T:
        """Writes the run's entry. Sentences that quote a key of the source may have characters that the backup's
        encoding lacks; an entry that cannot be written for these has all its sentences in ASCII."""
        entry = entry_of(run)
        try:
            return write(entry)
        except Undecoded:
            texts = {name: entry[name] or "" for name in ("Notes", "ErrorMessage")}
            in_ascii = {name: text.encode("ascii", "backslashreplace").decode() for name, text in texts.items()}
            return write(entry | {name: text or None for name, text in in_ascii.items()})

    def beat(self, sync_id: str, owner: str, attempts: Sequence[str], now: datetime, seconds: float) -> bool:
        """Writes a heartbeat, if the run still belongs to one of these attempts; returns whether it does. Tries once,
        for at most `seconds`."""
        only_if = _of(owner, attempts)
        return self.entries.change(sync_id, only_if, {"HeartbeatAt": now}, seconds=seconds)

    def is_owned(self, sync_id: str, owner: str, attempts: Sequence[str], transaction: Any = None) -> bool:
        """Whether the run belongs to one of these attempts. In a transaction this stays true until its end."""
        return self.entries.holds(sync_id, _of(owner, attempts), transaction)

    def renew(self, sync_id: str, owner: str, attempts: Sequence[str], attempt: str, transaction: Any) -> bool:
        """Gives the run to another attempt of the same owner; returns whether it belonged to one of `attempts`."""
        return self.entries.change(sync_id, _of(owner, attempts), {"Attempt": attempt}, transaction)

    def leave(self, sync_id: str, owner: str, attempts: Sequence[str]) -> bool:
        """Leaves the open run without an owner, so that another call may resume it; returns whether it belonged to one
        of these attempts."""
        return self.entries.change(sync_id, _of(owner, attempts), {"Owner": None})

    def open_runs(self, service: str) -> Sequence[Run]:
        """The runs that are InProgress, newest first; at most a hundred."""
        return self.runs(service, _OPEN_AT_ONCE, Status=Status.IN_PROGRESS.value)

    def rivals(self, run: Run) -> list[Run]:
        """The other runs of its service that are InProgress, or have its number or a greater one; at most a hundred of
        each. Costs one query; on Cosmos DB two."""
        about = self.about(run.service)
        seen, _ = self.entries.look(
            [
                Look(about | {"Status": Status.IN_PROGRESS.value}, "RunNumber", _OPEN_AT_ONCE, descending=True),
                Look(about, "RunNumber", _OPEN_AT_ONCE, descending=True, above=(run.number or 0) - 1),
            ]
        )
        runs = {other.sync_id: other for entries in seen for other in filter(None, map(run_of, entries))}
        return [other for other in runs.values() if other.sync_id != run.sync_id]

    def with_scratch(self, service: str) -> list[Run]:
        """The runs whose scratch place may still exist; at most a hundred."""
        entries = self.entries.find(self.about(service), order_by="Scratch", above="", limit=_OPEN_AT_ONCE)
        return list(filter(None, map(run_of, entries)))

    def close_interrupted(self, run: Run, now: datetime) -> Run | None:
        """Writes Failed into the entry that a dead run left InProgress. Returns the run as it ended; None when another
        process has taken the run over meanwhile."""
        event("sync.interrupted", level=logging.WARNING, service=run.service, sync_id=run.sync_id)
        closed = run.ended(Status.FAILED, now, run.counts, _INTERRUPTED)
        closed = replace(closed, error_kind=Interrupted.__name__, attempt=str(uuid4()))
        return closed if self.change(closed, [run.owner], [run.attempt, closed.attempt]) else None

    def last_synced(self, service: str) -> Run | None:
        """The newest sync that completed and left no changes for a later run."""
        return next(iter(self.runs(service, 1, **SYNCED)), None)

    def first_synced(self, service: str) -> Run | None:
        """The oldest sync that completed and left no changes for a later run."""
        runs = map(run_of, self.entries.find(self.about(service) | SYNCED, order_by="RunNumber", limit=_PAGE))
        return next(filter(None, runs), None)

    def has_synced(self, service: str, since: datetime, until: datetime) -> bool:
        """Whether a sync has ended between these times, as Completed or Failed."""
        where = self.about(service) | {"DryRun": False, "Trigger": asked_for(Verb.SYNC)}
        return bool(
            self.entries.find(where, order_by="CompletedAt", above=since, below=until, limit=1, fields=("SyncId",))
        )

    def last_verified(self, service: str) -> Run | None:
        """The newest verify or drill that completed, with or without differences."""
        triggers = asked_for(Verb.VERIFY, Verb.DRILL)
        runs = self.runs(service, 1, Status=Status.COMPLETED.value, Trigger=triggers)
        return next(iter(runs), None)

    def newest_syncs(self, service: str, limit: int, *, ended: bool = False) -> Sequence[Run]:
        """Up to `limit` syncs, newest first, without dry runs; with `ended` only those that are Completed or Failed."""
        where: dict[str, Any] = {"DryRun": False, "Trigger": asked_for(Verb.SYNC)}
        if ended:
            where["Status"] = sorted((Status.COMPLETED.value, Status.FAILED.value))
        return self.runs(service, limit, **where)

    def latest(self, service: str, limit: int) -> Sequence[Run]:
        """Up to `limit` runs of the service, newest first."""
        return self.runs(service, limit)

    def newest_verify(self, service: str) -> Run | None:
        """The newest verify or drill, whether it has ended or not."""
        return next(iter(self.runs(service, 1, Trigger=asked_for(Verb.VERIFY, Verb.DRILL))), None)

    def get(self, service: str, sync_id: str) -> Run | None:
        """The service's run with this SyncId; None if there is no such run."""
        return next(iter(self.runs(service, 1, SyncId=sync_id)), None)

    def unplaced(self, service: str, **where: Any) -> list[Run]:
        """The service's runs whose entries do not say their place, in the order in which they began."""
        entries = self.entries.find(
            {**where, "ServiceName": service, "Place": None}, order_by="StartedAt", limit=EVERY_RUN
        )
        return list(filter(None, map(run_of, entries)))

    def refuse_unplaced(self, service: str, moment: datetime) -> None:
        """Raises BadRequest when a run that ended after the moment does not say whether it is about this place."""
        if any(run.completed_at is None or run.completed_at > moment for run in self.unplaced(service)):
            raise BadRequest(
                f"The state as of {moment:%Y-%m-%d %H:%M:%S %Z} is not known: runs of an earlier release ended after "
                "that time. Their entries do not say which table or container they are about, and the backup's "
                "database has copies of several. Nothing was changed.",
                hint="Choose a later time.",
            )

    def place_runs(self, runs: Sequence[Run]) -> None:
        """Writes this place into the entries of these runs, which had none, and numbers them in their order."""
        first = self.next_number(runs[0].service) if runs else 1
        self.entries.put(
            [entry_of(replace(run, place=self.place, number=number)) for number, run in enumerate(runs, first)]
        )

    def timeline(self, service: str, now: datetime) -> Timeline:
        """The order and the times of the service's runs. Reads a few fields of every entry."""
        entries = self.entries.find(
            self.about(service), order_by="SyncId", limit=EVERY_RUN, fields=("SyncId", "RunNumber", "StartedAt")
        )
        return Timeline(
            (
                Run(service, Trigger.CLI, False, entry["StartedAt"], entry["SyncId"], number=entry["RunNumber"])
                for entry in entries
                if isinstance(entry["StartedAt"], datetime) and isinstance(entry["RunNumber"], int)
                if not any(map(is_out_of_range, (entry["StartedAt"], entry["RunNumber"])))
            ),
            now,
        )

    def since(self, service: str, moment: datetime, timeline: Timeline, *, restores: bool = False) -> list[Run]:
        """The runs that ended after this moment and may have changed the backup, newest first; with `restores`, those
        that may have changed the source."""
        is_wanted = _is_restore if restores else _has_changed
        ended: list[Run] = []
        below = None
        while page := self.runs(service, _PAGE, below=below):
            for run in filter(is_wanted, page):
                if timeline.ended(run) > moment:
                    ended.append(run)
                elif run.counts.processed or run.status is not Status.FAILED:  # else it may never have begun
                    return ended  # a run begins when the run before it has ended, so all older runs ended before, too
            below = page[-1].number
        return ended

    def later(self, run: Run, opening: Opening = NOTHING_KNOWN, *, restores: bool = False) -> list[Run]:
        """The runs of its service that began after it, have ended and may have changed the backup, newest first; with
        `restores`, those that may have changed the source. Reads them only if the opening does not have them all."""
        later_runs = opening.after(run)
        if later_runs is None:
            later_runs = self.runs(run.service, EVERY_RUN, above=run.number)
        return list(filter(_is_restore if restores else _has_changed, later_runs))

    def from_synced(self, service: str, run: Run) -> list[Run]:
        """The newest sync before this run that completed, and the runs after it that may have changed the backup,
        newest first."""
        synced = self.runs(service, 1, below=run.number, **SYNCED)
        return [*self.later(synced[0]), synced[0]] if synced else []

    def about(self, service: str) -> dict[str, Any]:
        """The condition of the entries of the service's runs about this place."""
        return {"ServiceName": service, "Place": self.place}

    def runs(
        self, service: str, limit: int, above: int | None = None, below: int | None = None, **where: Any
    ) -> list[Run]:
        """Up to `limit` runs with these values in their entries, newest first. `above` and `below` limit RunNumber."""
        where |= self.about(service)
        size = limit
        while True:
            entries = self.entries.find(
                where, order_by="RunNumber", descending=True, above=above, below=below, limit=size
            )
            runs = list(filter(None, map(run_of, entries)))
            if len(runs) >= limit or len(entries) < size:
                return runs[:limit]
            size *= 2  # some entries could not be read


def is_synced(run: Run) -> bool:
    """Whether the run is a sync that completed and left no changes for a later run, and not a dry run."""
    return run.verb is Verb.SYNC and run.status is Status.COMPLETED and not run.dry_run and not run.is_partial


def _each(kind: type[T], name: str, entries: Iterable[Mapping[str, Any]]) -> Iterator[T]:
    """The values of one column, without those that cannot be read: SQLite and Cosmos DB keep values of any type."""
    for entry in entries:
        value = entry[name]
        if isinstance(value, kind) and not is_out_of_range(value):
            yield value


def _has_changed(run: Run) -> bool:
    return run.may_change_backup and run.completed_at is not None


def _is_restore(run: Run) -> bool:
    return run.verb is Verb.RESTORE and not run.dry_run and run.completed_at is not None


def _of(owner: str, attempts: Sequence[str]) -> dict[str, Sequence[Any]]:
    return {"Owner": [owner], "Attempt": list(attempts), "Status": [Status.IN_PROGRESS.value]}
