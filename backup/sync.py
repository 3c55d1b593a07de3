"""One sync: makes the backup equal to the source, chunk by chunk, and deletes last. Knows no database, no history."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from backup import proof
from backup.compare import Changes, compare, settle, went_back
from backup.errors import GuardTripped
from backup.guard import Guard
from backup.locks import Held
from backup.log import event
from backup.models import Action, Chunk, Counts, Key, Now, Proof, Run, Stamps
from backup.pending import PendingDeletes
from backup.stores import Keep, Store

CHANGES_NAMED = 1_000
_NAMED_IN_LOG = 10


@dataclass
class Tally:
    """What a run has done so far; stays right when it fails half-way. `tell` is called after every step.

    `proof` is what was seen to be equal so far, of a run that proves its result. `changes` are the first keys that a
    dry run would change.
    """

    tell: Callable[[Counts], None]
    counts: Counts = field(default_factory=Counts)
    proof: Proof | None = None
    changes: list[tuple[Key, str]] = field(default_factory=list)

    def add(self, **more: int) -> None:
        self.counts = self.counts.plus(**more)
        self.tell(self.counts)

    def name(self, keys: Collection[Key], what: str) -> None:
        """Names keys as what would become of them, up to the first thousand in all."""
        self.changes += [(key, what) for key in sorted(keys, key=str)[: CHANGES_NAMED - len(self.changes)]]


@dataclass(frozen=True)
class Steps:
    """What a run needs at every step: whether it still holds its lock, the clock, the bin, how much goes in a batch."""

    held: Held
    now: Now
    keep: Keep
    batch_size: int


def sync(source: Store, backup: Store, run: Run, tally: Tally, guard: Guard, steps: Steps) -> None:
    """Makes the backup equal to the source, counts it in `tally` and proves it there. A dry run only counts and names.

    Reads stamps of both sides, whole records only of what must be written; whatever is overwritten or deleted goes to
    the bin. Deletes come last, after both sides were read to their end and the guard has seen their number; each key is
    looked up in the source once more right before. Chunks that were changed are read again afterwards, for the proof.
    Raises whatever the stores, the guard or `steps.held` raise: batches written before stay, and no delete has been
    made unless everything else was done. Running it again goes on from there.
    """
    if not run.dry_run:
        tally.proof = Proof()
    with PendingDeletes() as pending:
        wanted = held = 0
        for chunk in chunks_of(source, backup):
            stamps, copies = source.stamps(chunk), backup.stamps(chunk)
            wanted, held = wanted + len(stamps), held + len(copies)
            changes = _changes(stamps, copies, backup, run.forced)
            _name_lower_versions(run, changes, stamps, copies)
            tally.add(skipped=changes.skipped)
            if run.dry_run:
                _count(changes, tally)
            else:
                _write(source, backup, chunk, changes, run, tally, steps)
                tally.proof = _prove(source, backup, chunk, stamps, changes, tally.proof or Proof())
            pending.add(changes.delete)
        _check_deletes(source, pending, wanted, held, run, tally, guard, steps)
        for keys in pending.batches(steps.batch_size):
            _delete(source, backup, keys, run, tally, steps)


def refuse_early(source: Store, backup: Store, run: Run, guard: Guard) -> None:
    """Raises GuardTripped for what forbids a run to touch anything: a missing canary, too many updates.

    The updates are counted only where they have a limit; that reads the stamps of both sides once more.
    """
    guard.check_canary(source)
    if guard.max_update_percent is not None and not run.allow_mass_delete:
        guard.check_updates(*_updates(source, backup), source.label)


def chunks_of(source: Store, backup: Store) -> Iterator[Chunk]:
    """The source's chunks, cut again where the backup holds more, so that the stamps of both sides fit into memory."""
    for chunk in source.chunks():
        yield from backup.chunks(chunk)


def _updates(source: Store, backup: Store) -> tuple[int, int]:
    """How many records a run would update that was not forced, and how many the backup holds."""
    updates = held = 0
    for chunk in chunks_of(source, backup):
        copies = backup.stamps(chunk)
        held += len(copies)
        updates += len(_changes(source.stamps(chunk), copies, backup, force=False).update)
    return updates, held


def _changes(stamps: Stamps, copies: Stamps, backup: Store, force: bool) -> Changes:
    changes = compare(stamps, copies, force)
    if changes.insert and changes.delete:  # only then can one of each be the same key to the server
        changes = settle(changes, backup.matching(list(changes.insert)))
    return changes


def _count(changes: Changes, tally: Tally) -> None:
    tally.name(changes.insert, Action.INSERTED)
    tally.name(changes.update, Action.UPDATED)
    tally.add(inserted=len(changes.insert), updated=len(changes.update))


def _write(source: Store, backup: Store, chunk: Chunk, changes: Changes, run: Run, tally: Tally, steps: Steps) -> None:
    if not changes.write:
        return
    for records in source.read(changes.write, chunk):
        steps.held()
        backup.write(backup.as_copies(records, run, steps.now()), steps.keep)
        inserted = sum(source.key_of(record) in changes.insert for record in records)
        tally.add(inserted=inserted, updated=len(records) - inserted)


def _prove(source: Store, backup: Store, chunk: Chunk, seen: Stamps, changes: Changes, so_far: Proof) -> Proof:
    """The proof with this chunk, read again only where it was changed. What waits for its delete is left out."""
    if not (changes.write or changes.delete):
        return proof.with_equal(so_far, seen)
    ours = source.stamps(chunk)
    theirs = proof.without(backup.stamps(chunk), changes.delete - ours.keys())
    found = proof.differences(ours, theirs)
    wrong = proof.lasting(source, backup, chunk, seen, ours, found).keys() - changes.delete
    return proof.with_part(so_far, ours, theirs, len(wrong), len(found) - len(wrong))


def _check_deletes(
    source: Store, pending: PendingDeletes, wanted: int, held: int, run: Run, tally: Tally, guard: Guard, steps: Steps
) -> None:
    """Asks the guard; before it trips, what the source has after all, perhaps spelled anew, is no longer counted."""
    try:
        guard.check_deletes(len(pending), wanted, held, source.label, allowed=run.allow_mass_delete)
    except GuardTripped:
        deletes = 0
        for keys in pending.batches(steps.batch_size):
            gone = set(keys) - source.matching(keys)
            deletes += len(gone)
            if run.dry_run:
                tally.name(gone, Action.DELETED)
        guard.check_deletes(deletes, wanted, held, source.label, allowed=False)


def _delete(source: Store, backup: Store, keys: list[Key], run: Run, tally: Tally, steps: Steps) -> None:
    steps.held()
    present = source.matching(keys)
    gone = [key for key in keys if key not in present]
    if run.dry_run:
        tally.name(gone, Action.DELETED)
        tally.add(deleted=len(gone))
        return
    backup.delete(gone, steps.keep)
    tally.add(deleted=len(gone))
    tally.proof = proof.with_part(tally.proof or Proof(), {}, {}, len(backup.matching(gone)), len(present))


def _name_lower_versions(run: Run, changes: Changes, stamps: Stamps, copies: Stamps) -> None:
    lower = [key for key in changes.update if key in copies and went_back(stamps[key], copies[key])]
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
