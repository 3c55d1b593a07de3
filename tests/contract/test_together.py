"""Integer keys that a run inserts together: one entry of the recycle bin for many, which says the same of each."""

from __future__ import annotations

from decimal import Decimal

import pytest

from backup.core.model import Action, Chunk, Image, Key
from backup.core.run_values import Counts
from backup.recycle_bin.entries import RECYCLE_BIN
from backup.stores import stamps_in
from tests.contract.benches import ONE_TRY, Bench, CosmosBench, Item
from tests.contract.test_recycle import Recycled, keys, moment, recycled, run_at

EVEN = range(-40, 41, 2)
ENDS = (*range(-(1 << 63), 10 - (1 << 63)), *range((1 << 63) - 10, 1 << 63))
SYNC_ID = run_at(1)[0].sync_id


@pytest.fixture
def it(bench: Bench) -> Recycled:
    bench.create()
    return recycled(bench)


def entries(it: Recycled) -> int:
    """How many entries the first minute's run has."""
    return it.backup.sibling(RECYCLE_BIN).count({"SyncId": SYNC_ID}, "EntryId", "0", "zz")


@pytest.mark.parametrize(
    ("numbers", "made"),
    [
        (range(100), 1),
        (range(65_520, 65_556), 2),  # in two blocks
        (EVEN, 2),
        (ENDS, 2),
        (range(0, 20 << 16, 1 << 16), 20),  # none near another
        (range(7), 7),
        ([1 << 63, *range(20)], 21),  # one is no integer of 64 bits
        ([*"abcdefghij"], 10),
    ],
)
def test_each_key_is_told_of_once(it: Recycled, numbers: range, made: int) -> None:
    it.add(numbers, 1)
    it.add([5], 2)
    assert entries(it) == made
    assert it.actions(1) == {(n,): Action.INSERTED for n in numbers}
    assert it.bin.counted(SYNC_ID) == Counts(inserted=len(numbers))
    found = [kept for kept in it.bin.of_keys((n,) for n in numbers) if kept.sync_id == SYNC_ID]
    assert {kept.key for kept in found} == {(n,) for n in numbers}
    assert {(kept.record, kept.version, kept.at, kept.side) for kept in found} == {(None, None, moment(1), "backup")}


def test_only_asked_keys_are_found_however_their_numbers_are_written(it: Recycled) -> None:
    it.add(EVEN, 1)
    asked: list[Key] = [(-4,), (-3,), (Decimal("6.0"),), (8.0,), (Decimal("8.5"),), (float("inf"),), (100,), ("12",)]
    assert sorted(kept.key for kept in it.bin.of_keys(asked)) == [(-4,), (6,), (8,)]
    assert it.bin.first_after(asked, moment(0)).keys() == {(-4,), (6,), (8,)}
    assert it.bin.first_after(asked, moment(1)) == {}


def test_what_a_run_tells_again_of_such_a_key_adds_nothing(it: Recycled) -> None:
    run, now = run_at(1)
    first, resumed = it.bin.recorder(run, now), None
    numbers: list[Key] = [(n,) for n in range(20)]
    for _ in range(2):  # an answer was lost
        first([], None, numbers)
    resumed = it.bin.recorder(run, now, resumed=True)
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
    assert entries(it) == 2
    assert it.actions(1) == {(n,): Action.INSERTED for n in range(20)} | {(50,): Action.UPDATED}
    assert it.bin.counted(SYNC_ID) == Counts(20, 1, 0)


@pytest.mark.parametrize("resumed", [False, True])
def test_after_a_delete_keys_are_kept_one_by_one(it: Recycled, resumed: bool) -> None:
    run, now = run_at(1)
    keep = it.bin.recorder(run, now)
    keep([Image((3,), Action.DELETED, {"Id": 3, "id": 3}, (1,))], None)
    if resumed:
        keep = it.bin.recorder(run, now, resumed=True)
    keep([], None, [(n,) for n in range(20)])
    assert it.actions(1) == {(n,): Action.DELETED if n == 3 else Action.INSERTED for n in range(20)}
    assert entries(it) == 20


def test_the_first_call_of_a_run_does_not_ask_what_earlier_calls_have_kept(
    it: Recycled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(*asked: object) -> int:
        raise AssertionError(asked)

    monkeypatch.setattr(it.bin._entries, "count", count)
    it.bin.recorder(*run_at(1))([], None, [(1,)])
    monkeypatch.undo()
    assert entries(it) == 1


def test_sides_have_entries_of_their_own(it: Recycled) -> None:
    run, now = run_at(1)
    for side in ("source", "backup"):
        it.bin.recorder(run, now, side)([], None, [(n,) for n in range(20)])
    assert entries(it) == 2
    assert it.bin.counted(SYNC_ID) == Counts(inserted=20)
    assert {kept.side for kept in it.bin.of_keys([(7,)])} == {"backup"}


def test_entries_that_are_purged_take_their_keys_along(it: Recycled) -> None:
    it.add(range(30), 1)
    it.add(range(30, 60), 2)
    assert it.bin.purge(moment(2)) == 1
    assert it.of(1) == {}
    assert it.of(2).keys() == {(n,) for n in range(30, 60)}


def test_a_record_taken_for_absent_that_is_there_is_overwritten_and_kept(bench: Bench) -> None:
    numbers = range(1, 31)
    bench.create(Item(n, version=2, text=f"new {n}") for n in numbers)
    it = recycled(bench, retry=ONE_TRY)
    bench.put("backup", Item(7, version=1, text="old"))
    run, now = run_at(1)
    records = it.copies(keys(bench, *numbers), 1)
    relational = it.backup.relational
    write = it.backup.write if relational is None else relational.insert
    write(records, it.bin.recorder(run, now))
    assert stamps_in(it.backup, Chunk()) == stamps_in(it.source, Chunk())
    kept = it.of(1)
    assert {key: one.action for key, one in kept.items()} == {
        bench.key(n): Action.UPDATED if n == 7 else Action.INSERTED for n in numbers
    }
    assert kept[bench.key(7)].version is not None
    assert isinstance(bench, CosmosBench) or entries(it) == 2
