"""The values every other module speaks in: stamps, changes, runs and their results. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple
from uuid import uuid4

Key = tuple[Any, ...]
"""What identifies a record: its primary-key values in key order, or (partition key as JSON, id)."""

Record = Mapping[str, Any]
"""A whole row or document by column or property name, as its own store reads it."""

SideName = Literal["source", "backup"]
SIDES: tuple[SideName, SideName] = ("source", "backup")

Now = Callable[[], datetime]
"""The clock, passed in; returns aware UTC."""

StillHeld = Callable[[], None]
"""Asked between batches; raises LockLost once the run's lock is not held any more."""


def utc_now() -> datetime:
    """The present moment, aware, UTC."""
    return datetime.now(UTC)


class Version(NamedTuple):
    """What tells whether a record changed.

    `value` are the version fields in the service's order; `None` in first place means the record carries no version of
    its own. `etag` is the server's mark of the last write where the store has one: on the source its own, on the backup
    the one recorded when the copy was made; `None` where nothing was recorded.
    """

    value: tuple[Any, ...]
    etag: str | None = None

    @property
    def is_missing(self) -> bool:
        """Whether the record carries no version of its own, or the service has no version fields."""
        return not self.value or self.value[0] is None


Stamps = dict[Key, Version]


@dataclass(frozen=True)
class Unread:
    """What stands in place of a stamp's version where the stamp could not be read, and why. `of_key`: where not even
    the key could, which then names the record and finds none."""

    reason: str
    of_key: bool = False


def unread_in(stamps: Stamps) -> dict[Key, Unread]:
    """Those of the stamps that could not be read."""
    marks = ((key, part) for key, version in stamps.items() for part in version.value)
    return {key: part for key, part in marks if isinstance(part, Unread)}


StampRow = tuple[Any, ...]
"""A stamp laid flat: the key's parts, the version's fields, and what else the store's stamps have.

The two sides of a service give equal rows for a record exactly if it has not changed, so most records are settled by
comparing sets of rows.
"""


class Fingerprint(NamedTuple):
    """What a server says of all stamps of a chunk in a few numbers.

    `functions` names how the others were made; two that differ are not compared by them. `records` and `sums` of two
    parts of a chunk add up to those of the whole. `digest` is a hash of all stamps in the order of their keys, where
    the server is this process; it does not add up.
    """

    functions: str
    records: int
    sums: tuple[int, ...]
    digest: int = 0


class Chunk(NamedTuple):
    """A contiguous part of the key space: every key k with `after` < k <= `upto`, as the server orders keys.

    `None` leaves that end open, so that keys which only the backup has fall into the first and last chunk.
    """

    after: Key | None = None
    upto: Key | None = None


WHOLE = Chunk()
"""The whole key space."""


class Action(StrEnum):
    """What a change did to a record."""

    INSERTED = "Inserted"
    UPDATED = "Updated"
    DELETED = "Deleted"


@dataclass(frozen=True)
class Image:
    """A record as it was before a change of it: `record` and its `version` fields are None where there was none.

    `key` is the one the change names; the server may have held the record under another spelling of it. `stamp` is
    there where a change asks first whether it may be made; None says then that the record, by the service's filter, is
    none of its.
    """

    key: Key
    action: Action
    record: Record | None = None
    version: tuple[Any, ...] | None = None
    stamp: Version | None = field(default=None, compare=False)


class Status(StrEnum):
    """Where a run stands."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"


class Verb(StrEnum):
    """What a run does. A purge is no run: it changes no record, and what it deleted only the log tells."""

    SYNC = "sync"
    UNDO = "undo"
    RESTORE = "restore"
    VERIFY = "verify"
    DRILL = "drill"


class Trigger(StrEnum):
    """Who asked for a run: a request, the schedule, the command line (or another program in Python), a job."""

    HTTP = "http"
    TIMER = "timer"
    CLI = "cli"
    JOB = "job"


@dataclass(frozen=True)
class Counts:
    """Records a run inserted, updated, deleted and skipped in the backup, and those that failed: it set them aside."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    skipped: int = 0
    failed: int = 0

    @property
    def processed(self) -> int:
        """Inserted + updated + deleted: what was written."""
        return self.inserted + self.updated + self.deleted

    @property
    def seen(self) -> int:
        """Every record the run has settled so far, the skipped and the failed ones too."""
        return self.processed + self.skipped + self.failed

    def __add__(self, other: Counts) -> Counts:
        """Both together."""
        return self.plus(**asdict(other))

    def plus(self, **more: int) -> Counts:
        """These counts with `more` added by name."""
        return replace(self, **{name: getattr(self, name) + n for name, n in more.items()})


_CHECKSUMS = 1 << 128


class Total(NamedTuple):
    """Number and checksum of one side's stamps; the checksum does not depend on their order."""

    records: int = 0
    checksum: int = 0

    def and_(self, other: Total) -> Total:
        """The total of two parts together."""
        return Total(self.records + other.records, (self.checksum + other.checksum) % _CHECKSUMS)


NOTHING = Total()


@dataclass(frozen=True)
class Proof:
    """What both sides held when they were compared.

    `differing` records differ for good; `in_flight` are those that were being written meanwhile, which is no fault.
    """

    source: Total = NOTHING
    backup: Total = NOTHING
    differing: int = 0
    in_flight: int = 0

    def __add__(self, other: Proof) -> Proof:
        """The proof of two parts together."""
        return Proof(
            self.source.and_(other.source),
            self.backup.and_(other.backup),
            self.differing + other.differing,
            self.in_flight + other.in_flight,
        )

    @property
    def verified(self) -> bool:
        """Whether every record of both sides was seen to be equal, but for those in flight."""
        return self.differing == 0


@dataclass(frozen=True)
class Run:
    """One execution of one verb on one service; one SyncHistory entry. Times are aware UTC.

    `trigger` is None where an entry of an earlier release does not say who asked for an undo, a restore or a verify.
    `added_columns` are those it had to fill, `removed_columns` those the source had no more, `undone` the runs that an
    undo takes back. `notes` are what the run wants known beside its counts, a line each. While it is in progress,
    `percent` says how much of the source it has walked, and `checkpoint` where another process may go on. `watermark`
    is up to where the source's recent changes are in the backup, `request_charge` what the run cost in request units;
    both are for Cosmos DB alone.

    `place` is the backup's table or container that it is about. `number` counts the runs of one service and place from
    1, in the order in which they began, whatever their clocks said. `owner` is the process that an open run belongs to,
    `attempt` which of its calls, `heartbeat_at` when that last said so. `failures` are the first keys of records that
    were set aside, as JSON, each with the reason. `scratch` names the place that a drill made and drops.
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

    def takes_over(self, other: Run) -> bool:
        """Whether this run, not yet begun, may go on as the other, open one: as a sync that does no less."""
        return (
            self.verb is Verb.SYNC
            and other.verb is Verb.SYNC
            and other.checkpoint is not None
            and not self.dry_run
            and not other.dry_run
            and self.allow_mass_delete == other.allow_mass_delete
            and (other.forced or not self.forced)
        )

    @property
    def may_change_backup(self) -> bool:
        """Whether its verb writes to the backup's records."""
        return not self.dry_run and self.verb in (Verb.SYNC, Verb.UNDO)

    @property
    def only_compares(self) -> bool:
        """Whether its verb leaves source and backup as they are, so that it needs no lock."""
        return self.verb in (Verb.VERIFY, Verb.DRILL)

    @property
    def verified(self) -> bool | None:
        """Whether the run proved its result; None while it runs and for dry runs, undos and restores, which prove
        nothing.
        """
        if self.dry_run or self.completed_at is None or self.verb in (Verb.UNDO, Verb.RESTORE):
            return None
        return self.status is Status.COMPLETED and self.proof is not None and self.proof.verified

    @property
    def duration_ms(self) -> int | None:
        """Milliseconds from start to end; `None` while it runs."""
        if self.completed_at is None:
            return None
        return round((self.completed_at - self.started_at).total_seconds() * 1000)

    def ended(self, status: Status, now: datetime, counts: Counts, error: str | None = None) -> Run:
        """This run as it stands at its end."""
        end = replace(self, status=status, completed_at=now, counts=counts, error=error)
        return replace(end, percent=None, checkpoint=None)
