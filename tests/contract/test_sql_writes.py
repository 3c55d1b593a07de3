"""How rows get into a table: whatever is in them, whichever columns take them, from several threads at once."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from backup.core.errors import ConfigError, StoreError, TransientStoreError
from backup.core.model import WHOLE, Action, Image, Key
from backup.core.run_values import Counts, Run, Trigger
from backup.recycle_bin.bin import RecycleBin
from backup.stores import Rules, Shape, pools
from backup.stores.sql.engines import opening
from backup.stores.sql.engines.postgresql import copy
from backup.stores.sql.engines.sqlite import connection
from tests.contract.benches import NOTE, NOW, ONE_TRY, RUN, Item, PostgresBench, SqlBench, SqliteBench
from tests.contract.test_sql_tables import make
from tests.contract.test_store import run_sync

TEXTS = [
    "\\N", "\\.", "\\", "a\tb", "a\nb", "a\r\nb", "\x0b\x0c\x1f\x7f", "\\t\\n\\x41\\101", "", " ", "'\"`$", "100%s",
    "NULL", "null", "🎉漢ß", "\u200b\ufeff\u2028", "[1]", '{"a":"\\u0041"}', "\ue000\ue001", "x" * 5000,
]  # fmt: skip


def test_no_character_of_a_text_means_anything(sql_bench: SqlBench) -> None:
    bench = sql_bench
    text = {"sqlite": "TEXT", "postgresql": "text", "mssql": "nvarchar(max)"}[bench.kind]
    bench.sql("source", f"CREATE TABLE {{table}} (Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, T {text})")
    rows = [(n, 1, value) for n, value in enumerate([None, *TEXTS, None])]
    bench.sql("source", f"INSERT INTO {{table}} (Id, Version, T) VALUES ({', '.join([bench.mark] * 3)})", rows)
    source, backup = bench.pair()
    assert run_sync(source, backup) == (len(rows), 0, 0, 0)
    assert [row[:3] for row in bench.rows("backup")] == rows
    bench.sql("backup", "UPDATE {table} SET T = 'other', Version = 0")
    assert run_sync(source, backup) == (0, len(rows), 0, 0)
    assert [row[:3] for row in bench.rows("backup")] == rows


@pytest.mark.parametrize("batch_size", [1, 4])
def test_texts_written_a_few_at_a_time_are_the_same(sql_bench: SqlBench, batch_size: int) -> None:
    bench = sql_bench
    text = {"sqlite": "TEXT", "postgresql": "text", "mssql": "nvarchar(max)"}[bench.kind]
    bench.sql(
        "source", f"CREATE TABLE {{table}} (Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, T {text}, U {text})"
    )
    rows = [(n, 1, value, TEXTS[-n]) for n, value in enumerate(TEXTS)]
    bench.sql("source", f"INSERT INTO {{table}} (Id, Version, T, U) VALUES ({', '.join([bench.mark] * 4)})", rows)
    source, backup = bench.pair(batch_size=batch_size)
    for _ in range(2):
        for records in source.read(None, next(source.chunks())):
            backup.write(records)
        assert [row[:4] for row in bench.rows("backup")] == rows
        bench.sql("backup", "UPDATE {table} SET T = 'other', U = NULL")


def test_texts_are_keys_whatever_they_hold(sql_bench: SqlBench) -> None:
    bench = sql_bench
    text = {
        "sqlite": "TEXT",
        "postgresql": 'text COLLATE "C"',
        "mssql": "nvarchar(400) COLLATE Latin1_General_BIN2",
    }[bench.kind]
    bench.sql("source", f"CREATE TABLE {{table}} (Id {text} NOT NULL PRIMARY KEY, Version INTEGER)")
    keys = sorted(key for key in TEXTS if len(key) < 100 and key.strip())
    bench.sql("source", f"INSERT INTO {{table}} (Id, Version) VALUES ({bench.mark}, 1)", [(key,) for key in keys])
    source, backup = bench.pair(batch_size=4)
    kept = RecycleBin(backup, "thing")
    kept.create()
    keep = kept.recorder(RUN, lambda: NOW)
    for _ in range(2):
        for records in source.read(None, next(source.chunks())):
            backup.write(backup.copies.of(records, NOTE), keep)
    assert sorted(row[0] for row in bench.rows("backup")) == keys
    entries = [entry for page in kept.of_run(RUN.sync_id) for entry in page]
    assert sorted(entry.key[0] for entry in entries) == keys
    assert {entry.action for entry in entries} == {Action.INSERTED}


def test_a_batch_of_new_and_known_rows_keeps_one_image_of_each_however_often_it_is_written(
    sql_bench: SqlBench,
) -> None:
    bench = sql_bench
    bench.create([Item(n) for n in range(1, 8)])
    source, backup = bench.pair()
    bench.put("backup", Item(2, 0, "old"), Item(4, None, "older"))
    kept = RecycleBin(backup, "thing")
    kept.create()
    (records,) = source.read(None, next(source.chunks()))
    for _ in range(2):
        backup.write(backup.copies.of(records, NOTE), kept.recorder(RUN, lambda: NOW))
    assert bench.items("backup") == bench.items("source")
    entries = {entry.key[0]: entry for page in kept.of_run(RUN.sync_id) for entry in page}
    assert {n for n, entry in entries.items() if entry.action is Action.INSERTED} == {1, 3, 5, 6, 7}
    assert [(entries[n].record or {}).get("name", (entries[n].record or {}).get("Name")) for n in (2, 4)] == [
        "old",
        "older",
    ]


# --- PostgreSQL: COPY -------------------------------------------------------------------------------------------------


def test_rows_go_into_a_column_that_always_makes_its_own_values(postgresql_bench: PostgresBench) -> None:
    bench = postgresql_bench
    columns = "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, version integer"
    make(bench, columns, columns)
    bench.sql("source", "INSERT INTO {table} (id, version) OVERRIDING SYSTEM VALUE VALUES (7, 1), (-3, 1), (50, 2)")
    source, backup = bench.open("source"), bench.open("backup")
    backup.catalog.initialize(source)
    assert run_sync(source, backup) == (3, 0, 0, 0)
    assert bench.rows("backup") == bench.rows("source") == [(-3, 1), (7, 1), (50, 2)]
    bench.sql("source", "UPDATE {table} SET version = 9 WHERE id = 7")
    assert run_sync(source, backup) == (0, 1, 0, 2)


@pytest.mark.parametrize("always", [False, True])
def test_rows_go_into_a_table_with_a_policy_for_the_role(postgresql_bench: PostgresBench, always: bool) -> None:
    bench = postgresql_bench
    key = "bigint GENERATED ALWAYS AS IDENTITY" if always else "bigint"
    make(bench, "id bigint PRIMARY KEY, version integer, t text", f"id {key} PRIMARY KEY, version integer, t text")
    bench.sql("source", "INSERT INTO {table} VALUES (1, 1, '\\N'), (2, 1, NULL)")
    role = f"mirror_{uuid.uuid4().hex[:8]}"
    bench.sql("backup", f"CREATE ROLE {role} LOGIN PASSWORD 'mirror'")
    try:
        bench.sql("backup", f"GRANT ALL ON SCHEMA {bench.quote(bench.schema or '')} TO {role}")
        bench.sql("backup", f"GRANT ALL ON {{table}} TO {role}")
        bench.sql("backup", "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        bench.sql("backup", "CREATE POLICY all_of_them ON {table} USING (true)")
        url = sa.make_url(bench.connection_strings["backup"]).set(username=role, password="mirror")
        text = url.render_as_string(hide_password=False)
        source, backup = bench.open("source"), bench.open("backup", connection_string=text)
        with pytest.raises(ConfigError, match="Row-level security"):
            backup.catalog.match(source)  # it may hide copies, and nobody can tell
        bench.sql("backup", f"ALTER ROLE {role} BYPASSRLS")
        backup.close()
        backup.catalog.match(source)
        assert run_sync(source, backup) == (2, 0, 0, 0)
        assert bench.rows("backup") == bench.rows("source")
        backup.close()
    finally:
        bench.sql("backup", f"DROP OWNED BY {role}")
        bench.sql("backup", f"DROP ROLE {role}")


def test_a_text_that_the_server_cannot_hold_is_refused_and_nothing_of_its_batch_is_written(
    postgresql_bench: PostgresBench,
) -> None:
    bench = postgresql_bench
    bench.create([Item(1)])
    _, backup = bench.pair()
    with pytest.raises(StoreError) as caught:
        backup.write([{"id": 1, "version": 1, "name": "good"}, {"id": 2, "version": 1, "name": "hunter2\x00"}])
    assert "hunter2" not in str(caught.value)
    assert bench.rows("backup") == []
    backup.write([{"id": 1, "version": 1, "name": "good"}])
    assert bench.items("backup") == {1: Item(1, 1, "good")}


@pytest.mark.parametrize("type_", ["bit(3)", "varchar(3)", "numeric(3, 1)", "smallint", "char(3)"])
def test_a_value_that_does_not_fit_is_refused_and_not_cut(postgresql_bench: PostgresBench, type_: str) -> None:
    bench = postgresql_bench
    value: Any = {"bit(3)": "10101", "smallint": 99999, "numeric(3, 1)": 12345}.get(type_, "abcde")
    bench.sql("source", f"CREATE TABLE {{table}} (id integer PRIMARY KEY, version integer, v {type_})")
    _, backup = bench.pair()
    with pytest.raises(StoreError):
        backup.write([{"id": 1, "version": 1, "v": value}])
    assert bench.rows("backup") == []


@pytest.mark.parametrize("rows", [5, 50])
@pytest.mark.parametrize("temporary", [True, False])
def test_a_few_and_many_rows_are_updated_with_and_without_a_temporary_table(
    postgresql_bench: PostgresBench, rows: int, temporary: bool
) -> None:
    bench = postgresql_bench
    columns = (
        'id integer GENERATED ALWAYS AS IDENTITY, "k %%s" date, version integer, "a%%" numeric(9, 3), b text,'
        ' i interval, n integer NOT NULL DEFAULT 7, PRIMARY KEY ("k %%s", id)'
    )
    make(bench, columns, columns)
    insert = (
        'INSERT INTO {table} (id, "k %%s", version, "a%%", b, i) OVERRIDING SYSTEM VALUE'
        " VALUES (%s, '2024-01-02', %s, %s, %s, '1 mon 2 days')"
    )
    bench.sql("source", insert, [(n, 2, n / 8, TEXTS[n % len(TEXTS)] if n % 3 else None) for n in range(rows)])
    bench.sql("backup", insert, [(n, 1, 0, "old") for n in range(-3, rows)])
    bench.sql("backup", "UPDATE {table} SET n = 1 WHERE id = -1")
    source, backup = bench.open("source"), bench.open("backup")
    backup.catalog.match(source)
    (records,) = source.read(None, next(source.chunks()))
    given = [{name: value for name, value in record.items() if name != "n"} for record in records]
    with pytest.MonkeyPatch.context() as patch:
        if not temporary:
            patch.setattr(copy, "_MAY_STAGE", sa.text("SELECT false"))
        backup.write(given)
    query = "SELECT * FROM {table} WHERE id >= 0 ORDER BY id"
    assert bench.rows("backup", query) == bench.rows("source", query)
    assert bench.rows("backup", "SELECT id, b, n FROM {table} WHERE id < 0 ORDER BY id") == [
        (-3, "old", 7),
        (-2, "old", 7),
        (-1, "old", 1),
    ]


# --- SQLite: one writer -----------------------------------------------------------------------------------------------


def test_threads_write_to_one_file_in_turn_and_never_find_it_locked(
    sqlite_bench: SqliteBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = sqlite_bench
    bench.create()
    bench.pair()
    monkeypatch.setattr(connection, "_BUSY_SECONDS", 0)  # who does not queue fails at once
    stores = [bench.open("backup", retry=ONE_TRY, rules=Rules(version=("Version",))) for _ in range(2)]
    for store in stores:
        store.count()  # a first look at the columns reads, and only writes stand in line
    kept = RecycleBin(stores[0], "thing")
    kept.create()
    run = Run("thing", Trigger.CLI, False, NOW)
    keep, other = kept.recorder(run, lambda: NOW), kept.recorder(run, lambda: NOW)

    def write(thread: int) -> None:
        for n in range(5):
            ids = [thread * 10_000 + n * 10 + i for i in range(10)]
            stores[thread % 2].write([{"Id": i, "Version": 1, "Name": "a"} for i in ids], keep)
            other([Image((-thread - 1,), Action.DELETED, {"Id": -thread - 1})], None)
            stores[thread % 2].delete([(ids[0],)], keep)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert len(bench.items("backup")) == 6 * 5 * 9
    assert kept.counted(run.sync_id) == Counts(inserted=6 * 5 * 10, deleted=6)


def test_what_a_transaction_looked_up_stays_true_until_it_writes(sqlite_bench: SqliteBench) -> None:
    bench = sqlite_bench
    bench.create([Item(1)])
    _, backup = bench.pair()
    calls: list[str] = []

    def keep(images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:
        with pytest.raises(StoreError, match="locked"):
            other.write([{"Id": 1, "Version": 2, "Name": "other"}])
        calls.append("kept")

    other = bench.open("backup", retry=ONE_TRY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "_BUSY_SECONDS", 0)
        backup.write([{"Id": 1, "Version": 1, "Name": "first"}], keep)
    assert calls == ["kept"]
    assert bench.items("backup") == {1: Item(1, 1, "first")}


# --- long values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [4_000, 4_001, 300_000])
def test_images_are_kept_whole_however_long(sql_bench: SqlBench, length: int) -> None:
    bench = sql_bench
    text = {"sqlite": "TEXT", "postgresql": "text", "mssql": "nvarchar(max)"}[bench.kind]
    bench.sql("source", f"CREATE TABLE {{table}} (Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, T {text})")
    source, backup = bench.pair()
    insert = f"INSERT INTO {{table}} (Id, Version, T) VALUES ({', '.join([bench.mark] * 3)})"
    bench.sql("source", insert, [(1, 2, "new"), (2, 2, "b" * length)])
    bench.sql("backup", insert, [(1, 1, "a" * length), (2, 1, "old")])
    kept = RecycleBin(backup, "thing")
    kept.create()
    (records,) = source.read(None, next(source.chunks()))
    for _ in range(2):
        backup.write(records, kept.recorder(RUN, lambda: NOW))
    assert [row[:3] for row in bench.rows("backup")] == [(1, 2, "new"), (2, 2, "b" * length)]
    images = {kept.key[0]: {**(kept.record or {})} for page in kept.of_run(RUN.sync_id) for kept in page}
    assert {n: [*record.values()][2] for n, record in images.items()} == {1: "a" * length, 2: "old"}


def test_a_lock_of_somebody_else_is_not_waited_for_without_an_end(
    sql_bench: SqlBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sql_bench.kind == "sqlite":
        pytest.skip("SQLite has a timeout of its own, which the test before is about")
    monkeypatch.setattr(opening, "LOCK_SECONDS", 1)
    pools.close_idle()  # its sessions have the usual limit
    sql_bench.create([Item(1)])
    source, backup = sql_bench.pair(retry=ONE_TRY)
    assert run_sync(source, backup) == (1, 0, 0, 0)
    sql_bench.put("source", Item(1, version=2))
    [records] = source.read(None, WHOLE)
    with sql_bench.engines["backup"].connect() as other:
        other.exec_driver_sql(f"UPDATE {sql_bench.quoted()} SET Version = 7")
        with pytest.raises(TransientStoreError, match="lock"):
            backup.write(backup.copies.of(records, NOTE))
        other.rollback()
    backup.write(backup.copies.of(records, NOTE))
    assert sql_bench.items("backup") == {1: Item(1, version=2)}


def test_an_entry_that_a_transaction_looked_at_stays_as_it_is_until_its_end(postgresql_bench: PostgresBench) -> None:
    bench = postgresql_bench
    bench.create([])
    _, backup = bench.pair()
    notes = backup.sibling(Shape("Notes", "notes", "Id", "Id", {"Id": "name", "State": "name"}))
    notes.create()
    notes.put([{"Id": "a", "State": "open"}])
    engine, schema = bench.engines["backup"], backup.catalog.qualified_name().split(".")[0]
    with engine.begin() as looking, engine.begin() as writing:
        assert notes.holds("a", {"State": ["open"]}, looking)
        writing.exec_driver_sql("SET LOCAL lock_timeout = '1ms'")
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            writing.exec_driver_sql(f"""UPDATE "{schema}"."Notes" SET "State" = 'closed'""")
        writing.rollback()
    assert notes.change("a", {"State": ["open"]}, {"State": "closed"})
