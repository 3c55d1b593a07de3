"""Says which parts of a piece differ, by the fingerprints of its buckets or of its blocks of keys. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from operator import attrgetter

from backup.core.key_ranges import EqualRanges
from backup.core.model import Chunk, Fingerprint, Key, StampRow
from backup.core.run_values import Proof
from backup.mirror import proof
from backup.mirror.pair import StorePair
from backup.stores import Store
from backup.stores.abilities import Buckets, KeyBlocks

_NEIGHBOURS = 64  # records of a block, about
_BLOCKS_AT_ONCE = 3_000  # of which memory holds the fingerprints
_PARTS_AHEAD = 8  # of so many blocks, in one call whose time is limited
_STATEMENTS_AT_MOST = 10  # of a side: then what they have shown is settled, and a run may stop
RECORDS_AT_ONCE = _BLOCKS_AT_ONCE * _NEIGHBOURS
"""Of about how many records blocks are asked for in one statement."""
RECORDS_AS_ONE = RECORDS_AT_ONCE * _PARTS_AHEAD
"""Of about how many records one statement is where few differ: many blocks are asked for as one."""
STAMPS_AT_MOST = 100_000
"""Of so many records of a side blocks may differ at once: docs/decisions/buckets.md."""


@dataclass(frozen=True)
class DifferingParts:
    """The parts of a piece whose fingerprints differ.

    - `equal`: the proof of all other parts.
    - `numbers`: those of the buckets that differ, or, with a `block_width`, the names of the blocks of so many keys.
    - `upto`: the last key that blocks were asked for; None: they were asked for up to the end of the piece.
    """

    equal: Proof
    numbers: frozenset[int]
    block_width: int | None = None
    upto: Key | None = None


def differing_buckets(pair: StorePair, piece: Chunk) -> DifferingParts | None:
    """Returns the buckets of the piece that differ; None if most of them do, or a side has no buckets."""
    if pair.source.buckets is None or pair.backup.buckets is None:
        return None
    of_source, of_backup = pair.both(lambda store: _buckets(store).fingerprints(piece))
    if of_source is None or of_backup is None:
        return None
    differing = _differing(of_source, of_backup)
    if len(differing) * 2 > len(of_source.keys() | of_backup.keys()):
        return None
    return DifferingParts(_proof_of_others(of_source, differing), differing)


def have_blocks(pair: StorePair) -> bool:
    """Returns whether both sides have blocks of keys, with fingerprints of the same functions."""
    stores = (pair.source, pair.backup)
    return stores[0].place.kind == stores[1].place.kind and all(
        store.relational is not None and store.relational.blocks for store in stores
    )


def asks_in_parts(pair: StorePair, records: int) -> bool:
    """Returns whether one fingerprint of so many records takes several statements, and blocks as many."""
    return have_blocks(pair) and pair.backup.traits.in_process and records > RECORDS_AT_ONCE


def differing_blocks(
    pair: StorePair, part: Chunk, records: int, at_most: int, *, expects_few: bool, expects_none: bool = False
) -> Iterator[DifferingParts]:
    """Yields the blocks that differ in a part of the key space with about so many records, in the order of keys.

    Yields them once for all, or as often as they would else have more records than `at_most`, or take more than a few
    statements; `upto` says how far. Ends before the end of the part where the blocks of one statement that differ have
    more records than that, or a side cannot make fingerprints of them. Call it only where both sides have blocks
    (`have_blocks`). With `expects_few` it asks for many blocks as one, and once these are equal, or with `expects_none`
    from the start, for eight times as many in a call, until some differ; and again behind many that do not.
    """
    ends = [ends_of_side for ends_of_side in pair.both(lambda store: _blocks(store).ends(part)) if ends_of_side]
    if not ends:
        return
    first, last = min(start for start, _ in ends), max(end for _, end in ends)
    # A block has some of the records, however far apart their keys are, so that the blocks are not too many.
    blocks = EqualRanges(first, last, max(_NEIGHBOURS, -(-_NEIGHBOURS * (last - first + 1) // max(1, records))))
    left, ahead, so_far = [*blocks.parts(_BLOCKS_AT_ONCE)], _PARTS_AHEAD if expects_none else 1, _SoFar(blocks.width)
    while left:
        if so_far.statements >= _STATEMENTS_AT_MOST:
            yield so_far.before(left[0])
            so_far = so_far.behind(left[0])
        so_far.statements += 1
        if expects_few:
            looked_at = _neighbours(left[:ahead])
            equal_ones, differing_ones = _looked_at(pair, looked_at)
            so_far.equal.update(equal_ones)
            left = [*differing_ones, *left[len(looked_at) :]]
            expects_few, ahead = not differing_ones, 1 if differing_ones else _PARTS_AHEAD
            continue
        of_source, of_backup = _of_blocks(pair, left[0])
        if of_source is None or of_backup is None:
            break
        differing = _differing(of_source, of_backup)
        to_read = [sum(side[block].records for block in differing if block in side) for side in (of_source, of_backup)]
        if max(to_read) > at_most:
            break
        if so_far.would_have(to_read) > at_most:
            yield so_far.before(left[0])
            so_far = so_far.behind(left[0])
            so_far.statements = 1
        so_far.equal[left[0].first] = _proof_of_others(of_source, differing)
        so_far.add(differing, to_read)
        left, expects_few = left[1:], not differing
    if not left or left[0].first > first:
        yield so_far.before(left[0]) if left else so_far.all()


@dataclass
class _SoFar:
    """What blocks have shown since the last that was told."""

    block_width: int
    equal: dict[int, Proof] = field(default_factory=dict)
    """By the first key of each part: those behind a part that differed may be known before it."""
    numbers: set[int] = field(default_factory=set)
    to_read: Sequence[int] = (0, 0)
    """How many records each side has in the blocks that differ."""
    statements: int = 0

    def would_have(self, to_read: Sequence[int]) -> int:
        return max(map(sum, zip(self.to_read, to_read, strict=True)))

    def add(self, numbers: Iterable[int], to_read: Sequence[int]) -> None:
        self.numbers.update(numbers)
        self.to_read = [*map(sum, zip(self.to_read, to_read, strict=True))]

    def all(self) -> DifferingParts:
        return DifferingParts(sum(self.equal.values(), Proof()), frozenset(self.numbers), self.block_width)

    def before(self, blocks: EqualRanges) -> DifferingParts:
        told = replace(self, equal={first: one for first, one in self.equal.items() if first < blocks.first})
        return replace(told.all(), upto=(blocks.first - 1,))

    def behind(self, blocks: EqualRanges) -> _SoFar:
        """What is known from these blocks on, and is not told yet."""
        equal = {first: one for first, one in self.equal.items() if first >= blocks.first}
        return _SoFar(self.block_width, equal)


def _neighbours(parts: Sequence[EqualRanges]) -> Sequence[EqualRanges]:
    """The first of the parts, and those behind it up to a gap: between parts that differed, others were equal."""
    upto = (place for place, (one, other) in enumerate(pairwise(parts), 1) if one.last + 1 != other.first)
    return parts[: next(upto, len(parts))]


def _looked_at(pair: StorePair, parts: Sequence[EqualRanges]) -> tuple[Mapping[int, Proof], Sequence[EqualRanges]]:
    """The proofs of those neighbouring parts that are equal, by their first keys, each asked for as one block in the
    same call; and the other parts."""
    of_source, of_backup = _of_blocks(pair, EqualRanges.joined(parts))
    if of_source is None or of_backup is None:
        return {}, parts
    differing = _differing(of_source, of_backup)
    equal = {first: proof.of_fingerprint(one) for first, one in of_source.items() if first not in differing}
    return equal, [part for part in parts if part.first in differing]


def _of_blocks(pair: StorePair, blocks: EqualRanges) -> tuple[Mapping[int, Fingerprint] | None, ...]:
    return pair.both(lambda store: _blocks(store).fingerprints(blocks))


def stamp_rows(pair: StorePair, piece: Chunk, parts: DifferingParts | None) -> tuple[set[StampRow], set[StampRow]]:
    """Returns the stamp rows of source and backup, in these parts of the piece; None stands for all.

    Holds the rows of both sides in memory, so they must be few enough for that.
    """
    if parts is None:
        return pair.both(lambda store: store.stamp_rows(piece))
    if not parts.numbers:
        return set(), set()
    if (width := parts.block_width) is not None:
        names = sorted(parts.numbers)
        return pair.both(lambda store: _blocks(store).stamp_rows(names, width))
    return pair.both(lambda store: _buckets(store).stamp_rows(piece, parts.numbers))


def _buckets(store: Store) -> Buckets:
    assert store.buckets is not None  # noqa: S101 - for mypy; `differing_buckets` has looked
    return store.buckets


def _blocks(store: Store) -> KeyBlocks:
    assert store.relational is not None  # noqa: S101 - for mypy; `have_blocks` has said so
    assert store.relational.blocks is not None  # noqa: S101 - the same
    return store.relational.blocks


def _differing(of_source: Mapping[int, Fingerprint], of_backup: Mapping[int, Fingerprint]) -> frozenset[int]:
    """The numbers of the parts whose fingerprints differ."""
    numbers = of_source.keys() | of_backup.keys()
    return frozenset(n for n in numbers if not proof.are_equal(of_source.get(n), of_backup.get(n)))


def _proof_of_others(of_source: Mapping[int, Fingerprint], differing: frozenset[int]) -> Proof:
    """The proof of the parts that are equal on both sides."""
    return _together(of_source[number] for number in of_source.keys() - differing)


def _together(fingerprints: Iterable[Fingerprint]) -> Proof:
    """The proof of parts with these fingerprints on both sides."""
    some = list(fingerprints)
    records, digest = (sum(map(attrgetter(name), some)) for name in ("records", "digest"))
    sums = zip(*(fingerprint.sums for fingerprint in some), strict=True)
    return proof.of_fingerprint(Fingerprint("", records, tuple(map(sum, sums)), digest))
