"""Settles one chunk of a sync: compares both sides, writes what differs, and proves the chunk.

It compares fingerprints first, then stamps, then records, and stops at the first that is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Semaphore
from typing import Literal

from backup.core.errors import StoreError
from backup.core.model import WHOLE, Action, Chunk, Fingerprint, Key
from backup.core.run_values import Counts, Proof, Run
from backup.mirror import proof
from backup.mirror.compared import compare_piece
from backup.mirror.diff import compare_stamps, with_server_equality
from backup.mirror.differing_parts import STAMPS_AT_MOST, DifferingParts, asks_in_parts, differing_blocks, have_blocks
from backup.mirror.lower_versions import tell_lower_versions
from backup.mirror.pair import StorePair
from backup.mirror.pending_deletes import PendingDeletes
from backup.mirror.proving import check_written, prove_piece
from backup.mirror.set_aside import Refusal
from backup.mirror.settled import NONE, Settled, Spread
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.mirror.writing import Try, Writing

_STAMPS_AT_ONCE = 2  # chunks: their stamps take the most memory of all
_WHOLE_BELOW = 2_000  # records of the backup: the stamps of so few fit into memory, whatever the source has there
_NARROW_ABOVE = 2_000  # records: fewer are read as fast as their buckets are asked for, docs/decisions/buckets.md


class Settling:
    """Settles chunks. Several threads may settle chunks at the same time."""

    def __init__(
        self, pair: StorePair, run: Run, tally: Tally, steps: Steps, pending: PendingDeletes, check: Callable[[], None]
    ) -> None:
        """`check` is called before every batch, like `steps.check_lock`. It raises to stop the run."""
        self._pair, self._source, self._backup = pair, pair.source, pair.backup
        self._run, self._tally, self._steps, self._pending = run, tally, steps, pending
        self._writing = Writing(pair, run, tally, steps, check)
        caught_up = steps.since is not None and pair.source.incremental is not None and not run.dry_run
        self.fingerprint_is_enough = pair.source.traits.fingerprint_is_enough
        """Whether equal fingerprints settle a chunk also where nothing was caught up before."""
        self._may_skip = (self.fingerprint_is_enough or caught_up) and not (run.forced or steps.full)
        self._has_caught_up = False
        self._count_ahead: Callable[[], int] | None = None  # waits for what `_ask_ahead` has asked
        self._fingerprint_ahead: Callable[[], Fingerprint | None] | None = None
        self._stamps_at_once = Semaphore(_STAMPS_AT_ONCE)

    def settle(self, chunk: Chunk, spread: Spread) -> Settled:
        """Makes the backup's part of the chunk equal to the source's, except for deletes, which come last.

        Equal fingerprints settle the chunk. If the backup has no record there, the chunk is copied without reading
        stamps. So is any chunk of a forced run, over what the backup has; and where most of the last chunk had changed,
        what has another version. Otherwise the stamps of both sides say what to write. Fingerprints of buckets first
        rule out the buckets that are equal, unless the `spread` says that the last chunk had many changes. A dry run
        only counts and names.

        If the changes are spread over all chunks, the fingerprint of a whole chunk is never equal. So after a few such
        chunks in a row the fingerprints of the buckets are read at once, until a chunk is equal again.
        """
        if self._may_skip and spread.is_all_over:
            return self._settle_pieces(chunk, self._backup.chunks(chunk), narrow=True)
        may_copy = not self._run.dry_run and self._run.limit is None
        may_overwrite = may_copy and self._backup.relational is not None
        if may_overwrite and self._run.forced and not self._has_none(chunk):
            return self._overwrite(chunk)
        # After a chunk that was copied, the backup probably has nothing here either. Then the source need not be asked.
        of_backup = self._backup.fingerprint(chunk) if may_copy and (spread.copied or self._run.forced) else None
        of_source = None
        if of_backup is None or of_backup.records:
            of_source, of_backup = self._pair.fingerprints(chunk)
        if self._may_skip and of_source is not None and proof.are_equal(of_source, of_backup):
            return self._skip(chunk, proof.of_fingerprint(of_source))
        if of_backup is not None and of_backup.records == 0 and may_copy:
            return self._settle_written(chunk, self._writing.copy(chunk).counts, by="copy")
        if may_overwrite and spread.most:
            return self._overwrite(chunk)
        # The source's keys cut the chunk. If the backup has many more records there, its own keys cut the chunk
        # further, so that the stamps of both sides fit into memory.
        pieces = iter([chunk]) if _is_small(of_source, of_backup) else self._backup.chunks(chunk)
        narrow = self._may_skip and not spread.many and not _are_few(of_source, of_backup)
        return self._settle_pieces(chunk, pieces, narrow=narrow)

    def _has_none(self, chunk: Chunk) -> bool:
        """Whether the backup, a table, has no record in the chunk."""
        relational = self._backup.relational
        return relational is not None and relational.has_none(chunk)

    def _overwrite(self, chunk: Chunk) -> Settled:
        """Settles a chunk whose records are probably all to be written. What the servers cannot write by themselves is
        read and written here."""
        written, rest = self._writing.overwrite(chunk)
        if rest is None:
            return self._settle_written(chunk, written, by="relay")
        of_rest = self._settle_pieces(rest, self._backup.chunks(rest))
        if rest == chunk:
            return of_rest
        of_others = self._settle_written(Chunk(chunk.after, rest.after), written, by="relay")
        return Settled(chunk, NONE, 0, 0, proof=Proof()).joined(of_others).joined(of_rest)

    def _settle_written(self, chunk: Chunk, written: Counts, *, by: Literal["copy", "relay"]) -> Settled:
        """Settles a chunk that was written. What else differs there, stamps say."""
        equal = self._pair.proven(chunk)
        if equal is not None:
            records_before = max(0, equal.backup.records - written.inserted)
            return Settled(chunk, written, equal.source.records, records_before, proof=equal, by=by)
        return self._settle_pieces(chunk, self._backup.chunks(chunk), written, narrow=by == "relay")

    def _settle_pieces(
        self, chunk: Chunk, pieces: Iterator[Chunk], written: Counts = NONE, *, narrow: bool = False
    ) -> Settled:
        """Settles the pieces of a chunk by their stamps. So many of its records were `written` or skipped before."""
        settled = Settled(chunk, written, 0, 0, proof=None if self._run.dry_run else Proof())
        # Force applies only to records that were not written before, so that none is written and counted twice.
        force, counted = self._run.forced and not written.processed, written.seen
        for piece in pieces:
            of_piece = self._settle_by_stamps(piece, counted, force=force, narrow=narrow)
            settled = settled.joined(of_piece)
            counted = max(0, counted - (of_piece.source_records - of_piece.counts.inserted))
        return settled

    @property
    def expects_nothing(self) -> bool:
        """Whether the source has probably not changed since the last run, and equal fingerprints are enough."""
        return self._may_skip and self._steps.quiet_records > 0

    def may_look_at_once(self, records: int) -> bool:
        """Whether a statement about so many records takes no longer than it may, on both sides; by the statements
        before, or by the last sync."""
        both, seconds = (self._source.relational, self._backup.relational), self._steps.quiet_seconds
        return all(side is not None and side.may_look_at_once(records, seconds) for side in both)

    def may_look_in_parts(self, records: int) -> bool:
        """Whether one statement may be about so many records, or about parts of them that are larger than chunks."""
        return self.may_look_at_once(records) or self._pair.records_at_once > 0

    def parts_at_once(self, part: Chunk, records: int) -> Iterator[Chunk]:
        """Yields a part of about so many records in as few as may be looked at once (`StorePair.parts_at_once`)."""
        return iter([part]) if self.may_look_at_once(records) else self._pair.parts_at_once(part, records)

    def skip(self, chunk: Chunk) -> Settled | None:
        """Returns the settled chunk if its fingerprints are equal, else None; also if no fingerprint may settle one, or
        a look before the run has shown that something differs."""
        asked, self._fingerprint_ahead = self._fingerprint_ahead, None
        looked = self._steps.looked if chunk == WHOLE else None
        if looked is not None and looked.unanswered is not None:
            raise looked.unanswered
        if not self._may_skip or looked is not None:
            return None
        proven = self._pair.proven(chunk, asked if chunk == WHOLE else None)
        return None if proven is None else self._skip(chunk, proven)

    @property
    def has_blocks(self) -> bool:
        """Whether blocks may say what differs in a part of any size (`differing_blocks`)."""
        return self._may_skip and have_blocks(self._pair)

    @property
    def learns_from_first(self) -> bool:
        """Whether what the first chunk shows may spare the others their stamps."""
        return self._may_skip and self._backup.relational is not None

    def asks_in_parts(self, records: int) -> bool:
        """Whether one fingerprint of so many records takes several statements, and blocks as many."""
        return self._may_skip and asks_in_parts(self._pair, records)

    def differing_blocks(self, part: Chunk, records: int, *, expects_few: bool) -> Iterator[DifferingParts]:
        """Yields the blocks that differ in a part of about so many records, probably few if `expects_few`; as many at
        once as memory has room for their stamps. Ends early where most differ, or the servers cannot say. A look before
        the run may have named the first."""
        looked = self._steps.looked.parts if part == WHOLE and self._steps.looked is not None else None
        if looked is not None:
            yield looked
            if looked.upto is None:
                return
            part = Chunk(looked.upto)
        expects = {"expects_few": expects_few and looked is None, "expects_none": self._has_caught_up}
        yield from differing_blocks(self._pair, part, records, STAMPS_AT_MOST, **expects)

    def settle_blocks(self, part: Chunk, differing: DifferingParts) -> Settled:
        """Settles a part of which these blocks differ, as `settle` does."""
        if not differing.numbers:
            return self._skip(part, differing.equal)
        return self._settle_by_stamps(part, 0, parts=differing)

    def counted(self) -> Settled | None:
        """Returns the whole key space, settled, if the last `catch_up` has written all that the source should name, and
        both sides have as many records; else None. Nothing is known then of records that the source did not name."""
        asked, self._count_ahead = self._count_ahead, None
        if not self._has_caught_up:
            return None
        of_source, of_backup = self._pair.counts(asked)
        if of_source != of_backup:
            return None
        self._tally.add(skipped=of_source)
        counts_proof = proof.of_number(of_source)
        return Settled(WHOLE, Counts(skipped=of_source), of_source, of_backup, proof=counts_proof, by="numbers")

    def catch_up(self, since: str) -> int:
        """Writes the records that were written in the source since the watermark `since`. Returns how many it wrote.

        Not for a dry run, which finds these records in the chunks. Raises what the stores raise; batches written before
        stay.
        """
        written, waiting, incremental = Counts(), 0, self._source.incremental
        for rows in incremental.recent(since, self._steps.overlap_seconds) if incremental is not None else ():
            if incremental is not None and incremental.named_all:
                self._ask_ahead()
            backup_rows = self._backup.stamp_rows_of(list(self._source.keys.stamps(rows)))
            changes = compare_stamps(*proof.split(self._source, rows, self._backup, backup_rows), force=False)
            if changes.insert and changes.delete:
                changes = with_server_equality(changes, self._backup.matching(list(changes.insert)))
            of_part = self._writing.write(WHOLE, changes)
            written, waiting = written + of_part.counts, waiting + of_part.waiting  # the chunks write these
        self._tally.add(skipped=-written.skipped)  # the chunks count them: they are equal there
        if waiting and not self.fingerprint_is_enough:
            # What waits for the place of a record that the source has deleted may be of the same second. Then both
            # sides have equal numbers and sums.
            self._may_skip = False
        self._has_caught_up = incremental is not None and incremental.named_all and not (waiting or written.failed)
        return written.processed

    def _ask_ahead(self) -> None:
        """Asks the source for what will be compared once its last changes are written: meanwhile it has nothing to do.
        What it writes later shows as a difference, as it does in any comparison."""
        relational = self._source.relational
        if relational is None or not relational.answers_beside:
            return
        if self._steps.counts:
            self._count_ahead = self._pair.begun(lambda source: source.count())
        elif self.expects_nothing and self.may_look_at_once(self._steps.records or self._steps.quiet_records):
            self._fingerprint_ahead = self._pair.begun(lambda source: source.fingerprint(WHOLE))

    def settle_again(self, chunk: Chunk, which: Try = Try.AGAIN) -> Proof | None:
        """Proves a chunk after its deletes were made. First it writes what has changed since, and what was refused.

        Returns None if constraints refuse records again. These wait for `write_together`, and then for the last try.
        """
        # Blocks settle parts of which no statement should be about all.
        pieces = self._backup.chunks(chunk) if self.has_blocks else [chunk]
        settled = Settled(chunk, NONE, 0, 0, proof=Proof())
        for piece in pieces:
            equal = self._pair.proven(piece)
            if equal is not None:
                settled = settled.joined(Settled(piece, NONE, 0, 0, proof=equal))
                continue
            for part in self._backup.chunks(piece):
                settled = settled.joined(self._settle_by_stamps(part, None, which=which))
        return settled.proof

    def write_together(self) -> None:
        """Writes the waiting records of all chunks together. Sets aside what is still refused."""
        self._writing.write_together()
        self._writing.give_up()

    @property
    def waiting(self) -> frozenset[Key]:
        """The keys of the single records that constraints refuse so far."""
        return self._writing.waiting

    def room(self, limit: int) -> int:
        """Returns how many changes the run may still make: its limit less those made, and less those that wait."""
        return max(0, limit - self._tally.counts.processed - len(self._writing.waiting))

    def stop(self) -> None:
        """Stops the walk before the end of the key space.

        Records that wait are left: the next walk finds them by their stamps. In a forced run their stamps may be equal,
        and a run with a limit may not look there again; so these runs set them aside.
        """
        if self._run.forced or self._run.limit is not None:
            self._writing.give_up()

    def _skip(self, chunk: Chunk, proven: Proof) -> Settled:
        records = proven.source.records
        self._tally.add(skipped=records)
        return Settled(chunk, Counts(skipped=records), records, records, proof=proven, by="fingerprints")

    def _settle_by_stamps(
        self,
        piece: Chunk,
        counted: int | None,
        which: Try = Try.FIRST,
        *,
        force: bool = False,
        narrow: bool = False,
        parts: DifferingParts | None = None,
    ) -> Settled:
        """Compares the stamps of a piece and writes what differs.

        `counted` says how many of its records the tally has counted already. None stands for all of them: the piece is
        settled again, after its deletes were made.
        """
        with self._stamps_at_once:
            compared = compare_piece(self._pair, piece, force=force, narrow=narrow, parts=parts)
            changes, not_fitting = compared.changes, frozenset[Key]()
            measured = self._run.dry_run or self._run.limit is not None
            same = self._pair.same_content(changes.touched, piece) if measured else set[Key]()
            if self._run.limit is not None:
                room = self.room(self._run.limit) - (len(self._pending) if counted is not None else 0)
                free, in_order = self._writing.waiting | same, self._backup.keys.in_order
                changes, not_fitting = changes.within(max(0, room), free, in_order)
            if counted is not None:
                self._pending.add(self._backup.keys.in_order(changes.delete))
            skipped = 0 if counted is None else max(0, changes.skipped - counted)
            self._tally.add(skipped=skipped, remaining=len(not_fitting))
            for key, unread in sorted(compared.unread.items(), key=str):
                self._tally.set_aside(Refusal([key], StoreError(unread.reason)))
            counts = Counts(skipped=skipped, failed=len(compared.unread), remaining=len(not_fitting))
            sizes = compared.source_records, compared.backup_records
            tell_lower_versions(self._run, compared)
            if self._run.dry_run:
                self._tally.name(changes.insert, Action.INSERTED)
                self._tally.name(changes.update - same, Action.UPDATED)
                updates = len(changes.update) - len(same)
                would = {"inserted": len(changes.insert), "updated": updates, "skipped": len(same)}
                self._tally.add(**would)
                counts = counts.plus(**would)
                return Settled(piece, counts, *sizes, len(changes.delete), unread_keys=compared.has_unread_keys)
            far_apart = parts is not None and parts.block_width is not None
            written = self._writing.write(piece, changes, which, far_apart=far_apart)
            must_wait = written.waiting or (changes.delete and counted is not None)
            if not_fitting:
                check_written(self._pair, changes.write - self._tally.aside - self._writing.waiting, compared)
                proven: Proof | None = Proof()
            else:
                proven = None if must_wait else prove_piece(self._pair, piece, compared)
            counts += written.counts
            return Settled(
                piece, counts, *sizes, len(changes.delete), written.waiting, proven, compared.has_unread_keys
            )


def _is_small(of_source: Fingerprint | None, of_backup: Fingerprint | None) -> bool:
    return of_backup is not None and of_backup.records <= max(_WHOLE_BELOW, 2 * (of_source.records if of_source else 0))


def _are_few(of_source: Fingerprint | None, of_backup: Fingerprint | None) -> bool:
    return (
        of_source is not None and of_backup is not None and max(of_source.records, of_backup.records) <= _NARROW_ABOVE
    )
