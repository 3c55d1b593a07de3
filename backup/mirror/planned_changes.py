"""What a sync would do to a backup, counted without writing: how many records it would insert, update and delete."""

from __future__ import annotations

from dataclasses import dataclass

from backup.core.batched import batched
from backup.core.workers import Workers
from backup.mirror import proof
from backup.mirror.compared import compare_piece
from backup.mirror.pair import StorePair, belonging
from backup.stores import Store


@dataclass(frozen=True)
class PlannedChanges:
    """How many records a sync without force would insert, update and delete, how many of the source it would set aside
    before it writes, and how many each side has now."""

    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    set_aside: int = 0
    source_records: int = 0
    backup_records: int = 0


def count_changes(source: Store, backup: Store, *, by_fingerprints: bool = True) -> PlannedChanges:
    """Compares two stores, which `match` or `drift` has matched; chunks whose fingerprints are equal only
    `by_fingerprints`. Writes nothing.

    Cost: as a sync of this moment without its writes. Holds the stamps of a chunk in memory.
    """
    inserts = updates = deletes = set_aside = source_records = backup_records = 0
    with Workers(1) as workers:
        pair = StorePair(source, backup, workers)
        for chunk in source.chunks():
            of_source, of_backup = pair.fingerprints(chunk)
            if by_fingerprints and of_source is not None and proof.are_equal(of_source, of_backup):
                source_records += of_source.records
                backup_records += of_source.records
                continue
            for piece in backup.chunks(chunk):
                compared = compare_piece(pair, piece, narrow=True)
                same = pair.same_content(compared.changes.touched, piece)
                changes = compared.changes
                inserts += len(changes.insert)
                updates += len(changes.update) - len(same)
                deletes += len(changes.delete)
                # As before a delete: the source's server may find a key that Python sees in the backup alone.
                for keys in batched(list(changes.delete), backup.traits.batch_size):
                    deletes -= len(belonging(source, keys))
                set_aside += len(compared.unread)
                source_records += compared.source_records
                backup_records += compared.backup_records
    return PlannedChanges(inserts, updates, deletes, set_aside, source_records, backup_records)
