"""Whether two sides are equal: totals of their stamps, and differences that last. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from hashlib import blake2b

from backup.compare import compare
from backup.models import Chunk, Key, Proof, Stamps, Total
from backup.stores import Store

_MODULUS = 1 << 128


class Kind(StrEnum):
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


def plus(one: Total, other: Total) -> Total:
    """The totals of two parts together."""
    return Total(one.records + other.records, (one.checksum + other.checksum) % _MODULUS)


def with_equal(proof: Proof, stamps: Stamps) -> Proof:
    """The proof with a part that both sides were seen to hold alike."""
    both = total(stamps)
    return Proof(plus(proof.source, both), plus(proof.backup, both), proof.differing, proof.in_flight)


def with_part(proof: Proof, ours: Stamps, theirs: Stamps, differing: int, in_flight: int) -> Proof:
    """The proof with a part in which some records differ for good and others were being written."""
    return Proof(
        plus(proof.source, total(ours)),
        plus(proof.backup, total(theirs)),
        proof.differing + differing,
        proof.in_flight + in_flight,
    )


def differences(ours: Stamps, theirs: Stamps) -> dict[Key, Kind]:
    """The keys of the source's and the backup's stamps that differ."""
    changes = compare(ours, theirs, force=False)
    return (
        dict.fromkeys(changes.insert, Kind.MISSING)
        | dict.fromkeys(changes.update, Kind.STALE)
        | dict.fromkeys(changes.delete, Kind.EXTRA)
    )


def lasting(
    source: Store, backup: Store, chunk: Chunk, seen: Stamps, ours: Stamps, found: dict[Key, Kind]
) -> dict[Key, Kind]:
    """Those differences that are still there at a second look; the others were in flight.

    `seen` is what an earlier look, and `ours` what the one that found them saw of the source. A record whose stamp in
    the source moved between two looks is being written: it is in flight whatever the backup has.
    """
    still = {key: kind for key, kind in found.items() if ours.get(key) == seen.get(key)}
    if not still:
        return {}
    again = source.stamps(chunk)
    left = differences(again, backup.stamps(chunk))
    return {key: left[key] for key in still if key in left and again.get(key) == ours.get(key)}


def without(stamps: Stamps, keys: Collection[Key]) -> Stamps:
    """The stamps but those of some keys."""
    return {key: version for key, version in stamps.items() if key not in keys}
