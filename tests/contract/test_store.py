"""What every store keeps, whatever it stores in."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from backup.core.errors import (
    BadRequest,
    LockLost,
    NotInitialized,
    SourceMissing,
    StoreError,
    StoreUnavailable,
    TransientStoreError,
)
from backup.core.model import WHOLE, Chunk, Image, Key, Stamps
from backup.core.retry import Retry
from backup.core.run_values import Run
from backup.mirror.guard import Guard
from backup.mirror.one_sync import sync_stores
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.recycle_bin.bin import RecycleBin
from backup.stores import Shape, Store, stamps_in
from tests.contract.benches import NOTE, NOW, ROLES, RUN, Bench, Item, Role, SqlBench, SqlServerBench

THREE = [Item(n) for n in (1, 2, 3)]
TIMES = [datetime(2024, 1, 1, 12, tzinfo=UTC) + timedelta(hours=n, microseconds=n) for n in range(4)]
SIBLING = Shape(
    name="Notes",
    container="notes",
    key="NoteId",
    partition="Subject",
    fields={"NoteId": "name", "Subject": "name", "At": "time", "Done": "flag", "Text": "text", "Size": "integer"},
)


OWN_PARTITIONS = replace(SIBLING, partition="NoteId")


def note(name: str, **fields: Any) -> dict[str, Any]:
    """An entry of the sibling."""
    return {"NoteId": name, "Subject": "x", "At": TIMES[0], "Done": False, "Text": "", "Size": 1, **fields}


def run_sync(source: Store, backup: Store, run: Run = RUN) -> tuple[int, int, int, int]:
    """Syncs as a run does that finds no drift, proves it and gives the four counts."""
    recycled = RecycleBin(backup, run.service)
    backup.catalog.match(source)
    recycled.create()
    tally = Tally(tell=lambda counts: None)
    keep = recycled.recorder(run, lambda: NOW)
    sync_stores(source, backup, run, tally, Guard(), Steps(lambda: None, lambda: NOW, keep))
    assert tally.proof is not None
    assert tally.proof.verified
    counts = tally.counts
    return counts.inserted, counts.updated, counts.deleted, counts.skipped


def at_least(error: type[Exception], bench: Bench) -> tuple[type[Exception], ...]:
    """The error; any of the store's from a server that does not number its errors as SQL Server does."""
    stands_in = isinstance(bench, SqlServerBench) and bench.stands_in
    return (error, StoreError) if stands_in else (error,)


def all_stamps(store: Store, chunks: list[Chunk]) -> list[Stamps]:
    return [stamps_in(store, chunk) for chunk in chunks]


def read_all(store: Store, keys: frozenset[Any], chunk: Chunk = WHOLE) -> list[list[Any]]:
    return [[store.keys.of(record) for record in batch] for batch in store.read(keys, chunk)]


# --- making the backup ----------------------------------------------------------------------------------------------


def test_initialize_makes_an_empty_backup(bench: Bench) -> None:
    bench.create(THREE)
    source, backup = bench.open("source"), bench.open("backup")
    backup.catalog.initialize(source)
    assert backup.count() == 0
    assert not backup.has_records()
    backup.catalog.match(source)


def test_initialize_makes_a_missing_database(bench: Bench) -> None:
    bench.create(THREE)
    source = bench.open("source")
    backup = bench.open_at(bench.absent_database("backup"))
    backup.catalog.initialize(source)
    assert run_sync(source, backup) == (3, 0, 0, 0)
    backup.close()


def test_initialize_again_keeps_what_is_there(bench: Bench) -> None:
    bench.create(THREE)
    source, backup = bench.pair()
    run_sync(source, backup)
    backup.catalog.initialize(source)
    assert len(bench.items("backup")) == 3


def test_two_may_initialize_at_once(bench: Bench) -> None:
    bench.create(THREE)
    place = bench.absent_database("backup")

    def initialize(_: int) -> None:
        source, backup = bench.open("source"), bench.open_at(place)
        backup.catalog.initialize(source)
        backup.sibling(SIBLING).create()
        source.close()
        backup.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(initialize, range(2)))
    assert bench.open_at(place).count() == 0


# --- what is not there ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_ping_returns_when_the_server_answers(bench: Bench, role: Role) -> None:
    bench.create()
    bench.pair()[1].close()
    bench.open(role).ping()


def test_ping_of_a_server_that_is_down_says_so_after_one_try(bench: Bench) -> None:
    store = bench.open("source", connection_string=bench.nowhere(), retry=Retry(5, 1000, 1000))
    with pytest.raises(StoreUnavailable) as caught:
        store.ping()
    assert "hunter2" not in str(caught.value)


def test_a_server_that_is_down_is_tried_again_and_then_an_error(bench: Bench) -> None:
    if bench.kind == "sqlite":
        pytest.skip("a file is there or not: trying again would not help")
    with pytest.raises(TransientStoreError):
        bench.open("source", connection_string=bench.nowhere()).count()


@pytest.mark.parametrize(("role", "error"), [("source", SourceMissing), ("backup", NotInitialized)])
def test_a_missing_database_is_an_error_and_not_empty(bench: Bench, role: Role, error: type[Exception]) -> None:
    store = bench.open_at(bench.absent_database(role))
    for read in (store.count, lambda: list(store.chunks()), lambda: stamps_in(store, Chunk())):
        with pytest.raises(error):
            read()


@pytest.mark.parametrize(("role", "error"), [("source", SourceMissing), ("backup", NotInitialized)])
def test_a_missing_table_is_an_error_and_not_empty(bench: Bench, role: Role, error: type[Exception]) -> None:
    bench.create()
    bench.pair()
    bench.drop(role)
    store = bench.open(role)
    for read in (store.count, lambda: list(store.chunks()), lambda: stamps_in(store, Chunk())):
        with pytest.raises(error):
            read()


def test_a_table_dropped_after_its_first_use_is_an_error_and_not_empty(bench: Bench) -> None:
    bench.create(THREE)
    source, backup = bench.pair()
    assert len(stamps_in(source, Chunk())) == 3
    records = next(source.read(frozenset(map(bench.key, (1, 2))), Chunk()))
    bench.drop("source")
    bench.drop("backup")
    with pytest.raises(at_least(SourceMissing, bench)):
        stamps_in(source, Chunk())
    with pytest.raises(at_least(SourceMissing, bench)):
        source.matching([bench.key(1)])
    with pytest.raises(at_least(NotInitialized, bench)):
        backup.delete([bench.key(1)])
    with pytest.raises(at_least(NotInitialized, bench)):
        backup.write(backup.copies.of(records, NOTE))


# --- reading --------------------------------------------------------------------------------------------------------


def test_count_is_the_number_of_records(bench: Bench) -> None:
    bench.create(THREE)
    assert bench.open("source").count() == 3
    assert bench.open("source").has_records()


def test_chunks_cover_every_key_of_both_sides_once(bench: Bench) -> None:
    bench.create(Item(n) for n in range(10, 18))
    _, backup = bench.pair()
    bench.put("backup", *(Item(n) for n in (1, 2, 12, 13, 90, 91)))
    for chunk_size in (1, 3, 8, 100):
        source = bench.open("source", chunk_size=chunk_size)
        chunks = list(source.chunks())
        assert (chunks[0].after, chunks[-1].upto) == (None, None)
        assert all(chunk.upto == following.after is not None for chunk, following in pairwise(chunks)), chunk_size
        for store, numbers in ((source, [*range(10, 18)]), (backup, [1, 2, 12, 13, 90, 91])):
            parts = all_stamps(store, chunks)
            assert sum(map(len, parts)) == len(numbers)
            assert {key for part in parts for key in part} == set(map(bench.key, numbers))
            assert store is backup or max(map(len, parts)) <= chunk_size


def test_a_chunk_is_cut_where_the_other_side_holds_more(bench: Bench) -> None:
    bench.create([Item(10), Item(20)])
    source, backup = bench.pair(chunk_size=2)
    bench.put("backup", *(Item(n) for n in (1, 2, 3, 11, 12, 13, 14, 15, 30)))
    whole = Chunk(bench.key(10)[-1:], bench.key(20)[-1:])
    parts = list(backup.chunks(whole))
    assert (parts[0].after, parts[-1].upto) == whole
    assert all(chunk.upto == following.after is not None for chunk, following in pairwise(parts))
    assert [len(stamps_in(backup, part)) for part in parts] == [2, 2, 1]
    assert list(source.chunks(whole)) == [whole]


def test_a_source_without_records_is_one_open_chunk(bench: Bench) -> None:
    bench.create()
    assert list(bench.open("source").chunks()) == [Chunk(None, None)]


def test_stamps_change_with_the_version(bench: Bench) -> None:
    bench.create(THREE)
    source = bench.open("source")
    before = stamps_in(source, Chunk())
    bench.put("source", Item(2, version=2))
    after = stamps_in(source, Chunk())
    assert {key for key in after if after[key].value != before[key].value} == {bench.key(2)}


def test_read_gives_the_wanted_records_once(bench: Bench) -> None:
    bench.create(Item(n, text=f"text {n}") for n in range(1, 21))
    each_limit: list[dict[str, Any]] = [{"batch_size": 4}, {"batch_size": 4, "chunk_size": 5}, {"batch_bytes": 1}]
    for limits in each_limit:
        source = bench.open("source", **limits)
        for wanted in ([2], [1, 3], [*range(1, 21)]):
            batches = read_all(source, frozenset(map(bench.key, wanted)))
            assert sorted(key for batch in batches for key in batch) == [bench.key(n) for n in wanted], limits
            if "batch_bytes" in limits:
                assert max(map(len, batches)) == 1


def test_read_keeps_to_the_chunk(bench: Bench) -> None:
    bench.create(Item(n) for n in range(1, 21))
    source = bench.open("source", chunk_size=5, batch_size=2)
    for chunk in source.chunks():
        keys = frozenset(stamps_in(source, chunk))
        assert {key for batch in read_all(source, keys, chunk) for key in batch} == keys


@pytest.mark.parametrize("chunk_size", [3, 100])  # by range and by key
def test_read_leaves_out_what_is_gone_meanwhile(bench: Bench, chunk_size: int) -> None:
    bench.create(Item(n) for n in range(1, 7))
    source = bench.open("source", batch_bytes=1, chunk_size=chunk_size)
    batches = source.read(frozenset(map(bench.key, range(1, 7))), Chunk())
    keys_read = [source.keys.of(record) for record in next(batches)]
    gone = next(n for n in (5, 6) if bench.key(n) not in keys_read)
    bench.remove("source", gone)
    keys_read += [source.keys.of(record) for batch in batches for record in batch]
    assert sorted(keys_read) == [bench.key(n) for n in range(1, 7) if n != gone]


def test_matching_gives_the_keys_that_are_there(bench: Bench) -> None:
    bench.create(Item(n) for n in range(1, 31))
    source = bench.open("source", batch_size=4)
    asked = [bench.key(n) for n in (*range(20, 41), 1)]
    assert source.matching(asked) == {bench.key(n) for n in (*range(20, 31), 1)}
    assert source.matching([]) == set()
    assert source.matching([bench.key(1)]) == {bench.key(1)}


# --- writing --------------------------------------------------------------------------------------------------------


def test_write_inserts_and_overwrites_and_may_be_repeated(bench: Bench) -> None:
    bench.create(THREE)
    source, backup = bench.pair()
    bench.put("backup", Item(2, text="stale"), Item(9, text="stays"))
    (records,) = source.read(frozenset(stamps_in(source, Chunk())), Chunk())
    for _ in range(2):  # as after a commit whose answer was lost
        backup.write(backup.copies.of(records, NOTE))
        assert bench.items("backup") == {**bench.items("source"), 9: Item(9, text="stays")}
    backup.write([])


def test_delete_takes_these_keys_only_and_may_be_repeated(bench: Bench) -> None:
    bench.create(Item(n) for n in range(1, 8))
    source, backup = bench.pair(batch_size=2)
    run_sync(source, backup)
    for _ in range(2):
        backup.delete([bench.key(n) for n in (1, 3, 5, 7, 77)])
        assert sorted(bench.items("backup")) == [2, 4, 6]
    backup.delete([])


def test_what_cannot_be_kept_is_not_changed(bench: Bench) -> None:
    bench.create(THREE)
    source, backup = bench.pair()
    bench.put("backup", Item(2, text="old"), Item(3, text="old"))
    before = bench.items("backup")

    def no_bin(images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:
        if images or inserted:
            raise StoreUnavailable("the bin is away")

    (records,) = source.read(None, WHOLE)
    with pytest.raises(StoreUnavailable):
        backup.write(backup.copies.of(records, NOTE), no_bin)
    with pytest.raises(StoreUnavailable):
        backup.delete([bench.key(2)], no_bin)
    assert bench.items("backup") == before


@dataclass
class Lost:
    """The fence of a run that belongs to another process by now."""

    beside: Store

    def check_young(self) -> None:
        raise LockLost

    def check_last(self, transaction: Any, again: bool) -> None:
        raise LockLost


def test_a_run_that_was_taken_over_changes_nothing(bench: Bench) -> None:
    bench.create(THREE)
    source, backup = bench.pair()
    bench.put("backup", Item(2, text="old"))
    before = bench.items("backup")
    (records,) = source.read(None, WHOLE)
    backup.fence_by(Lost(backup))
    with pytest.raises(LockLost):
        backup.write(backup.copies.of(records, NOTE))
    with pytest.raises(LockLost):
        backup.delete([bench.key(2)])
    assert bench.items("backup") == before


def test_records_of_any_size_are_copied(bench: Bench) -> None:
    sizes = [0, 1, 15, 16, 17, 255, 256, 257, 1999, 2000]
    bench.create(Item(n, text="é" * size) for n, size in enumerate(sizes))
    source, backup = bench.pair(batch_bytes=3000)
    assert run_sync(source, backup) == (len(sizes), 0, 0, 0)
    assert bench.items("backup") == bench.items("source")


# --- keys and places ------------------------------------------------------------------------------------------------


def test_a_key_is_understood_as_it_is_shown(bench: Bench) -> None:
    bench.create(THREE)
    source, backup = bench.pair()
    run_sync(source, backup)
    for store in (source, backup):
        for n in (1, 3, 77):  # one that is not there, too
            shown = store.keys.to_json(bench.key(n))
            assert store.keys.from_text(json.dumps(shown) if len(shown) > 1 else str(shown[0])) == bench.key(n)
        assert store.keys.from_text(str(bench.key(2)[-1])) == bench.key(2)


def test_a_text_that_is_no_key_is_a_bad_request(bench: Bench) -> None:
    bench.create(THREE)
    store = bench.open("source")
    for text in ("[1, 2, 3, 4]", '{"Id": 1}', "[]", "[[1], [2]]"):
        with pytest.raises(BadRequest):
            store.keys.from_text(text)


def test_a_text_that_no_key_can_hold_is_a_bad_request(bench: Bench) -> None:
    bench.create(THREE)
    store = bench.open("source")
    for text in ("a\x00b", '["a\\u0000b"]', '["\\ud800"]', "\udcff", "9" * 23, "[" * 100_000, "[" * 900 + "]" * 900):
        with pytest.raises(BadRequest):
            store.keys.from_text(text)


def test_a_value_that_the_keys_type_does_not_take_is_a_bad_request_whatever_the_type(sql_bench: SqlBench) -> None:
    number = "numeric(9, 2)"
    for kind, odd in {"integer": "9" * 18, "smallint": "70000", number: "x", "date": "2026-02-30"}.items():
        sql_bench.sql("source", f"CREATE TABLE {{table}} (id {kind} PRIMARY KEY, version integer)")
        store = sql_bench.open("source")
        for text in (odd, "1e140000", "[true]", "a" * 3000):
            with suppress(BadRequest):  # nothing else
                assert store.keys.from_text(text) not in store.matching([store.keys.from_text(text)])
        sql_bench.drop("source")


def test_a_place_beside_is_made_filled_and_dropped_without_touching_the_backup(bench: Bench) -> None:
    bench.create(THREE)
    source, backup = bench.pair()
    run_sync(source, backup)
    before = bench.items("backup")
    beside = backup.catalog.beside(f"beside_{uuid.uuid4().hex[:8]}")
    try:
        beside.catalog.make_like(source)
        for records in backup.read(frozenset(stamps_in(backup, WHOLE)), WHOLE):
            beside.write([backup.copies.original(record) for record in records])
        assert beside.count() == 3
        assert beside.place.location != backup.place.location
    finally:
        beside.catalog.drop()
    with pytest.raises(at_least(NotInitialized, bench)):
        beside.count()
    beside.close()
    assert bench.items("backup") == before


# --- a whole sync ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [4, 1000])
def test_a_sync_makes_the_backup_equal_and_counts_it(bench: Bench, chunk_size: int) -> None:
    bench.create(Item(n) for n in range(1, 13))
    source, backup = bench.pair(chunk_size=chunk_size, batch_size=3)
    assert run_sync(source, backup) == (12, 0, 0, 0)
    assert run_sync(source, backup) == (0, 0, 0, 12)
    bench.remove("source", 1, 5, 12)
    bench.put(
        "source", Item(2, 7, "changed"), Item(11, 7, "ünïcode 🎉"), Item(50), Item(-5 if bench.kind != "cosmos" else 0)
    )
    assert run_sync(source, backup) == (2, 2, 3, 7)
    assert bench.items("backup") == bench.items("source")
    assert run_sync(source, backup) == (0, 0, 0, 11)
    assert run_sync(source, backup, replace(RUN, forced=True)) == (0, 11, 0, 0)


def test_records_without_a_version_are_compared_by_what_else_tells(bench: Bench) -> None:
    bench.create([Item(1, None), Item(2, None, "same"), Item(3)])
    source, backup = bench.pair()
    assert run_sync(source, backup) == (3, 0, 0, 0)
    assert run_sync(source, backup) == (0, 0, 0, 3)
    bench.put("source", Item(1, None, "changed"))
    assert run_sync(source, backup) == (0, 1, 0, 2)
    assert bench.items("backup") == bench.items("source")
    bench.put("source", Item(1, 4, "has one now"))
    assert run_sync(source, backup) == (0, 1, 0, 2)
    assert run_sync(source, backup) == (0, 0, 0, 3)


def test_a_closed_store_can_be_used_again(bench: Bench) -> None:
    bench.create(THREE)
    source = bench.open("source")
    source.close()
    assert source.count() == 3
    source.close()
    assert source.count() == 3


def test_two_sides_are_never_the_same_place(bench: Bench) -> None:
    assert bench.open("source").place.location != bench.open("backup").place.location
    assert bench.open("source").place.location == bench.open("source").place.location


# --- siblings -------------------------------------------------------------------------------------------------------


def test_a_sibling_keeps_entries_and_finds_the_newest(bench: Bench) -> None:
    bench.create()
    notes = bench.pair()[1].sibling(SIBLING)
    notes.create()
    notes.create()
    entries = [
        {"NoteId": "a", "Subject": "x", "At": TIMES[1], "Done": True, "Text": "Tëxt 🎉" * 900, "Size": 2**53},
        {"NoteId": "b", "Subject": "x", "At": TIMES[3], "Done": False, "Text": None, "Size": None},
        {"NoteId": "c", "Subject": "y", "At": TIMES[2], "Done": None, "Text": "", "Size": 0},
        {"NoteId": "d", "Subject": "x", "At": TIMES[0], "Done": False, "Text": "d", "Size": -1},
    ]
    notes.put(entries)
    assert notes.find({"Subject": "x"}, order_by="At", descending=True, limit=2) == [entries[1], entries[0]]
    assert notes.find({"Subject": "x", "Done": False}, order_by="At", descending=True, limit=9) == [
        entries[1],
        entries[3],
    ]
    assert notes.find({}, order_by="At", descending=True, limit=9) == [entries[1], entries[2], entries[0], entries[3]]
    assert notes.find({"Subject": "z"}, order_by="At", descending=True, limit=9) == []


def test_a_sibling_finds_entries_in_order_between_bounds_with_any_of_some_values(bench: Bench) -> None:
    bench.create()
    notes = bench.pair()[1].sibling(SIBLING)
    notes.create()
    entries = [note(f"{n}", Subject="xyz"[n % 3], At=TIMES[n]) for n in range(4)]
    notes.put(entries)
    assert notes.find({}, order_by="At", limit=9) == entries
    assert notes.find({}, order_by="NoteId", descending=True, limit=2) == [entries[3], entries[2]]
    assert notes.find({"Subject": ["x", "z"]}, order_by="At", limit=9) == [entries[0], entries[2], entries[3]]
    assert notes.find({}, order_by="At", above=TIMES[0], below=TIMES[3], limit=9) == entries[1:3]
    assert notes.find({"Subject": "x"}, order_by="NoteId", above="0", limit=9) == [entries[3]]


def test_a_sibling_adds_only_entries_whose_key_is_new(bench: Bench) -> None:
    bench.create()
    notes = bench.pair()[1].sibling(OWN_PARTITIONS)
    notes.create()
    notes.add([note("a", Text="first")])
    notes.add([note("a", Text="second"), note("b")])
    notes.add([])
    assert notes.find({}, order_by="NoteId", limit=9) == [note("a", Text="first"), note("b")]


def test_a_sibling_deletes_these_entries_only_and_may_be_told_again(bench: Bench) -> None:
    bench.create()
    notes = bench.pair()[1].sibling(OWN_PARTITIONS)
    notes.create()
    notes.put([note(name) for name in "abc"])
    for _ in range(2):
        notes.delete(["a", "c", "gone"])
        assert notes.find({}, order_by="NoteId", limit=9) == [note("b")]
    notes.delete([])


def test_a_sibling_replaces_an_entry_of_the_same_key(bench: Bench) -> None:
    bench.create()
    notes = bench.pair()[1].sibling(SIBLING)
    notes.create()
    entry = {"NoteId": "a", "Subject": "x", "At": TIMES[0], "Done": False, "Text": "first", "Size": 1}
    notes.put([entry])
    notes.put([{**entry, "Done": True, "Text": None}])
    assert notes.find({}, order_by="At", descending=True, limit=9) == [{**entry, "Done": True, "Text": None}]


def test_a_sibling_gives_times_in_utc_and_refuses_naive_ones(bench: Bench) -> None:
    bench.create()
    notes = bench.pair()[1].sibling(SIBLING)
    notes.create()
    entry = {"NoteId": "a", "Subject": "x", "At": TIMES[0], "Done": False, "Text": "", "Size": 1}
    notes.put([entry])
    (latest,) = notes.find({}, order_by="At", descending=True, limit=1)
    assert latest["At"].utcoffset() == timedelta(0)
    with pytest.raises(Exception, match="time zone"):
        notes.put([{**entry, "At": datetime(2024, 1, 1)}])  # noqa: DTZ001 - the point


def test_a_sibling_that_was_not_made_says_what_to_do(bench: Bench) -> None:
    bench.create()
    notes = bench.pair()[1].sibling(SIBLING)
    with pytest.raises(at_least(NotInitialized, bench)):
        notes.find({}, order_by="At", descending=True, limit=1)


def test_errors_are_not_retried_when_trying_again_cannot_help(bench: Bench) -> None:
    store = bench.open_at(bench.absent_database("source"), retry=Retry(5, 1000, 1000))
    with pytest.raises(SourceMissing):
        store.count()
