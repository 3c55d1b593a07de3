"""Says whether two sides are equal, by totals of their stamps and by differences that last. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import Any

from backup.core.model import Chunk, Fingerprint, Key, StampRow, Stamps
from backup.core.run_values import Proof, Total
from backup.mirror.diff import compare_stamps
from backup.stores import Store

_MODULUS = 1 << 128


class DifferenceKind(StrEnum):
    """How a record differs.

    MISSING: the backup lacks it. EXTRA: only the backup has it. STALE: the versions differ. CONTENT: the versions are
    equal, but the values differ.
    """

    MISSING = "missing"
    EXTRA = "extra"
    STALE = "stale"
    CONTENT = "content"


def total(stamps: Stamps) -> Total:
    """Returns the number of the stamps and their checksum: the sum of a 128-bit BLAKE2b of each key and version."""
    checksum = sum(
        int.from_bytes(blake2b(repr((key, version.value)).encode("utf-8", "surrogatepass"), digest_size=16).digest())
        for key, version in stamps.items()
    )
    return Total(len(stamps), checksum % _MODULUS)


def are_equal(of_source: Fingerprint | None, of_backup: Fingerprint | None) -> bool:
    """Returns whether the fingerprints say that both sides are equal. False where a side has none (None)."""
    return of_source is not None and of_source == of_backup


def of_fingerprint(fingerprint: Fingerprint) -> Proof:
    """Returns the proof of a chunk with this fingerprint on both sides. Its digest is the checksum, or its last two
    sums if it has none."""
    high, low = fingerprint.sums[-2:] if fingerprint.sums else (0, fingerprint.digest)
    both = Total(fingerprint.records, ((high << 64) + low) % _MODULUS)
    return Proof(both, both)


def of_number(records: int) -> Proof:
    """Returns the proof of a part of which both sides have so many records. They were not compared."""
    both = Total(records, None)
    return Proof(both, both)


def of_rows(rows: Collection[StampRow]) -> Proof:
    """Returns the proof of a part where both sides have exactly these stamp rows.

    The checksum only tells one state from another. It is a 128-bit BLAKE2b of the sum of each column of integers and of
    the sorted texts of each other column.
    """
    text = repr([_sum(column) for column in zip(*rows, strict=True)]).encode("utf-8", "surrogatepass")
    both = Total(len(rows), int.from_bytes(blake2b(text, digest_size=16).digest()))
    return Proof(both, both)


def _sum(column: Sequence[Any]) -> int | list[str]:
    kinds = set(map(type, column))
    if kinds == {type(None)}:
        return 0
    return sum(column) if kinds == {int} else sorted(map(repr, column))


def of_part(source_stamps: Stamps, backup_stamps: Stamps, differing: int, in_flight: int) -> Proof:
    """Returns the proof of a part where `differing` records differ for good and others were `in_flight`."""
    return Proof(total(source_stamps), total(backup_stamps), differing, in_flight)


def differences(source_stamps: Stamps, backup_stamps: Stamps) -> dict[Key, DifferenceKind]:
    """Returns the keys whose stamps differ, each with the kind of its difference."""
    changes = compare_stamps(source_stamps, backup_stamps, force=False)
    return (
        dict.fromkeys(changes.insert, DifferenceKind.MISSING)
        | dict.fromkeys(changes.update, DifferenceKind.STALE)
        | dict.fromkeys(changes.delete, DifferenceKind.EXTRA)
    )


def lasting(
    source: Store,
    backup: Store,
    chunk: Chunk,
    source_stamps: Stamps,
    first_look: Mapping[Key, DifferenceKind],
    moved: Collection[Key] = (),
    rows: Callable[[], tuple[set[StampRow], set[StampRow]]] | None = None,
) -> dict[Key, DifferenceKind]:
    """Looks a second time at the differences of a first look, and returns those that are still there.

    The other differences were in flight. `source_stamps` are the source's stamps at the first look. A record whose
    stamp changes in the source between two looks is being written: it is in flight, whatever the backup has. `moved`
    are the keys of records whose stamps had changed already at the first look. Reads the stamps of the whole chunk
    again, or `rows`, which have all of these keys, unless every difference is in `moved`.
    """
    suspects = [key for key in first_look if key not in moved]
    if not suspects:
        return {}
    source_rows, backup_rows = (source.stamp_rows(chunk), backup.stamp_rows(chunk)) if rows is None else rows()
    stamps_now, backup_stamps = split(source, source_rows, backup, backup_rows)
    second_look = differences(stamps_now, backup_stamps)
    return {
        key: second_look[key]
        for key in suspects
        if key in second_look and stamps_now.get(key) == source_stamps.get(key)
    }


def without(stamps: Stamps, keys: Collection[Key]) -> Stamps:
    """Returns the stamps without those of `keys`."""
    if not keys:
        return stamps
    return {key: version for key, version in stamps.items() if key not in keys}


def split(
    source: Store, source_rows: set[StampRow], backup: Store, backup_rows: set[StampRow]
) -> tuple[Stamps, Stamps]:
    """Returns the stamps of source and backup that differ. A row in both sets is equal and left out."""
    return source.keys.stamps(source_rows - backup_rows), backup.keys.stamps(backup_rows - source_rows)
