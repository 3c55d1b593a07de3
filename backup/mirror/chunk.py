"""One chunk of a sync: compares the two sides as coarsely as it may, writes what differs, and proves the chunk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import Semaphore
from typing import Literal

from backup.core.errors import StoreError
from backup.core.log import event
from backup.core.model import WHOLE, Action, Chunk, Counts, Fingerprint, Proof, Run
from backup.mirror import proof
from backup.mirror.diff import compare, went_back
from backup.mirror.pair import Compared, Sides
from backup.mirror.pending_deletes import PendingDeletes
from backup.mirror.set_aside import Refusal
from backup.mirror.tally import Tally
from backup.mirror.writing import Steps, Try, Writing

NONE = Counts()
_NAMED_IN_LOG = 10
_STAMPS_AT_ONCE = 2
_WHOLE_BELOW = 2_000
_NARROW_ABOVE = 2_000
_STREAK = 2
_FEW_OF = 10


@dataclass(frozen=True)
class Settled:
    """What became of a chunk: its counts, how many records each side had, how many keys only the backup has.

    `waiting` are records that a constraint refused. `unread_keys` says that the source has keys there which could not
    be read. `proof` is None where what waits or deletes must be made first, and in a dry run. `by` says what settled
    the chunk: equal fingerprints, a copy of all of it, or stamps.
    """

    chunk: Chunk
    counts: Counts
    wanted: int
    held: int
    deletes: int = 0
    waiting: int = 0
    proof: Proof | None = None
    unread_keys: bool = False
    by: Literal["fingerprints", "copy", "stamps"] = "stamps"


@dataclass(frozen=True)
class Spread:
    """How changes are spread over the chunks so far, which says how to look at the next one.

    `in_a_row` is how many of the last chunks had few changes each; `many` whether the last one that stamps settled had
    many.
    """

    in_a_row: int = 0
    many: bool = False

    def after(self, settled: Settled) -> Spread:
        """The same once a further chunk is settled. Take the chunks in their order."""
        if settled.by == "fingerprints":
            return replace(self, in_a_row=0)
        if settled.by == "copy":
            return self
        changed = settled.counts.processed + settled.deletes
        many = changed * _FEW_OF >= settled.counts.seen
        return Spread(self.in_a_row + 1 if changed and not many else 0, many)

    @property
    def is_all_over(self) -> bool:
        """Whether hardly a chunk can be expected to be equal."""
        return self.in_a_row >= _STREAK


class Settling:
    """What settles chunks, several at once if the workers are several."""

    def __init__(
        self, sides: Sides, run: Run, tally: Tally, steps: Steps, pending: PendingDeletes, check: Callable[[], None]
    ) -> None:
        """`check` is asked before every batch, as `steps.held` is; it raises to stop."""
        self._sides, self._source, self._backup = sides, sides.source, sides.backup
        self._run, self._tally, self._steps, self._pending = run, tally, steps, pending
        self._writing = Writing(sides, run, tally, steps, check)
        caught_up = steps.since is not None and sides.source.incremental is not None and not run.dry_run
        enough = sides.source.traits.fingerprint_is_enough or caught_up
        self._may_skip = enough and not (run.forced or steps.full)
        # Stamps of whole chunks are the most that is held in memory at once.
        self._stamps_at_once = Semaphore(_STAMPS_AT_ONCE)

    def settle(self, chunk: Chunk, spread: Spread) -> Settled:
        """Makes the backup's part of the chunk equal to the source's, but for deletes.

        Equal fingerprints settle it. A chunk of which the backup has nothing is copied without reading stamps. Else the
        stamps of both sides say what to write; of those no more are read than fingerprints of buckets leave, unless
        many had changed in a chunk before, by the `spread`. A dry run only counts and names.

        Where changes are spread all over, fingerprints find no chunk equal: after a streak of such chunks those of its
        buckets are asked for at once, until they find one that was.
        """
        if self._may_skip and spread.is_all_over:
            return self._settle_pieces(chunk, self._backup.chunks(chunk), narrow=True)
        mine, theirs = self._sides.fingerprints(chunk)
        if proof.alike(mine, theirs) and self._may_skip:
            return self._skip(chunk, mine)
        copied = Counts()
        if theirs is not None and theirs.records == 0 and not self._run.dry_run:
            copied = self._writing.copy(chunk).counts
            equal = self._sides.proven(chunk)
            if equal is not None:
                return Settled(chunk, copied, equal.source.records, 0, proof=equal, by="copy")
        # The chunk is one of the source's; where the backup holds much more, its own keys cut it further, so that the
        # stamps of both sides fit into memory.
        pieces = iter([chunk]) if _is_small(mine, theirs) else self._backup.chunks(chunk)
        narrow = self._may_skip and not spread.many and not copied.seen and not _are_few(mine, theirs)
        return self._settle_pieces(chunk, pieces, copied, narrow=narrow)

    def _settle_pieces(self, chunk: Chunk, pieces: Iterator[Chunk], copied: Counts = NONE, *, narrow: bool) -> Settled:
        settled = Settled(chunk, copied, 0, 0, proof=None if self._run.dry_run else Proof())
        counted = copied.inserted
        for piece in pieces:
            settled = _joined(settled, self._settle_by_stamps(piece, counted, narrow=narrow))
            counted = 0  # of several pieces, none was copied
        return settled

    def skip(self, chunk: Chunk) -> Settled | None:
        """The chunk settled if fingerprints do that."""
        mine, theirs = self._sides.fingerprints(chunk)
        return self._skip(chunk, mine) if proof.alike(mine, theirs) else None

    def catch_up(self, since: str) -> int:
        """Writes what was written in the source since the watermark; returns how many records. A dry run leaves it to
        the chunks, whose fingerprints then differ."""
        written, incremental = Counts(), self._source.incremental
        for rows in incremental.recent(since, self._steps.overlap_seconds) if incremental is not None else ():
            copies = self._backup.stamp_rows_of(list(self._source.keys.stamps(rows)))
            changes = compare(*proof.split(self._source, rows, self._backup, copies), force=False)
            written += self._writing.write(WHOLE, changes).counts
        self._tally.add(skipped=-written.skipped)  # the chunks meet these as equal, and count them then
        return written.processed

    def settle_again(self, chunk: Chunk, which: Try = Try.AGAIN) -> Proof | None:
        """The proof of a chunk whose deletes were made; what has changed in it since, or was refused, is written first.

        None where constraints refuse records once more: these wait for `write_together`, and for the last try.
        """
        equal = self._sides.proven(chunk)
        if equal is not None:
            return equal
        settled = Settled(chunk, NONE, 0, 0, proof=Proof())
        for piece in self._backup.chunks(chunk):
            settled = _joined(settled, self._settle_by_stamps(piece, None, which=which))
        return settled.proof

    def write_together(self) -> None:
        """Writes what waits, whatever its chunk, and sets aside what is refused even so."""
        self._writing.write_together()
        self._writing.give_up()

    def stop(self) -> None:
        """Ends a walk before its end. A later one finds what waits by its stamps; those of a forced run may be equal,
        so it sets its records aside."""
        if self._run.forced:
            self._writing.give_up()

    def _skip(self, chunk: Chunk, found: Fingerprint | None) -> Settled:
        assert found is not None  # noqa: S101 - for mypy; alike fingerprints are some
        self._tally.add(skipped=found.records)
        records, proven = found.records, proof.of_fingerprint(found)
        return Settled(chunk, Counts(skipped=records), records, records, proof=proven, by="fingerprints")

    def _settle_by_stamps(
        self, piece: Chunk, counted: int | None, which: Try = Try.FIRST, *, narrow: bool = False
    ) -> Settled:
        """Compares the stamps of a piece and writes what differs. `counted` of its records are in the tally already;
        None stands for all of them, and for a piece whose deletes were made."""
        # Force is for what was not written before, so that nothing is written (and counted) twice.
        force = self._run.forced and counted == 0
        with self._stamps_at_once:
            found = self._sides.compare(piece, force=force, narrow=narrow)
            changes = found.changes
            if counted is not None:
                self._pending.add(changes.delete)
            skipped = 0 if counted is None else max(0, changes.skipped - counted)
            self._tally.add(skipped=skipped)
            for key, unread in sorted(found.unread.items(), key=str):
                self._tally.set_aside(Refusal([key], StoreError(unread.reason)))
            counts = Counts(skipped=skipped, failed=len(found.unread))
            sizes = found.wanted, found.held
            _name_lower_versions(self._run, found)
            if self._run.dry_run:
                same = self._sides.same_content(changes.touched, piece)
                self._tally.name(changes.insert, Action.INSERTED)
                self._tally.name(changes.update - same, Action.UPDATED)
                updates = len(changes.update) - len(same)
                would = {"inserted": len(changes.insert), "updated": updates, "skipped": len(same)}
                self._tally.add(**would)
                counts = counts.plus(**would)
                return Settled(piece, counts, *sizes, len(changes.delete), unread_keys=found.misses_keys)
            written = self._writing.write(piece, changes, which)
            must_wait = written.left or (changes.delete and counted is not None)
            proven = None if must_wait else self._prove(piece, found)
            counts += written.counts
            return Settled(piece, counts, *sizes, len(changes.delete), written.left, proven, found.misses_keys)

    def _prove(self, piece: Chunk, before: Compared) -> Proof:
        """The proof of a piece that was written; what differed is read again, or, if that is much, its fingerprint."""
        differed = len(before.stamps) + len(before.copies)
        few = differed * _FEW_OF < before.wanted or not differed
        equal = self._sides.proven_since(before) if few else self._sides.proven(piece)
        if equal is not None:
            return equal
        ours, theirs = self._sides.stamp_rows(piece, before.buckets)
        stamps, copies = proof.split(self._source, ours, self._backup, theirs)
        found = proof.differences(stamps, copies)
        moved = self._source.keys.stamps(ours ^ before.ours).keys() if found else ()
        # What only the backup has by now was deleted in the source since, for what it had before was deleted here.
        wrong = proof.lasting(self._source, self._backup, piece, stamps, found, moved).keys() - before.changes.delete
        part = proof.of_part(
            self._source.keys.stamps(ours), self._backup.keys.stamps(theirs), len(wrong), len(found) - len(wrong)
        )
        return before.equal + part


def _is_small(mine: Fingerprint | None, theirs: Fingerprint | None) -> bool:
    return theirs is not None and theirs.records <= max(_WHOLE_BELOW, 2 * (mine.records if mine else 0))


def _are_few(mine: Fingerprint | None, theirs: Fingerprint | None) -> bool:
    return mine is not None and theirs is not None and max(mine.records, theirs.records) <= _NARROW_ABOVE


def _joined(one: Settled, other: Settled) -> Settled:
    return Settled(
        one.chunk,
        one.counts + other.counts,
        one.wanted + other.wanted,
        one.held + other.held,
        one.deletes + other.deletes,
        one.waiting + other.waiting,
        one.proof + other.proof if one.proof is not None and other.proof is not None else None,
        one.unread_keys or other.unread_keys,
    )


def _name_lower_versions(run: Run, found: Compared) -> None:
    stamps, copies = found.stamps, found.copies
    lower = [key for key in found.changes.update if key in copies and went_back(stamps[key], copies[key])]
    if lower:
        event(
            "sync.version_went_back",
            level=logging.WARNING,
            service=run.service,
            sync_id=run.sync_id,
            records=len(lower),
            keys=[
                f"{'/'.join(map(str, key))}: {copies[key].value[0]} -> {stamps[key].value[0]}"
                for key in sorted(lower, key=str)[:_NAMED_IN_LOG]
            ],
        )
