"""What blocks of keys say of the rest of a walk, without a server: which differ, and whether that is little enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from backup.core.key_ranges import EqualRanges
from backup.core.model import WHOLE, Chunk, Fingerprint
from backup.core.run_values import Counts, Proof
from backup.core.workers import Workers
from backup.mirror.differing_parts import DifferingParts, differing_blocks, have_blocks
from backup.mirror.pair import StorePair
from backup.mirror.settled import Settled
from backup.mirror.walk import Rest, settled_by_blocks


class Side:
    """A store whose blocks have these records each, by the names of the blocks, and a version that says their state."""

    def __init__(self, versions: Mapping[int, int] | None, *, has_blocks: bool = True) -> None:
        self.versions, self.asked = versions, list[EqualRanges]()
        self.relational, self.blocks = self, self if has_blocks else None

    def ends(self, _part: Chunk) -> tuple[int, int]:
        return 1, 640

    def fingerprints(self, blocks: EqualRanges) -> dict[int, Fingerprint] | None:
        self.asked.append(blocks)
        if self.versions is None:
            return None
        return {start: Fingerprint("sums", 64, (version, version)) for start, version in self.versions.items()}


def differing(source: Side, backup: Side, *, at_most: int = 1_000) -> DifferingParts | None:
    with Workers(1) as workers:
        pair = StorePair(source, backup, workers)  # type: ignore[arg-type] # as much of a store as blocks need
        assert have_blocks(pair)
        return differing_blocks(pair, WHOLE, 640, at_most)


def test_blocks_that_differ_are_named_and_all_others_are_proven() -> None:
    source, backup = Side({1: 7, 65: 7, 129: 7}), Side({1: 7, 65: 8, 193: 7})
    difference = differing(source, backup)
    assert difference is not None
    assert difference.numbers == {65, 129, 193}
    assert (difference.block_width, difference.equal.source.records) == (64, 64)
    assert source.asked == backup.asked == [EqualRanges(1, 640, 64)]


@pytest.mark.parametrize(
    ("versions", "at_most"), [(None, 1_000), ({1: 7, 65: 8}, 63)], ids=["no fingerprints", "too many records"]
)
def test_nothing_is_named_that_the_servers_cannot_say_or_memory_cannot_hold(
    versions: Mapping[int, int] | None, at_most: int
) -> None:
    assert differing(Side({1: 7, 65: 7}), Side(versions), at_most=at_most) is None


def test_a_side_without_blocks_has_none_for_both() -> None:
    with Workers(1) as workers:
        pair = StorePair(Side({}), Side({}, has_blocks=False), workers)  # type: ignore[arg-type] # as above
        assert not have_blocks(pair)


class Walk:
    """A `Settling` that may look at so many records at once, and finds this by blocks."""

    has_blocks = True

    def __init__(self, at_once: int, difference: DifferingParts | None) -> None:
        self._at_once, self._difference = at_once, difference

    def may_look_at_once(self, records: int) -> bool:
        return records <= self._at_once

    def differing_blocks(self, _part: Chunk, _records: int) -> DifferingParts | None:
        return self._difference

    def settle_blocks(self, part: Chunk, _differing: DifferingParts) -> Settled:
        return Settled(part, Counts(), 10, 10)


SOME = DifferingParts(Proof(), frozenset({1}), 64)


@pytest.mark.parametrize(("at_once", "difference", "settles"), [(20, SOME, True), (19, SOME, False), (20, None, False)])
def test_the_rest_is_settled_by_blocks_where_there_is_time_and_room(
    at_once: int, difference: DifferingParts | None, *, settles: bool
) -> None:
    walk: Any = Walk(at_once, difference)
    assert (settled_by_blocks(walk, Rest(WHOLE, 10), 2) is not None) == settles
