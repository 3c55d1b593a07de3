"""A run as a value: its verb, who asked for it, where it stands, what it counted and proved. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Self
from uuid import uuid4

KEEPS_DELETED = "+keep"
"""The end of a run's `selection` if the copies of records that the source deleted stay in the backup."""


class Status(StrEnum):
    """Where a run stands."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"


class Verb(StrEnum):
    """What a run does. A purge is not a run: it changes no record of the backup. Only the log says what it deleted."""

    SYNC = "sync"
    UNDO = "undo"
    RESTORE = "restore"
    VERIFY = "verify"
    DRILL = "drill"


class Trigger(StrEnum):
    """Who asked for a run: an HTTP request, the timer, the command line (or another program in Python), or a job."""

    HTTP = "http"
    TIMER = "timer"
    CLI = "cli"
    JOB = "job"


@dataclass(frozen=True)
class Counts:
    """How many records a run inserted, updated, deleted and skipped in the backup. `failed` ones were set aside.
    `remaining` ones it left as they were, because its limit of changes was used."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    skipped: int = 0
    failed: int = 0
    remaining: int = 0

    @property
    def processed(self) -> int:
        """How many records were written: inserted + updated + deleted."""
        return self.inserted + self.updated + self.deleted

    @property
    def seen(self) -> int:
        """How many records the run has settled so far, with the skipped and the failed ones; not those that remain."""
        return self.processed + self.skipped + self.failed

    def __add__(self, other: Counts) -> Counts:
        """Returns the sums of both counts."""
        return self.plus(**vars(other))

    def less(self, other: Counts) -> Counts:
        """Returns the differences of both counts, none below zero."""
        return Counts(**{name: max(0, count - getattr(other, name)) for name, count in vars(self).items()})

    def plus(self, **counts: int) -> Counts:
        """Returns these counts with the `counts` of the same names added."""
        return replace(self, **{name: getattr(self, name) + count for name, count in counts.items()})


_CHECKSUMS = 1 << 128


class Total(NamedTuple):
    """Number and checksum of one side's stamps. Both sides of a run have the same cut of the keys, on which it may
    depend. A checksum of None: the records were only counted."""

    records: int = 0
    checksum: int | None = 0

    def plus(self, other: Total) -> Total:
        """Returns the total of two parts together."""
        is_counted = self.checksum is None or other.checksum is None
        checksum = None if is_counted else ((self.checksum or 0) + (other.checksum or 0)) % _CHECKSUMS
        return Total(self.records + other.records, checksum)


NOTHING = Total()


@dataclass(frozen=True)
class Proof:
    """The totals of both sides when they were compared.

    `differing` records differ for good. `in_flight` records were being written in the source meanwhile: no error.
    """

    source: Total = NOTHING
    backup: Total = NOTHING
    differing: int = 0
    in_flight: int = 0

    def __add__(self, other: Proof) -> Proof:
        """Returns the proof of two parts together."""
        return Proof(
            self.source.plus(other.source),
            self.backup.plus(other.backup),
            self.differing + other.differing,
            self.in_flight + other.in_flight,
        )

    @classmethod
    def from_json(cls, proof: Mapping[str, Any]) -> Self:
        """Returns the proof that was written as `asdict` gives it."""
        return cls(Total(*proof["source"]), Total(*proof["backup"]), proof["differing"], proof["in_flight"])

    @property
    def only_counts(self) -> bool:
        """Whether both sides were only counted, so that nothing is known of what their records have."""
        return self.source.checksum is None

    @property
    def verified(self) -> bool:
        """Whether all records of both sides are proven equal, except those in flight."""
        return self.differing == 0 and not self.only_counts


@dataclass(frozen=True)
class Run:
    """One execution of one verb on one service; one SyncHistory entry. Times are aware UTC.

    - `trigger`: None if an entry of an earlier release does not say who asked for an undo, a restore or a verify.
    - `added_columns`: those the run had to fill. `removed_columns`: those that the source no longer had.
    - `undone`: the runs that an undo takes back. `notes`: what else people should know about the run, a line each.
    - `percent`: how much of the source the run has walked; `checkpoint`: where another process may resume. Both only
      while it is in progress.
    - `watermark`: up to where the source's changes are in the backup. `request_charge`: the cost of the run in request
      units. Both for Cosmos DB alone.
    - `place`: the table or container of the backup. `number`: counts the runs of one service and place from 1, in the
      order in which they began, whatever their clocks said.
    - `owner`: the process that an open run belongs to. `attempt`: which of its calls. `heartbeat_at`: when it last said
      that it is alive.
    - `failures`: the first records that were set aside: the key as JSON, and the reason.
    - `scratch`: the place that a drill made and drops.
    - `limit`: how many changes a sync may make at most; None: no limit.
    - `masks`: the mark of the masks of a sync's copies; None: no masks.
    - `selection`: the mark of the filter and the columns of a sync; None: an earlier release made the run.
    - `read_as_of`: the moment as of which a sync of a consistent set has read all of its source, by the clock of the
      source's server; None for any other run.
    """

    service: str
    trigger: Trigger | None
    forced: bool
    started_at: datetime
    sync_id: str = field(default_factory=lambda: str(uuid4()))
    verb: Verb = Verb.SYNC
    status: Status = Status.PENDING
    counts: Counts = Counts()
    completed_at: datetime | None = None
    error: str | None = None
    error_kind: str | None = None
    dry_run: bool = False
    allow_mass_delete: bool = False
    added_columns: tuple[str, ...] = ()
    removed_columns: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()
    proof: Proof | None = None
    notes: tuple[str, ...] = ()
    percent: int | None = None
    checkpoint: str | None = None
    watermark: str | None = None
    request_charge: float | None = None
    place: str | None = None
    number: int | None = None
    owner: str | None = None
    attempt: str | None = None
    heartbeat_at: datetime | None = None
    failures: tuple[tuple[str, str], ...] = ()
    scratch: str | None = None
    limit: int | None = None
    masks: str | None = None
    selection: str | None = None
    read_as_of: datetime | None = None

    def takes_over(self, open_run: Run) -> bool:
        """Returns whether this new run may resume the open one: both are syncs without a limit, and the open one does
        no less."""
        return (
            self.verb is Verb.SYNC
            and open_run.verb is Verb.SYNC
            and self.limit is None
            and open_run.limit is None
            and open_run.checkpoint is not None
            and not self.dry_run
            and not open_run.dry_run
            and self.allow_mass_delete == open_run.allow_mass_delete
            and (open_run.forced or not self.forced)
        )

    @property
    def may_change_backup(self) -> bool:
        """Whether its verb writes to the backup's records."""
        return not self.dry_run and self.verb in (Verb.SYNC, Verb.UNDO)

    @property
    def only_compares(self) -> bool:
        """Whether its verb changes neither source nor backup, so that it needs no lock."""
        return self.verb in (Verb.VERIFY, Verb.DRILL)

    @property
    def is_partial(self) -> bool:
        """Whether the run leaves changes for a later run, or may still do so: its limit was used, or it has one and has
        not ended."""
        return self.limit is not None and (self.completed_at is None or self.counts.remaining > 0)

    @property
    def verified(self) -> bool | None:
        """Whether the run proved its result; not if changes remain. None while it runs, and for dry runs, undos and
        restores."""
        if self.dry_run or self.completed_at is None or self.verb in (Verb.UNDO, Verb.RESTORE):
            return None
        return (
            self.status is Status.COMPLETED and not self.is_partial and self.proof is not None and self.proof.verified
        )

    @property
    def duration_ms(self) -> int | None:
        """Milliseconds from start to end; None while it runs."""
        if self.completed_at is None:
            return None
        return round((self.completed_at - self.started_at).total_seconds() * 1000)

    def ended(self, status: Status, now: datetime, counts: Counts, error: str | None = None) -> Run:
        """Returns this run as it is at its end."""
        end = replace(self, status=status, completed_at=now, counts=counts, error=error)
        return replace(end, percent=None, checkpoint=None)
