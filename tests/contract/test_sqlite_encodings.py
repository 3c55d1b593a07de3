"""Files of SQLite whose texts are UTF-16, beside copies in the same encoding and in another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backup.core.errors import SchemaMismatch, StoreError
from backup.core.model import WHOLE
from backup.recycle_bin.bin import RecycleBin
from backup.stores import Rules
from tests.contract.benches import ROLES, RUN, SqliteBench
from tests.contract.test_store import run_sync

BOTH_ORDERS = pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
TEXTS = ["", "a", "z ", "é漢🎉", "a\x00b", "\ufffe", "a\uffff'?", "\U00010000", "\ufffd", "12"]
"""Sorted by their bytes they have three orders: one in UTF-8, one in each UTF-16."""
SEEN = "SELECT hex(CAST(Id AS BLOB)), typeof(Name), quote(Name), quote(Other) FROM {table} ORDER BY 1"
VERSIONED, CONTENT = Rules(version=("Version",)), Rules()


def filled(bench: SqliteBench, encoding: str, key: str) -> int:
    """Makes the source's table, of which each text is in a row and each third row is a number or bytes."""
    bench.sql("source", f"PRAGMA encoding = '{encoding}'")
    bench.sql("source", f"CREATE TABLE {{table}} (Id {key}, Name TEXT, Other, Version INTEGER, PRIMARY KEY (Id))")
    others: list[Any] = [7, b"\xff\x00a", None]
    rows = [(f"{text}{n}" if key == "TEXT" else n, text, others[n % 3], 1 + n % 2) for n, text in enumerate(TEXTS * 3)]
    bench.sql("source", "INSERT INTO {table} VALUES (?, ?, ?, ?)", rows)
    return len(rows)


def half_a_pair(encoding: str) -> str:
    raw = "x\ud800y\uffff".encode(encoding, "surrogatepass")
    return f"CAST(x'{raw.hex()}' AS TEXT)"


@pytest.mark.parametrize(
    ("key", "rules", "encoding"),
    [
        pytest.param("TEXT", VERSIONED, "UTF-16le", id="TEXT-versions-UTF-16le"),
        pytest.param("TEXT", CONTENT, "UTF-16be", id="TEXT-contents-UTF-16be"),
        pytest.param("INTEGER", VERSIONED, "UTF-16be", id="INTEGER-versions-UTF-16be"),
        pytest.param("INTEGER", CONTENT, "UTF-16le", id="INTEGER-contents-UTF-16le"),
    ],
)
def test_a_new_copy_has_the_encoding_of_its_source(
    sqlite_bench: SqliteBench, encoding: str, rules: Rules, key: str
) -> None:
    bench = sqlite_bench
    records = filled(bench, encoding, key)
    bench.sql("source", f"INSERT INTO {{table}} VALUES (99, {half_a_pair(encoding)}, 1, 1)")
    source, backup = bench.pair(rules=rules, chunk_size=5, batch_size=3)
    assert run_sync(source, backup) == (records + 1, 0, 0, 0)
    assert bench.rows("backup", "PRAGMA encoding") == [(encoding,)]
    assert bench.rows("backup", SEEN) == bench.rows("source", SEEN)  # half a pair, too
    assert run_sync(source, backup) == (0, 0, 0, records + 1)
    assert all(source.fingerprint(chunk) == backup.fingerprint(chunk) for chunk in source.chunks())
    before = bench.rows("backup", SEEN)
    bench.sql("source", "UPDATE {table} SET Name = Name || '🎉', Version = 9 WHERE Other IS NULL")
    bench.sql("source", "DELETE FROM {table} WHERE Other = 7 AND Name LIKE 'z%'")
    counts = run_sync(bench.open("source", rules=rules), backup, replace(RUN, sync_id="2"))
    assert counts == (0, 10, 1, records - 10)
    assert bench.rows("backup", SEEN) == bench.rows("source", SEEN)
    kept = [image for images in RecycleBin(backup, RUN.service).of_run("2") for image in images]
    backup.write([image.record for image in kept if image.record])
    assert bench.rows("backup", SEEN) == before


@pytest.mark.parametrize(("side", "encoding"), [("source", "UTF-16le"), ("backup", "UTF-16be")])
def test_copies_in_another_encoding_are_exact_where_keys_are_numbers(
    sqlite_bench: SqliteBench, encoding: str, side: str
) -> None:
    bench = sqlite_bench
    for rules in (VERSIONED, CONTENT):
        encodings = (encoding, "UTF-8") if side == "source" else ("UTF-8", encoding)
        bench.sql("backup", "DROP TABLE IF EXISTS {table}")
        bench.sql("source", "DROP TABLE IF EXISTS {table}")
        records = filled(bench, encodings[0], "INTEGER")
        bench.sql("backup", f"PRAGMA encoding = '{encodings[1]}'")
        bench.sql("backup", "CREATE TABLE IF NOT EXISTS Settled (Id)")
        source, backup = bench.pair(rules=rules, chunk_size=5, batch_size=3)
        assert run_sync(source, backup) == (records, 0, 0, 0)
        assert bench.rows("backup", "PRAGMA encoding") == [(encodings[1],)]
        assert bench.rows("backup", "SELECT * FROM {table} ORDER BY Id")[0][:4] == bench.rows("source")[0]
        assert run_sync(source, backup) == (0, 0, 0, records)
        assert source.fingerprint(WHOLE) == backup.fingerprint(WHOLE)
        bench.sql("source", "UPDATE {table} SET Name = 'é' || Id, Version = 9 WHERE Id % 7 = 0")
        assert run_sync(bench.open("source", rules=rules), backup, replace(RUN, sync_id="2"))[1] == 5
        exact = "SELECT Id, Name, Other, Version FROM {table} ORDER BY Id"
        assert bench.rows("backup", exact) == bench.rows("source", exact)


@BOTH_ORDERS
def test_keys_that_another_encoding_sorts_otherwise_are_refused(sqlite_bench: SqliteBench, encoding: str) -> None:
    bench = sqlite_bench
    filled(bench, encoding, "TEXT")
    bench.sql("backup", "CREATE TABLE Settled (Id)")
    source, backup = bench.open("source"), bench.open("backup")
    with pytest.raises(SchemaMismatch, match=f"Id may hold texts.*{encoding}.*UTF-8"):
        backup.catalog.initialize(source)
    assert not bench.rows("backup", "SELECT 1 FROM sqlite_master WHERE name <> 'Settled'")
    bench.sql("backup", "CREATE TABLE {table} (Id TEXT PRIMARY KEY, Name TEXT, Other, Version INTEGER)")
    backup = bench.open("backup")
    for first, second in ((source, backup), (backup, source)):
        with pytest.raises(SchemaMismatch, match="Id may hold texts") as raised:
            second.catalog.match(first)
        assert "does not exist yet" in raised.value.hint
    bench.sql("backup", "DROP TABLE {table}")
    bench.sql("source", "DROP TABLE {table}")
    bench.sql("source", "CREATE TABLE {table} (Id TEXT COLLATE NOCASE PRIMARY KEY, Version INTEGER)")
    bench.sql("source", "INSERT INTO {table} VALUES (?, 1)", [(f"{text}{n}",) for n, text in enumerate(TEXTS)])
    source, backup = bench.pair(chunk_size=2, batch_size=2)
    assert run_sync(source, backup) == (len(TEXTS), 0, 0, 0)  # SQLite compares these in UTF-8
    assert run_sync(source, backup) == (0, 0, 0, len(TEXTS))


@BOTH_ORDERS
def test_a_key_of_any_kind_in_a_strict_table_is_copied(sqlite_bench: SqliteBench, encoding: str) -> None:
    bench = sqlite_bench
    bench.sql("source", f"PRAGMA encoding = '{encoding}'")
    bench.sql("source", "CREATE TABLE {table} (Id ANY PRIMARY KEY, Version INTEGER) STRICT")
    bench.sql(
        "source",
        "INSERT INTO {table} VALUES (?, 1)",
        [(key,) for key in (*(f"{text}{n}" for n, text in enumerate(TEXTS)), 12, 12.5, b"12")],
    )
    source, backup = bench.pair(chunk_size=2, batch_size=2)
    assert run_sync(source, backup) == (13, 0, 0, 0)
    keys = "SELECT quote(Id) FROM {table} ORDER BY Id"
    assert bench.rows("backup", keys) == bench.rows("source", keys)


@BOTH_ORDERS
def test_half_a_pair_is_carried_as_it_is_in_values_and_keys(sqlite_bench: SqliteBench, encoding: str) -> None:
    bench = sqlite_bench
    records = filled(bench, encoding, "TEXT")
    half = half_a_pair(encoding)
    for rules in (VERSIONED, CONTENT):
        run = str(rules)
        bench.sql("backup", "DROP TABLE IF EXISTS {table}")
        source, backup = bench.pair(rules=rules, chunk_size=5, batch_size=3)
        run_sync(source, backup, replace(RUN, sync_id=run))
        before = bench.rows("backup", SEEN)
        bench.sql("source", f"UPDATE {{table}} SET Name = {half} || char(0), Version = 9 WHERE Id LIKE 'é%'")
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({half}, {half}, {half}, 1)")
        assert run_sync(bench.open("source", rules=rules), backup, replace(RUN, sync_id=run + "2"))[:3] == (1, 3, 0)
        assert bench.rows("backup", SEEN) == bench.rows("source", SEEN)
        after = bench.rows("source", SEEN)
        bench.sql("source", f"UPDATE {{table}} SET Name = 'a', Version = 10 WHERE Id LIKE 'é%' OR Id = {half}")
        assert run_sync(bench.open("source", rules=rules), backup, replace(RUN, sync_id=run + "3"))[1] == 4
        kept = [image for images in RecycleBin(backup, RUN.service).of_run(run + "3") for image in images]
        backup.write([image.record for image in kept if image.record])
        assert bench.rows("backup", SEEN) == after
        [key] = {image.key for image in kept if "\ud800" in str(image.key[0])}
        bench.sql("source", f"DELETE FROM {{table}} WHERE Id = {half}")
        bench.sql("source", "UPDATE {table} SET Name = 'é漢🎉', Version = 1 + Other % 2 WHERE Id LIKE 'é%'")
        assert backup.matching([key]) == {key}
        backup.delete([key])
        assert len(bench.rows("backup", SEEN)) == len(before) == records


@BOTH_ORDERS
@pytest.mark.parametrize("texts", [("x\ud800", "x\ud801"), ("\ud800a", "\U00010061"), ("\udc00", "\ufffd")], ids=ascii)
@pytest.mark.parametrize("name", ["Id", "Version"])
def test_texts_that_differ_in_half_a_pair_have_two_fingerprints(
    sqlite_bench: SqliteBench, encoding: str, texts: tuple[str, str], name: str
) -> None:
    bench = sqlite_bench
    for role, text in zip(ROLES, texts, strict=True):
        raw = text.encode(encoding, "surrogatepass").hex()
        values = [f"CAST(x'{raw}' AS TEXT)" if column == name else "'same'" for column in ("Id", "Version")]
        bench.sql(role, f"PRAGMA encoding = '{encoding}'")
        bench.sql(role, "CREATE TABLE {table} (Id TEXT PRIMARY KEY, Version TEXT)")
        bench.sql(role, f"INSERT INTO {{table}} VALUES ({', '.join(values)})")
    source, backup = (bench.open(role, rules=VERSIONED) for role in ROLES)
    assert source.fingerprint(WHOLE) != backup.fingerprint(WHOLE)
    bench.sql("backup", "DELETE FROM {table}")
    run_sync(source, bench.open("backup", rules=VERSIONED))
    assert source.fingerprint(WHOLE) == bench.open("backup", rules=VERSIONED).fingerprint(WHOLE)


@BOTH_ORDERS
def test_half_a_pair_is_refused_where_the_other_encoding_has_none(sqlite_bench: SqliteBench, encoding: str) -> None:
    bench = sqlite_bench
    filled(bench, encoding, "INTEGER")
    bench.sql("backup", "CREATE TABLE Settled (Id)")
    bench.sql("source", f"UPDATE {{table}} SET Name = {half_a_pair(encoding)} WHERE Id = 3")
    source, backup = bench.pair(rules=CONTENT)
    [records] = source.read(frozenset({(3,)}), WHOLE)
    with pytest.raises(StoreError, match="no bytes for"):
        backup.write(records)
    assert bench.rows("backup", SEEN) == []
