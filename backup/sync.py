"""One sync: makes the backup equal to the source, chunk by chunk, and deletes last. Knows no database, no history."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from backup.compare import Changes, compare, settle, went_back
from backup.guard import refuse_empty_source
from backup.locks import Held
from backup.log import event
from backup.models import Chunk, Counts, Key, Now, Run, Stamps
from backup.pending import PendingDeletes
from backup.stores import Store

_NAMED_AT_MOST = 10


@dataclass
class Tally:
    """What a sync has done so far; stays right when it fails half-way. `tell` is called after every step."""

    tell: Callable[[Counts], None]
    counts: Counts = field(default_factory=Counts)

    def add(self, **more: int) -> None:
        self.counts = self.counts.plus(**more)
        self.tell(self.counts)


def sync(source: Store, backup: Store, run: Run, tally: Tally, *, held: Held, now: Now, delete_batch: int) -> None:
    """Makes the backup equal to the source and counts it in `tally`.

    Reads stamps of both sides, whole records only of what must be written. Deletes come last, after both sides were
    read to their end; each key is looked up in the source once more right before. `held` is asked before every batch.
    Raises whatever the stores, the guard or `held` raise: batches written before stay, and no delete has been made
    unless everything else was done. Running it again goes on from there.
    """
    backup.check(source)
    with PendingDeletes() as pending:
        source_records = 0
        for chunk in _chunks(source, backup):
            stamps, copies = source.stamps(chunk), backup.stamps(chunk)
            source_records += len(stamps)
            changes = _changes(stamps, copies, backup, run.forced)
            _name_lower_versions(run, changes, stamps, copies)
            tally.add(skipped=changes.skipped)
            _write(source, backup, chunk, changes, run, tally, held=held, now=now)
            pending.add(changes.delete)
        refuse_empty_source(source_records, len(pending), source.label)
        for keys in pending.batches(delete_batch):
            held()
            gone = _without(keys, source.matching(keys))
            backup.delete(gone)
            tally.add(deleted=len(gone))


def _chunks(source: Store, backup: Store) -> Iterator[Chunk]:
    """The source's chunks, cut again where the backup holds more, so that the stamps of both sides fit into memory."""
    return (part for chunk in source.chunks() for part in backup.chunks(chunk))


def _changes(stamps: Stamps, copies: Stamps, backup: Store, force: bool) -> Changes:
    changes = compare(stamps, copies, force)
    if changes.insert and changes.delete:  # only then can one of each be the same key to the server
        changes = settle(changes, backup.matching(list(changes.insert)))
    return changes


def _write(
    source: Store,
    backup: Store,
    chunk: Chunk,
    changes: Changes,
    run: Run,
    tally: Tally,
    *,
    held: Held,
    now: Now,
) -> None:
    if not changes.write:
        return
    for records in source.read(changes.write, chunk):
        held()
        backup.write(records, run, now())
        inserted = sum(source.key_of(record) in changes.insert for record in records)
        tally.add(inserted=inserted, updated=len(records) - inserted)


def _without(keys: list[Key], present: set[Key]) -> list[Key]:
    return [key for key in keys if key not in present]


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
                for key in sorted(lower, key=str)[:_NAMED_AT_MOST]
            ],
        )
