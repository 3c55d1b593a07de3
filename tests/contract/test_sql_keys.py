"""What is a key, and which tables can be backed up: every SQL store."""

from __future__ import annotations

import random
import uuid
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from backup.core.errors import SchemaMismatch
from backup.core.model import Chunk
from backup.stores import Drift, Rules, stamps_in
from backup.stores.sql.catalog import catalog_of
from backup.stores.sql.engines.postgresql.listing import list_tables
from tests.contract.benches import ROLES, PostgresBench, Role, SqlBench, SqliteBench, other_database
from tests.contract.test_store import run_sync


def test_composite_keys_are_chunked_read_and_written(sql_bench: SqlBench) -> None:
    bench = sql_bench
    text = "nvarchar(20)" if bench.kind == "mssql" else "varchar(20)"
    bench.sql(
        "source",
        f"CREATE TABLE {{table}} (A INTEGER NOT NULL, B {text} NOT NULL, Version INTEGER, PRIMARY KEY (B, A))",
    )
    rows = [(a, b, 1) for a in range(4) for b in ("", "x", "y", "ä")]
    insert = f"INSERT INTO {{table}} (A, B, Version) VALUES ({bench.mark}, {bench.mark}, {bench.mark})"
    bench.sql("source", insert, rows)
    source, backup = bench.pair(chunk_size=3, batch_size=2)
    assert source.keys.of(next(source.read(frozenset([("x", 2)]), Chunk()))[0]) == ("x", 2)
    assert run_sync(source, backup) == (16, 0, 0, 0)
    bench.sql("backup", insert, [(9, "", 1), (-9, "", 1), (9, "zz", 1)])
    bench.sql("source", "UPDATE {table} SET Version = 2 WHERE A = 1")
    bench.sql("source", "DELETE FROM {table} WHERE A = 2")
    bench.sql("source", insert, [(7, "new", 1)])
    assert run_sync(source, backup) == (1, 4, 7, 8)
    columns = "SELECT A, B, Version FROM {table}"
    assert sorted(bench.rows("source", columns)) == sorted(bench.rows("backup", columns))


def test_many_keys_of_texts_are_looked_up_at_once(making_bench: SqlBench) -> None:
    """Whatever letters they have; the spaces at the end of some count."""
    bench, chance = making_bench, random.Random(17)
    bench.sql("source", "CREATE TABLE {table} (a varchar(40), b char(9), c bigint, d date, PRIMARY KEY (a, b, c, d))")
    letters = f"ab '\"\\{{}},%:\x01\x7f\xe9\u0130\uff21\U0001f600{'' if bench.kind == 'postgresql' else chr(0)}"
    parts = [("".join(chance.choices(letters, k=chance.randrange(6))), chance.choice(letters)) for _ in range(600)]
    keys = [(a, f"{b:9}", place % 7, "2026-01-31") for place, (a, b) in enumerate(parts)]
    inserted = {*keys[::2]}
    bench.sql("source", f"INSERT INTO {{table}} VALUES ({', '.join([bench.mark] * 4)})", [*inserted])
    source, _ = bench.pair()
    assert source.matching(keys) == {row[:4] for row in source.stamp_rows_of(keys)} == inserted


@pytest.mark.parametrize("type_", ["varchar(40)", "uuid", "char(12)", "bytea", "numeric(9,2)", "timestamp", "interval"])
def test_many_keys_of_one_part_are_looked_up_at_once(making_bench: SqlBench, type_: str) -> None:
    bench = making_bench
    texts = {
        "uuid": [str(uuid.UUID(int=n)) for n in range(600)],
        "bytea": [f"\\x{n:04x}" for n in range(600)],
        "numeric(9,2)": [f"{n}.50" for n in range(600)],
        "timestamp": [str(datetime(2026, 1, 31) + timedelta(hours=n)) for n in range(600)],  # noqa: DTZ001
        "interval": [f"{n:02}:00:00" for n in range(600)],
    }.get(type_, [f"K\xe9y {n}'{{,".ljust(9) for n in range(600)])
    bench.sql("source", f"CREATE TABLE {{table}} (a {type_} PRIMARY KEY, b varchar(99))")
    bench.sql("source", f"INSERT INTO {{table}} VALUES ({bench.mark}, '')", [(text,) for text in texts])
    source, _ = bench.pair()
    keys = [*stamps_in(source, Chunk())]
    bench.sql("source", f"DELETE FROM {{table}} WHERE a < {bench.mark}", [(texts[300],)])
    left = {*stamps_in(source, Chunk())}
    assert 0 < len(left) < 600
    assert source.matching(keys) == {row[:1] for row in source.stamp_rows_of(keys)} == left


@pytest.mark.parametrize("odd", [False, True])
def test_many_keys_of_several_integers_are_looked_up_at_once(sql_bench: SqlBench, *, odd: bool) -> None:
    """Up to the ends of 64 bits; on SQLite also beside a key that is no integer, which any column may hold."""
    bench, ends = sql_bench, (-(1 << 63), (1 << 63) - 1, 0)
    bench.sql("source", "CREATE TABLE {table} (a bigint, b bigint, version integer, PRIMARY KEY (a, b))")
    odd_keys: list[Any] = [(1, 1.5), ("x", 1)] if odd and bench.kind == "sqlite" else []
    keys = [*((a, b) for a in ends for b in ends), *((n // 7, 9 - n % 7) for n in range(500)), *odd_keys]
    insert = f"INSERT INTO {{table}} VALUES ({bench.mark}, {bench.mark}, 1)"
    inserted = {*keys[::2], *odd_keys}
    bench.sql("source", insert, [*inserted])
    source, _ = bench.pair()
    assert source.matching(keys) == {row[:2] for row in source.stamp_rows_of(keys)} == inserted


@pytest.mark.parametrize(
    ("types", "keys"),
    [
        pytest.param(
            {"sqlite": "TEXT", "postgresql": "uuid", "mssql": "uniqueidentifier"},
            [str(uuid.UUID(int=random.Random(7).getrandbits(128) ^ (n << 40 * (n % 3)))) for n in range(40)],
            id="uuid",
        ),
        pytest.param(
            {"sqlite": "DECIMAL(20, 4)", "postgresql": "numeric(20, 4)", "mssql": "decimal(20, 4)"},
            [Decimal(n * n * 7 - 1000) / 16 for n in range(40)],
            id="decimal",
        ),
        pytest.param(
            {"sqlite": "TEXT", "postgresql": "timestamp(6)", "mssql": "datetime2(6)"},
            [datetime(1999, 12, 31) + timedelta(days=n * 40, microseconds=n * 123457) for n in range(40)],  # noqa: DTZ001
            id="time",
        ),
        pytest.param(
            {"sqlite": "BLOB", "postgresql": "bytea", "mssql": "varbinary(20)"},
            [bytes([n * 6, 255 - n, 0]) for n in range(40)],
            id="bytes",
        ),
        pytest.param(
            {
                "sqlite": "VARCHAR(40)",
                "postgresql": 'varchar(40) COLLATE "C"',
                "mssql": "varchar(40) COLLATE SQL_Latin1_General_CP1_CI_AS",
            },
            [f"{['co-op', 'coop', 'co_op'][n % 3]}{'-' * (n % 2)}{n:02}'" for n in range(40)],
            id="text",
        ),
    ],
)
def test_keys_of_a_type_are_chunked_read_and_written(
    sql_bench: SqlBench, types: dict[str, str], keys: list[Any]
) -> None:
    bench = sql_bench
    if bench.kind == "sqlite":
        keys = [
            key if isinstance(key, str | bytes) else float(key) if isinstance(key, Decimal) else str(key)
            for key in keys
        ]
    bench.sql("source", f"CREATE TABLE {{table}} (Id {types[bench.kind]} NOT NULL PRIMARY KEY, Version INTEGER)")
    insert = f"INSERT INTO {{table}} (Id, Version) VALUES ({bench.mark}, 1)"
    bench.sql("source", insert, [(key,) for key in keys[5:35]])
    source, backup = bench.pair(chunk_size=8, batch_size=5)
    bench.sql("backup", insert, [(key,) for key in (keys[0], keys[20], keys[39])])
    chunks = list(source.chunks())
    parts = [stamps_in(source, chunk) for chunk in chunks]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 30
    assert sum(len(stamps_in(backup, chunk)) for chunk in chunks) == 3
    assert run_sync(source, backup) == (29, 0, 2, 1)
    query = "SELECT Id, Version FROM {table}"
    assert sorted(bench.rows("source", query)) == sorted(bench.rows("backup", query))
    assert run_sync(source, backup) == (0, 0, 0, 30)


def check_spelling(bench: SqlBench, text: str, old: str, new: str) -> None:
    bench.sql("source", f"CREATE TABLE {{table}} (Id {text} NOT NULL PRIMARY KEY, Version INTEGER)")
    insert = f"INSERT INTO {{table}} (Id, Version) VALUES ({bench.mark}, {bench.mark})"
    bench.sql("source", insert, [(new, 1), ("b", 1), ("C", 1)])
    source, backup = bench.pair(chunk_size=2)
    bench.sql("backup", insert, [(old, 1), ("b", 1), ("C", 1)])
    assert run_sync(source, backup) == (0, 1, 0, 2)
    assert sorted(row[0] for row in bench.rows("backup")) == sorted([new, "b", "C"])
    assert run_sync(source, backup) == (0, 0, 0, 3)


@pytest.mark.parametrize(
    ("collation", "old", "new"), [("NOCASE", "A", "a"), ("RTRIM", "a", "a  "), ("NOCASE", "a", "A")]
)
def test_sqlite_keys_that_differ_only_to_python_are_one(
    sqlite_bench: SqliteBench, collation: str, old: str, new: str
) -> None:
    check_spelling(sqlite_bench, f"TEXT COLLATE {collation}", old, new)


@pytest.mark.parametrize(("old", "new"), [("A", "a"), ("a", "A"), ("Ä", "ä")])
def test_postgresql_keys_that_differ_only_to_python_are_one(
    postgresql_bench: PostgresBench, old: str, new: str
) -> None:
    bench = postgresql_bench
    bench.sql("backup", f"CREATE SCHEMA {bench.quote(bench.schema or '')}")
    for role in ROLES:
        bench.sql(
            role,
            f"CREATE COLLATION {bench.quoted('alike')}"
            " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
    check_spelling(bench, f"text COLLATE {bench.quoted('alike')}", old, new)


def test_a_unique_index_is_no_key_where_it_tells_more_texts_apart_than_its_column(
    postgresql_bench: PostgresBench,
) -> None:
    bench, alike = postgresql_bench, postgresql_bench.quoted("alike")
    bench.sql(
        "source",
        f"CREATE COLLATION {alike} (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
        f"CREATE TABLE {{table}} (id integer NOT NULL, name text COLLATE {alike} NOT NULL, code text NOT NULL);"
        'CREATE UNIQUE INDEX by_bytes ON {table} (id, name COLLATE "C");'
        "CREATE UNIQUE INDEX as_it_is ON {table} (id, name);"
        f"CREATE UNIQUE INDEX alike ON {{table}} (code COLLATE {alike}, id)",
    )
    with bench.engines["source"].connect() as cx:
        [keys] = [table.unique_keys for table in list_tables(cx) if str(bench.schema) in table.name]
    assert keys == {"as_it_is": ("id", "name"), "alike": ("code", "id")}


def test_not_null_counts_only_where_the_server_holds_all_rows_to_it(postgresql_bench: PostgresBench) -> None:
    """Rows with NULL in their key would be in no chunk, and nobody would look for them."""
    bench = postgresql_bench
    far = f"far_{uuid.uuid4().hex}"
    bench.sql("source", f"CREATE FOREIGN DATA WRAPPER {far}; CREATE SERVER {far} FOREIGN DATA WRAPPER {far}")
    try:
        rules = Rules(key=("Id",), key_may_repeat=True)
        columns = '"Id" integer NOT NULL, "Area" integer'
        bench.sql("source", f"CREATE FOREIGN TABLE {{table}} ({columns}) SERVER {far}")
        assert _has_nullable_key(bench, rules)
        bench.sql("source", "DROP FOREIGN TABLE {table}")
        bench.sql("source", f'CREATE TABLE {{table}} ({columns}) PARTITION BY LIST ("Area")')
        bench.sql("source", f"CREATE TABLE {bench.quoted('near')} PARTITION OF {{table}} DEFAULT")
        assert not _has_nullable_key(bench, rules)
        bench.sql(
            "source",
            f"CREATE FOREIGN TABLE {bench.quoted('far')} PARTITION OF {{table}} FOR VALUES IN (1) SERVER {far}",
        )
        assert _has_nullable_key(bench, rules)
    finally:
        bench.sql("source", f"DROP FOREIGN DATA WRAPPER {far} CASCADE")


def _has_nullable_key(bench: SqlBench, rules: Rules) -> bool:
    return bool(catalog_of(bench.open("source", rules=rules)).shape.nullable_key)


def test_a_constraint_that_nobody_has_validated_promises_nothing(postgresql_bench: PostgresBench) -> None:
    bench = postgresql_bench
    with bench.engines["source"].connect() as cx:
        if (cx.dialect.server_version_info or (0,)) < (18,):
            pytest.skip("Before PostgreSQL 18, NOT NULL holds for all rows.")
    bench.sql("source", "CREATE TABLE {table} (id integer, version integer)")
    bench.sql("source", "INSERT INTO {table} VALUES (NULL, 1), (1, NULL)")
    bench.sql("source", "ALTER TABLE {table} ADD CONSTRAINT a NOT NULL id NOT VALID, ADD NOT NULL version NOT VALID")
    bench.sql("source", "CREATE UNIQUE INDEX ON {table} (id)")
    shape = catalog_of(bench.open("source", rules=Rules(version=("version",), key=("id",)))).shape
    assert [column.nullable for column in shape.columns] == [True, True]
    with bench.engines["source"].connect() as cx:
        assert [table.unique_keys for table in list_tables(cx)] == [{}]


@pytest.mark.parametrize("collation", ["NOCASE", "RTRIM", "BINARY"])
def test_a_named_key_of_sqlite_has_to_compare_texts_by_their_bytes(sqlite_bench: SqliteBench, collation: str) -> None:
    """A copy would have a record for each of two spellings, and in another order."""
    bench = sqlite_bench
    bench.sql("source", f"CREATE TABLE base (Id TEXT COLLATE {collation} NOT NULL, Version INTEGER)")
    bench.sql("source", "CREATE VIEW {table} AS SELECT * FROM base")
    bench.sql("source", "INSERT INTO base VALUES ('a', 1)")
    for table in ("base", None):
        store = bench.open("source", table=table, rules=Rules(key=("Id",)))
        if collation == "BINARY":
            assert store.count() == 1
        else:
            with pytest.raises(SchemaMismatch, match="order of its own"):
                store.count()


def test_a_primary_key_that_not_all_partitions_have_is_none(postgresql_bench: PostgresBench) -> None:
    bench = postgresql_bench
    bench.sql("source", "CREATE TABLE {table} (id integer NOT NULL, area integer NOT NULL) PARTITION BY LIST (area)")
    bench.sql("source", f"CREATE TABLE {bench.quoted('part')} PARTITION OF {{table}} DEFAULT")
    bench.sql("source", "ALTER TABLE ONLY {table} ADD PRIMARY KEY (id, area)")
    with pytest.raises(SchemaMismatch, match="no primary key"):
        bench.open("source").count()


@pytest.mark.parametrize("other", ["source", "backup"])
def test_databases_of_other_default_collations_hold_the_same_keys(postgresql_bench: PostgresBench, other: Role) -> None:
    with other_database(postgresql_bench, other, "LOCALE_PROVIDER icu ICU_LOCALE 'de'") as bench:
        bench.sql(
            "source",
            'CREATE TABLE {table} (id text PRIMARY KEY, version text, c text COLLATE "C", n name);'
            "INSERT INTO {table} VALUES ('a', 1, 'x', 'n'), ('B', 1, 'y', 'N'), ('ä', 1, 'Y', '')",
        )
        source, backup = bench.pair(chunk_size=1)
        assert run_sync(source, backup) == (3, 0, 0, 0)
        backup = bench.open("backup", chunk_size=1)  # which knows of no moment when the table was small enough
        assert [key for chunk in backup.chunks() for key in stamps_in(backup, chunk)] == [
            key for chunk in source.chunks() for key in stamps_in(source, chunk)
        ]
        bench.sql("source", 'ALTER TABLE {table} ADD more text COLLATE pg_catalog."fr-x-icu"')
        source, backup = bench.open("source"), bench.open("backup")
        relational = backup.relational
        assert relational is not None
        relational.adapt(relational.drift(source, "add"))
        assert relational.drift(source, "add") == Drift()
        backup.close()
        bench.sql(
            "backup", "DROP TABLE {table}; CREATE TABLE {table} (id text PRIMARY KEY, version text, c text, n name)"
        )
        with pytest.raises(SchemaMismatch, match="collation") as caught:
            backup.catalog.initialize(source)
        _, _, statements = str(caught.value.hint).partition("Run on the backup: ")
        for statement in statements.partition(". Then")[0].split("; "):
            bench.sql("backup", statement)
        bench.open("backup").catalog.initialize(bench.open("source"))
        assert run_sync(bench.open("source"), bench.open("backup", chunk_size=2)) == (3, 0, 0, 0)
        bench.sql("source", "ALTER TABLE {table} DROP c, DROP more")  # no column is left that names a collation
        bench.sql("backup", "DROP TABLE {table}")
        bench.open("backup").catalog.initialize(bench.open("source"))
        bench.open("backup").catalog.initialize(bench.open("source"))  # whose look finds the key sorted as there


@pytest.mark.parametrize(
    "collation",
    [
        *(f"provider = icu, locale = 'und-u-ks-level2', deterministic = {yes}" for yes in ("true", "false")),
        "locale = 'C'",  # sorts as the default of the backup's database does
    ],
)
def test_a_value_keeps_its_copy_where_the_backup_lacks_its_collation(
    postgresql_bench: PostgresBench, collation: str
) -> None:
    bench = postgresql_bench
    bench.sql(
        "source",
        f"CREATE COLLATION {bench.quoted('own')} ({collation});"
        f"CREATE TABLE {{table}} (id integer PRIMARY KEY, version text COLLATE {bench.quoted('own')});"
        "INSERT INTO {table} VALUES (1, 'a'), (2, 'b')",
    )
    source, backup = bench.pair()
    assert run_sync(source, backup) == (2, 0, 0, 0)
    bench.sql("source", "UPDATE {table} SET version = 'A' WHERE id = 1")
    assert run_sync(bench.open("source"), bench.open("backup")) == (0, 1, 0, 1)
    assert sorted(row[:2] for row in bench.rows("backup", "SELECT id, version FROM {table}")) == [(1, "A"), (2, "b")]
