"""Whether two sides are equal: totals of their stamps, and differences that last. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import Any

from backup.core.model import Chunk, Fingerprint, Key, Proof, StampRow, Stamps, Total
from backup.mirror.diff import compare
from backup.stores import Store

_MODULUS = 1 << 128


class DifferenceKind(StrEnum):
    """How a record differs: the backup lacks it, has it alone, has another version, or other values in the same one."""

    MISSING = "missing"
    EXTRA = "extra"
    STALE = "stale"
    CONTENT = "content"


def total(stamps: Stamps) -> Total:
    """Count and checksum of stamps: the sum of a 128-bit BLAKE2b of each key and version."""
    checksum = sum(
        int.from_bytes(blake2b(repr((key, version.value)).encode("utf-8", "surrogatepass"), digest_size=16).digest())
        for key, version in stamps.items()
    )
    return Total(len(stamps), checksum % _MODULUS)


def alike(one: Fingerprint | None, other: Fingerprint | None) -> bool:
    """Whether the fingerprints say that both sides are equal; one that could not be made says nothing."""
    return one is not None and one == other


def of_fingerprint(found: Fingerprint) -> Proof:
    """The proof of a chunk whose fingerprint both sides have: its last two sums, 64 bits each, are the checksum."""
    high, low = found.sums[-2:]
    both = Total(found.records, ((high << 64) + low) % _MODULUS)
    return Proof(both, both)


def of_rows(rows: Collection[StampRow]) -> Proof:
    """The proof of a part whose rows both sides have, as was seen by comparing them.

    The checksum only tells one state from another: a 128-bit BLAKE2b of what each column adds up to, and of all texts.
    """
    text = repr([_sum(column) for column in zip(*rows, strict=True)]).encode("utf-8", "surrogatepass")
    both = Total(len(rows), int.from_bytes(blake2b(text, digest_size=16).digest()))
    return Proof(both, both)


def _sum(column: Sequence[Any]) -> int | list[str]:
    kinds = set(map(type, column))
    if kinds == {type(None)}:
        return 0
    return sum(column) if kinds == {int} else sorted(map(repr, column))


def of_part(ours: Stamps, theirs: Stamps, differing: int, in_flight: int) -> Proof:
    """The proof of a part in which some records differ for good and others were being written."""
    return Proof(total(ours), total(theirs), differing, in_flight)


def differences(ours: Stamps, theirs: Stamps) -> dict[Key, DifferenceKind]:
    """The keys of the source's and the backup's stamps that differ."""
    changes = compare(ours, theirs, force=False)
    return (
        dict.fromkeys(changes.insert, DifferenceKind.MISSING)
        | dict.fromkeys(changes.update, DifferenceKind.STALE)
        | dict.fromkeys(changes.delete, DifferenceKind.EXTRA)
    )


def lasting(
    source: Store,
    backup: Store,
    chunk: Chunk,
    ours: Stamps,
    found: Mapping[Key, DifferenceKind],
    moved: Collection[Key] = (),
) -> dict[Key, DifferenceKind]:
    """Those differences that are still there at a second look; the others were in flight.

    `ours` is what the look that found them saw of the source, `moved` are the records whose stamp had changed there
    since an earlier look. A record whose stamp moves between two looks is being written: it is in flight whatever the
    backup has.
    """
    still = [key for key in found if key not in moved]
    if not still:
        return {}
    again, copies = split(source, source.stamp_rows(chunk), backup, backup.stamp_rows(chunk))
    left = differences(again, copies)
    return {key: left[key] for key in still if key in left and again.get(key) == ours.get(key)}


def without(stamps: Stamps, keys: Collection[Key]) -> Stamps:
    """The stamps but those of some keys."""
    if not keys:
        return stamps
    return {key: version for key, version in stamps.items() if key not in keys}


def split(source: Store, ours: set[StampRow], backup: Store, theirs: set[StampRow]) -> tuple[Stamps, Stamps]:
    """The stamps of both in which the two sets of rows differ; whatever is in both is equal."""
    return source.keys.stamps(ours - theirs), backup.keys.stamps(theirs - ours)
