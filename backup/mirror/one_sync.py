"""One sync: makes the backup equal to the source, chunk by chunk, and deletes last. Knows no database, no history."""

from __future__ import annotations

from collections.abc import Sequence

from backup.core.errors import GuardTripped
from backup.core.model import WHOLE, Action, Chunk
from backup.core.run_values import Proof, Run
from backup.core.workers import Workers
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.chunk import Settling
from backup.mirror.compared import compare_piece
from backup.mirror.deleting import Deleting
from backup.mirror.guard import Guard
from backup.mirror.pair import StorePair, belonging
from backup.mirror.pending_deletes import PendingDeletes
from backup.mirror.planned_changes import count_changes
from backup.mirror.settled import Settled
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.mirror.waiting import what_waits
from backup.mirror.walk import Walk
from backup.mirror.writing import Try
from backup.stores import Store

_CATCH_UPS = 3  # while others write to the source; each costs less than a walk


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
    at = begin = start or Checkpoint()
    parallelism = steps.parallelism if run.limit is None else 1
    with Workers(parallelism) as workers, PendingDeletes() as pending, PendingDeletes() as within_limit:
        pair = StorePair(source, backup, workers)
        settling = Settling(pair, run, tally, steps, pending, workers.check)
        if not run.dry_run:
            tally.proof = begin.proof
        if run.limit is not None:
            _meet_again(pair, begin.deleting, pending)  # now, so that `pending` has the deletes in the order of keys
        caught_up, whole = _catch_up(settling, run, steps, from_start=begin == Checkpoint())
        walk, with_waiting = Walk(source, settling, workers, steps, run.service, begin), [*begin.deleting]
        for settled in [whole] if whole else walk.settled_chunks():
            at = walk.past(settled)
            with_waiting += [settled.chunk] if settled.waiting else []
            if not run.dry_run:
                tally.proof = at.proof
                if at.deleting or not at.complete:  # else the run ends now, and its entry has it all
                    steps.save(at)
        if not at.complete:
            settling.stop()
            return at
        if run.limit is None:
            _meet_again(pair, begin.deleting, pending)
        if at.unread_keys:  # they may be the keys of records that seem to be deleted in the source
            tally.withheld, done = len(pending), True
        else:
            try:
                _check_deletes(source, pending, at, run, tally, guard)
            except GuardTripped as tripped:
                waiting = what_waits(pair, with_waiting, settling.waiting, tally)
                raise GuardTripped(f"{tripped}{waiting}", hint=tripped.hint) from None
            if run.limit is not None:
                _part(source, pending, within_limit, settling.room(run.limit), tally)
            to_delete = pending if run.limit is None else within_limit
            done = Deleting(source, backup, run, tally, steps).delete_all(to_delete, at_once=at == begin)
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


def _meet_again(pair: StorePair, parts: Sequence[Chunk], pending: PendingDeletes) -> None:
    """Adds the deletes of the parts in which an earlier call of the run met some. It did not make them."""
    for part in parts:
        for piece in pair.backup.chunks(part):
            pending.add(pair.backup.keys.in_order(compare_piece(pair, piece, narrow=True).changes.delete))


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
