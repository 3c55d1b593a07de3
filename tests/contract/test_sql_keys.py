"""What is a key, and which tables can be backed up: every SQL store."""

from __future__ import annotations

import random
import uuid
from contextlib import closing
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from backup.errors import NotInitialized, SchemaMismatch, StoreUnavailable
from backup.models import Chunk
from backup.retry import Retry
from backup.stores import Rules
from tests.contract.benches import NOW, ROLES, RUN, PostgresBench, SqlBench, SqliteBench, SqlServerBench, named
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
    assert source.key_of(next(source.read(frozenset([("x", 2)]), Chunk()))[0]) == ("x", 2)
    assert run_sync(source, backup) == (16, 0, 0, 0)
    bench.sql("backup", insert, [(9, "", 1), (-9, "", 1), (9, "zz", 1)])
    bench.sql("source", "UPDATE {table} SET Version = 2 WHERE A = 1")
    bench.sql("source", "DELETE FROM {table} WHERE A = 2")
    bench.sql("source", insert, [(7, "new", 1)])
    assert run_sync(source, backup) == (1, 4, 7, 8)
    columns = "SELECT A, B, Version FROM {table}"
    assert sorted(bench.rows("source", columns)) == sorted(bench.rows("backup", columns))


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
    source, backup = bench.pair(chunk_size=4, batch_size=3)
    bench.sql("backup", insert, [(key,) for key in (keys[0], keys[20], keys[39])])
    chunks = list(source.chunks())
    parts = [source.stamps(chunk) for chunk in chunks]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 30
    assert sum(len(backup.stamps(chunk)) for chunk in chunks) == 3
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
            f"CREATE COLLATION {bench.quoted('alike')} (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
    check_spelling(bench, f"text COLLATE {bench.quoted('alike')}", old, new)


@pytest.mark.parametrize("text", ["nvarchar(40)", "varchar(40)", "char(5)", "nchar(5)"])
@pytest.mark.parametrize(("old", "new"), [("A", "a "), ("a ", "A"), ("É", "é")])
def test_sqlserver_keys_that_differ_only_to_python_are_one(
    mssql_bench: SqlServerBench, text: str, old: str, new: str
) -> None:
    bench = mssql_bench
    pad = (lambda key: f"{key:5}") if text.endswith("char(5)") else str
    bench.sql(
        "source",
        f"CREATE TABLE {{table}} (Id {text} COLLATE Latin1_General_CI_AS NOT NULL PRIMARY KEY, Version INTEGER)",
    )
    insert = "INSERT INTO {table} (Id, Version) VALUES (?, ?)"
    bench.sql("source", insert, [(new, 1), ("b", 1), ("C", 1)])
    source, backup = bench.pair(chunk_size=2)
    bench.sql("backup", insert, [(old, 1), ("b", 1), ("C", 1)])
    assert run_sync(source, backup) == (0, 1, 0, 2)
    assert sorted(row[0] for row in bench.rows("backup")) == sorted(map(pad, [new, "b", "C"]))
    assert run_sync(source, backup) == (0, 0, 0, 3)


# --- what fits and what does not ------------------------------------------------------------------------------------------


def make(bench: SqlBench, source: str, backup: str) -> None:
    """Both tables by hand."""
    if isinstance(bench, PostgresBench | SqlServerBench):
        bench.sql("backup", f"CREATE SCHEMA {bench.quote(bench.schema or '')}")
    bench.sql("source", f"CREATE TABLE {{table}} ({source})")
    bench.sql("backup", f"CREATE TABLE {{table}} ({backup})")


def test_a_backup_made_by_hand_may_order_and_spell_columns_differently(sql_bench: SqlBench) -> None:
    bench = sql_bench
    make(
        bench,
        "Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, Name varchar(10), Other INTEGER",
        "OTHER INTEGER, NAME varchar(20), ID INTEGER NOT NULL PRIMARY KEY, VERSION INTEGER, Own INTEGER",
    )
    m = bench.mark
    bench.sql(
        "source",
        f"INSERT INTO {{table}} (Id, Version, Name, Other) VALUES ({m}, {m}, {m}, {m})",
        [(1, None, "a", 7), (2, 1, "b", 8)],
    )
    source, backup = bench.open("source"), bench.open("backup")
    backup.initialize(source)
    assert run_sync(source, backup) == (2, 0, 0, 0)
    assert run_sync(source, backup) == (0, 0, 0, 2)
    bench.sql("source", "UPDATE {table} SET Name = 'c' WHERE Id = 1")
    assert run_sync(source, backup) == (0, 1, 0, 1)
    query = "SELECT Id, Version, Name, Other FROM {table} ORDER BY Id"
    assert bench.rows("source", query) == bench.rows("backup", query)


def test_a_backup_made_by_hand_may_have_an_identity_key(sql_bench: SqlBench) -> None:
    bench = sql_bench
    key = {
        "sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "postgresql": "integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
        "mssql": "int IDENTITY(1, 1) NOT NULL PRIMARY KEY",
    }[bench.kind]
    integer = "int" if bench.kind == "mssql" else "INTEGER"
    make(bench, f"Id {key}, Version {integer}", f"Id {key}, Version {integer}")
    bench.sql("source", f"INSERT INTO {{table}} (Version) VALUES ({bench.mark})", [(n,) for n in range(5)])
    bench.sql("source", "DELETE FROM {table} WHERE Id = 2")
    source, backup = bench.open("source"), bench.open("backup", batch_size=2)
    backup.initialize(source)
    assert run_sync(source, backup) == (4, 0, 0, 0)
    bench.sql("source", "UPDATE {table} SET Version = 9 WHERE Id IN (1, 3)")
    bench.sql("source", f"INSERT INTO {{table}} (Version) VALUES ({bench.mark})", [(7,)])
    assert run_sync(source, backup) == (1, 2, 0, 2)
    assert bench.rows("source") == bench.rows("backup")


@pytest.mark.parametrize(
    ("source", "backup", "named_column"),
    [
        ("Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, Extra INTEGER", "Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER", "Extra"),
        ("Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, N varchar(20)", "Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, N varchar(10)", "N"),
        ("Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, N char(10)", "Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, N char(20)", "N"),
        ("Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, N decimal(9, 2)", "Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, N decimal(9, 3)", "N"),
        ("Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER", "Id INTEGER NOT NULL PRIMARY KEY, Version smallint", "Version"),
        ("Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER", "Id INTEGER NOT NULL, Version INTEGER NOT NULL PRIMARY KEY", "primary key"),
    ],
    ids=["missing column", "narrower text", "padded text", "other scale", "smaller number", "other key"],
)  # fmt: skip
def test_a_backup_that_cannot_hold_the_copies_is_refused(
    sql_bench: SqlBench, source: str, backup: str, named_column: str
) -> None:
    make(sql_bench, source, backup)
    for verb in ("check", "initialize"):
        with pytest.raises(SchemaMismatch, match=f"(?i){named_column}"):
            getattr(sql_bench.open("backup"), verb)(sql_bench.open("source"))


def test_sides_whose_key_collations_differ_are_refused(sql_bench: SqlBench) -> None:
    one, other = {
        "sqlite": ("TEXT COLLATE NOCASE", "TEXT"),
        "postgresql": ('text COLLATE "C"', 'text COLLATE "en-x-icu"'),
        "mssql": ("varchar(9) COLLATE Latin1_General_CI_AS", "varchar(9) COLLATE Latin1_General_CS_AS"),
    }[sql_bench.kind]
    make(
        sql_bench,
        f"Id {one} NOT NULL PRIMARY KEY, Version INTEGER",
        f"Id {other} NOT NULL PRIMARY KEY, Version INTEGER",
    )
    with pytest.raises(SchemaMismatch, match="collation"):
        sql_bench.open("backup").check(sql_bench.open("source"))


def test_a_table_without_a_primary_key_is_refused(sql_bench: SqlBench) -> None:
    sql_bench.sql("source", "CREATE TABLE {table} (Id INTEGER, Version INTEGER)")
    with pytest.raises(SchemaMismatch, match="primary key"):
        sql_bench.open("source").count()


def test_a_table_without_its_version_is_refused(sql_bench: SqlBench) -> None:
    sql_bench.sql("source", "CREATE TABLE {table} (Id INTEGER NOT NULL PRIMARY KEY, Name INTEGER)")
    with pytest.raises(SchemaMismatch, match="Version"):
        sql_bench.open("source").count()


def test_names_of_rules_are_found_in_any_case(sql_bench: SqlBench) -> None:
    sql_bench.sql("source", "CREATE TABLE {table} (ID INTEGER NOT NULL PRIMARY KEY, VERSION INTEGER)")
    sql_bench.sql("source", f"INSERT INTO {{table}} (ID, VERSION) VALUES ({sql_bench.mark}, 5)", [(1,)])
    (version,) = sql_bench.open("source", rules=Rules(version=("vErSiOn",))).stamps(Chunk()).values()
    assert version.value == (5,)


def test_only_rows_that_the_rules_pick_are_seen(sql_bench: SqlBench) -> None:
    bench = sql_bench
    text = "varchar(20)"
    bench.sql(
        "source",
        f"CREATE TABLE {{table}} (Id INTEGER NOT NULL PRIMARY KEY, Type {text}, Version INTEGER, Status {text})",
    )
    m = bench.mark
    bench.sql(
        "source",
        f"INSERT INTO {{table}} (Id, Type, Version, Status) VALUES ({m}, {m}, {m}, {m})",
        [(1, "Order", 1, "a"), (2, "Quote", 1, "a"), (3, "Order", 1, None)],
    )
    rules = Rules(version=("version", "status"), where={"type": "Order"})
    source, backup = bench.open("source", rules=rules), bench.open("backup", rules=rules)
    backup.initialize(source)
    bench.sql(
        "backup",
        f"INSERT INTO {{table}} (Id, Type, Version, Status) VALUES ({m}, {m}, {m}, {m})",
        [(3, "Draft", 1, "a"), (4, "Draft", 1, "a")],
    )
    assert source.count() == 2
    assert run_sync(source, backup) == (2, 0, 0, 0)
    assert sorted(bench.rows("backup", "SELECT Id, Type FROM {table}")) == [(1, "Order"), (3, "Order"), (4, "Draft")]
    bench.sql("source", "UPDATE {table} SET Status = 'b' WHERE Id = 3")
    bench.sql("source", "UPDATE {table} SET Type = 'Quote' WHERE Id = 1")
    assert run_sync(source, backup) == (0, 1, 1, 0)


def test_a_null_in_a_key_is_refused_on_sqlite(sqlite_bench: SqliteBench) -> None:
    sqlite_bench.sql("source", "CREATE TABLE {table} (Id TEXT PRIMARY KEY, Version INTEGER)")
    sqlite_bench.sql("source", "INSERT INTO {table} VALUES (?, 1)", [(None,), ("a",)])
    with pytest.raises(SchemaMismatch, match="NULL"):
        list(sqlite_bench.open("source").chunks())


def test_odd_column_names_do_not_disturb(sql_bench: SqlBench) -> None:
    bench = sql_bench
    names = [
        "a b",
        "a_b",
        "a.b",
        "[x]",
        "it's",
        'say "x"',
        "100%",
        "%s",
        "%(x)s",
        ":p",
        "(y)",
        "?",
        "ä ö 漢",
        "select",
        "v0",
        "k0",
        "key Id",
        "SyncedAt ",
    ]
    if isinstance(bench, SqlServerBench) and bench.stands_in:
        names.remove("[x]")  # Babelfish does not read ]] in a name
    quote = sql_bench.engines["source"].dialect.identifier_preparer.quote_identifier
    quoted = [quote(name).replace("%%", "%") for name in names]
    columns = ", ".join(f"{name} varchar(40)" for name in quoted)
    execute = "INSERT INTO {table} (Id, Version, " + ", ".join(quoted) + ") VALUES ("
    plain = execute + "{n}, 1, " + ", ".join(f"'{{n}} {i}'" for i in range(len(names))) + ")"
    raw_sql(bench, "source", f"CREATE TABLE {{table}} (Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, {columns})")
    for n in (1, 2, 3):
        raw_sql(bench, "source", plain.replace("{n}", str(n)))
    source, backup = bench.pair()
    assert run_sync(source, backup) == (3, 0, 0, 0)
    raw_sql(bench, "source", f"UPDATE {{table}} SET Version = 2, {quoted[0]} = 'new', {quoted[2]} = NULL WHERE Id < 3")
    assert run_sync(source, backup) == (0, 2, 0, 1)
    assert [row[: len(names) + 2] for row in bench.rows("backup")] == bench.rows("source")
    assert bench.rows("source")[0][2:5] == ("new", "1 1", None)


def raw_sql(bench: SqlBench, role: Any, statement: str) -> None:
    """Without parameters, so that a driver that looks for them finds none."""
    with closing(bench.engines[role].raw_connection()) as connection:
        connection.cursor().execute(statement.replace("{table}", bench.quoted()))
        connection.commit()


def test_columns_that_differ_only_in_case_are_kept_apart(postgresql_bench: PostgresBench) -> None:
    bench = postgresql_bench
    bench.sql(
        "source", 'CREATE TABLE {table} ("Id" integer PRIMARY KEY, "Version" integer, x text, "X" text, version text)'
    )
    bench.sql(
        "source",
        "INSERT INTO {table} VALUES (%s, %s, %s, %s, %s)",
        [(1, 1, "small", "large", "v"), (2, None, "s", "l", "v")],
    )
    source, backup = bench.pair()
    assert run_sync(source, backup) == (2, 0, 0, 0)
    assert [row[:5] for row in bench.rows("backup")] == bench.rows("source")
    assert run_sync(source, backup) == (0, 0, 0, 2)


# --- logging in -----------------------------------------------------------------------------------------------------------


def test_a_wrong_password_fails_at_once_and_is_not_told(sql_bench: SqlBench) -> None:
    bench = sql_bench
    sql_bench.create()
    if isinstance(bench, SqliteBench):
        path = bench.folder / "source.db"
        bench.close()
        path.write_bytes(b"hunter2 is no database" * 100)
        text = bench.connection_strings["source"]
    else:
        text = with_password(bench.connection_strings["source"], "hunter2")
    store = bench.open("source", connection_string=text, retry=Retry(5, 1000, 1000))
    for read in (store.ping, store.count):
        with pytest.raises(StoreUnavailable) as caught:
            read()
        assert not caught.value.retryable
        assert "hunter2" not in str(caught.value)


def with_password(connection_string: str, password: str) -> str:
    from sqlalchemy.engine import make_url

    if "://" in connection_string:
        return make_url(connection_string).set(password=password).render_as_string(hide_password=False)
    return named(connection_string, "tempdb") + f";PWD={password}"


def test_errors_do_not_quote_values(sql_bench: SqlBench) -> None:
    bench = sql_bench
    check = "CONSTRAINT is_allowed CHECK (Name <> 'hunter2')"
    make(
        bench,
        "Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, Name varchar(20)",
        f"Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, Name varchar(20), Uniq varchar(9) DEFAULT 'hunter2' UNIQUE, {check}",
    )
    m = bench.mark
    bench.sql(
        "source",
        f"INSERT INTO {{table}} (Id, Version, Name) VALUES ({m}, {m}, {m})",
        [(1, 1, "hunter2"), (2, 1, "x"), (3, 1, "y")],
    )
    source, backup = bench.open("source"), bench.open("backup")
    backup.check(source)
    batches = {n: next(source.read(frozenset([(n,)]), Chunk())) for n in (1, 2, 3)}
    backup.write(batches[2], RUN, NOW)
    for n in (1, 3):
        with pytest.raises(Exception, match="Could not write records") as caught:
            backup.write(batches[n], RUN, NOW)
        assert "hunter2" not in str(caught.value)
    assert len(bench.rows("backup")) == 1


def test_a_batch_is_written_whole_or_not_at_all(sql_bench: SqlBench) -> None:
    bench = sql_bench
    make(
        bench,
        "Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER",
        "Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER CHECK (Version < 50)",
    )
    m = bench.mark
    bench.sql("source", f"INSERT INTO {{table}} (Id, Version) VALUES ({m}, {m})", [(1, 2), (2, 2), (3, 3), (4, 99)])
    bench.sql("backup", f"INSERT INTO {{table}} (Id, Version) VALUES ({m}, {m})", [(1, 1), (2, 1)])
    source, backup = bench.open("source"), bench.open("backup")
    backup.check(source)
    (records,) = source.read(frozenset([(1,), (2,), (3,), (4,)]), Chunk())
    with pytest.raises(Exception, match="Could not write"):
        backup.write(records, RUN, NOW)
    assert sorted(bench.rows("backup")) == [(1, 1), (2, 1)]


def test_a_backup_without_its_schema_is_not_initialized(sql_bench: SqlBench) -> None:
    sql_bench.create()
    with pytest.raises(NotInitialized):
        sql_bench.open("backup").check(sql_bench.open("source"))
