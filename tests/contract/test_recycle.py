"""The recycle bin beside every kind of store: which images a change leaves, and that no change is made without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from backup.core.errors import ConstraintRefused, StoreError
from backup.core.model import Action, Chunk, Image, Key
from backup.mirror.guard import Guard
from backup.mirror.one_sync import sync_stores
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.stores import Keep, Shape, stamps_in
from tests.contract.benches import Bench, Item, SqlBench, SqliteBench, SqlServerBench
from tests.contract.recycled import Recycled, content_of_backup, keys, moment, recycled, run_at

# --- what a change leaves ---------------------------------------------------------------------------------------------


def test_each_record_that_a_run_changes_leaves_one_image_of_what_it_did(bench: Bench) -> None:
    bench.create(Item(n, version=2) for n in (1, 2, 3))
    sides = recycled(bench)
    bench.put("backup", Item(2), Item(4), Item(5))
    sides.write(keys(bench, 1, 2, 3), 1)
    sides.delete(keys(bench, 4, 77), 1)
    first, second, third, fourth = keys(bench, 1, 2, 3, 4)
    expected = {first: Action.INSERTED, second: Action.UPDATED, third: Action.INSERTED, fourth: Action.DELETED}
    assert sides.actions(1) == expected
    assert bench.items("backup").keys() == {1, 2, 3, 5}


def test_an_image_is_the_record_before_the_change_and_an_inserts_is_none(bench: Bench) -> None:
    bench.create(Item(n, version=7, text="new") for n in (1, 2))
    sides = recycled(bench)
    bench.put("backup", Item(2, 3, "old é🎉  "), Item(4, None, "gone"))
    was = {
        sides.backup.keys.of(record): record
        for page in sides.backup.images(keys(bench, 2, 4), Action.UPDATED)
        for record in [image.record for image in page]
        if record is not None
    }
    stamps = stamps_in(sides.backup, Chunk())
    sides.write(keys(bench, 1, 2), 1)
    sides.delete(keys(bench, 4), 1)
    kept = sides.of(1)
    assert (kept[bench.key(1)].record, kept[bench.key(1)].version) == (None, None)
    assert {key: kept[key].record for key in keys(bench, 2, 4)} == was
    assert kept[bench.key(2)].version == stamps[bench.key(2)].value
    assert (kept[bench.key(4)].version or ("?",))[0] is None
    sides.put_back(1)
    assert {n: item for n, item in bench.items("backup").items() if n != 1} == {
        2: Item(2, 3, "old é🎉  "),
        4: Item(4, None, "gone"),
    }


def test_entries_say_when_by_which_run_and_on_which_side(bench: Bench) -> None:
    bench.create([Item(1)])
    sides = recycled(bench)
    sides.write(keys(bench, 1), 3)
    run, _ = run_at(4)
    sides.bin.recorder(run, lambda: moment(4), "source")([Image(bench.key(1), Action.UPDATED, {"id": "x"}, (1,))], None)
    [of_backup], [of_source] = sides.of(3).values(), sides.of(4).values()
    assert (of_backup.sync_id, of_backup.at) == (run_at(3)[0].sync_id, moment(3))
    assert (of_backup.side, of_backup.key) == ("backup", bench.key(1))
    assert (of_source.sync_id, of_source.at) == (run.sync_id, moment(4))
    assert (of_source.side, of_source.version) == ("source", (1,))


def test_a_run_that_tells_a_change_again_keeps_the_first_image(bench: Bench) -> None:
    bench.create([Item(1, 2, "second")])
    sides = recycled(bench)
    bench.put("backup", Item(1, 1, "first"))
    before = content_of_backup(bench)
    sides.write(keys(bench, 1), 1)
    bench.put("source", Item(1, 3, "third"))
    sides.write(keys(bench, 1), 1)
    sides.delete(keys(bench, 1), 1)
    assert sides.actions(1) == {bench.key(1): Action.UPDATED}
    sides.put_back(1)
    assert content_of_backup(bench) == before


def test_each_run_keeps_an_image_of_its_own(bench: Bench) -> None:
    bench.create([Item(1, 2, "second")])
    sides = recycled(bench)
    sides.write(keys(bench, 1), 1)
    second = content_of_backup(bench)
    bench.put("source", Item(1, 3, "third"))
    sides.write(keys(bench, 1), 2)
    third = content_of_backup(bench)
    sides.delete(keys(bench, 1), 3)
    assert [sides.actions(n)[bench.key(1)] for n in (1, 2, 3)] == [Action.INSERTED, Action.UPDATED, Action.DELETED]
    sides.put_back(3)
    assert content_of_backup(bench) == third
    sides.put_back(2)
    assert content_of_backup(bench) == second


def test_without_a_keeper_nothing_is_kept(bench: Bench) -> None:
    bench.create([Item(1)])
    sides = recycled(bench)
    sides.backup.write(sides.copies(keys(bench, 1), 1))
    sides.backup.delete(keys(bench, 1))
    assert sides.of(1) == {}


def test_a_sync_that_changes_nothing_puts_nothing_into_the_bin(bench: Bench) -> None:
    bench.create(Item(n) for n in (1, 2, 3))
    sides = recycled(bench)
    for minutes in (1, 2):
        run, now = run_at(minutes)
        steps = Steps(lambda: None, now, sides.keep(minutes))
        sync_stores(sides.source, sides.backup, run, Tally(tell=lambda counts: None), Guard(), steps)
    assert sides.actions(1) == dict.fromkeys(keys(bench, 1, 2, 3), Action.INSERTED)
    assert sides.of(2) == {}


def test_the_services_of_one_backup_have_bins_of_their_own(bench: Bench) -> None:
    bench.create([Item(1)])
    sides = recycled(bench)
    other_service = Recycled(sides.source, sides.backup, "other")
    sides.write(keys(bench, 1), 1)
    assert other_service.of(1) == {}
    assert other_service.bin.of_keys([bench.key(1)]) == []
    assert other_service.bin.purge(moment(9)) == 0
    assert len(sides.of(1)) == 1


# --- with the change or not at all ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_bytes", [1, 8_000_000])  # some images are kept before the change, or all after it
def test_a_write_that_fails_leaves_no_image(sql_bench: SqlBench, batch_bytes: int) -> None:
    bench = sql_bench
    bench.create(Item(n, 2, "twice") for n in range(1, 9))
    sides = recycled(bench, batch_bytes=batch_bytes)
    bench.put("backup", *(Item(n, 1, f"text {n}") for n in range(1, 6)))
    bench.sql("backup", "CREATE UNIQUE INDEX OnlyOnce ON {table} (Name)")
    records, before = sides.copies(keys(bench, *range(1, 9)), 1), content_of_backup(bench)
    with pytest.raises(StoreError):
        sides.backup.write(records, sides.keep(1))
    assert sides.of(1) == {}
    assert content_of_backup(bench) == before


def test_a_delete_that_fails_leaves_no_image(sql_bench: SqlBench) -> None:
    bench = sql_bench
    bench.create(Item(n) for n in range(1, 9))
    sides = recycled(bench, batch_bytes=1, batch_size=3)
    sides.write(keys(bench, *range(1, 9)), 1)
    bench.sql("backup", f"CREATE TABLE {bench.quoted('Using')} (Id INTEGER REFERENCES {{table}} (Id))")
    bench.sql("backup", f"INSERT INTO {bench.quoted('Using')} VALUES (7)")
    if isinstance(bench, SqliteBench):  # it checks references only if a pragma says so
        bench.sql(
            "backup",
            "CREATE TRIGGER Used BEFORE DELETE ON {table} WHEN OLD.Id = 7 BEGIN SELECT RAISE(ABORT, 'used'); END",
        )
    with pytest.raises(StoreError):
        sides.delete(keys(bench, *range(1, 9)), 2)
    assert sides.of(2) == {}
    assert len(bench.items("backup")) == 8
    bench.sql("backup", f"DROP TABLE {bench.quoted('Using')}")


@pytest.mark.parametrize("name", ["other", "Thing"])
def test_a_record_that_others_refer_to_is_not_deleted_whatever_the_tables_name(
    sqlite_bench: SqliteBench, name: str
) -> None:
    bench = sqlite_bench
    bench.name = name
    bench.create(Item(n) for n in range(1, 4))
    sides = recycled(bench)
    bench.sql("backup", "ALTER TABLE {table} ADD Parent INTEGER REFERENCES {table} (Id)")
    sides.write(keys(bench, 1, 2, 3), 1)
    bench.sql("backup", "UPDATE {table} SET Parent = 1 WHERE Id = 2")
    with pytest.raises(ConstraintRefused, match="refers to"):
        sides.delete(keys(bench, 1), 2)


def test_a_change_whose_image_a_trigger_swallows_is_not_made(sql_bench: SqlBench) -> None:
    bench = sql_bench
    bench.create(Item(n, 2) for n in range(1, 4))
    sides = recycled(bench)
    bench.put("backup", *(Item(n, 1) for n in range(1, 4)))
    before, trigger = content_of_backup(bench), f"CREATE TRIGGER g BEFORE INSERT ON {bench.quoted('RecycleBin')}"
    if isinstance(bench, SqliteBench):
        bench.sql("backup", f"{trigger} BEGIN SELECT RAISE(IGNORE); END")
    elif isinstance(bench, SqlServerBench):
        bench.sql("backup", f"CREATE TRIGGER g ON {bench.quoted('RecycleBin')} INSTEAD OF INSERT AS SET NOCOUNT ON")
    else:
        bench.sql("backup", "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
        bench.sql("backup", f"{trigger} FOR EACH ROW EXECUTE FUNCTION f()")
    with pytest.raises(StoreError, match="not there"):
        sides.write(keys(bench, 1, 2), 1)
    with pytest.raises(StoreError, match="not there"):
        sides.delete(keys(bench, 3), 2)
    assert content_of_backup(bench) == before


def counting(keep: Keep) -> tuple[Keep, list[tuple[int, Any]]]:
    """The keeper, and a list of its calls: how many images, and with which transaction."""
    calls: list[tuple[int, Any]] = []

    def count(images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:
        calls.append((len(images) + len(inserted), transaction))
        keep(images, transaction, inserted)

    return count, calls


@pytest.mark.parametrize("change", ["write", "delete"])
def test_a_batch_beyond_the_byte_limit_keeps_every_image_in_one_transaction(bench: Bench, change: str) -> None:
    numbers = range(1, 9)
    bench.create(Item(n, 2, f"new {n}") for n in numbers)
    sides = recycled(bench, batch_bytes=2_000)
    bench.put("backup", *(Item(n, 1, f"{n} " * 500) for n in numbers if n != 3))
    before = content_of_backup(bench)
    keep, calls = counting(sides.keep(1))
    if change == "write":
        sides.backup.write(sides.copies(keys(bench, *numbers), 1), keep)
        assert sides.actions(1) == {bench.key(n): Action.INSERTED if n == 3 else Action.UPDATED for n in numbers}
    else:
        sides.backup.delete(keys(bench, *numbers), keep)
        assert sides.actions(1) == {bench.key(n): Action.DELETED for n in numbers if n != 3}
    assert len(calls) > 3  # the images were not all in memory at once
    assert len({id(transaction) for _, transaction in calls}) == 1
    assert (calls[0][1] is None) == (bench.kind == "cosmos")
    sides.put_back(1)
    sides.backup.delete(keys(bench, 3))
    assert content_of_backup(bench) == before


# --- an older release's table -----------------------------------------------------------------------------------------


def test_create_completes_what_an_older_release_made_and_keeps_its_entries(bench: Bench) -> None:
    bench.create()
    backup = bench.pair()[1]
    early = Shape("Notes", "notes", "NoteId", "Subject", {"NoteId": "name", "Subject": "name", "At": "time"})
    late = replace(early, fields={**early.fields, "Done": "flag", "Text": "text", "Size": "integer", "Until": "time"})
    backup.sibling(early).create()
    old = {"NoteId": "a", "Subject": "x", "At": moment(1)}
    backup.sibling(early).put([old])
    notes = backup.sibling(late)
    for _ in range(2):
        notes.create()
    new = {"NoteId": "b", "Subject": "x", "At": moment(2), "Done": True, "Text": "Tëxt", "Size": 7, "Until": moment(9)}
    notes.put([new])
    nothing = {"Done": None, "Text": None, "Size": None, "Until": None}
    assert notes.find({"Subject": "x"}, order_by="At", limit=9) == [{**old, **nothing}, new]
