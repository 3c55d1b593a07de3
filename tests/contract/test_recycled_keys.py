"""Images of keys of every kind: spelled anew, alike to the server or not, composite."""

from __future__ import annotations

import pytest

from backup.core.model import Action, Chunk
from backup.stores import stamps_in
from tests.contract.benches import SQL_SERVER, PostgresBench, SqlBench, SqliteBench, SqlServerBench
from tests.contract.recycled import alike_on_both_sides, content_of_backup, moment, recycled, run_at


def check_respelled(bench: SqlBench, text: str, old: str, new: str) -> None:
    """A key changes only in what its collation ignores. Its image has the old spelling, and both spellings find it."""
    bench.sql("source", f"CREATE TABLE {{table}} (Id {text} NOT NULL PRIMARY KEY, Version INTEGER)")
    insert = f"INSERT INTO {{table}} (Id, Version) VALUES ({bench.mark}, {bench.mark})"
    bench.sql("source", insert, [(old, 1), ("b", 1)])
    sides = recycled(bench)
    sides.write([(old,), ("b",)], 1)
    before = content_of_backup(bench)
    bench.sql("source", f"UPDATE {{table}} SET Id = {bench.mark}, Version = 2 WHERE Id = {bench.mark}", [(new, old)])
    sides.write([(new,)], 2)
    assert sorted(row[0] for row in bench.rows("backup")) == sorted([new, "b"])
    [kept] = sides.of(2).values()
    assert (kept.key, kept.action) == ((new,), Action.UPDATED)
    assert kept.record is not None
    assert sides.backup.keys.of(kept.record) == (old,)
    assert sides.bin.first_after([(new,)], moment(1)) == {(new,): kept, (old,): kept}
    assert sides.bin.first_after([(old,)], moment(1)) == {(new,): kept, (old,): kept}
    assert sides.bin.first_after([(old,), ("b",)], moment(2)) == {}
    sides.put_back(2)
    assert content_of_backup(bench) == before


@pytest.mark.parametrize(
    ("collation", "old", "new"), [("NOCASE", "A", "a"), ("RTRIM", "a", "a  "), ("NOCASE", "a", "A")]
)
def test_sqlite_keeps_a_respelled_keys_old_spelling(
    sqlite_bench: SqliteBench, collation: str, old: str, new: str
) -> None:
    check_respelled(sqlite_bench, f"TEXT COLLATE {collation}", old, new)


@pytest.mark.parametrize(("old", "new"), [("A", "a"), ("ä", "Ä")])
def test_postgresql_keeps_a_respelled_keys_old_spelling(postgresql_bench: PostgresBench, old: str, new: str) -> None:
    bench = postgresql_bench
    alike_on_both_sides(bench)
    check_respelled(bench, f"text COLLATE {bench.quoted('alike')}", old, new)


@pytest.mark.parametrize(("old", "new"), [("A", "a "), ("a ", "A"), ("É", "é")])
@pytest.mark.skipif(SQL_SERVER is None, reason="needs TEST_SQLSERVER_SOURCE and TEST_SQLSERVER_BACKUP")
def test_sql_server_keeps_a_respelled_keys_old_spelling(mssql_bench: SqlServerBench, old: str, new: str) -> None:
    check_respelled(mssql_bench, "nvarchar(40) COLLATE Latin1_General_CI_AS", old, new)


def check_come_back(bench: SqlBench, text: str, old: str, new: str) -> None:
    """A record is deleted and comes back with another spelling of its key. No image has both."""
    bench.sql("source", f"CREATE TABLE {{table}} (Id {text} NOT NULL PRIMARY KEY, Version INTEGER)")
    insert = f"INSERT INTO {{table}} (Id, Version) VALUES ({bench.mark}, {bench.mark})"
    bench.sql("source", insert, [(old, 1)])
    sides = recycled(bench)
    sides.write([(old,)], 1)
    sides.delete([(old,)], 2)
    bench.sql("source", f"UPDATE {{table}} SET Id = {bench.mark}", [(new,)])
    sides.write([(new,)], 3)
    first = sides.bin.first_after([(new,)], moment(1))
    expected = (old,), Action.DELETED, True
    told = {key: (kept.key, kept.action, kept.came_back) for key, kept in first.items()}
    assert told == {(old,): expected, (new,): expected}
    assert not sides.bin.first_after([(new,)], moment(2))[(new,)].had_record


def test_sqlite_knows_a_record_that_came_back_with_another_spelling(sqlite_bench: SqliteBench) -> None:
    check_come_back(sqlite_bench, "TEXT COLLATE NOCASE", "A", "a")


def test_postgresql_knows_a_record_that_came_back_with_another_spelling(postgresql_bench: PostgresBench) -> None:
    alike_on_both_sides(postgresql_bench)
    check_come_back(postgresql_bench, f"text COLLATE {postgresql_bench.quoted('alike')}", "ä", "Ä")


def test_a_resumed_run_finds_its_image_of_a_key_that_has_another_spelling_since(sqlite_bench: SqliteBench) -> None:
    """The first call deleted the copy; the next one inserts it as the source spells it by then."""
    bench = sqlite_bench
    bench.sql("source", "CREATE TABLE {table} (Id TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, Version INTEGER)")
    bench.sql("source", "INSERT INTO {table} VALUES ('A', 1)")
    sides = recycled(bench)
    sides.write([("A",)], 1)
    sides.delete([("A",)], 2)
    bench.sql("source", "UPDATE {table} SET Id = 'a', Version = 2")
    run, now = run_at(2)
    sides.backup.write(sides.copies([("a",)], 2), sides.bin.recorder(run, now, resumed=True))
    assert [row[:2] for row in bench.rows("backup")] == [("a", 2)]
    assert sides.actions(2) == {("A",): Action.DELETED}


def test_keys_that_the_server_tells_apart_keep_images_of_their_own(sqlite_bench: SqliteBench) -> None:
    bench = sqlite_bench
    bench.sql("source", "CREATE TABLE {table} (Id TEXT PRIMARY KEY, Version INTEGER)")
    bench.sql("source", "INSERT INTO {table} VALUES (?, ?)", [("A", 1), ("a", 2), ("a ", 3)])
    sides = recycled(bench)
    sides.write([("A",), ("a",), ("a ",)], 1)
    sides.delete([("A",)], 2)
    sides.delete([("a",)], 3)
    first = sides.bin.first_after([("A",)], moment(1))
    assert {key: (kept.key, kept.version) for key, kept in first.items()} == {
        ("A",): (("A",), (1,)),
        ("a",): (("a",), (2,)),
    }


def test_composite_keys_leave_images_and_are_put_back(sql_bench: SqlBench) -> None:
    bench = sql_bench
    text = "nvarchar(20)" if bench.kind == "mssql" else "varchar(20)"
    bench.sql(
        "source", f"CREATE TABLE {{table}} (A INTEGER NOT NULL, B {text} NOT NULL, Version INTEGER, PRIMARY KEY (B, A))"
    )
    insert = f"INSERT INTO {{table}} (A, B, Version) VALUES ({bench.mark}, {bench.mark}, {bench.mark})"
    bench.sql("source", insert, [(a, b, 1) for a in range(4) for b in ("", "x", "ä")])
    sides = recycled(bench, batch_size=2)
    sides.write(list(stamps_in(sides.source, Chunk())), 1)
    assert sides.actions(1) == {(b, a): Action.INSERTED for a in range(4) for b in ("", "x", "ä")}
    before = sorted(content_of_backup(bench))
    bench.sql("source", "UPDATE {table} SET Version = 2")
    sides.write([("x", 1), ("", 3)], 2)
    sides.delete([("ä", 0), ("x", 0), ("y", 0)], 2)
    expected = {("x", 1): Action.UPDATED, ("", 3): Action.UPDATED, ("ä", 0): Action.DELETED, ("x", 0): Action.DELETED}
    assert sides.actions(2) == expected
    assert {kept.version for kept in sides.of(2).values()} == {(1,)}
    assert sides.bin.first_after([("x", 1)], moment(1)).keys() == {("x", 1)}
    sides.put_back(2)
    assert sorted(content_of_backup(bench)) == before
