"""Whatever SQLite keeps, of any declared type and storage class, there and back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from backup.core.errors import SchemaMismatch, StoreError
from backup.core.model import WHOLE
from backup.recycle_bin.bin import RecycleBin
from backup.stores.sql.engines.sqlite import text as sqlite_text
from backup.stores.sql.engines.sqlite.text import text_of
from tests.contract.benches import RUN, SqliteBench
from tests.contract.test_store import run_sync

LARGE = "x" * 1_100_000
VALUES: list[Any] = [
    None, 0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, 0.0, -0.0, 0.1, 1e308, 5e-324, float("inf"), float("-inf"),
    "", "text", "trailing  ", "1", "1.0", "1e5", "é漢🎉", "a\x00b", "it's", b"", b"\x00\xff", b"text", LARGE,
]  # fmt: skip
DECLARED = [
    "INTEGER", "INT", "BIGINT", "TEXT", "VARCHAR(10)", "BLOB", "REAL", "DOUBLE PRECISION", "NUMERIC", "DECIMAL(10, 2)",
    "BOOLEAN", "DATETIME", "", "ANY", "FLOATING POINT", "STRING", "UNSIGNED BIG INT",
]  # fmt: skip
QUOTED = ["POINT('x')", "[odd] 'type'", "INT NOT NULL PRIMARY KEY", "text unique on conflict replace"]
"""Types that a column has only if its declaration quotes them."""
AFFINITIES = {"INTEGER", "TEXT", "BLOB", "REAL", "NUMERIC"}
"""One type of each; only these have the large value, which costs as much as all others."""
SEEN = "SELECT Id, typeof(V), quote(V), length(V) FROM {table} ORDER BY Id"


@pytest.mark.parametrize("types", [DECLARED, QUOTED], ids=["plain", "quoted"])
def test_values_are_copied_exactly(sqlite_bench: SqliteBench, types: list[str]) -> None:
    """Each type has each value, and no row has two large ones."""
    bench = sqlite_bench
    names = [f"V{n}" for n in range(len(types))]
    columns = ", ".join(
        f'{name} "{type_}"' if type_ in QUOTED else f"{name} {type_}" for name, type_ in zip(names, types, strict=True)
    )
    bench.sql("source", f"CREATE TABLE {{table}} (Id INTEGER PRIMARY KEY, {columns}, Version INTEGER)")
    for place in range(len(VALUES)):
        values = [VALUES[(place + n) % len(VALUES)] for n in range(len(types))]
        small = [
            value if value != LARGE or type_ in AFFINITIES else None for value, type_ in zip(values, types, strict=True)
        ]
        bench.sql("source", f"INSERT INTO {{table}} VALUES (?, {', '.join('?' * len(types))}, 1)", [(place, *small)])
    source, backup = bench.pair()
    assert run_sync(source, backup) == (len(VALUES), 0, 0, 0)
    seen = ", ".join(f"typeof({name}), quote({name}), length({name})" for name in names)
    query = f"SELECT Id, {seen} FROM {{table}} ORDER BY Id"
    expected = bench.rows("source", query)
    assert bench.rows("backup", query) == expected
    bench.sql("source", "UPDATE {table} SET Version = NULL")
    bench.sql("backup", f"UPDATE {{table}} SET {', '.join(f'{name} = NULL' for name in names)}")
    assert run_sync(source, backup) == (0, len(VALUES), 0, 0)
    assert bench.rows("backup", query) == expected
    assert run_sync(source, backup) == (0, 0, 0, len(VALUES))


def test_a_column_without_a_name_is_refused(sqlite_bench: SqliteBench) -> None:
    sqlite_bench.sql("source", 'CREATE TABLE {table} (Id INTEGER PRIMARY KEY, "")')
    with pytest.raises(SchemaMismatch, match="whose name is empty"):
        sqlite_bench.open("source").count()


@pytest.mark.parametrize("declared", ["INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY"])
def test_strict_tables_are_copied_exactly(sqlite_bench: SqliteBench, declared: str) -> None:
    bench = sqlite_bench
    bench.sql("source", f"CREATE TABLE {{table}} (Id INTEGER PRIMARY KEY, V {declared}, Version INT) STRICT")
    fits = {"INT": (int,), "INTEGER": (int,), "REAL": (int, float), "TEXT": (str,), "BLOB": (bytes,)}
    values = [value for value in VALUES if value is None or isinstance(value, fits.get(declared, object))]
    bench.sql("source", "INSERT INTO {table} VALUES (?, ?, 1)", list(enumerate(values)))
    source, backup = bench.pair()
    assert run_sync(source, backup) == (len(values), 0, 0, 0)
    assert bench.rows("backup", SEEN) == bench.rows("source", SEEN)


def test_bytes_among_integers_are_seen_in_any_bucket(sqlite_bench: SqliteBench) -> None:
    bench = sqlite_bench
    bench.sql("source", "CREATE TABLE {table} (Id INTEGER PRIMARY KEY, Version INTEGER)")
    bench.sql("source", "INSERT INTO {table} VALUES (?, 1)", [(n,) for n in range(200)])
    source, backup = bench.pair()
    run_sync(source, backup)
    bench.sql("source", "UPDATE {table} SET Version = x'00' WHERE Id = 199")  # of the last bucket
    assert source.buckets is not None
    buckets = source.buckets.fingerprints(WHOLE)
    assert buckets is not None
    assert len(buckets) > 1
    assert run_sync(source, backup) == (0, 1, 0, 199)


def test_keys_of_every_storage_class_are_kept_apart(sqlite_bench: SqliteBench) -> None:
    bench = sqlite_bench
    bench.sql("source", "CREATE TABLE {table} (Id NOT NULL PRIMARY KEY, Version INTEGER) WITHOUT ROWID")
    keys = [value for value in VALUES if value is not None and value != -0.0] + [0]
    bench.sql("source", "INSERT INTO {table} VALUES (?, 1)", [(key,) for key in keys])
    source, backup = bench.pair(chunk_size=3, batch_size=2)
    assert run_sync(source, backup) == (len(keys), 0, 0, 0)
    query = "SELECT typeof(Id), quote(Id) FROM {table} ORDER BY Id"
    assert bench.rows("backup", query) == bench.rows("source", query)
    assert run_sync(source, backup) == (0, 0, 0, len(keys))


def test_generated_columns_are_kept_as_their_values(sqlite_bench: SqliteBench) -> None:
    bench = sqlite_bench
    bench.sql(
        "source",
        "CREATE TABLE {table} (Id INTEGER PRIMARY KEY, A INT, B INT GENERATED ALWAYS AS (A * 2),"
        " C TEXT AS ('c' || A) STORED, Version INT)",
    )
    bench.sql("source", "INSERT INTO {table} (Id, A, Version) VALUES (1, 10, 1), (2, NULL, 1)")
    source, backup = bench.pair()
    assert run_sync(source, backup) == (2, 0, 0, 0)
    assert [row[:5] for row in bench.rows("backup")] == bench.rows("source")
    assert bench.rows("source")[0] == (1, 10, 20, "c10", 1)


def test_a_rowid_key_is_one_in_the_backup_too(sqlite_bench: SqliteBench) -> None:
    bench = sqlite_bench
    bench.create()
    bench.pair()
    bench.sql("backup", "INSERT INTO {table} (Version) VALUES (1)")
    assert bench.rows("backup", "SELECT rowid, Id FROM {table}") == [(1, 1)]


@pytest.mark.parametrize("version", ["INTEGER", "TEXT", "nothing"])
@pytest.mark.parametrize("key", ["TEXT", ""])
def test_text_that_is_no_utf_8_is_carried_byte_for_byte(sqlite_bench: SqliteBench, key: str, version: str) -> None:
    bench = sqlite_bench
    column = "Other" if version == "nothing" else "Version"
    kind = "INTEGER" if version == "nothing" else version
    bench.sql("source", f"CREATE TABLE {{table}} (Id {key} PRIMARY KEY, {column} {kind}, Name TEXT, Blob, Last TEXT)")
    texts = ["61", "636166e9", "ff3f22", "eda080", "edb3bf", "c3a9", "f09f8e89", "00ff", "e9"]
    as_text, q = (
        "CAST(x'{}' AS TEXT)",
        "SELECT hex(Id), typeof(Id), hex(V), hex(Name), hex(Blob), typeof(Blob) FROM {table}",
    )
    for n, text in enumerate(texts):
        literal = as_text.format(text)
        of_version = str(n) if version != "TEXT" else literal
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({literal}, {of_version}, {literal}, {literal}, 'last')")
    bench.sql("source", "INSERT INTO {table} SELECT x'ff', 1, 'a?', x'ff', 'l' WHERE " + str(int(not key)))
    query = q.replace("hex(V)", f"hex({column})") + " ORDER BY CAST(Id AS BLOB), 2"
    source, backup = bench.pair(chunk_size=4, batch_size=3)
    [[rows]] = bench.rows("source", "SELECT count(*) FROM {table}")
    assert run_sync(source, backup) == (rows, 0, 0, 0)
    assert bench.rows("backup", query) == bench.rows("source", query)
    assert run_sync(source, backup) == (0, 0, 0, rows)
    assert all(source.fingerprint(chunk) == backup.fingerprint(chunk) for chunk in source.chunks())
    odd = as_text.format("ff3f22")
    bench.sql("source", f"UPDATE {{table}} SET {column} = 77, Name = {as_text.format('3fff')} WHERE Id = {odd}")
    bench.sql("source", f"DELETE FROM {{table}} WHERE Id = {as_text.format('edb3bf')}")
    assert run_sync(bench.open("source"), bench.open("backup"), replace(RUN, sync_id="2")) == (0, 1, 1, rows - 2)
    assert bench.rows("backup", query) == bench.rows("source", query)
    kept = [image for page in RecycleBin(bench.open("backup"), RUN.service).of_run("2") for image in page]
    assert {text_of(bytes.fromhex("ff3f22")), text_of(bytes.fromhex("edb3bf"))} == {image.key[0] for image in kept}
    backup.write([image.record for image in kept if image.record])
    assert sorted(bench.rows("backup", f"SELECT hex(Id), hex(Name) FROM {{table}} WHERE Id IN ({odd})")) == [
        ("FF3F22",) * 2
    ]
    [key_again] = {backup.keys.from_text(json.dumps(backup.keys.to_json(kept[0].key)))}
    assert key_again == kept[0].key


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_large_texts_are_written_exactly(
    sqlite_bench: SqliteBench, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Sent as bytes where the file has UTF-8, so that Python holds no second form of them."""
    for module in ("rows._LARGE_ROW", "engines.sqlite.text.LARGE_BYTES"):
        monkeypatch.setattr(f"backup.stores.sql.{module}", 1)
    sent, as_sent = list[Any](), sqlite_text._sent

    def noted(cursor: Any, value: Any) -> Any:
        sent.append(as_sent(cursor, value))
        return sent[-1]

    monkeypatch.setattr(sqlite_text, "_sent", noted)
    bench = sqlite_bench
    for side in ("source", "backup"):
        bench.sql(side, f"PRAGMA encoding = '{encoding}'")
    bench.sql("source", 'CREATE TABLE {table} (Id INTEGER PRIMARY KEY, V, "a?" TEXT, Version INTEGER)')
    values = ["é漢🎉", "a\x00ü", "'?'ü", "12\u0660", b"\xc3\xbc", "plain", 7, None]
    bench.sql("source", "INSERT INTO {table} VALUES (?, ?, 'ö?', 1)", list(enumerate(values)))
    source, backup = bench.pair(batch_bytes=1)
    run_sync(source, backup)
    expected = bench.rows("source", SEEN)
    bench.sql("source", "UPDATE {table} SET Version = NULL")
    bench.sql("backup", "UPDATE {table} SET V = NULL, \"a?\" = ''")
    assert run_sync(source, backup) == (0, len(values), 0, 0)
    assert bench.rows("backup", SEEN) == expected
    assert {tuple(row) for row in bench.rows("backup", 'SELECT typeof("a?"), "a?" FROM {table}')} == {("text", "ö?")}
    assert any(isinstance(value, bytes) and value == "ö?".encode() for value in sent) == (encoding == "UTF-8")


def test_a_file_that_is_not_there_is_not_made(sqlite_bench: SqliteBench) -> None:
    store = sqlite_bench.open_at(sqlite_bench.absent_database("source"))
    with pytest.raises(StoreError):
        store.ping()
    assert not (sqlite_bench.folder / "absent").exists()
