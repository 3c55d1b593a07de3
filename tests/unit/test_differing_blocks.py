"""What blocks of keys say of the rest of a walk, without a server: which differ, and whether that is little enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backup.core.key_ranges import EqualRanges
from backup.core.model import WHOLE, Chunk, Fingerprint
from backup.core.run_values import Counts, Proof
from backup.core.workers import Workers
from backup.mirror import differing_parts
from backup.mirror.differing_parts import RECORDS_AS_ONE, RECORDS_AT_ONCE, DifferingParts, differing_blocks, have_blocks
from backup.mirror.pair import StorePair
from backup.mirror.settled import Settled
from backup.mirror.walk import Rest, settled_in_large_parts
from backup.stores.values import Place


class Side:
    """A store whose blocks have these records each, by the names of the blocks, and a version that says their state."""

    def __init__(self, versions: Mapping[int, int] | None, *, has_blocks: bool = True, kind: str = "x") -> None:
        self.versions, self.asked = versions, list[EqualRanges]()
        self.relational, self.blocks, self.place = self, self if has_blocks else None, Place(kind, "", "", "")

    def ends(self, _part: Chunk) -> tuple[int, int]:
        return 1, 640

    def fingerprints(self, blocks: EqualRanges) -> dict[int, Fingerprint] | None:
        self.asked.append(blocks)
        if self.versions is None:
            return None
        asked: dict[int, Fingerprint] = {}
        for start, version in self.versions.items():
            if blocks.first <= start <= blocks.last:
                name = start - (start - blocks.first) % blocks.width
                _, records, sums, _ = asked.get(name, Fingerprint("sums", 0, (0, 0)))
                asked[name] = Fingerprint("sums", records + 64, (sums[0] + version, sums[1] + version))
        return asked


def differing(source: Side, backup: Side, *, at_most: int = 1_000, **expects: bool) -> list[DifferingParts]:
    with Workers(1) as workers:
        pair = StorePair(source, backup, workers)  # type: ignore[arg-type] # as much of a store as blocks need
        assert have_blocks(pair)
        return [*differing_blocks(pair, WHOLE, 640, at_most, **{"expects_few": False, **expects})]


def test_blocks_that_differ_are_named_and_all_others_are_proven() -> None:
    source, backup = Side({1: 7, 65: 7, 129: 7}), Side({1: 7, 65: 8, 193: 7})
    [difference] = differing(source, backup)
    assert difference.numbers == {65, 129, 193}
    assert (difference.block_width, difference.equal.source.records) == (64, 64)
    assert source.asked == backup.asked == [EqualRanges(1, 640, 64)]


@pytest.mark.parametrize(
    ("versions", "at_most"), [(None, 1_000), ({1: 7, 65: 8}, 63)], ids=["no fingerprints", "too many records"]
)
def test_nothing_is_named_that_the_servers_cannot_say_or_memory_cannot_hold(
    versions: Mapping[int, int] | None, at_most: int
) -> None:
    assert differing(Side({1: 7, 65: 7}), Side(versions), at_most=at_most) == []


def test_blocks_are_told_as_often_as_memory_has_room_for_no_more_of_their_stamps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(differing_parts, "_BLOCKS_AT_ONCE", 2)
    versions = dict.fromkeys(range(1, 640, 64), 7)
    source, backup = Side(versions), Side({**versions, 1: 8, 193: 8, 257: 8, 513: 8})
    told = differing(source, backup, at_most=128)
    assert [(set(part.numbers), part.upto) for part in told] == [({1, 193}, (256,)), ({257, 513}, None)]
    assert [part.equal.source.records for part in told] == [2 * 64, 4 * 64]
    assert len(source.asked) == 6  # behind two blocks that are equal, the next two are first asked for as one


def test_blocks_are_told_up_to_those_of_which_too_many_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differing_parts, "_BLOCKS_AT_ONCE", 2)
    versions = dict.fromkeys(range(1, 640, 64), 7)
    [told] = differing(Side(versions), Side({**versions, 65: 8, 257: 8, 321: 8}), at_most=127)
    assert (set(told.numbers), told.upto, told.equal.source.records) == ({65}, (256,), 3 * 64)


def test_after_some_statements_the_blocks_so_far_are_told_also_where_none_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(differing_parts, "_BLOCKS_AT_ONCE", 1)
    monkeypatch.setattr(differing_parts, "_PARTS_AHEAD", 2)
    monkeypatch.setattr(differing_parts, "_STATEMENTS_AT_MOST", 2)
    versions = dict.fromkeys(range(1, 640, 64), 7)
    told = differing(Side(versions), Side({**versions, 577: 8}), expects_few=True)
    ends = [(set(), (192,)), (set(), (448,)), (set(), (576,)), ({577}, None)]
    assert [(set(part.numbers), part.upto) for part in told] == ends
    assert [part.equal.source.records for part in told] == [3 * 64, 4 * 64, 2 * 64, 0]


def test_what_is_told_has_no_records_behind_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differing_parts, "_BLOCKS_AT_ONCE", 1)
    versions = dict.fromkeys(range(1, 640, 64), 7)
    others = {**versions, 129: 8, 257: 8}  # the second look shows also which are equal behind them
    [early] = differing(Side(versions), Side(others), at_most=63, expects_few=True)
    assert (set(early.numbers), early.upto, early.equal.source.records) == (set(), (128,), 2 * 64)
    monkeypatch.setattr(differing_parts, "_STATEMENTS_AT_MOST", 2)
    told = differing(Side(versions), Side(others), expects_few=True)
    ends = [(set(), (128,), 2 * 64), ({129, 257}, (576,), 5 * 64), (set(), None, 64)]
    assert [(set(part.numbers), part.upto, part.equal.source.records) for part in told] == ends


def test_many_blocks_are_asked_for_as_one_where_few_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differing_parts, "_BLOCKS_AT_ONCE", 2)
    versions = dict.fromkeys(range(1, 640, 64), 7)
    source, backup = Side(versions), Side({**versions, 321: 8})
    [difference] = differing(source, backup, expects_few=True)
    assert difference.numbers == {321}
    assert difference.equal.source.records == 9 * 64
    # Behind the first part, which is equal, all others in one call; then the one that differs.
    assert (
        source.asked
        == backup.asked
        == [EqualRanges(1, 128, 128), EqualRanges(129, 640, 128), EqualRanges(257, 384, 64)]
    )


def test_behind_a_part_that_differs_the_next_one_is_asked_for_its_blocks_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(differing_parts, "_BLOCKS_AT_ONCE", 2)
    monkeypatch.setattr(differing_parts, "_PARTS_AHEAD", 2)
    versions = dict.fromkeys(range(1, 640, 64), 7)
    source, backup = Side(versions), Side({**versions, 65: 8})
    [difference] = differing(source, backup, expects_few=True)
    assert difference.numbers == {65}
    assert difference.equal.source.records == 9 * 64
    asked = [(blocks.first, blocks.last, blocks.width) for blocks in source.asked]
    assert asked == [(1, 128, 128), (1, 128, 64), (129, 256, 64), (257, 384, 128), (385, 640, 128)]


def test_no_part_is_passed_over_when_parts_that_differed_become_equal_on_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(differing_parts, "_BLOCKS_AT_ONCE", 1)
    versions = dict.fromkeys(range(1, 640, 64), 7)
    still_differing = dict.fromkeys((385, 513, 577), 8)

    class Changing(Side):
        """Once the first nine parts have been looked at, two of them are equal."""

        def fingerprints(self, blocks: EqualRanges) -> dict[int, Fingerprint] | None:
            if len(self.asked) == 2:
                self.versions = {**versions, **still_differing}
            return super().fingerprints(blocks)

    source, backup = Side(versions), Changing({**versions, 129: 8, 257: 8, **still_differing})
    [difference] = differing(source, backup, expects_few=True)
    assert difference.numbers == {385, 513, 577}
    assert difference.equal.source.records == 7 * 64


def test_where_nothing_should_differ_many_parts_are_asked_for_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differing_parts, "_BLOCKS_AT_ONCE", 2)
    versions = dict.fromkeys(range(1, 640, 64), 7)
    source, backup = Side(versions), Side({**versions, 1: 8})
    [difference] = differing(source, backup, expects_few=True, expects_none=True)
    assert difference.numbers == {1}
    assert source.asked == [EqualRanges(1, 640, 128), EqualRanges(1, 128, 64)]


@pytest.mark.parametrize("other", [Side({}, has_blocks=False), Side({}, kind="y")], ids=["without", "of another kind"])
def test_a_side_without_blocks_of_the_same_functions_has_none_for_both(other: Side) -> None:
    with Workers(1) as workers:
        assert not have_blocks(StorePair(Side({}), other, workers))  # type: ignore[arg-type] # as above


class Walk:
    """A `Settling` that may look at so many records at once, and finds this by blocks."""

    has_blocks = True

    def asks_in_parts(self, _records: int) -> bool:
        return True

    def __init__(self, at_once: int, *differences: DifferingParts) -> None:
        self._at_once, self._differences = at_once, differences

    def may_look_at_once(self, records: int) -> bool:
        return records <= self._at_once

    def differing_blocks(self, _part: Chunk, _records: int, *, expects_few: bool) -> Iterator[DifferingParts]:
        yield from self._differences

    def settle_blocks(self, part: Chunk, _differing: DifferingParts) -> Settled:
        return Settled(part, Counts(), 10, 10)


class WalkInParts(Walk):
    """One whose second part differs, behind the key 32."""

    def asks_in_parts(self, _records: int) -> bool:
        return False

    def parts_at_once(self, _part: Chunk, _records: int) -> Iterator[Chunk]:
        yield from (Chunk((0,), (32,)), Chunk((32,)))

    def skip(self, part: Chunk) -> Settled | None:
        return Settled(part, Counts(), 4, 4) if part.upto else None

    def differing_blocks(self, part: Chunk, records: int, *, expects_few: bool) -> Iterator[DifferingParts]:
        assert (part, records) == (Chunk((32,)), 6)
        return super().differing_blocks(part, records, expects_few=expects_few)


FIRST, LAST = DifferingParts(Proof(), frozenset({1}), 64, (64,)), DifferingParts(Proof(), frozenset({65}), 64)


def settled_parts(walk: Any, rest: Rest, seconds_left: float = 100, **how: bool) -> list[Chunk]:
    return [settled.chunk for settled in settled_in_large_parts(walk, rest, lambda: seconds_left, **how)]


def test_the_rest_is_settled_by_blocks_part_by_part_as_long_as_there_is_time() -> None:
    walk, rest = Walk(20, FIRST, LAST), Rest(Chunk((0,)), 10)
    assert settled_parts(walk, rest, quiet=True, changed=False) == [Chunk((0,), (64,)), Chunk((64,))]
    assert settled_parts(walk, rest, 60, quiet=True, changed=False) == [Chunk((0,), (64,))]
    assert settled_parts(Walk(19, LAST), rest, quiet=True, changed=False) == []
    assert settled_parts(Walk(20), rest, quiet=True, changed=False) == []


def test_what_lies_behind_equal_parts_is_settled_by_its_own_blocks() -> None:
    walk, rest = WalkInParts(20, FIRST, LAST), Rest(Chunk((0,)), 10)
    ends = [Chunk((0,), (32,)), Chunk((32,), (64,)), Chunk((64,))]
    assert settled_parts(walk, rest, quiet=True, changed=False) == ends


@pytest.mark.parametrize(("changed", "at_once"), [(True, RECORDS_AT_ONCE), (False, 2 * RECORDS_AS_ONE)])
def test_the_longest_statement_about_blocks_decides_whether_they_are_asked_for(*, changed: bool, at_once: int) -> None:
    rest = Rest(WHOLE, 10 * RECORDS_AS_ONE)
    assert settled_parts(Walk(at_once, LAST), rest, quiet=False, changed=changed) == [WHOLE]
    assert settled_parts(Walk(at_once - 1, LAST), rest, quiet=False, changed=changed) == []
