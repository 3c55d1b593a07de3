"""Whatever SQLite keeps, of any declared type and storage class, there and back."""

from __future__ import annotations

from typing import Any

import pytest

from backup.errors import StoreError
from backup.models import Chunk
from tests.contract.benches import SqliteBench
from tests.contract.test_store import run_sync

VALUES: list[Any] = [
    None, 0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, 0.0, -0.0, 0.1, 1e308, 5e-324, float("inf"), float("-inf"),
    "", "text", "trailing  ", "1", "1.0", "1e5", "é漢🎉", "a\x00b", "it's", b"", b"\x00\xff", b"text", "x" * 1_100_000,
]  # fmt: skip
DECLARED = [
    "INTEGER", "INT", "BIGINT", "TEXT", "VARCHAR(10)", "BLOB", "REAL", "DOUBLE PRECISION", "NUMERIC", "DECIMAL(10, 2)",
    "BOOLEAN", "DATETIME", "", "ANY", "FLOATING POINT", "STRING", "UNSIGNED BIG INT", "POINT('x')", "[odd] 'type'",
]  # fmt: skip
SEEN = "SELECT Id, typeof(V), quote(V), length(V) FROM {table} ORDER BY Id"


@pytest.mark.parametrize("declared", DECLARED)
def test_values_are_copied_exactly(sqlite_bench: SqliteBench, declared: str) -> None:
    bench = sqlite_bench
    quoted = f'"{declared}"' if declared.startswith(("[", "POINT")) else declared
    bench.sql("source", f"CREATE TABLE {{table}} (Id INTEGER PRIMARY KEY, V {quoted}, Version INTEGER)")
    bench.sql("source", "INSERT INTO {table} VALUES (?, ?, 1)", list(enumerate(VALUES)))
    source, backup = bench.pair()
    assert run_sync(source, backup) == (len(VALUES), 0, 0, 0)
    expected = bench.rows("source", SEEN)
    assert bench.rows("backup", SEEN) == expected
    bench.sql("source", "UPDATE {table} SET Version = NULL")
    bench.sql("backup", "UPDATE {table} SET V = NULL")
    assert run_sync(source, backup) == (0, len(VALUES), 0, 0)
    assert bench.rows("backup", SEEN) == expected
    assert run_sync(source, backup) == (0, 0, 0, len(VALUES))


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


def test_text_that_is_none_is_an_error_that_does_not_quote_it(sqlite_bench: SqliteBench) -> None:
    bench = sqlite_bench
    bench.create()
    bench.sql("source", "INSERT INTO {table} VALUES (1, 1, CAST(x'68756e74657232ff' AS TEXT))")
    with pytest.raises(StoreError) as caught:
        list(bench.open("source").read(frozenset([(1,)]), Chunk()))
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there_is_not_made(sqlite_bench: SqliteBench) -> None:
    store = sqlite_bench.open_at(sqlite_bench.absent_database("source"))
    with pytest.raises(StoreError):
        store.ping()
    assert not (sqlite_bench.folder / "absent").exists()
