"""Images that SQL Server makes of its rows say what those of this process say. Needs a server."""

from __future__ import annotations

import random
import re

import pytest

from backup.core.model import WHOLE, Action
from backup.recycle_bin.bin import RecycleBin
from backup.stores import stamps_in
from backup.stores.sql import image_writes
from tests.contract.benches import NOW, RUN, SQL_SERVER, SqlServerBench
from tests.contract.recycled import recycled
from tests.contract.test_image_writes import written
from tests.contract.test_server_images import ENDS, KEYS, deleted, equal_entries
from tests.contract.test_sqlserver_types import VALUES, exact_sql

if SQL_SERVER is None:
    pytest.skip("needs TEST_SQLSERVER_SOURCE and TEST_SQLSERVER_BACKUP", allow_module_level=True)

LEFT = ("float", "real", "binary", "varbinary", "image", "xml", "text", "ntext")
SPELLED = {
    name: [value for value in values if "REPLICATE" not in value]
    for name, values in VALUES.items()
    if not name.startswith(LEFT)
}
ODD = ["''", "N'\"'", "N'\\'", "N'a\\\\\"b]^['", "NCHAR(9) + NCHAR(10) + NCHAR(13)", "N'\\u0041'", "N'/'"]
ALONE = ["NCHAR(1)", "NCHAR(31)", "NCHAR(127) + NCHAR(31)", "N'x🎉'"]


@pytest.mark.parametrize("null", [False, True])
def test_images_of_every_type_are_those_of_this_process(
    mssql_bench: SqlServerBench, made: list[int | None], *, null: bool
) -> None:
    bench = mssql_bench
    values = {name: [value for value in of_type if "🎉" not in value] for name, of_type in SPELLED.items()}
    columns = ", ".join(f"[c{n} ä'\"\\{{%] {name} NULL" for n, name in enumerate(values))
    bench.sql("source", f"CREATE TABLE {{table}} (id bigint PRIMARY KEY, version int NULL, {columns})")
    source, backup = bench.pair()
    backup.catalog.match(source)
    for place in range(rows := max(map(len, values.values()))):
        row = ["NULL" if null else kind[place % len(kind)] for kind in values.values()]
        bench.sql("backup", f"INSERT INTO {{table}} VALUES ({place}, {place or 'NULL'}, {', '.join(row)}, NULL)")
    deleted(backup, [(place,) for place in range(rows)])
    assert made == [rows]


@pytest.mark.parametrize("declared", ["nvarchar(30)", "nvarchar(max)", "varchar(30)"])
def test_texts_with_escapes_are_those_of_this_process_and_others_are_left_to_it(
    mssql_bench: SqlServerBench, made: list[int | None], declared: str
) -> None:
    bench = mssql_bench
    bench.sql("source", f"CREATE TABLE {{table}} (id int PRIMARY KEY, version int, t {declared}, u {declared})")
    source, backup = bench.pair()
    backup.catalog.match(source)
    is_wide = declared.startswith("n")
    for place, value in enumerate(ODD):
        bench.sql("backup", f"INSERT INTO {{table}} VALUES ({place}, 1, {value}, 'u', NULL)")
    deleted(backup, [(place,) for place in range(len(ODD))])
    assert made == [len(ODD)]
    others = ALONE if is_wide else ALONE[:2]
    for place, value in enumerate(others):
        made.clear()
        bench.sql("backup", f"DELETE FROM {bench.quoted('RecycleBin')}")
        bench.sql("backup", f"INSERT INTO {{table}} VALUES ({place}, 1, 'u', {value}, NULL)")
        deleted(backup, [(place,)])
        # Babelfish, whose texts have no halves of pairs, spells an emoji as well as any other character.
        assert made == [None] or (bench.stands_in and "🎉" in value), value


def test_ids_of_keys_are_those_of_this_process(mssql_bench: SqlServerBench, made: list[int | None]) -> None:
    bench, chance = mssql_bench, random.Random(15)
    numbers = {*KEYS, *ENDS, *(chance.randrange(-(1 << 63), 1 << 63) // 10 ** chance.randrange(19) for _ in range(300))}
    keys = [(number,) for number in numbers]
    bench.sql("source", "CREATE TABLE {table} (id bigint PRIMARY KEY, version int)")
    source, backup = bench.pair()
    backup.catalog.match(source)
    bench.sql("backup", "INSERT INTO {table} (id, version) VALUES (?, 1)", keys)
    deleted(backup, keys)
    assert made == [len(numbers)]


def test_the_first_image_of_a_record_in_a_run_is_kept_and_a_lost_one_is_seen(
    mssql_bench: SqlServerBench, made: list[int | None]
) -> None:
    bench = mssql_bench
    bench.sql("source", "CREATE TABLE {table} (id int PRIMARY KEY, version int, t nvarchar(9))")
    source, backup = bench.pair()
    backup.catalog.match(source)
    kept = RecycleBin(backup, RUN.service)
    kept.create()
    bench.sql("backup", "INSERT INTO {table} VALUES (1, 1, 'one', NULL), (2, 1, 'two', NULL)")
    images = [image for batch in backup.images([(1,), (2,)], Action.DELETED) for image in batch]
    keep = kept.recorder(RUN, lambda: NOW)
    backup.delete([(1,)], keep)
    bench.sql("backup", "INSERT INTO {table} VALUES (1, 1, 'later', NULL)")
    backup.delete([(1,), (2,)], keep)
    assert made == [1, 1]
    equal_entries(backup, RUN.sync_id, images)


def test_rows_are_made_of_images_of_every_type(
    mssql_bench: SqlServerBench, made: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_writes, "FEWEST_IMAGES", 1)
    bench = mssql_bench
    # Babelfish finds no name with a space, reads no N before a path, and does not undo the escapes of JSON.
    end, odd = ("", []) if bench.stands_in else (" é", ODD)
    types = {name: [v for v in values if "🎉" not in v and "NCHAR" not in v] for name, values in SPELLED.items()}
    types["nvarchar(30)"] += odd
    names = [f"[c{n}'{{%$.{end}]" for n in range(len(types))]
    columns = ", ".join(f"{name} {type_} NULL" for name, type_ in zip(names, types, strict=True))
    bench.sql("source", f"CREATE TABLE {{table}} (id int PRIMARY KEY, version int, {columns})")
    for place in range(number := 2 * max(map(len, types.values()))):
        row = ", ".join([*values, "NULL"][(place // 2) % (len(values) + 1)] for values in types.values())
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({place}, 1, {row})")
    sides = recycled(bench)
    keys = sides.backup.keys.in_order([*stamps_in(sides.source, WHOLE)])
    sides.write(keys, 1)
    values = ", ".join(re.sub(r"\bV\b", name, exact_sql(type_)) for name, type_ in zip(names, types, strict=True))
    query = f"SELECT id, version, CAST(SyncedAt AS varchar(60)), {values} FROM {{table}} ORDER BY id"
    before = bench.rows("backup", query)
    bench.sql("source", f"UPDATE {{table}} SET version = 2, {', '.join(f'{name} = NULL' for name in names)}")
    sides.write(keys[::2], 2)
    sides.delete(keys[1::2], 2)
    after = bench.rows("backup", query)
    assert sum(written(sides, 2)) == number
    assert bench.rows("backup", query) == before
    assert sum(written(sides, 3)) == number // 2
    sides.delete(keys[1::2], 9)
    assert bench.rows("backup", query) == after
    assert None not in made
