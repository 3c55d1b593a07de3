"""One sync: makes the backup equal to the source, chunk by chunk, and deletes last. Knows no database, no history."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from backup.core import spans
from backup.core.errors import GuardTripped, TransientStoreError
from backup.core.model import WHOLE, Action, Chunk
from backup.core.run_values import Proof, Run
from backup.core.workers import Workers
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.chunk import Settling
from backup.mirror.deleting import Deleting
from backup.mirror.guard import Guard
from backup.mirror.pair import Sides, belonging
from backup.mirror.pending_deletes import PendingDeletes
from backup.mirror.planned_changes import count_changes
from backup.mirror.settled import Settled, Spread
from backup.mirror.tally import Tally
from backup.mirror.writing import Steps, Try
from backup.stores import Store

_CHUNKS_KEPT_FREE = 1.5
_CATCH_UPS = 3
_AS_DEAR_AS = 2  # fingerprints of blocks, as one of all
_SECONDS_FOR_THE_REST = 60.0


def sync_stores(
    source: Store, backup: Store, run: Run, tally: Tally, guard: Guard, steps: Steps, start: Checkpoint | None = None
) -> Checkpoint | None:
    """Makes the backup equal to the source, and puts counts and proof into `tally`. A dry run only counts and names.

    Returns None when everything is done. Returns the checkpoint for the next call when the time was up. `start` is the
    checkpoint of an earlier call; None starts at the beginning. Several chunks are settled at the same time
    (`Settling.settle`). The recycle bin gets an image of every record before it is overwritten or deleted.

    Deletes come last: both sides were read to the end, and the guard has seen the number. Right before a delete its key
    is looked up in the source once more. Afterwards its chunk is proven. If the source has keys that could not be read,
    no delete is made.

    A run with a limit walks the whole key space too, a chunk at a time. It makes the first changes in the order of keys
    and counts the others as remaining. The guard sees all deletes, also those that remain. If changes remain, only what
    was written is proven.

    Raises what the stores, the guard or `steps.check_lock` raise. Batches that were written before stay. No delete was
    made unless everything else was written. Another call resumes from there.
    """
    at = start or Checkpoint()
    deletes_before = at.deleting
    parallelism = steps.parallelism if run.limit is None else 1
    with Workers(parallelism) as workers, PendingDeletes() as pending, PendingDeletes() as within:
        sides = Sides(source, backup, workers)
        settling = Settling(sides, run, tally, steps, pending, workers.check)
        if not run.dry_run:
            tally.proof = at.proof

        def meet_again() -> None:  # the deletes that an earlier call met
            for part in deletes_before:
                for piece in backup.chunks(part):
                    pending.add(backup.keys.in_order(sides.compare(piece, narrow=True).changes.delete))

        if run.limit is not None:
            meet_again()  # now, so that `pending` has the deletes in the order of their keys

        def settle(chunk_and_spread: tuple[Chunk, Spread]) -> Settled:
            with spans.span("backup.chunk", service=run.service) as told:
                settled = settling.settle(*chunk_and_spread)
                told.tell(by=settled.by, source_records=settled.source_records, **vars(settled.counts))
            return settled

        caught_up, whole = _catch_up(settling, run, steps, from_start=at == Checkpoint())
        spread = Spread()
        # The generator gives a chunk, and the spread at that moment, when a worker is free. By then at most
        # `parallelism` earlier chunks are unsettled.
        chunks = ((chunk, spread) for chunk in in_time(at, source.chunks, steps.seconds_left))

        def rest() -> _Rest | None:
            """What the walk has still to pass, if one statement may be about all of it."""
            [part] = at.left if len(at.left) == 1 else [None]
            records = (steps.records or steps.quiet_records) - at.source_records
            in_time_for_it = steps.seconds_left() > _SECONDS_FOR_THE_REST
            return _Rest(part, records) if part and in_time_for_it and settling.may_look_at_once(records) else None

        for settled in [whole] if whole else _settled(settling, settle, workers, chunks, rest):
            spread = spread.after(settled)
            at = at.past(
                settled.chunk,
                settled.counts,
                settled.source_records,
                settled.backup_records,
                settled.proof,
                must_return=bool(settled.deletes or settled.waiting),
                unread_keys=settled.unread_keys,
            )
            if not run.dry_run:
                tally.proof = at.proof
                steps.save(at)
        if not at.complete:
            settling.stop()
            return at
        if run.limit is None:
            meet_again()
        if at.unread_keys:  # they may be the keys of records that seem to be deleted in the source
            tally.withheld, done = len(pending), True
        else:
            _check_deletes(source, pending, at, run, tally, guard)
            if run.limit is not None:
                _part(source, pending, within, settling.room(run.limit), tally)
            to_delete = pending if run.limit is None else within
            done = Deleting(source, backup, run, tally, steps).delete_all(to_delete, at_once=at == start)
        if done and tally.counts.remaining and not run.dry_run:
            settling.write_together()
        elif done and not run.dry_run:
            at, done = _settle_again(settling, workers, at, tally, steps)
        if not done:
            settling.stop()
            return at
    tally.add(skipped=-min(caught_up, tally.counts.skipped))  # the chunks counted these records as equal
    return None


def refuse_early(source: Store, backup: Store, run: Run, guard: Guard) -> None:
    """Raises GuardTripped before the first change: when the canary is missing, or the updates are too many.

    The updates are counted only if they have a limit. To count them costs one more comparison of both sides.
    """
    guard.check_canary(source)
    if guard.max_update_percent is not None and not run.allow_mass_delete:
        planned = count_changes(source, backup)
        guard.check_updates(planned.updates, planned.backup_records, source.place.label)


def chunks_of(source: Store, backup: Store, part: Chunk = WHOLE) -> Iterator[Chunk]:
    """Yields the source's chunks, cut further where the backup has more records, so that the stamps fit into memory."""
    for chunk in source.chunks(part):
        yield from backup.chunks(chunk)


class _Rest(NamedTuple):
    """What a walk has still to pass, and about how many records that are."""

    part: Chunk
    records: int


def _settled(
    settling: Settling,
    settle: Callable[[tuple[Chunk, Spread]], Settled],
    workers: Workers,
    chunks: Iterator[tuple[Chunk, Spread]],
    rest: Callable[[], _Rest | None],
) -> Iterator[Settled]:
    """Settles the chunks, in their order; all at once where `rest` gives all of them, because the last sync was quick.
    Else the first chunk goes alone: it shows how long a statement takes, and whether much has changed.

    All at once means: a quiet source is asked for one fingerprint of all, unless the first chunk has changed. If it
    differs, or the source is not quiet, blocks of neighbouring keys say what differs. Else it goes chunk by chunk.
    """
    left, quiet = rest() if settling.expects_nothing else None, settling.expects_nothing
    parts_measured = False  # whether fingerprints of parts are among the statements that were measured
    if left is None and (quiet or settling.has_blocks) and (first := next(chunks, None)) is not None:
        settled = settle(first)
        yield settled
        quiet = quiet and settled.by == "fingerprints"
        parts_measured = settled.by == "stamps"
        changed_few = settled.by == "stamps" and not Spread().after(settled).many
        left = rest() if settled.by == "fingerprints" or (changed_few and settling.has_blocks) else None
    if left is not None:
        at_once = _skipped(settling, left.part) if quiet else None
        at_once = at_once or _settled_by_blocks(settling, left, 1 if parts_measured else _AS_DEAR_AS)
        if at_once is not None:
            yield at_once
            return
    yield from workers.in_order(settle, chunks)


def _settled_by_blocks(settling: Settling, left: _Rest, factor: int) -> Settled | None:
    """The rest, settled, if blocks can say in time what differs there, and that is not too much for memory. It takes
    `factor` times as long as what was measured so far."""
    may_take = settling.may_look_at_once(left.records * factor)
    if not (settling.has_blocks and may_take and left.part.upto is None):  # the last block may reach beyond an end
        return None
    try:
        differing = settling.differing_blocks(*left)
    except TransientStoreError as error:
        if error.unanswered:
            raise
        return None
    return None if differing is None else settling.settle_blocks(left.part, differing)


def _skipped(settling: Settling, part: Chunk) -> Settled | None:
    """The part, settled, if its fingerprints are equal. None also if a server did not answer in time: a part that is
    too large for one statement is no reason to fail."""
    try:
        return settling.skip(part)
    except TransientStoreError as error:
        if error.unanswered:
            raise
        return None


def in_time(
    at: Checkpoint, chunks: Callable[[Chunk], Iterator[Chunk]], seconds_left: Callable[[], float]
) -> Iterator[Chunk]:
    """Yields the chunks that the walk has still to pass, as long as the time is enough for one more.

    It yields at least one chunk, so that every call gets further. It expects a chunk to take 1.5 times as long as the
    longest so far.
    """
    longest, started, first = 0.0, time.perf_counter(), True
    for part in at.left:
        for chunk in chunks(part):
            if not first and seconds_left() <= longest * _CHUNKS_KEPT_FREE:
                return
            yield chunk
            first = False
            # The next chunk is fetched when a worker is free. So the time since the last one is about that of a chunk.
            longest, started = max(longest, time.perf_counter() - started), time.perf_counter()


def _catch_up(settling: Settling, run: Run, steps: Steps, *, from_start: bool) -> tuple[int, Settled | None]:
    """Writes the records that the source says were written lately.

    Returns how many records it wrote. If the walk begins at the start and the fingerprints of the whole key space are
    equal now, it also returns the whole key space, settled. While the source is being written to, it tries this up to
    three times, because that costs less than a walk. With `steps.counts` equal numbers of records are enough.

    Where fingerprints are enough alone, it else does not look at the whole key space. The walk does that, as in a quiet
    source. By then the walk knows whether one statement may be about all of it.
    """
    may_settle = from_start and not steps.full and (steps.counts or not settling.fingerprint_is_enough)
    caught_up = 0
    for _ in range(_CATCH_UPS if steps.since is not None and not run.dry_run else 0):
        written = settling.catch_up(steps.since or "")
        caught_up += written
        whole = None
        if may_settle:
            whole = settling.counted() if steps.counts else settling.skip(WHOLE)
        if whole is not None or not written or not may_settle:
            return caught_up, whole
    return caught_up, None


def _check_deletes(
    source: Store, pending: PendingDeletes, at: Checkpoint, run: Run, tally: Tally, guard: Guard
) -> None:
    """Asks the guard about the number of deletes. Raises GuardTripped when they are too many.

    Before that it counts again without the keys that the source has after all, perhaps in another spelling.
    """
    try:
        sizes, allowed = (at.source_records, at.backup_records), run.allow_mass_delete
        guard.check_deletes(len(pending), *sizes, source.place.label, allowed=allowed, dry_run=run.dry_run)
    except GuardTripped:
        deletes = 0
        for keys in pending.batches(source.traits.batch_size):
            gone = set(keys) - belonging(source, keys)
            deletes += len(gone)
            if run.dry_run:
                tally.name(gone, Action.DELETED)
        guard.check_deletes(deletes, *sizes, source.place.label, allowed=False, dry_run=run.dry_run)


def _part(source: Store, pending: PendingDeletes, within: PendingDeletes, room: int, tally: Tally) -> None:
    """Adds the first `room` pending deletes to `within`. Counts the others, if the source still lacks them, as
    remaining."""
    for keys in pending.batches(source.traits.batch_size):
        fitting = room - len(within)
        within.add(keys[:fitting])
        if left := keys[fitting:]:
            tally.add(remaining=len(left) - len(belonging(source, left)))


def _settle_again(
    settling: Settling, workers: Workers, at: Checkpoint, tally: Tally, steps: Steps
) -> tuple[Checkpoint, bool]:
    """Proves the chunks that had deletes or refused records. Writes the refused records first.

    Returns the new checkpoint, and whether the time was enough.
    """
    waiting: list[Chunk] = []
    for part, proven in zip(at.deleting, workers.in_order(settling.settle_again, at.deleting), strict=True):
        if proven is None:
            waiting.append(part)
            continue
        tally.proof = (tally.proof or Proof()) + proven
        at = at.proven(part, proven)
        if steps.seconds_left() <= 0:
            return at, False
    settling.write_together()
    for part in waiting:
        proven = settling.settle_again(part, Try.LAST) or Proof()
        tally.proof = (tally.proof or Proof()) + proven
        at = at.proven(part, proven)
    return at, True
