"""Writes the source's records into the backup in batches. Records that the backup refuses are set aside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from threading import Lock, Semaphore

from backup.core import spans
from backup.core.batched import batched
from backup.core.errors import BackupError
from backup.core.model import WHOLE, Chunk, Key, Record
from backup.core.run_values import Counts, Run
from backup.mirror import relays
from backup.mirror.diff import Changes
from backup.mirror.pair import StorePair
from backup.mirror.relays import Relays
from backup.mirror.set_aside import RECORDS_WAITING_AT_MOST, Refusal, bisect, smallest_part_at_first
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.stores import CopyNote

_CHARACTERS_TOGETHER = 8 * 1024 * 1024


class Try(Enum):
    """Which try of writing records this is. A later try gets the records that a constraint refused in an earlier one.

    - FIRST: refused records wait until all others are written and the deletes are made. Some good records of the same
      batch may wait with them.
    - AGAIN: finds each single record that is refused. These records of all chunks are then written together.
    - EXCHANGED: writes records so that they can exchange unique values.
    - LAST: sets aside what is refused.

    A forced run begins with AGAIN, because it cannot find waiting records again by their stamps. So does a run with a
    limit, because it may not look at all records again.
    """

    FIRST = 1
    AGAIN = 2
    EXCHANGED = 3
    LAST = 4


@dataclass(frozen=True)
class WriteCounts:
    """How many records were written or set aside (`counts`), and how many wait for a later try, because a constraint
    refused them (`waiting`)."""

    counts: Counts = field(default_factory=Counts)
    waiting: int = 0


class Writing:
    """Writes the records of several chunks, from several threads."""

    def __init__(self, pair: StorePair, run: Run, tally: Tally, steps: Steps, check: Callable[[], None]) -> None:
        """`check` is called before every batch, like `steps.check_lock`. It raises to stop the run."""
        self._pair, self._source, self._backup = pair, pair.source, pair.backup
        self._run, self._tally, self._steps, self._check = run, tally, steps, check
        self._relays = Relays(pair, run, tally, steps, check)
        self._copies_at_once = Semaphore(1 if pair.backup.traits.in_process else steps.parallelism)
        self._waiting: dict[Key, BackupError] = {}
        self._most_waiting = RECORDS_WAITING_AT_MOST * tally.max_failed
        self._lock = Lock()

    @property
    def waiting(self) -> frozenset[Key]:
        """The keys of the single records that constraints refuse so far."""
        return frozenset(self._waiting)

    def copy(self, chunk: Chunk) -> WriteCounts:
        """Writes all records of a chunk where the backup has none, up to the first batch that cannot be read.

        The servers do it among themselves where they can.
        """
        with self._copies_at_once:
            counts, chunk_left = self._relays.copy(chunk)
            written = WriteCounts(counts)
            if chunk_left is None:
                return written
            for records in self._pair.read(None, chunk_left, self._tally.set_aside):
                written = self._batch(records, None, Try.FIRST, written)
                del records  # else it stays in memory beside the next batch
        return written

    def overwrite(self, chunk: Chunk) -> tuple[Counts, Chunk | None]:
        """Has the servers write the records of a chunk over the backup's, as `Relays.overwrite`. Returns what they
        wrote, and the part of the chunk that is left."""
        with self._copies_at_once:
            return self._relays.overwrite(chunk)

    def write(self, piece: Chunk, changes: Changes, which: Try = Try.FIRST, *, far_apart: bool = False) -> WriteCounts:
        """Writes the records that changed, except those that were set aside already. `far_apart`: the piece has far
        more records than these, so each is looked up."""
        written = WriteCounts()
        keys = changes.write - self._tally.aside
        if which is Try.FIRST and not changes.touched and len(keys) >= relays.FEWEST:
            counts, keys = self._relays.write(keys)
            written = WriteCounts(counts)
        parts = batched([*keys], self._source.traits.batch_size) if far_apart else [keys] if keys else []
        for part in parts:
            batches = self._pair.read(frozenset(part), piece, self._tally.set_aside)
            for records in _joined(batches) if which is Try.EXCHANGED else batches:
                same = self._pair.unchanged(records, changes.touched) if changes.touched else ()
                written = self._note(records, same, written)
                changed = (
                    [record for record in records if self._source.keys.of(record) not in same] if same else records
                )
                written = self._batch(changed, changes.insert, which, written)
                del records, changed  # else they stay in memory beside the next batch
        return written

    def write_together(self) -> None:
        """Writes the waiting records of all chunks together, as long as their number falls with each round.

        Then it writes those that hold each other's unique values, so that they can exchange them.
        """
        before = len(self._waiting) + 1
        while 0 < len(self._waiting) < before:
            before, keys, self._waiting = len(self._waiting), list(self._waiting), {}
            self.write(WHOLE, self._inserts_and_updates(keys), Try.AGAIN)
        others = {key: error for key, error in self._waiting.items() if not Refusal([key], error).may_exchange}
        keys = [key for key in self._waiting if key not in others]
        self._waiting = others
        self.write(WHOLE, self._inserts_and_updates(keys), Try.EXCHANGED)

    def give_up(self) -> None:
        """Sets aside the records that constraints still refuse."""
        for key, error in self._waiting.items():
            self._tally.set_aside(Refusal([key], error))
        self._waiting = {}

    def _inserts_and_updates(self, keys: Collection[Key]) -> Changes:
        existing = self._backup.matching(list(keys))
        return Changes(frozenset(keys) - existing, frozenset(existing), frozenset(), 0)

    def _note(self, records: Sequence[Record], same: Collection[Key], before: WriteCounts) -> WriteCounts:
        """Writes the copies of the keys in `same`, without images: only their notes change, such as the etag."""
        counts = before.counts

        def write(part: Sequence[Record]) -> None:
            self._check()
            self._steps.check_lock()
            self._backup.write(self._copies(part))

        def count(part: Sequence[Record]) -> None:
            nonlocal counts
            self._tally.add(skipped=len(part))
            counts = counts.plus(skipped=len(part))

        unchanged = [record for record in records if self._source.keys.of(record) in same]
        for refusal in bisect(unchanged, self._source.keys.of, write, count):
            self._tally.set_aside(refusal)
            counts = counts.plus(failed=len(refusal.keys))
        return WriteCounts(counts, before.waiting)

    def _copies(self, records: Sequence[Record]) -> Sequence[Record]:
        return self._backup.copies.of(records, CopyNote(self._run.sync_id, self._steps.now()))

    def _batch(
        self, records: Sequence[Record], inserts: Collection[Key] | None, which: Try, before: WriteCounts
    ) -> WriteCounts:
        """Writes a batch. If it is refused, it writes parts of it.

        `inserts` are the keys that the backup lacks; None stands for all keys of the batch. Returns `before` with the
        counts of this batch added.
        """
        counts, waiting = before.counts, before.waiting

        def write(part: Sequence[Record]) -> None:
            self._check()
            self._steps.check_lock()
            copies, keep, relational = self._copies(part), self._steps.keep, self._backup.relational
            with spans.span("backup.batch", service=self._run.service, records=len(part)):
                if relational is not None and which is Try.EXCHANGED:
                    relational.exchange(copies, keep)
                elif relational is not None and inserts is None:
                    relational.insert(copies, keep)
                else:
                    self._backup.write(copies, keep)

        def count(part: Sequence[Record]) -> None:
            nonlocal counts
            inserted = len(part) if inserts is None else sum(self._source.keys.of(record) in inserts for record in part)
            written = {"inserted": inserted, "updated": len(part) - inserted}
            self._tally.add(**written)
            counts = counts.plus(**written)

        if which is Try.FIRST and (self._run.forced or self._run.limit is not None):
            which = Try.AGAIN
        smallest_part = smallest_part_at_first(records) if which is Try.FIRST else 1
        for refusal in bisect(records, self._source.keys.of, write, count, smallest_part):
            if refusal.may_pass and which is not Try.LAST and len(self._waiting) < self._most_waiting:
                waiting += len(refusal.keys)
                if which is not Try.FIRST:
                    with self._lock:
                        self._waiting |= dict.fromkeys(refusal.keys, refusal.error)
                continue
            self._tally.set_aside(refusal)
            counts = counts.plus(failed=len(refusal.keys))
        return WriteCounts(counts, waiting)


def _joined(batches: Iterable[Sequence[Record]]) -> Iterator[Sequence[Record]]:
    """Joins batches into larger ones, up to a limit of memory: records that exchange values must be in one batch."""
    joined, size = list[Record](), 0
    for records in batches:
        joined += records
        size += sum(len(value) for record in records for value in record.values() if isinstance(value, str | bytes))
        if size > _CHARACTERS_TOGETHER:
            yield joined
            joined, size = [], 0
    if joined:
        yield joined
