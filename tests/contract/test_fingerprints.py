"""Fingerprints and stamps that the server makes: what is equal on both sides, and what is not."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from backup.core.model import WHOLE, Chunk, Fingerprint
from backup.stores import CopyNote, Rules, Store, stamps_in
from backup.stores.sql.catalog import catalog_of
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.store import SqlStore
from tests.contract.benches import ROLES, RUN, Item, SqlBench
from tests.contract.test_store import run_sync

TICKS = 638_700_000_000_000_000
BIGINT = {"sqlite": "INTEGER", "postgresql": "bigint", "mssql": "bigint"}
TEXT = {"sqlite": "TEXT", "postgresql": "text", "mssql": "nvarchar(200)"}
KEYS: dict[str, tuple[dict[str, str], list[Any]]] = {
    "small": (BIGINT, [1, 2, 3, 5, 8]),
    "huge": (BIGINT, [-(2**63), -(2**62) - 1, -(2**32), -1, 0, 2**31, 2**32 - 1, 2**32, 2**62 + 1, 2**63 - 1]),
    "text": (
        {"sqlite": "TEXT", "postgresql": 'text COLLATE "C"', "mssql": "nvarchar(200) COLLATE Latin1_General_BIN2"},
        ["", "a", "A", 'quo"te', "back\\slash", "null", "1", "ä", "a,b", "line\nbreak"],
    ),
    "guid": (
        {"sqlite": "TEXT", "postgresql": "uuid", "mssql": "uniqueidentifier"},
        [f"0000000{n}-0000-0000-0000-00000000000{9 - n}" for n in range(9)],
    ),
    "bytes": (
        {"sqlite": "BLOB", "postgresql": "bytea", "mssql": "varbinary(20)"},
        [b"\x00", b"\x00\x01", b"a", b"\xff" * 8],  # SQL Server takes zeros at the end for none
    ),
    "decimal": (
        {"sqlite": "DECIMAL(20, 4)", "postgresql": "numeric(20, 4)", "mssql": "decimal(20, 4)"},
        [-1.5, 0, 1, 2.25, 10**12],
    ),
}
VERSIONS: dict[str, tuple[dict[str, str], Callable[[int], Any]]] = {
    "small": (BIGINT, lambda n: n % 3),
    "ticks": (BIGINT, lambda n: TICKS + n),
    "text": (TEXT, lambda n: f"v{n}"),
    "time": (
        {"sqlite": "TEXT", "postgresql": "timestamp", "mssql": "datetime2(6)"},
        lambda n: f"2024-01-01 00:00:0{n % 10}.{n:06}",
    ),
}


def table(bench: SqlBench, columns: str, rows: Sequence[Sequence[Any]], **limits: Any) -> tuple[SqlStore, SqlStore]:
    """Source and backup with these rows; the backup a copy."""
    bench.sql("source", f"CREATE TABLE {{table}} ({columns})")
    insert(bench, "source", rows)
    source, backup = bench.pair(**limits)
    copy(source, backup)
    assert isinstance(source, SqlStore)
    assert isinstance(backup, SqlStore)
    return source, backup


def insert(bench: SqlBench, role: Any, rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        marks = ", ".join([bench.mark] * len(rows[0]))
        names = ", ".join("KABCDEFG"[n] for n in range(len(rows[0])))
        bench.sql(role, f"INSERT INTO {{table}} ({names}) VALUES ({marks})", rows)


def copy(source: Store, backup: Store) -> None:
    for records in source.read(None, WHOLE):
        backup.write(backup.copies.of(records, CopyNote(RUN.sync_id, RUN.started_at)))


def made(store: Store, chunk: Chunk = WHOLE) -> Fingerprint:
    fingerprint = store.fingerprint(chunk)
    assert fingerprint is not None
    return fingerprint


def is_told(source: Store, backup: Store) -> bool:
    """Whether fingerprints tell the sides apart, as stamps must do too, and the same ones."""
    ours, theirs = source.stamp_rows(WHOLE), backup.stamp_rows(WHOLE)
    fingerprints_differ = made(source) != made(backup)
    assert (ours != theirs) is fingerprints_differ
    parts, others = source.buckets, backup.buckets
    assert parts is not None
    assert others is not None
    mine, copies = parts.fingerprints(WHOLE), others.fingerprints(WHOLE)
    if mine is not None and copies is not None:
        assert sum(fingerprint.records for fingerprint in mine.values()) == len(ours)
        differing = {bucket for bucket in mine.keys() | copies.keys() if mine.get(bucket) != copies.get(bucket)}
        assert parts.stamp_rows(WHOLE, differing) ^ others.stamp_rows(WHOLE, differing) == ours ^ theirs
    return fingerprints_differ


@pytest.mark.parametrize("version", [("A",), ()])
def test_a_small_table_has_the_fingerprint_of_the_whole_and_a_larger_one_has_none(
    sql_bench: SqlBench, version: tuple[str, ...]
) -> None:
    sql_bench.rules = Rules(version=version)
    rows = [(n, n % 2 or None) for n in range(7)]
    for store in table(sql_bench, f"K {BIGINT[sql_bench.kind]} NOT NULL PRIMARY KEY, A INTEGER", rows):
        assert store.relational.small_fingerprint() == made(store)
        catalog = catalog_of(store)
        dialect, shape = catalog.access.dialect, catalog.shape
        by_key = StampColumns(shape.key, shape.key, None)  # has a value more than content has
        with dialect.asking() as cx:
            of_keys, *together = dialect.small_fingerprints(
                cx, [by_key, *[shape.stamps(dialect)] * 3], [None, None, 6, None]
            )
            alone = dialect.fingerprints(cx, by_key, [])
        assert of_keys is None or (alone and of_keys == alone[None])
        assert {*together} <= {None, made(store)}
        assert sql_bench.kind != "postgresql" or None not in (of_keys, together[0], together[2])
    for records, is_small in ((7, True), (6, False)):
        limited = sql_bench.open("source", chunk_size=records, rules=Rules(version=version))
        assert isinstance(limited, SqlStore)
        assert limited.relational.small_fingerprint() == (made(limited) if is_small else None)


@pytest.fixture
def bench(sql_bench: SqlBench) -> SqlBench:
    """A SQL store whose version column is called A."""
    sql_bench.rules = Rules(version=("A",))
    return sql_bench


@pytest.mark.parametrize(
    ("key", "version", "nullable"),
    [
        # Each key, each version, and both of them as integers and as anything else.
        ("small", "small", ""),
        ("small", "text", ""),
        ("huge", "ticks", ""),
        ("text", "small", ""),
        ("bytes", "time", ""),
        ("decimal", "small", ""),
        ("small", "small", " NOT NULL"),
        ("huge", "ticks", " NOT NULL"),
        ("guid", "time", " NOT NULL"),
    ],
)
def test_a_copy_has_the_fingerprint_of_its_source_and_a_changed_one_has_not(
    bench: SqlBench, key: str, version: str, nullable: str
) -> None:
    (key_types, keys), (version_types, value) = KEYS[key], VERSIONS[version]
    m = bench.mark
    columns = (
        f"K {key_types[bench.kind]} NOT NULL PRIMARY KEY, A {version_types[bench.kind]}{nullable}, B {TEXT[bench.kind]}"
    )
    source, backup = table(bench, columns, [(k, value(n), "x") for n, k in enumerate(keys)])
    assert made(source).records == len(keys)
    assert not is_told(source, backup)
    first, second = keys[0], keys[1]
    changes: list[list[tuple[str, Sequence[Any]]]] = [
        [(f"UPDATE {{table}} SET A = {m} WHERE K = {m}", (value(7), first))],
        [(f"DELETE FROM {{table}} WHERE K = {m}", (keys[-1],))],
        [
            (f"UPDATE {{table}} SET A = {m} WHERE K = {m}", (value(1), first)),
            (f"UPDATE {{table}} SET A = {m} WHERE K = {m}", (value(0), second)),
        ],
    ]
    if nullable == "":
        changes.append([(f"UPDATE {{table}} SET A = NULL WHERE K = {m}", (first,))])
    for change in changes:
        for role in ROLES:  # the same change of both sides makes them equal again, for less than a sync does
            for statement, values in change:
                bench.sql(role, statement, [values])
            assert is_told(source, backup) is (role == "source"), change
    bench.sql("source", f"UPDATE {{table}} SET A = {m} WHERE K = {m}", [(value(8), second)])
    assert run_sync(source, backup)[3] < len(keys)
    assert not is_told(source, backup)


def test_every_pair_of_huge_keys_and_versions_has_a_fingerprint_of_its_own(bench: SqlBench) -> None:
    numbers = [*KEYS["huge"][1], 1, 3, TICKS, TICKS + 1, 2**31 - 1, 2**32 + 2**31, -(2**31)]
    columns = f"K {BIGINT[bench.kind]} NOT NULL PRIMARY KEY, A {BIGINT[bench.kind]}"
    source, _ = table(bench, columns, [])
    fingerprints: set[tuple[object, ...]] = set()
    for key in numbers:
        for version in numbers:
            if not fingerprints:
                insert(bench, "source", [(key, version)])
            bench.sql("source", f"UPDATE {{table}} SET K = {bench.mark}, A = {bench.mark}", [(key, version)])
            fingerprint = made(source)
            fingerprints.add(fingerprint[:1] + fingerprint[2:])
    assert len(fingerprints) == len(numbers) ** 2


def test_key_and_version_are_not_taken_for_each_other(bench: SqlBench) -> None:
    columns = f"K {BIGINT[bench.kind]} NOT NULL PRIMARY KEY, A {BIGINT[bench.kind]}"
    source, backup = table(bench, columns, [(1, 2)])
    bench.sql("source", "DELETE FROM {table}")
    insert(bench, "source", [(2, 1)])
    assert is_told(source, backup)


def test_parts_of_a_composite_key_are_not_taken_for_each_other(bench: SqlBench) -> None:
    whole, text = BIGINT[bench.kind], TEXT[bench.kind].replace("200", "100")
    columns = f"K {text} NOT NULL, B {whole} NOT NULL, A {whole}, C {text} NOT NULL, PRIMARY KEY (K, C, B)"
    bench.sql("source", f"CREATE TABLE {{table}} ({columns})")
    source, backup = bench.pair()
    m = bench.mark
    add = f"INSERT INTO {{table}} (K, C, B, A) VALUES ({m}, {m}, {m}, 1)"
    fingerprints = set()
    for row in [("a", "b", 1), ("b", "a", 1), ("ab", "", 1), ("", "ab", 1), ("a", "b", 2), ("a", "b1", 1)]:
        bench.sql("source", "DELETE FROM {table}")
        bench.sql("source", add, [row])
        fingerprints.add(made(source))
    assert len(fingerprints) == 6
    run_sync(source, backup)
    assert not is_told(source, backup)


def test_a_second_field_of_the_version_counts(sql_bench: SqlBench) -> None:
    bench = sql_bench
    bench.rules = Rules(version=("A", "B"))
    text = TEXT[bench.kind]
    source, backup = table(bench, f"K INTEGER NOT NULL PRIMARY KEY, A INTEGER, B {text}", [(1, 1, "x"), (2, 1, None)])
    assert not is_told(source, backup)
    for value in ("'y'", "NULL", "''", "'NULL'"):
        bench.sql("source", f"UPDATE {{table}} SET B = {value} WHERE K = 1")
        assert is_told(source, backup), value
        run_sync(source, backup)
        assert not is_told(source, backup)


def test_a_row_without_a_version_counts_with_its_content(bench: SqlBench) -> None:
    text = TEXT[bench.kind]
    rows = [(1, None, "x"), (2, 5, "x"), (3, None, None), (4, 0, "x")]
    source, backup = table(bench, f"K INTEGER NOT NULL PRIMARY KEY, A INTEGER, B {text}", rows)
    assert not is_told(source, backup)
    for value in ("'X'", "''", "NULL", "'x '"):
        bench.sql("source", f"UPDATE {{table}} SET B = {value} WHERE K = 1")
        assert is_told(source, backup), value
        assert run_sync(source, backup) == (0, 1, 0, 3)
        assert not is_told(source, backup)
    bench.sql("source", "UPDATE {table} SET B = 'not seen' WHERE K = 2")
    assert not is_told(source, backup)


def test_a_version_that_only_the_backup_lacks_is_told(bench: SqlBench) -> None:
    source, backup = table(bench, "K INTEGER NOT NULL PRIMARY KEY, A INTEGER NOT NULL", [(1, 0), (2, 0)])
    bench.sql("backup", "UPDATE {table} SET A = NULL WHERE K = 1")
    assert is_told(source, backup)


def test_a_table_without_a_version_is_kept_by_its_content(bench: SqlBench) -> None:
    text = TEXT[bench.kind]
    rows = [(n, "x", f"text {n}") for n in range(30)]
    bench.sql("source", f"CREATE TABLE {{table}} (K INTEGER NOT NULL PRIMARY KEY, B {text}, C {text})")
    m = bench.mark
    bench.sql("source", f"INSERT INTO {{table}} (K, B, C) VALUES ({m}, {m}, {m})", rows)
    source, backup = bench.pair(chunk_size=7)
    assert isinstance(source, SqlStore)
    assert source.hashes_content
    assert run_sync(source, backup) == (30, 0, 0, 0)
    assert not is_told(source, backup)
    assert all(len(row) == 2 for row in source.stamp_rows(WHOLE))
    assert all(version.value[0] is None for version in stamps_in(source, WHOLE).values())
    bench.sql("source", "UPDATE {table} SET B = NULL WHERE K = 3")
    bench.sql("source", "UPDATE {table} SET C = 'X' WHERE K = 4")
    bench.sql("source", "UPDATE {table} SET B = C, C = B WHERE K = 5")
    assert is_told(source, backup)
    assert run_sync(source, backup) == (0, 3, 0, 27)
    assert run_sync(source, backup) == (0, 0, 0, 30)


LONG = "x" * 5000
DISTINCT: dict[str, dict[str, list[str]]] = {
    "sqlite": {
        "": ["NULL", "''", "x''", "0", "0.0", "'0'", "1", "1.0", "'1'", "x'31'", "0.1", "0.10000000000000002", "1e300"],
        "TEXT": [
            "NULL",
            "''",
            "' '",
            "'a'",
            "'A'",
            "'a '",
            "'null'",
            f"'{LONG}1'",
            f"'{LONG}2'",
            "'é'",
            "'e' || char(769)",
        ],
        "INTEGER": ["NULL", "0", "-1", "9007199254740992", "9007199254740993", "1.5", "'x'"],
        "REAL": ["NULL", "0", "0.1", "0.10000000000000002", "1e300", "-1e-300"],
    },
    "postgresql": {
        "text": [
            "NULL",
            "''",
            "' '",
            "'a'",
            "'A'",
            "'a '",
            "'NULL'",
            "'\"'",
            "'\\'",
            f"'{LONG}1'",
            f"'{LONG}2'",
            "'a,b'",
        ],
        "bytea": ["NULL", "''", "'\\x00'", "'\\x0000'", "'\\xff'"],
        "double precision": ["NULL", "0", "0.1", "0.10000000000000002", "'NaN'", "'-Infinity'", "1e300"],
        "numeric": ["NULL", "0", "1.1", "1.10000000000000000000000000000001", "'NaN'"],
        "timestamp": ["NULL", "'2024-01-01'", "'2024-01-01 00:00:00.000001'", "'infinity'"],
        "interval": ["NULL", "'1 month'", "'30 days'", "'720 hours'"],
        "json": ["NULL", "'null'", "'{\"a\":1}'", "'{\"a\": 1}'", "'[]'"],
        "integer[]": ["NULL", "'{}'", "'{NULL}'", "'{1,2}'", "'{{1,2}}'", "'[0:1]={1,2}'"],
        "boolean": ["NULL", "true", "false"],
    },
    "mssql": {
        "nvarchar(max)": ["NULL", "N''", "N'a'", "N'A'", "N'-'", f"N'{LONG}1'", f"N'{LONG}2'", "N'é'"],
        "varchar(20)": ["NULL", "''", "'a'", "'A'", "'a '"],
        "varbinary(max)": ["NULL", "0x", "0x00", "0x0000", "0xFF"],
        "float": ["NULL", "0", "0.1", "0.10000000000000002", "1e300"],
        "decimal(38, 20)": ["NULL", "0", "1.1", "1.10000000000000000001"],
        "money": ["NULL", "0", "1.2345", "1.2346"],
        "datetime2(6)": ["NULL", "'2024-01-01'", "'2024-01-01 00:00:00.000001'"],
        "xml": ["NULL", f"'<a>{LONG}1</a>'", f"'<a>{LONG}2</a>'"],
        "uniqueidentifier": [
            "NULL",
            "'00000000-0000-0000-0000-000000000001'",
            "'00000000-0000-0000-0000-000000000002'",
        ],
        "bit": ["NULL", "0", "1"],
    },
}


def test_every_exact_value_has_a_content_hash_of_its_own(bench: SqlBench) -> None:
    for n, (type_, values) in enumerate(DISTINCT[bench.kind].items()):
        bench.sql(
            "source", f"CREATE TABLE {bench.quoted(f't{n}')} (K INTEGER NOT NULL PRIMARY KEY, B {type_}, C {type_})"
        )
        source = bench.open("source", table=f"{bench.schema}.t{n}" if bench.schema else f"t{n}")
        hashed_rows = set()
        for b, c in [(value, "NULL") for value in values] + [("NULL", value) for value in values[1:]]:
            statement = f"INSERT INTO {bench.quoted(f't{n}')} VALUES (1, {b}, {c})".replace("%", "%%")
            bench.sql("source", f"DELETE FROM {bench.quoted(f't{n}')}")
            bench.sql("source", statement)
            ((_, hashed),) = source.stamp_rows(WHOLE)
            hashed_rows.add((hashed, made(source)))
        hashes, fingerprints = map(set, zip(*hashed_rows, strict=True))
        assert len(hashes) == len(fingerprints) == 2 * len(values) - 1, type_


def test_a_table_with_its_version_hashes_no_content(bench: SqlBench) -> None:
    source, _ = table(bench, "K INTEGER NOT NULL PRIMARY KEY, A INTEGER", [])
    assert not source.hashes_content


def test_sums_and_numbers_of_the_parts_add_up_to_those_of_the_whole(bench: SqlBench) -> None:
    rows = [(n * n - 50, TICKS + n if n % 4 else None, f"text {n}") for n in range(40)]
    columns = f"K {BIGINT[bench.kind]} NOT NULL PRIMARY KEY, A {BIGINT[bench.kind]}, B {TEXT[bench.kind]}"
    source, _ = table(bench, columns, rows, chunk_size=7)
    whole = made(source)
    parts = [made(source, chunk) for chunk in source.chunks()]
    assert len(parts) > 5
    assert {part.functions for part in parts} == {whole.functions}
    assert sum(part.records for part in parts) == whole.records == 40
    assert tuple(map(sum, zip(*(part.sums for part in parts), strict=True))) == whole.sums


def test_an_empty_chunk_has_a_fingerprint(bench: SqlBench) -> None:
    source, backup = table(bench, "K INTEGER NOT NULL PRIMARY KEY, A INTEGER", [])
    assert made(source).records == 0
    assert made(source) == made(backup)


def test_records_of_other_services_have_no_part_in_a_fingerprint(bench: SqlBench) -> None:
    bench.rules = Rules(version=("A",), where={"B": "EU"})
    columns = "K INTEGER NOT NULL PRIMARY KEY, A INTEGER, B varchar(10)"
    source, backup = table(bench, columns, [(1, 1, "EU"), (2, 1, "US")])
    assert made(source).records == 1
    bench.sql("source", "UPDATE {table} SET A = 2 WHERE K = 2")
    assert not is_told(source, backup)


@pytest.mark.parametrize("seed", range(3))
def test_random_changes_are_told(bench: SqlBench, seed: int) -> None:
    draw = random.Random(seed)
    columns = f"K {BIGINT[bench.kind]} NOT NULL PRIMARY KEY, A {BIGINT[bench.kind]}"
    state = {n: draw.randrange(4) for n in range(20)}
    source, _ = table(bench, columns, sorted(state.items()))
    fingerprints = {tuple(sorted(state.items())): made(source)}
    for _ in range(40):
        state = dict(state)
        key, other_key = draw.sample(sorted(state), 2)
        match draw.randrange(3):
            case 0:
                state[key], state[other_key] = state[other_key], state[key]
            case 1:
                state[key], state[other_key] = state[key] + 1, state[other_key] - 1
            case _:
                state[max(state) + draw.randrange(1, 4)] = state.pop(key)
        bench.sql("source", "DELETE FROM {table}")
        insert(bench, "source", sorted(state.items()))
        fingerprints[tuple(sorted(state.items()))] = made(source)
    assert len(set(fingerprints.values())) == len(fingerprints), f"seed {seed}"


@pytest.mark.parametrize("key", ["number", "pair", "text"])
def test_only_the_buckets_of_what_changed_differ(bench: SqlBench, key: str) -> None:
    whole, text = BIGINT[bench.kind], TEXT[bench.kind]
    kind, primary = (text, "K") if key == "text" else (whole, "K, B" if key == "pair" else "K")
    columns = f"K {kind} NOT NULL, A {whole}, B {whole} NOT NULL, PRIMARY KEY ({primary})"
    rows = [(f"k{n:05}" if key == "text" else n // 2 if key == "pair" else n, 1, n) for n in range(2_000)]
    source, backup = table(bench, columns, rows)
    m = bench.mark
    bench.sql("source", f"UPDATE {{table}} SET A = 2 WHERE B IN ({m}, {m})", [(7, 1_200)])
    bench.sql("source", f"DELETE FROM {{table}} WHERE B = {m}", [(600,)])
    assert is_told(source, backup)
    mine, copies = source.buckets.fingerprints(WHOLE), backup.buckets.fingerprints(WHOLE)
    if mine is None or copies is None:
        assert (bench.kind, key) == ("sqlite", "text")
        return
    differing = {bucket for bucket in mine.keys() | copies.keys() if mine.get(bucket) != copies.get(bucket)}
    assert 1 <= len(differing) <= 3
    assert sum(copies[bucket].records for bucket in differing) <= 3 * 64
    assert max(fingerprint.records for fingerprint in mine.values()) <= 64


def test_a_bench_of_items_is_settled_by_fingerprints(sql_bench: SqlBench) -> None:
    sql_bench.create(Item(n) for n in range(20))
    source, backup = sql_bench.pair(chunk_size=5)
    run_sync(source, backup)
    assert [made(source, chunk) for chunk in source.chunks()] == [made(backup, chunk) for chunk in source.chunks()]
