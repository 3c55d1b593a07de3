"""The source's records written into the backup, batch by batch; those that it does not take are set aside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from threading import Lock, Semaphore

from backup.core.errors import BackupError
from backup.core.model import WHOLE, Chunk, Counts, Key, Now, Record, Run, StillHeld
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.diff import Changes
from backup.mirror.pair import Sides
from backup.mirror.set_aside import Refusal, apart
from backup.mirror.tally import Tally
from backup.stores import CopyNote, Keep

_PARTS_WAITING = 16
_WAITING_AT_MOST = 10  # times the records that a run may set aside: each costs a transaction or more
_CHARACTERS_TOGETHER = 8 * 1024 * 1024


def no_end() -> float:
    """The seconds left of a run that no time limit ends."""
    return float("inf")


def forget(at: Checkpoint) -> None:
    """Saves a checkpoint nowhere."""


@dataclass(frozen=True)
class Steps:
    """What a run needs at every step: whether it still holds its lock, the clock, the bin.

    `parallelism` chunks are worked on at once. `since` is the watermark from which, less `overlap_seconds`, recent
    changes of the source are asked for; with `full` only stamps settle a chunk. `seconds_left` says how long the run
    may go on before it has to stop; `save` is told every checkpoint.
    """

    held: StillHeld
    now: Now
    keep: Keep
    parallelism: int = 1
    since: str | None = None
    overlap_seconds: float = 0.0
    full: bool = False
    seconds_left: Callable[[], float] = no_end
    save: Callable[[Checkpoint], None] = forget


class Try(Enum):
    """Which try of writing records it is.

    What a constraint refuses at the first is left, some together, until the others are written and the deletes made;
    what it refuses then, record by record, is written together, and then so that records can exchange values that are
    unique; what it refuses last is set aside. A forced run, which cannot find it again by its stamps, looks for single
    records at once.
    """

    FIRST = 1
    AGAIN = 2
    EXCHANGED = 3
    LAST = 4


@dataclass(frozen=True)
class WriteCounts:
    """How many records were written and set aside, and how many a constraint leaves for a later try."""

    counts: Counts = field(default_factory=Counts)
    left: int = 0


class Writing:
    """Writes for several chunks at once."""

    def __init__(self, sides: Sides, run: Run, tally: Tally, steps: Steps, check: Callable[[], None]) -> None:
        """`check` is asked before every batch, as `steps.held` is; it raises to stop."""
        self._sides, self._source, self._backup = sides, sides.source, sides.backup
        self._run, self._tally, self._steps, self._check = run, tally, steps, check
        self._copies_at_once = Semaphore(1 if sides.backup.traits.in_process else steps.parallelism)
        self._left: dict[Key, BackupError] = {}
        self._most = _WAITING_AT_MOST * tally.max_failed
        self._lock = Lock()

    def copy(self, chunk: Chunk) -> WriteCounts:
        """Writes all records of a chunk of which the backup has none, up to the first batch that cannot be read."""
        written = WriteCounts()
        with self._copies_at_once:
            for records in self._sides.read(None, chunk, self._tally.set_aside):
                written = self._batch(records, None, Try.FIRST, written)
                del records  # or it would be held beside the next
        return written

    def write(self, piece: Chunk, changes: Changes, which: Try = Try.FIRST) -> WriteCounts:
        """Writes the records that changed, but for those set aside already."""
        written = WriteCounts()
        if keys := changes.write - self._tally.aside:
            batches = self._sides.read(keys, piece, self._tally.set_aside)
            for records in _joined(batches) if which is Try.EXCHANGED else batches:
                same = self._sides.unchanged(records, changes.touched) if changes.touched else ()
                written = self._note(records, same, written)
                changed = [one for one in records if self._source.keys.of(one) not in same] if same else records
                written = self._batch(changed, changes.insert, which, written)
                del records, changed  # or they would be held beside the next
        return written

    def write_together(self) -> None:
        """Writes what constraints refused record by record, whatever its chunk, while it becomes less each time."""
        before = len(self._left) + 1
        while 0 < len(self._left) < before:
            before, keys, self._left = len(self._left), list(self._left), {}
            there = self._backup.matching(keys)
            self.write(WHOLE, Changes(frozenset(keys) - there, frozenset(there), frozenset(), 0), Try.AGAIN)
        other = {key: error for key, error in self._left.items() if not Refusal([key], error).may_exchange}
        keys = [key for key in self._left if key not in other]
        self._left = other
        there = self._backup.matching(keys)
        self.write(WHOLE, Changes(frozenset(keys) - there, frozenset(there), frozenset(), 0), Try.EXCHANGED)

    def give_up(self) -> None:
        """Sets aside what constraints refuse still."""
        for key, error in self._left.items():
            self._tally.set_aside(Refusal([key], error))
        self._left = {}

    def _note(self, records: Sequence[Record], same: Collection[Key], before: WriteCounts) -> WriteCounts:
        """Writes only what the copies note about the source's records, for the copies are the same but for that."""
        counts = before.counts

        def work(some: Sequence[Record]) -> None:
            self._check()
            self._steps.held()
            self._backup.write(self._copies(some))

        def done(some: Sequence[Record]) -> None:
            nonlocal counts
            self._tally.add(skipped=len(some))
            counts = counts.plus(skipped=len(some))

        noted = [one for one in records if self._source.keys.of(one) in same]
        for refused in apart(noted, self._source.keys.of, work, done):
            self._tally.set_aside(refused)
            counts = counts.plus(failed=len(refused.keys))
        return WriteCounts(counts, before.left)

    def _copies(self, records: Sequence[Record]) -> Sequence[Record]:
        return self._backup.copies.of(records, CopyNote(self._run.sync_id, self._steps.now()))

    def _batch(
        self, records: Sequence[Record], inserts: Collection[Key] | None, which: Try, before: WriteCounts
    ) -> WriteCounts:
        """Writes a batch, in parts where it is refused; `inserts` are those keys that are not there, or all (None)."""
        counts, left = before.counts, before.left

        def work(some: Sequence[Record]) -> None:
            self._check()
            self._steps.held()
            copies, keep, relational = self._copies(some), self._steps.keep, self._backup.relational
            if relational is not None and which is Try.EXCHANGED:
                relational.exchange(copies, keep)
            elif relational is not None and inserts is None:
                relational.insert(copies, keep)
            else:
                self._backup.write(copies, keep)

        def done(some: Sequence[Record]) -> None:
            nonlocal counts
            inserted = len(some) if inserts is None else sum(self._source.keys.of(one) in inserts for one in some)
            written = {"inserted": inserted, "updated": len(some) - inserted}
            self._tally.add(**written)
            counts = counts.plus(**written)

        if which is Try.FIRST and self._run.forced:
            which = Try.AGAIN
        constrained = max(1, len(records) // _PARTS_WAITING) if which is Try.FIRST else 1
        for refused in apart(records, self._source.keys.of, work, done, constrained):
            if refused.may_pass and which is not Try.LAST and len(self._left) < self._most:
                left += len(refused.keys)
                if which is not Try.FIRST:
                    with self._lock:
                        self._left |= dict.fromkeys(refused.keys, refused.error)
                continue
            self._tally.set_aside(refused)
            counts = counts.plus(failed=len(refused.keys))
        return WriteCounts(counts, left)


def _joined(batches: Iterable[Sequence[Record]]) -> Iterator[Sequence[Record]]:
    """The records in batches as large as memory allows: those that exchange values have to be in one."""
    joined, size = list[Record](), 0
    for records in batches:
        joined += records
        size += sum(len(value) for one in records for value in one.values() if isinstance(value, str | bytes))
        if size > _CHARACTERS_TOGETHER:
            yield joined
            joined, size = [], 0
    if joined:
        yield joined
