"""Compares both sides of a piece of the key space. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from backup.core.model import Chunk, Key, StampRow, Stamps, Unread, unread_in
from backup.core.run_values import Proof
from backup.mirror import proof
from backup.mirror.diff import Changes, compare_stamps, with_server_equality
from backup.mirror.differing_parts import DifferingParts, differing_buckets, stamp_rows
from backup.mirror.pair import StorePair
from backup.stores import Store


@dataclass(frozen=True)
class Compared:
    """A piece of the key space, compared.

    - `source_rows`, `backup_rows`: the stamp rows that were read. Both are of the same `parts`; None stands for all.
    - `source_stamps`, `backup_stamps`: the stamps that differ; with force, those of all rows.
    - `equal`: the proof of the buckets that were not read, because their fingerprints are equal.
    - `unread`: the records of the source that could not be read, and the keys of the backup that could not.
    - `changes`: what to change. No key of `unread` is in it.
    - `left_out`: the stamp rows of records that the source's transform leaves out. They count as if the source did not
      have them, so `source_rows` and `source_stamps` lack them.
    """

    source_rows: set[StampRow]
    backup_rows: set[StampRow]
    source_stamps: Stamps
    backup_stamps: Stamps
    changes: Changes
    equal: Proof
    parts: DifferingParts | None
    unread: Mapping[Key, Unread]
    left_out: frozenset[StampRow] = frozenset()

    @property
    def source_records(self) -> int:
        """How many records the source has in the piece."""
        return self.equal.source.records + len(self.source_rows)

    @property
    def has_unread_keys(self) -> bool:
        """Whether the source has keys in the piece that could not be read."""
        return any(unread.of_key and key in self.source_stamps for key, unread in self.unread.items())

    @property
    def backup_records(self) -> int:
        """How many records the backup has in the piece."""
        return self.equal.backup.records + len(self.backup_rows)


def compare_piece(
    pair: StorePair,
    piece: Chunk,
    *,
    force: bool = False,
    narrow: bool = False,
    parts: DifferingParts | None = None,
) -> Compared:
    """Compares the stamps of both sides in a piece, or in these `parts` of it.

    With `narrow` it first compares fingerprints of the piece's buckets, and reads no stamps of equal buckets. With
    `force` every record in both sides is an update.
    """
    parts = differing_buckets(pair, piece) if narrow and parts is None else parts
    equal = Proof() if parts is None else parts.equal
    source_rows, backup_rows = stamp_rows(pair, piece, parts)
    if force:
        source_stamps, backup_stamps = pair.source.keys.stamps(source_rows), pair.backup.keys.stamps(backup_rows)
    else:
        source_stamps, backup_stamps = proof.split(pair.source, source_rows, pair.backup, backup_rows)
    unread_keys = {key: unread for key, unread in unread_in(backup_stamps).items() if unread.of_key}
    unread = unread_in(source_stamps) | unread_keys
    changes = compare_stamps(source_stamps, backup_stamps, force).without(unread.keys())
    if changes.insert and changes.delete:  # only then can an insert and a delete be the same key to the server
        changes = with_server_equality(changes, pair.backup.matching(list(changes.insert)))
    left_out = frozenset[StampRow]()
    if pair.source.transforming is not None and changes.write:
        transformed = pair.source.transforming.left_out(list(changes.write))
        changes = changes.without_source(transformed.keys).without(transformed.failed)
        unread |= {key: Unread(reason) for key, reason in transformed.failed.items()}
        left_out = _rows_of(pair.source, source_rows if force else source_rows - backup_rows, transformed.keys)
        source_rows, source_stamps = source_rows - left_out, proof.without(source_stamps, transformed.keys)
    skipped = equal.source.records + len(source_rows) - len(source_stamps) + changes.skipped
    return Compared(
        source_rows,
        backup_rows,
        source_stamps,
        backup_stamps,
        replace(changes, skipped=skipped),
        equal,
        parts,
        unread,
        left_out,
    )


def _rows_of(store: Store, rows: Iterable[StampRow], keys: frozenset[Key]) -> frozenset[StampRow]:
    """Returns those of the store's stamp rows that have one of these keys."""
    return frozenset(row for row in rows if not keys.isdisjoint(store.keys.stamps({row}))) if keys else frozenset()
