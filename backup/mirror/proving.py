"""Proves a piece of the key space after it was written. Reads only."""

from __future__ import annotations

from collections.abc import Collection

from backup.core.errors import NotVerified
from backup.core.model import Chunk, Key, StampRow
from backup.core.run_values import Proof
from backup.core.suggestions import quantity
from backup.mirror import proof
from backup.mirror.compared import Compared
from backup.mirror.differing_parts import stamp_rows
from backup.mirror.pair import StorePair
from backup.mirror.settled import FEW_OF


def prove_piece(pair: StorePair, piece: Chunk, before: Compared) -> Proof:
    """Returns the proof of a piece that was written. `before` is how the sides compared before that.

    Reads again the stamps of the records that differed. If they were many, it reads the fingerprints of the piece. What
    differs then is looked at a second time, so that a record that the source is writing does not count as different.
    """
    differed = len(before.source_stamps) + len(before.backup_stamps)
    few = differed * FEW_OF < before.source_records or not differed or bool(before.left_out)
    equal = _proven_since(pair, before) if few else pair.proven(piece)
    if equal is not None:
        return equal

    def rows() -> tuple[set[StampRow], set[StampRow]]:
        return stamp_rows(pair, piece, before.parts)

    source_rows, backup_rows = rows()
    source_rows -= before.left_out
    source_stamps, backup_stamps = proof.split(pair.source, source_rows, pair.backup, backup_rows)
    differing = proof.differences(source_stamps, backup_stamps)
    moved = pair.source.keys.stamps(source_rows ^ before.source_rows).keys() if differing else ()
    lasting = proof.lasting(pair.source, pair.backup, piece, source_stamps, differing, moved, rows)
    # A key of `before.changes.delete` is not wrong: the source deleted it after this run had made its deletes.
    wrong = len(lasting.keys() - before.changes.delete)
    part = proof.of_part(
        pair.source.keys.stamps(source_rows), pair.backup.keys.stamps(backup_rows), wrong, len(differing) - wrong
    )
    return before.equal + part


def check_written(pair: StorePair, keys: Collection[Key], before: Compared) -> None:
    """Raises NotVerified if one of these keys, which were just written, does not have the source's stamp in the backup.

    Passes over records that the source has changed since `before`. Reads the stamps of the keys on both sides.
    """
    if not keys:
        return
    source_rows, backup_rows = pair.stamp_rows_of(list(keys))
    source_stamps, backup_stamps = proof.split(pair.source, source_rows, pair.backup, backup_rows)
    differing = proof.differences(source_stamps, backup_stamps)
    wrong = sum(source_stamps.get(key) == before.source_stamps.get(key) for key in differing)
    if wrong:
        label = pair.backup.place.label
        differ = quantity(
            wrong,
            f"record of the {label} differs from the source right after it was",
            f"records of the {label} differ from the source right after they were",
        )
        raise NotVerified(f"{differ} written. Nothing was deleted.")


def _proven_since(pair: StorePair, before: Compared) -> Proof | None:
    """Reads again the stamps that differed in a piece. Returns the proof of the piece; None if some differ."""
    if before.unread:
        return None
    source_rows, backup_rows = pair.stamp_rows_of([*(before.source_stamps.keys() | before.backup_stamps.keys())])
    if source_rows != backup_rows:
        return None
    return before.equal + proof.of_rows((before.source_rows & before.backup_rows) | source_rows)
