"""Integer keys that a run inserts together: one entry of the recycle bin for many, which says the same of each."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from backup.core.model import Action, Chunk, Image, Key
from backup.core.run_values import Counts
from backup.recycle_bin.entries import RECYCLE_BIN
from backup.stores import stamps_in
from tests.contract.benches import ONE_TRY, Bench, CosmosBench, Item
from tests.contract.recycled import Recycled, keys, moment, recycled, run_at

EVEN = range(-40, 41, 2)
ENDS = (*range(-(1 << 63), 10 - (1 << 63)), *range((1 << 63) - 10, 1 << 63))
SYNC_ID = run_at(1)[0].sync_id


@pytest.fixture
def sides(bench: Bench) -> Recycled:
    bench.create()
    return recycled(bench)


def entries(sides: Recycled, sync_id: str = SYNC_ID) -> int:
    """How many entries the run has, by default that of the first minute."""
    return sides.backup.sibling(RECYCLE_BIN).count({"SyncId": sync_id}, "EntryId", "0", "zz")


INSERTED: list[tuple[Sequence[Any], int]] = [
    (range(100), 1),
    (range(65_520, 65_556), 2),  # in two blocks
    (EVEN, 2),
    (ENDS, 2),
    (range(0, 20 << 16, 1 << 16), 20),  # none near another
    (range(7), 7),
    ([1 << 63, *range(20)], 21),  # one is no integer of 64 bits
    ([*"abcdefghij"], 10),
]
"""Keys, and how many entries they take."""


def test_each_key_is_told_of_once(sides: Recycled) -> None:
    """Each minute's run has keys of another kind; many of them are keys of other runs too."""
    for minute, (numbers, _) in enumerate(INSERTED, 1):
        sides.add(numbers, minute)
    for minute, (numbers, made) in enumerate(INSERTED, 1):
        sync_id = run_at(minute)[0].sync_id
        assert entries(sides, sync_id) == made, minute
        assert sides.actions(minute) == {(n,): Action.INSERTED for n in numbers}
        assert sides.bin.counted(sync_id) == Counts(inserted=len(numbers))
        of_keys = [kept for kept in sides.bin.of_keys((n,) for n in numbers) if kept.sync_id == sync_id]
        assert {kept.key for kept in of_keys} == {(n,) for n in numbers}
        assert {(kept.record, kept.version, kept.at, kept.side) for kept in of_keys} == {
            (None, None, moment(minute), "backup")
        }


def test_only_asked_keys_are_found_however_their_numbers_are_written(sides: Recycled) -> None:
    sides.add(EVEN, 1)
    asked: list[Key] = [(-4,), (-3,), (Decimal("6.0"),), (8.0,), (Decimal("8.5"),), (float("inf"),), (100,), ("12",)]
    assert sorted(kept.key for kept in sides.bin.of_keys(asked)) == [(-4,), (6,), (8,)]
    assert sides.bin.first_after(asked, moment(0)).keys() == {(-4,), (6,), (8,)}
    assert sides.bin.first_after(asked, moment(1)) == {}


def test_what_a_run_tells_again_of_such_a_key_adds_nothing(sides: Recycled) -> None:
    run, now = run_at(1)
    first, resumed = sides.bin.recorder(run, now), None
    numbers: list[Key] = [(n,) for n in range(20)]
    for _ in range(2):  # an answer was lost
        first([], None, numbers)
    resumed = sides.bin.recorder(run, now, resumed=True)
    for keep in (first, resumed):
        keep(
            [
                Image((3,), Action.UPDATED, {"Id": 3, "id": 3}, (1,)),
                Image((50,), Action.UPDATED, {"Id": 50, "id": 50}, (1,)),
            ],
            None,
        )
        keep([Image((4,), Action.DELETED, {"Id": 4, "id": 4}, (1,))], None)
        keep([], None, [(4,), (5,)])
    assert entries(sides) == 2
    assert sides.actions(1) == {(n,): Action.INSERTED for n in range(20)} | {(50,): Action.UPDATED}
    assert sides.bin.counted(SYNC_ID) == Counts(20, 1, 0)


@pytest.mark.parametrize("resumed", [False, True])
def test_after_a_delete_keys_are_kept_one_by_one(sides: Recycled, resumed: bool) -> None:
    run, now = run_at(1)
    keep = sides.bin.recorder(run, now)
    keep([Image((3,), Action.DELETED, {"Id": 3, "id": 3}, (1,))], None)
    if resumed:
        keep = sides.bin.recorder(run, now, resumed=True)
    keep([], None, [(n,) for n in range(20)])
    assert sides.actions(1) == {(n,): Action.DELETED if n == 3 else Action.INSERTED for n in range(20)}
    assert entries(sides) == 20


def test_the_first_call_of_a_run_does_not_ask_what_earlier_calls_have_kept(
    sides: Recycled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(*asked: object) -> int:
        raise AssertionError(asked)

    monkeypatch.setattr(sides.bin._entries, "count", count)
    sides.bin.recorder(*run_at(1))([], None, [(1,)])
    monkeypatch.undo()
    assert entries(sides) == 1


def test_sides_have_entries_of_their_own(sides: Recycled) -> None:
    run, now = run_at(1)
    for side in ("source", "backup"):
        sides.bin.recorder(run, now, side)([], None, [(n,) for n in range(20)])
    assert entries(sides) == 2
    assert sides.bin.counted(SYNC_ID) == Counts(inserted=20)
    assert {kept.side for kept in sides.bin.of_keys([(7,)])} == {"backup"}


def test_entries_that_are_purged_take_their_keys_along(sides: Recycled) -> None:
    sides.add(range(30), 1)
    sides.add(range(30, 60), 2)
    assert sides.bin.purge(moment(2)) == 1
    assert sides.of(1) == {}
    assert sides.of(2).keys() == {(n,) for n in range(30, 60)}


def test_a_record_taken_for_absent_that_is_there_is_overwritten_and_kept(bench: Bench) -> None:
    numbers = range(1, 31)
    bench.create(Item(n, version=2, text=f"new {n}") for n in numbers)
    sides = recycled(bench, retry=ONE_TRY)
    bench.put("backup", Item(7, version=1, text="old"))
    run, now = run_at(1)
    records = sides.copies(keys(bench, *numbers), 1)
    relational = sides.backup.relational
    write = sides.backup.write if relational is None else relational.insert
    write(records, sides.bin.recorder(run, now))
    assert stamps_in(sides.backup, Chunk()) == stamps_in(sides.source, Chunk())
    kept = sides.of(1)
    assert {key: image.action for key, image in kept.items()} == {
        bench.key(n): Action.UPDATED if n == 7 else Action.INSERTED for n in numbers
    }
    assert kept[bench.key(7)].version is not None
    assert isinstance(bench, CosmosBench) or entries(sides) == 2
