"""SyncHistory: one entry a run, from its start, kept beside the backup."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import Any, TypeVar
from uuid import uuid4

from backup.core.errors import BadRequest, Interrupted
from backup.core.log import event
from backup.core.model import Run, Status, Trigger, Verb
from backup.core.timeline import Timeline
from backup.runs.history_entries import HISTORY, VERSION, asked_for, entry_of, run_of
from backup.runs.opening import NEWEST, NOTHING_KNOWN, Opening
from backup.stores import Sibling, Store

_INTERRUPTED = "The run was interrupted before its end: its process was stopped or lost its connection."
_OPEN_AT_ONCE = 100
_LOOKED_BACK = 1_000
EVERY_RUN = 1_000_000
"""More runs than a history has."""
_PAGE = 100

T = TypeVar("T")


class History:
    """The runs of one backup's table or container. Those of another in the same schema are never given.

    An entry of an earlier release does not say its place; those are `unplaced` until `place_runs` says it for them.
    """

    def __init__(self, backup: Store) -> None:
        self.backup = backup
        self.entries: Sibling = backup.sibling(HISTORY)

    @property
    def place(self) -> str:
        """What its runs are about."""
        return self.backup.catalog.qualified_name()

    def create(self) -> None:
        """Makes the table or container, or what it lacks, when it is missing."""
        self.entries.create()

    def opening(self, service: str) -> Opening:
        """What the service's runs are as one begins. Three queries. Raises ColumnMissing for an earlier release's
        table, and what else the store raises."""
        entries = self.entries.find(self.about(service), order_by="RunNumber", descending=True, limit=NEWEST)
        newest = list(filter(None, map(run_of, entries)))
        unplaced = self.entries.find(
            {"ServiceName": service, "Place": None},
            order_by="StartedAt",
            descending=True,
            limit=1,
            fields=("StartedAt", "SchemaVersion"),
        )
        began = unplaced[0]["StartedAt"] if unplaced else None
        return Opening(
            newest,
            len(entries) < NEWEST,
            self.open_runs(service),
            max(_all(int, "RunNumber", entries), default=0) + 1,
            bool(unplaced) and not (isinstance(began, datetime) and newest and began < newest[0].started_at),
            max(_all(int, "SchemaVersion", [*entries, *unplaced]), default=VERSION),
            _all(datetime, "SyncedAt", entries),
        )

    def save(self, run: Run) -> None:
        """Writes the run's entry as it stands; may be repeated."""
        self.entries.put([entry_of(run)])

    def add(self, run: Run) -> None:
        """Writes the entry of a run that ended before it began. It may be one while another goes on."""
        self.save(replace(run, place=self.place, number=self.next_number(run.service)))

    def next_number(self, service: str) -> int:
        """The number of the next run; the caller holds the lock, or shares it with another run."""
        found = self.entries.find(
            self.about(service), order_by="RunNumber", descending=True, limit=_PAGE, fields=("RunNumber",)
        )
        numbers = (entry["RunNumber"] for entry in found)
        return next((number for number in numbers if isinstance(number, int)), 0) + 1

    def change(self, run: Run, owners: Sequence[str | None], attempts: Sequence[str | None]) -> bool:
        """Writes the run's entry as it stands, if it belongs to one of these attempts and is in progress, or as it is
        to be already; returns whether it did. May be repeated."""
        fields = {name: value for name, value in entry_of(run).items() if name != HISTORY.key}
        statuses = list({Status.IN_PROGRESS.value, run.status.value})
        only_if = {"Owner": owners, "Attempt": attempts, "Status": statuses}
        return self.entries.change(run.sync_id, only_if, fields)

    def beat(self, sync_id: str, owner: str, attempts: Sequence[str], now: datetime, seconds: float) -> bool:
        """Notes that the run goes on; whether it is still one of these attempts' own. One try of so many seconds."""
        only_if = _of(owner, attempts)
        return self.entries.change(sync_id, only_if, {"HeartbeatAt": now}, seconds=seconds)

    def is_held(self, sync_id: str, owner: str, attempts: Sequence[str], transaction: Any = None) -> bool:
        """Whether the run is one of these attempts' own; in a transaction it stays so until its end."""
        return self.entries.holds(sync_id, _of(owner, attempts), transaction)

    def renew(self, sync_id: str, owner: str, attempts: Sequence[str], attempt: str, transaction: Any) -> bool:
        """Makes the run another attempt of the same owner's; whether it was one of these."""
        return self.entries.change(sync_id, _of(owner, attempts), {"Attempt": attempt}, transaction)

    def leave(self, sync_id: str, owner: str, attempts: Sequence[str]) -> bool:
        """Leaves the open run to whoever goes on with it; whether it was one of these attempts' own."""
        return self.entries.change(sync_id, _of(owner, attempts), {"Owner": None})

    def open_runs(self, service: str) -> Sequence[Run]:
        """The runs InProgress, newest first."""
        return self.runs(service, _OPEN_AT_ONCE, Status=Status.IN_PROGRESS.value)

    def with_scratch(self, service: str) -> list[Run]:
        """The runs whose scratch place may be there."""
        found = self.entries.find(self.about(service), order_by="Scratch", above="", limit=_OPEN_AT_ONCE)
        return list(filter(None, map(run_of, found)))

    def close_interrupted(self, run: Run, now: datetime) -> bool:
        """Ends as Failed what a dead run left InProgress; whether nobody has taken it over meanwhile."""
        event("sync.interrupted", level=logging.WARNING, service=run.service, sync_id=run.sync_id)
        closed = run.ended(Status.FAILED, now, run.counts, _INTERRUPTED)
        closed = replace(closed, error_kind=Interrupted.__name__, attempt=str(uuid4()))
        return self.change(closed, [run.owner], [run.attempt, closed.attempt])

    def last_synced(self, service: str) -> Run | None:
        """The newest sync that completed."""
        found = self.runs(service, 1, Status=Status.COMPLETED.value, DryRun=False, Trigger=asked_for(Verb.SYNC))
        return next(iter(found), None)

    def first_synced(self, service: str) -> Run | None:
        """The oldest sync that completed."""
        where = self.about(service) | {"Status": Status.COMPLETED.value, "DryRun": False}
        where |= {"Trigger": asked_for(Verb.SYNC)}
        found = map(run_of, self.entries.find(where, order_by="RunNumber", limit=_PAGE))
        return next(filter(None, found), None)

    def has_synced(self, service: str, since: datetime) -> bool:
        """Whether a sync has ended since then, well or not."""
        where = self.about(service) | {"DryRun": False, "Trigger": asked_for(Verb.SYNC)}
        return bool(self.entries.find(where, order_by="CompletedAt", above=since, limit=1, fields=("SyncId",)))

    def last_verified(self, service: str) -> Run | None:
        """The newest verify or drill that came to its end, whatever it found."""
        triggers = asked_for(Verb.VERIFY, Verb.DRILL)
        found = self.runs(service, 1, Status=Status.COMPLETED.value, Trigger=triggers)
        return next(iter(found), None)

    def newest_syncs(self, service: str, limit: int, *, ended: bool = False) -> Sequence[Run]:
        """Up to `limit` syncs, newest first, dry runs left out; only those that have `ended`, if so asked."""
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
        """The service's run with this SyncId."""
        return next(iter(self.runs(service, 1, SyncId=sync_id)), None)

    def unplaced(self, service: str, **where: Any) -> list[Run]:
        """The service's runs whose entries do not say what they are about, in the order in which they began."""
        found = self.entries.find(
            {**where, "ServiceName": service, "Place": None}, order_by="StartedAt", limit=EVERY_RUN
        )
        return list(filter(None, map(run_of, found)))

    def refuse_unplaced(self, service: str, moment: datetime) -> None:
        """Raises BadRequest for a moment after which runs ended that may be about this place or not."""
        if any(run.completed_at is None or run.completed_at > moment for run in self.unplaced(service)):
            raise BadRequest(
                f"The state as of {moment:%Y-%m-%d %H:%M:%S %Z} is not known: an earlier release has made runs since "
                "that do not say which table or container they are about, and there are copies of several.",
                hint="Choose a later time.",
            )

    def place_runs(self, runs: Sequence[Run]) -> None:
        """Says of these runs, which had no place, that they are about this one; numbers them in their order."""
        first = self.next_number(runs[0].service) if runs else 1
        self.entries.put(
            [entry_of(replace(run, place=self.place, number=number)) for number, run in enumerate(runs, first)]
        )

    def timeline(self, service: str, now: datetime) -> Timeline:
        """When the service's runs took place. Reads a few fields of every entry."""
        found = self.entries.find(
            self.about(service), order_by="SyncId", limit=EVERY_RUN, fields=("SyncId", "RunNumber", "StartedAt")
        )
        return Timeline(
            (
                Run(service, Trigger.CLI, False, entry["StartedAt"], entry["SyncId"], number=entry["RunNumber"])
                for entry in found
                if isinstance(entry["StartedAt"], datetime) and isinstance(entry["RunNumber"], int)
            ),
            now,
        )

    def since(self, service: str, moment: datetime, timeline: Timeline, *, restores: bool = False) -> list[Run]:
        """The runs that ended after this moment and may have changed the backup, newest first; with `restores`, those
        that may have changed the source."""
        counts = _is_restore if restores else _has_changed
        found: list[Run] = []
        below = None
        while page := self.runs(service, _PAGE, below=below):
            for run in filter(counts, page):
                if timeline.ended(run) > moment:
                    found.append(run)
                elif run.counts.processed or run.status is not Status.FAILED:  # else it may never have begun
                    return found  # so did all before it, for one begins when another has ended
            below = page[-1].number
        return found

    def later(self, run: Run, opening: Opening = NOTHING_KNOWN) -> list[Run]:
        """The runs of its service that began after it, have ended and may have changed the backup, newest first; asked
        for only where the opening does not know them all."""
        known = opening.after(run)
        runs = self.runs(run.service, EVERY_RUN, above=run.number) if known is None else known
        return list(filter(_has_changed, runs))

    def columns_to_fill(self, service: str, opening: Opening, shared: Collection[str]) -> set[str]:
        """Those of the columns that both sides have whose old rows have not their source's values.

        Runs added them and did not live to fill them, or the source had lost them at the last sync and has them again.
        """
        columns: set[str] = set()
        for run in chain(opening.newest, () if opening.is_whole else self._older(service, opening.newest)):
            if run.dry_run:
                continue
            columns.update(run.removed_columns)
            if is_synced(run):
                break
            columns.update(run.added_columns)
        known = {name.lower() for name in columns}
        return {name for name in shared if name.lower() in known}

    def about(self, service: str) -> dict[str, Any]:
        return {"ServiceName": service, "Place": self.place}

    def _older(self, service: str, runs: Sequence[Run]) -> Iterator[Run]:
        """The runs before these, newest first; they are looked for when the first is asked for."""
        yield from self.runs(service, _LOOKED_BACK, below=runs[-1].number if runs else None)

    def runs(
        self, service: str, limit: int, above: int | None = None, below: int | None = None, **where: Any
    ) -> list[Run]:
        where |= self.about(service)
        asked = limit
        while True:
            found = self.entries.find(
                where, order_by="RunNumber", descending=True, above=above, below=below, limit=asked
            )
            runs = list(filter(None, map(run_of, found)))
            if len(runs) >= limit or len(found) < asked:
                return runs[:limit]
            asked *= 2  # some could not be read


def is_synced(run: Run) -> bool:
    """Whether it is a sync that completed, and no dry run."""
    return run.verb is Verb.SYNC and run.status is Status.COMPLETED and not run.dry_run


def _all(kind: type[T], name: str, entries: Sequence[Mapping[str, Any]]) -> list[T]:
    """The values of one column, but for those of another type: not every database holds a column to its own."""
    return [entry[name] for entry in entries if isinstance(entry[name], kind)]


def _has_changed(run: Run) -> bool:
    return run.may_change_backup and run.completed_at is not None


def _is_restore(run: Run) -> bool:
    return run.verb is Verb.RESTORE and not run.dry_run and run.completed_at is not None


def _of(owner: str, attempts: Sequence[str]) -> dict[str, Sequence[Any]]:
    return {"Owner": [owner], "Attempt": list(attempts), "Status": [Status.IN_PROGRESS.value]}
