"""One sync: makes the backup equal to the source, chunk by chunk, and deletes last. Knows no database, no history."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from backup.core.errors import GuardTripped
from backup.core.model import WHOLE, Action, Chunk, Proof, Run
from backup.core.workers import Workers
from backup.mirror import proof
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.chunk import Settled, Settling, Spread
from backup.mirror.deleting import Deleting
from backup.mirror.guard import Guard
from backup.mirror.pair import Sides
from backup.mirror.pending_deletes import PendingDeletes
from backup.mirror.tally import Tally
from backup.mirror.writing import Steps, Try
from backup.stores import Store

_CHUNKS_KEPT_FREE = 1.5
_CATCH_UPS = 3


def sync_stores(
    source: Store, backup: Store, run: Run, tally: Tally, guard: Guard, steps: Steps, start: Checkpoint | None = None
) -> Checkpoint | None:
    """Makes the backup equal to the source, counts it in `tally` and proves it there. A dry run only counts and names.

    Returns None when that is done, or, when time was up, the checkpoint from which another call may go on. Chunks are
    settled several at once, each as coarsely as it may be (`Settling.settle`); whatever is overwritten or deleted goes
    to the bin. Deletes come last, after both sides were read to their end and the guard has seen their number; each key
    is looked up in the source once more right before, and its chunk is proven afterwards. None is made where keys of
    the source could not be read. Raises whatever the stores, the guard or `steps.held` raise: batches written before
    stay, and no delete has been made unless everything else was done. Running it again goes on from there.
    """
    at = start or Checkpoint()
    before = at.deleting
    with Workers(steps.parallelism) as workers, PendingDeletes() as pending:
        sides = Sides(source, backup, workers)
        settling = Settling(sides, run, tally, steps, pending, workers.check)
        if not run.dry_run:
            tally.proof = at.proof
        ahead, whole = _catch_up(settling, run, steps, from_start=at == Checkpoint())
        spread = Spread()
        # A chunk is asked for, and with it how to look at it, once those before it have come but for `parallelism`.
        chunks = ((chunk, spread) for chunk in in_time(at, source.chunks, steps.seconds_left))
        for settled in [whole] if whole else workers.in_order(lambda item: settling.settle(*item), chunks):
            spread = spread.after(settled)
            at = at.past(
                *(settled.chunk, settled.counts, settled.wanted, settled.held, settled.proof),
                again=bool(settled.deletes or settled.waiting),
                unread_keys=settled.unread_keys,
            )
            if not run.dry_run:
                tally.proof = at.proof
                steps.save(at)
        if not at.complete:
            settling.stop()
            return at
        for part in before:  # what was found before the checkpoint is found once more
            for piece in backup.chunks(part):
                pending.add(sides.compare(piece, narrow=True).changes.delete)
        if at.unread_keys:  # which may be those of records that seem to be gone
            tally.withheld, done = len(pending), True
        else:
            _check_deletes(source, pending, at, run, tally, guard)
            done = Deleting(source, backup, run, tally, steps).delete_all(pending, at_once=at == start)
        if done and not run.dry_run:
            at, done = _settle_again(settling, workers, at, tally, steps)
        if not done:
            settling.stop()
            return at
    tally.add(skipped=-min(ahead, tally.counts.skipped))  # the chunks have met these records as equal
    return None


def refuse_early(source: Store, backup: Store, run: Run, guard: Guard) -> None:
    """Raises GuardTripped for what forbids a run to touch anything: a missing canary, too many updates.

    The updates are counted only where they have a limit; that compares both sides once more.
    """
    guard.check_canary(source)
    if guard.max_update_percent is not None and not run.allow_mass_delete:
        guard.check_updates(*_updates(source, backup), source.place.label)


def chunks_of(source: Store, backup: Store, part: Chunk = WHOLE) -> Iterator[Chunk]:
    """The source's chunks, cut again where the backup holds more, so that the stamps of both sides fit into memory."""
    for chunk in source.chunks(part):
        yield from backup.chunks(chunk)


def in_time(
    at: Checkpoint, chunks: Callable[[Chunk], Iterator[Chunk]], seconds_left: Callable[[], float]
) -> Iterator[Chunk]:
    """What is left to walk, while there is time for one more chunk; one at least, so that every call gets further."""
    longest, asked, first = 0.0, time.perf_counter(), True
    for part in at.left:
        for chunk in chunks(part):
            if not first and seconds_left() <= longest * _CHUNKS_KEPT_FREE:
                return
            yield chunk
            first = False
            # Asked again when a worker is free: about as long as a chunk takes.
            longest, asked = max(longest, time.perf_counter() - asked), time.perf_counter()


def _catch_up(settling: Settling, run: Run, steps: Steps, *, from_start: bool) -> tuple[int, Settled | None]:
    """Writes what the source says was written lately. Returns how many records, and everything settled if it now is
    and the walk was to be one from the start.

    Under live writes it asks again, a few times: walking everything costs more.
    """
    may_settle = from_start and not steps.full
    ahead = 0
    for _ in range(_CATCH_UPS if steps.since is not None and not run.dry_run else 0):
        written = settling.catch_up(steps.since or "")
        ahead += written
        whole = settling.skip(WHOLE) if may_settle else None
        if whole is not None or not written or not may_settle:
            return ahead, whole
    return ahead, None


def _updates(source: Store, backup: Store) -> tuple[int, int]:
    """How many records a run would update that was not forced, and how many the backup holds."""
    updates = held = 0
    with Workers(1) as workers:
        sides = Sides(source, backup, workers)
        for chunk in source.chunks():
            mine, theirs = sides.fingerprints(chunk)
            if mine is not None and proof.alike(mine, theirs):
                held += mine.records
                continue
            for piece in backup.chunks(chunk):
                found = sides.compare(piece, narrow=True)
                same = sides.same_content(found.changes.touched, piece)
                updates, held = updates + len(found.changes.update) - len(same), held + found.held
    return updates, held


def _check_deletes(
    source: Store, pending: PendingDeletes, at: Checkpoint, run: Run, tally: Tally, guard: Guard
) -> None:
    """Asks the guard; before it trips, what the source has after all, perhaps spelled anew, is no longer counted."""
    try:
        guard.check_deletes(len(pending), at.wanted, at.held, source.place.label, allowed=run.allow_mass_delete)
    except GuardTripped:
        deletes = 0
        for keys in pending.batches(source.traits.batch_size):
            gone = set(keys) - source.matching(keys)
            deletes += len(gone)
            if run.dry_run:
                tally.name(gone, Action.DELETED)
        guard.check_deletes(deletes, at.wanted, at.held, source.place.label, allowed=False)


def _settle_again(
    settling: Settling, workers: Workers, at: Checkpoint, tally: Tally, steps: Steps
) -> tuple[Checkpoint, bool]:
    """Proves the chunks that had deletes, or records that a constraint refused, which are written first. Returns where
    the run stands then, and whether time sufficed."""
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
