"""The recycle bin is looked into page by page, and purged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from backup.core.errors import StoreError
from backup.core.model import Action, Image, Key
from backup.core.timeline import Timeline
from backup.recycle_bin import entry_pages, kept_batches
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import RECYCLE_BIN
from tests.contract.benches import Bench, Item, SqliteBench
from tests.contract.recycled import keys, moment, recycled, run_at
from tests.unit.memory_store import MemoryStore


@pytest.fixture
def many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> int:
    """A number of entries that needs several pages. Cosmos DB gets smaller pages, since each entry is a request, and so
    does the memory, which has no limits of its own."""
    if bench.kind not in ("cosmos", "memory"):
        return 2_300
    monkeypatch.setattr(entry_pages, "_FIRST_PAGE", 2)
    monkeypatch.setattr(entry_pages, "PAGE", 5)
    monkeypatch.setattr(entry_pages, "_HASHES_AT_ONCE", 6)
    return 20


def test_of_run_gives_every_entry_once_a_page_at_a_time(bench: Bench, many: int) -> None:
    bench.create()
    sides = recycled(bench)
    sides.add(map(str, range(many)), 1)
    sides.add(map(str, range(many, many + 5)), 2)
    pages = list(sides.bin.of_run(run_at(1)[0].sync_id))
    assert sorted(int(kept.key[0]) for page in pages for kept in page) == [*range(many)]
    assert max(map(len, pages)) <= many / 4


def test_pages_of_large_records_are_small(sqlite_bench: SqliteBench, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite_bench.create()
    sides = recycled(sqlite_bench)
    monkeypatch.setattr(entry_pages, "_PAGE_CHARACTERS", 10_000)
    images = [Image((n,), Action.DELETED, {"Id": n, "Name": "x" * 3_000}, (1,)) for n in range(50)]
    sides.keep(1)(images, None)
    sizes = [len(page) for page in sides.bin.of_run(run_at(1)[0].sync_id)]
    assert sum(sizes) == 50
    assert max(sizes[1:]) <= 3


def test_pages_of_small_records_grow_fourfold_up_to_the_most(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.create()
    sides = recycled(bench)
    monkeypatch.setattr(entry_pages, "_FIRST_PAGE", 1)
    monkeypatch.setattr(entry_pages, "PAGE", 6)
    sides.add(map(str, range(14)), 1)
    sync_id = run_at(1)[0].sync_id
    assert [len(page) for page in sides.bin.of_run(sync_id)] == [1, 4, 6, 3]
    assert [len(page) for page in sides.bin.of_run(sync_id, records=False)] == [6, 6, 2]


def test_a_batch_ends_after_the_record_that_makes_it_too_large(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.create(Item(n) for n in range(7))
    sides = recycled(bench)
    sides.write(keys(bench, *range(7)), 1)
    sides.delete(keys(bench, *range(7)), 2)
    sync_id = run_at(2)[0].sync_id
    [size] = {kept_batches._size(kept) for kept in sides.of(2).values()}
    monkeypatch.setattr(kept_batches, "_BYTES_AT_ONCE", 2 * size)
    assert [len(batch) for batch in sides.bin.of_run(sync_id)] == [3, 3, 1]
    without = [kept for batch in sides.bin.of_run(sync_id, records=False) for kept in batch]
    batches = list(sides.bin.with_records(without))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert {kept.key: kept.record for batch in batches for kept in batch} == {
        key: kept.record for key, kept in sides.of(2).items()
    }


def test_records_without_texts_come_in_batches_as_large_as_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_batches, "_AT_ONCE", 2)
    images = RecycleBin(MemoryStore("backup", batch_size=3), "customer")
    images.create()
    run, now = run_at(1)
    images.recorder(run, now)([Image((n,), Action.DELETED, {"id": n, "content": "x"}, (1,)) for n in range(7)], None)
    assert [len(batch) for batch in images.of_run(run.sync_id)] == [2, 2, 2, 1]
    assert [len(batch) for batch in images.of_run(run.sync_id, records=False)] == [3, 3, 1]


def test_of_keys_gives_the_backups_entries_of_these_keys_oldest_first(bench: Bench, many: int) -> None:
    bench.create()
    sides = recycled(bench)
    for minutes in (3, 1, 2):
        sides.add([7, 8, 9], minutes)
    sides.add(map(str, range(100, 100 + many)), 1)
    run, now = run_at(4)
    sides.bin.recorder(run, now, "source")([Image((7,), Action.UPDATED, {"id": "x"})], None)
    of_keys = sides.bin.of_keys((n,) for n in (9, 7, 5))
    assert [kept.at for kept in of_keys] == [moment(n) for n in (1, 1, 2, 2, 3, 3)]
    assert {kept.key for kept in of_keys} == {(7,), (9,)}
    later = sides.bin.of_keys([(7,)], after=moment(1))
    assert [kept.at for kept in later] == [moment(2), moment(3)]
    assert len(sides.bin.of_keys((str(n),) for n in range(100, 100 + many))) == many


def test_first_after_gives_each_keys_first_change_since(bench: Bench) -> None:
    bench.create()
    sides = recycled(bench)
    sides.add([1, 2], 1)
    sides.add([1, 3], 2)
    sides.add([1, 2], 3)
    keys = [(n,) for n in (1, 2, 3, 4)]

    def first(minutes: int) -> dict[Key, datetime]:
        return {key: kept.at for key, kept in sides.bin.first_after(keys, moment(minutes)).items()}

    assert first(0) == {(1,): moment(1), (2,): moment(1), (3,): moment(2)}
    assert first(1) == {(1,): moment(2), (2,): moment(3), (3,): moment(2)}
    assert first(2) == {(1,): moment(3), (2,): moment(3)}
    assert first(3) == {}


def test_purge_deletes_only_what_is_older_a_batch_at_a_time(
    bench: Bench, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.create()
    sides = recycled(bench)
    sides.add(map(str, range(many)), 1)
    sides.add(["at the time"], 2)
    sides.add(["later"], 3)
    sibling, batches = type(sides.backup.sibling(RECYCLE_BIN)), []
    delete = sibling.delete

    def spied(self: Any, entries: Sequence[str]) -> None:
        batches.append(len(entries))
        delete(self, entries)

    monkeypatch.setattr(sibling, "delete", spied)
    assert sides.bin.purge(moment(2)) == many
    assert [len(sides.of(n)) for n in (1, 2, 3)] == [0, 1, 1]
    assert sum(batches) == many
    assert max(batches) <= many / 4
    assert sides.bin.purge(moment(2)) == 0


def test_purge_passes_over_pages_of_a_run_whose_clock_was_behind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.create()
    sides = recycled(bench)
    runs = [replace(run_at(n)[0], started_at=moment(n), number=n) for n in (1, 2, 3)]
    runs[1] = replace(runs[1], started_at=moment(-9_000))  # it was between the others
    sides.add(["old"], 1)
    for n in range(4):
        sides.bin.recorder(runs[1], lambda n=n: moment(n - 9_000))([], None, [(f"young {n}",)])  # type: ignore[misc]
    monkeypatch.setattr(entry_pages, "PAGE", 2)
    of_all_runs = RecycleBin(sides.backup, "contract", lambda: Timeline(runs, moment(4)))
    assert of_all_runs.purge(moment(3)) == 1  # the others count as begun then: they are not older
    assert [len(sides.of(n)) for n in (1, 2)] == [0, 4]


@pytest.mark.parametrize(
    "odd", [{"Action": "Odd"}, {"RecordKey": "{{"}, {"Version": "["}, {"Record": "no JSON"}, {"RecordKey": "[[1]]"}]
)
def test_an_entry_that_cannot_be_read_is_named_and_purged_when_it_is_old(
    sqlite_bench: SqliteBench, odd: dict[str, str]
) -> None:
    sqlite_bench.create()
    sides = recycled(sqlite_bench)
    sides.add(["a"], 1)
    sides.add(["b"], 3)
    sibling = sides.backup.sibling(RECYCLE_BIN)
    [entry, _] = sibling.find({}, order_by="RecycledAt", limit=9)
    sibling.put([{**entry, **odd}, {**entry, "EntryId": "of nobody", "SyncId": "of nobody"}])
    with pytest.raises(StoreError, match=entry["EntryId"]):
        sides.of(1)
    assert sides.bin.purge(moment(2)) == 2
    assert [entry["RecycledAt"] for entry in sibling.find({}, order_by="RecycledAt", limit=9)] == [moment(3)]
