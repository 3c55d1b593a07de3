"""A value of every SQL Server type, and its extremes, there and back; compared by the servers' own bytes and text."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest

from backup.core.errors import ConfigError
from backup.core.model import WHOLE, Chunk
from backup.stores import Rules, Store, stamps_in
from tests.contract.benches import SQL_SERVER, SqlServerBench
from tests.contract.test_relay import comes_back_from_images
from tests.contract.test_store import run_sync

if SQL_SERVER is None:
    pytest.skip(
        "SQL Server is not tested: start two (docker compose up sqlserver sqlserver-backup) and set"
        " TEST_SQLSERVER_SOURCE and TEST_SQLSERVER_BACKUP to connection strings that name a database",
        allow_module_level=True,
    )

TEXTS = ["''", "N'plain'", "N'trailing  '", "N'O''Brien; -- ?'", "N'  '"]
WIDE = [*TEXTS, "N'ünïcödé 漢字'", "N'🎉🎉'", "N'a' + NCHAR(10) + NCHAR(9) + N'b'"]
LONG = "REPLICATE(CAST({} AS {}), {})"

VALUES: dict[str, list[str]] = {
    "bit": ["0", "1"],
    "tinyint": ["0", "255"],
    "smallint": ["-32768", "32767"],
    "int": ["-2147483648", "2147483647", "0"],
    "bigint": ["-9223372036854775808", "9223372036854775807", "9007199254740993"],
    "decimal(38, 0)": ["-99999999999999999999999999999999999999", "99999999999999999999999999999999999999", "0"],
    "decimal(38, 10)": ["-9999999999999999999999999999.9999999999", "0.0000000001"],
    "numeric(5, 2)": ["-999.99", "0.00", "1.10", "100"],
    "numeric(9)": ["999999999", "-1"],
    "money": ["-922337203685477.5808", "922337203685477.5807", "0.0001"],
    "smallmoney": ["-214748.3648", "214748.3647"],
    "float": ["1.7976931348623157e308", "-1.7976931348623157e308", "2.2250738585072014e-308", "0.1", "-0e0"],
    "real": ["3.4028235e38", "1.17549435e-38", "0.1e0", "16777217"],
    "char(9)": [*TEXTS[:3], "'é'"],
    "varchar(30)": [*TEXTS, "'é ü'"],
    "varchar(max)": [*TEXTS, LONG.format("'x'", "varchar(max)", 1_100_000)],
    "nchar(9)": WIDE[:3] + WIDE[6:],
    "nvarchar(30)": WIDE,
    "nvarchar(4000)": [*WIDE, LONG.format("N'漢'", "nvarchar(max)", 4000)],
    "nvarchar(max)": [
        *WIDE,
        LONG.format("N'漢'", "nvarchar(max)", 4001),
        LONG.format("N'ä'", "nvarchar(max)", 600_000),
        LONG.format("N'🎉'", "nvarchar(max)", 2500),
    ],
    "binary(4)": ["0x", "0x00FF10", "0xFFFFFFFF"],
    "varbinary(20)": ["0x", "0x00", "0x0000", "0x2700FF00"],
    "varbinary(max)": ["0x", "0x00FF", "CAST(" + LONG.format("'y'", "varchar(max)", 1_200_000) + " AS varbinary(max))"],
    "date": ["'0001-01-01'", "'9999-12-31'", "'2024-02-29'"],
    "datetime": ["'1753-01-01 00:00:00.000'", "'9999-12-31 23:59:59.997'", "'2024-02-29 12:34:56.003'"],
    "smalldatetime": ["'1900-01-01 00:00'", "'2079-06-06 23:59'"],
    **{
        f"datetime2({n})": [
            "'0001-01-01 00:00:00'",
            f"'9999-12-31 23:59:59{'.' * bool(n)}{'9' * n}'",
            f"'2024-01-02 03:04:05{'.' * bool(n)}{'1234567'[:n]}'",
        ]
        for n in range(8)
    },
    **{
        f"time({n})": ["'00:00:00'", f"'23:59:59{'.' * bool(n)}{'9' * n}'", f"'01:02:03{'.' * bool(n)}{'1234567'[:n]}'"]
        for n in range(8)
    },
    **{
        f"datetimeoffset({n})": [
            f"'9999-12-30 09:59:59{'.' * bool(n)}{'9' * n} -14:00'",
            f"'2024-01-02 03:04:05{'.' * bool(n)}{'1234567'[:n]} +05:30'",
        ]
        for n in (0, 3, 7)
    },
    "uniqueidentifier": ["'00000000-0000-0000-0000-000000000000'", "'6F9619FF-8B86-D011-B42D-00C04FC964FF'"],
    "xml": ["'<a>1</a>'", "N'<ä b=\"1\">  <c/> 漢🎉 &lt;</ä>'", "''"],
    "text": ["'some text'", "''"],
    "ntext": ["N'some täxt 漢'", "N''"],
    "image": ["0x00FF", "0x"],
}


def exact_sql(type_: str) -> str:
    """SQL for a value's exact text or bytes, other than how the store reads it."""
    base = type_.partition("(")[0]
    if base == "datetimeoffset":
        return "CONVERT(varchar(60), V) + ' ' + CONVERT(varchar(60), CAST(V AS datetime2(7)))"
    if base in ("date", "datetime", "datetime2", "smalldatetime", "time"):
        return (
            "CONVERT(varchar(60), CAST(V AS datetime2(7)))"
            if base in ("datetime", "smalldatetime")
            else "CONVERT(varchar(60), V)"
        )
    if base in ("text", "xml"):
        return "CAST(V AS nvarchar(max))"
    if base in ("float", "real", "image", "uniqueidentifier", "money", "smallmoney", "bit", "ntext"):
        return "V"
    return (
        "V" if base in ("decimal", "numeric", "int", "bigint", "smallint", "tinyint") else "CAST(V AS varbinary(max))"
    )


@pytest.mark.parametrize("type_", VALUES)
def test_values_are_copied_exactly(mssql_bench: SqlServerBench, type_: str) -> None:
    bench = mssql_bench
    values = ["NULL", *VALUES[type_], "NULL"]  # NULL first: a driver that guesses from the first row guesses wrongly
    bench.sql("source", f"CREATE TABLE {{table}} (Id int NOT NULL PRIMARY KEY, V {type_} NULL, Version int NOT NULL)")
    for n, value in enumerate(values):
        bench.sql("source", f"INSERT INTO {{table}} (Id, V, Version) VALUES ({n}, {value}, 1)")
    source, backup = bench.pair()
    assert run_sync(source, backup) == (len(values), 0, 0, 0)
    query = f"SELECT Id, {exact_sql(type_)} FROM {{table}} ORDER BY Id"
    expected = bench.rows("source", query)
    assert bench.rows("backup", query) == expected
    assert [row[1] for row in expected].count(None) == 2
    bench.sql("source", "UPDATE {table} SET Version = 2")  # the same by updates, in another order of NULLs and values
    bench.sql("backup", "UPDATE {table} SET V = NULL")
    assert run_sync(source, backup) == (0, len(values), 0, 0)
    assert bench.rows("backup", query) == expected
    declared = (
        "SELECT type_name(system_type_id), max_length, precision, scale FROM sys.columns"
        " WHERE object_id = OBJECT_ID('{table}') AND name = 'V'"
    )
    assert bench.rows("backup", declared) == bench.rows("source", declared)


def test_all_digits_reach_the_other_side(mssql_bench: SqlServerBench) -> None:
    bench = mssql_bench
    bench.sql(
        "source",
        "CREATE TABLE {table}"
        " (Id int NOT NULL PRIMARY KEY, Version int, A datetime2(7), B time(7), C datetimeoffset(7))",
    )
    bench.sql(
        "source",
        "INSERT INTO {table} VALUES"
        " (1, 1, '2024-01-02 03:04:05.1234561', '03:04:05.7654321', '2024-01-02 03:04:05.1234561 +01:00')",
    )
    source, backup = bench.pair()
    run_sync(source, backup)
    ((a, b, c),) = bench.rows(
        "backup",
        "SELECT CONVERT(varchar(40), A, 121), CONVERT(varchar(40), B), CONVERT(varchar(40), C, 121) FROM {table}",
    )
    digits = 6 if bench.stands_in else 7  # Babelfish keeps six
    assert a[:20] + a[20:][:digits] == "2024-01-02 03:04:05.1234561"[: 20 + digits]
    assert b[:9] + b[9:][:digits] == "03:04:05.7654321"[: 9 + digits]
    assert c.endswith("+01:00")


@pytest.mark.parametrize(
    "type_",
    [
        t
        for t in VALUES
        if t.partition("(")[0] not in ("xml", "text", "ntext", "image", "bit")
        and "max" not in t
        and t != "nvarchar(4000)"
    ],
)
def test_types_may_be_keys(mssql_bench: SqlServerBench, type_: str) -> None:
    bench = mssql_bench
    collation = " COLLATE Latin1_General_CS_AS" if "char" in type_ else ""
    bench.sql("source", f"CREATE TABLE {{table}} (V {type_}{collation} NOT NULL PRIMARY KEY, Version int)")
    distinct = [value for value in VALUES[type_] if value not in ("N'  '", "0x00", "0x0000")]
    for value in distinct:
        bench.sql("source", f"INSERT INTO {{table}} (V, Version) VALUES ({value}, 1)")
    source, backup = bench.pair(chunk_size=1, batch_size=2)
    chunks = list(source.chunks())
    assert [len(stamps_in(source, chunk)) for chunk in chunks] == [1] * len(distinct) + [0]
    assert run_sync(source, backup) == (len(distinct), 0, 0, 0)
    assert run_sync(source, backup) == (0, 0, 0, len(distinct))
    query = f"SELECT {exact_sql(type_)} FROM {{table}} ORDER BY V"
    assert bench.rows("backup", query) == bench.rows("source", query)
    bench.sql("source", "DELETE FROM {table} WHERE V = " + distinct[0])
    bench.sql("source", "UPDATE {table} SET Version = 2")
    assert run_sync(source, backup) == (0, len(distinct) - 1, 1, 0)


def test_a_rowversion_is_kept_as_its_bytes_and_may_be_the_version(mssql_bench: SqlServerBench) -> None:
    bench = mssql_bench
    bench.sql("source", "CREATE TABLE {table} (Id int NOT NULL PRIMARY KEY, N int, Stamp rowversion)")
    bench.sql("source", "INSERT INTO {table} (Id, N) VALUES (1, 1), (2, 1)")
    rules = Rules(version=("Stamp",))
    source, backup = bench.open("source", rules=rules), bench.open("backup", rules=rules)
    backup.catalog.initialize(source)
    assert run_sync(source, backup) == (2, 0, 0, 0)
    bench.sql("source", "UPDATE {table} SET N = 5 WHERE Id = 2")
    assert run_sync(source, backup) == (0, 1, 0, 1)
    query = "SELECT Id, N, CAST(Stamp AS binary(8)) FROM {table} ORDER BY Id"
    assert bench.rows("backup", query) == bench.rows("source", query)


def test_computed_columns_are_kept_as_their_values(mssql_bench: SqlServerBench) -> None:
    bench = mssql_bench
    bench.sql(
        "source",
        "CREATE TABLE {table} (Id int NOT NULL PRIMARY KEY, A int, B AS (A * 2), C AS (A + 1) PERSISTED, Version int)",
    )
    bench.sql("source", "INSERT INTO {table} (Id, A, Version) VALUES (1, 10, 1), (2, NULL, 1)")
    source, backup = bench.pair()
    assert run_sync(source, backup) == (2, 0, 0, 0)
    query = "SELECT Id, A, B, C FROM {table} ORDER BY Id"
    assert bench.rows("backup", query) == bench.rows("source", query) == [(1, 10, 20, 11), (2, None, None, None)]


def test_alias_types_are_kept_as_their_base(mssql_bench: SqlServerBench) -> None:
    bench = mssql_bench
    name = bench.quoted("Phone")
    bench.sql("source", f"CREATE TYPE {name} FROM varchar(20) NOT NULL")
    bench.sql("source", f"CREATE TABLE {{table}} (Id int NOT NULL PRIMARY KEY, P {name}, Version int)")
    bench.sql("source", "INSERT INTO {table} VALUES (1, '+49 1', 1)")
    source, backup = bench.pair()
    run_sync(source, backup)
    assert bench.rows("backup", "SELECT P FROM {table}") == [("+49 1",)]
    bench.sql("source", "DROP TABLE {table}")
    bench.sql("source", f"DROP TYPE {name}")


def test_a_type_that_cannot_be_copied_exactly_is_refused_by_name(mssql_bench: SqlServerBench) -> None:
    bench = mssql_bench
    bench.sql("source", "CREATE TABLE {table} (Id int NOT NULL PRIMARY KEY, Anything sql_variant, Version int)")
    with pytest.raises(ConfigError, match=r"(?i)Anything.*sql_variant"):
        bench.open("source").count()


def test_wide_rows_of_every_size_in_one_batch(mssql_bench: SqlServerBench) -> None:
    bench = mssql_bench
    bench.sql(
        "source",
        "CREATE TABLE {table} (Id int NOT NULL PRIMARY KEY, Version int,"
        " A nvarchar(max), B varbinary(max), C varchar(max), D decimal(20, 5))",
    )
    sizes = [0, 1, 3999, 4000, 4001, 7999, 8000, 8001, 70_000]
    bench.sql(
        "source",
        "INSERT INTO {table} VALUES (?, 1, ?, ?, ?, ?)",
        [(n, "ß" * size, b"\x00\xff" * (size // 2 + 1), "z" * size, Decimal(size) / 7) for n, size in enumerate(sizes)],
    )
    bench.sql("source", "INSERT INTO {table} (Id, Version) VALUES (?, 1)", [(-1,), (100,)])
    source, backup = bench.pair()
    assert run_sync(source, backup) == (11, 0, 0, 0)
    assert [row[:6] for row in bench.rows("backup")] == bench.rows("source")
    bench.sql("backup", "UPDATE {table} SET Version = 0, A = NULL, B = NULL, C = 'q', D = 1")
    assert run_sync(source, backup) == (0, 11, 0, 0)
    assert [row[:6] for row in bench.rows("backup")] == bench.rows("source")


def test_a_key_longer_than_the_other_side_can_hold_is_not_cut(mssql_bench: SqlServerBench) -> None:
    bench = mssql_bench
    for text in ("varchar({})", "nvarchar({})", "varbinary({})"):
        value = "CAST('{}' AS varbinary(20))" if "binary" in text else "'{}'"
        bench.sql("source", f"CREATE TABLE {{table}} (Id {text.format(3)} NOT NULL PRIMARY KEY, Version int)")
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({value.format('abc')}, 1)")
        source = bench.open("source")
        (key,) = stamps_in(source, Chunk())
        longer = (key[0] + (b"def" if isinstance(key[0], bytes) else "def"),)
        assert source.matching([longer, key]) == {key}
        bench.sql("source", "DROP TABLE {table}")


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


def test_sqlserver_bytes_as_keys_that_differ_by_zeros_at_the_end_are_one(mssql_bench: SqlServerBench) -> None:
    bench = mssql_bench
    bench.sql("source", "CREATE TABLE {table} (Id varbinary(9) NOT NULL PRIMARY KEY, Version int)")
    bench.sql("source", "INSERT INTO {table} VALUES (0x0100, 1), (0x02, 1), (0x0001, 1)")
    source, backup = bench.pair(chunk_size=2)
    bench.sql("backup", "INSERT INTO {table} (Id, Version) VALUES (0x01, 1), (0x02, 1), (0x0001, 1)")
    assert run_sync(source, backup) == (0, 1, 0, 2)
    assert sorted(row[0] for row in bench.rows("backup")) == [b"\0\1", b"\1\0", b"\2"]
    assert run_sync(source, backup) == (0, 0, 0, 3)


def all_types_synced(bench: SqlServerBench, but: tuple[str, ...] = ()) -> tuple[Store, Store, str]:
    """Both sides of a table with a column of each type, and a query of its exact values."""
    if not bench.relays:
        pytest.skip("its sides are on two servers")
    types = {
        type_: [value for value in values if "REPLICATE" not in value]
        for type_, values in VALUES.items()
        if type_.partition("(")[0] not in but
    }
    columns = ", ".join(f"c{n} {type_} NULL" for n, type_ in enumerate(types))
    bench.sql("source", f"CREATE TABLE {{table}} (id int NOT NULL PRIMARY KEY, version int, {columns})")
    for n in range(1, 2 + max(map(len, types.values()))):
        row = ", ".join([*values, "NULL"][n % (len(values) + 1)] for values in types.values())
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({n}, 1, {row})")
    source, backup = bench.pair()
    run_sync(source, backup)
    exactly = ", ".join(re.sub(r"\bV\b", f"c{n}", exact_sql(type_)) for n, type_ in enumerate(types))
    return source, backup, f"SELECT id, version, {exactly} FROM {{table}} ORDER BY id"


@pytest.mark.timeout(600)
def test_values_of_every_type_come_back_by_the_server(mssql_bench: SqlServerBench) -> None:
    bench = mssql_bench
    source, backup, query = all_types_synced(bench)
    before = bench.rows("source", query)
    bench.sql("source", "DELETE FROM {table}")
    ends = (source.relational, backup.relational)
    assert ends[0] is not None
    assert sum(part.inserted for part in ends[0].relay(backup, WHOLE, None, None)) == len(before)
    assert bench.rows("source", query) == before
    assert len({end and end.content_fingerprint(WHOLE) for end in ends}) == 1


@pytest.mark.timeout(600)
def test_values_that_the_server_spells_come_back_by_it_from_images(mssql_bench: SqlServerBench) -> None:
    """But for texts that are not ASCII: this process has made their images, with escapes."""
    others = ("float", "real", "binary", "varbinary", "xml", "text", "ntext", "image")
    source, backup, query = all_types_synced(mssql_bench, others)
    unread = comes_back_from_images(mssql_bench, source, backup, query)
    assert mssql_bench.rows("source"), unread
