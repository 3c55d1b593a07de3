"""A value of every PostgreSQL type, and its extremes, there and back; compared by the server's own text."""

from __future__ import annotations

import pytest

from backup.errors import SchemaMismatch
from backup.models import Chunk
from tests.contract.benches import PostgresBench
from tests.contract.test_store import run_sync

VALUES: dict[str, list[str]] = {
    "smallint": ["-32768", "32767"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "numeric": ["'NaN'", "'Infinity'", "'-Infinity'", "1e-200", "123456789" * 30 + ".10", "0", "1.500"],
    "numeric(38, 10)": ["-9999999999999999999999999999.9999999999", "1.1"],
    "real": ["3.4028235e38", "1e-45", "'NaN'", "'-Infinity'", "0.1", "'-0'"],
    "double precision": ["1.7976931348623157e308", "5e-324", "0.1", "'Infinity'", "'NaN'"],
    "money": ["'-92233720368547758.08'", "12.34"],
    "boolean": ["true", "false"],
    "text": ["''", "'trailing  '", "'ünï 漢 🎉 '' \\ % %s'", "repeat('x', 1200000)", "E'a\\n\\tb'"],
    "varchar(20)": ["''", "'ab  '"],
    "char(5)": ["''", "'ab'"],
    '"char"': ["'x'"],
    "bytea": ["''", "'\\x00ff27'", "decode(repeat('00ff', 600000), 'hex')"],
    "date": ["'infinity'", "'-infinity'", "'4713-01-01 BC'", "'5874897-12-31'", "'2024-02-29'"],
    "time": ["'00:00'", "'24:00'", "'23:59:59.999999'"],
    "timetz": ["'23:59:59.999999+15:59'"],
    "timestamp": ["'infinity'", "'-infinity'", "'4713-01-01 00:00 BC'", "'294276-12-31 23:59:59.999999'"],
    "timestamptz(3)": ["'2024-01-02 03:04:05.678+05:30'", "'infinity'"],
    "interval": ["'1 year 2 months -3 days 04:05:06.789'", "'-178000000 years'", "'0'"],
    "interval day to second(2)": ["'3 days 04:05:06.78'"],
    "json": ["""'{"b": 1,   "a": [1.0, null], "a": 2}'""", "'1e400'"],
    "jsonb": ["""'{"b": 1, "a": [1.0, null, "é"]}'""", "'12345678901234567890.10'"],
    "integer[]": ["'{}'", "'{1,NULL,-3}'", "'{{1,2},{3,4}}'", "'[0:1]={1,2}'"],
    "text[]": ["""'{"a,b","\\"q\\"",NULL,"NULL",""}'"""],
    "timestamp[]": ["'{infinity,2024-01-01 00:00:00.000001}'"],
    "int4range": ["'empty'", "'[1,5)'", "'(,)'"],
    "tstzrange": ["'[2024-01-01 00:00+01,infinity)'"],
    "int8multirange": ["'{[1,3),[7,9)}'"],
    "inet": ["'192.168.0.1/24'", "'::1'"],
    "cidr": ["'10.0.0.0/8'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "uuid": ["'6f9619ff-8b86-d011-b42d-00c04fc964ff'", "'00000000-0000-0000-0000-000000000000'"],
    "bit(3)": ["B'101'"],
    "bit varying(9)": ["B''", "B'10110'"],
    "point": ["'(1.5,-2e300)'"],
    "polygon": ["'((0,0),(1,1),(1,0))'"],
    "tsvector": ["'a:1 fat:2A'"],
    "xml": ["'<a>ü<b/></a>'"],
    "oid": ["4294967295"],
    "name": ["'a name'"],
}


@pytest.mark.parametrize("type_", VALUES)
def test_values_are_copied_exactly(postgresql_bench: PostgresBench, type_: str) -> None:
    bench = postgresql_bench
    values = ["NULL", *VALUES[type_], "NULL"]
    bench.sql("source", f"CREATE TABLE {{table}} (id integer PRIMARY KEY, v {type_}, version integer)")
    for n, value in enumerate(values):
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({n}, {value.replace('%', '%%')}, 1)")
    source, backup = bench.pair()
    assert run_sync(source, backup) == (len(values), 0, 0, 0)
    query = "SELECT id, v::text, pg_typeof(v)::text FROM {table} ORDER BY id"
    expected = bench.rows("source", query)
    assert bench.rows("backup", query) == expected
    assert [row[1] for row in expected].count(None) == 2
    bench.sql("source", "UPDATE {table} SET version = NULL")
    bench.sql("backup", "UPDATE {table} SET v = NULL")
    assert run_sync(source, backup) == (0, len(values), 0, 0)
    assert bench.rows("backup", query) == expected
    assert run_sync(source, backup) == (0, 0, 0, len(values))


def test_types_of_the_users_own_are_kept_as_text_or_their_base(postgresql_bench: PostgresBench) -> None:
    bench = postgresql_bench
    bench.sql("source", f"CREATE TYPE {bench.quoted('mood')} AS ENUM ('sad', 'ok')")
    bench.sql("source", f"CREATE DOMAIN {bench.quoted('small')} AS numeric(5, 2) CHECK (VALUE < 900)")
    bench.sql("source", f"CREATE TYPE {bench.quoted('pair')} AS (a integer, b text)")
    bench.sql(
        "source",
        f"CREATE TABLE {{table}} (id integer PRIMARY KEY, version integer, m {bench.quoted('mood')},"
        f" d {bench.quoted('small')}, p {bench.quoted('pair')}, ms {bench.quoted('mood')}[])",
    )
    bench.sql(
        "source",
        f"INSERT INTO {{table}} VALUES (1, 1, 'ok', 1.50, ROW(1, 'x,y'), ARRAY['sad','ok']::{bench.quoted('mood')}[])",
    )
    source, backup = bench.pair()
    assert run_sync(source, backup) == (1, 0, 0, 0)
    query = "SELECT id, m::text, d::text, p::text, ms::text FROM {table}"
    assert bench.rows("backup", query) == bench.rows("source", query)
    assert run_sync(source, backup) == (0, 0, 0, 1)


def test_generated_and_identity_columns_are_kept_as_their_values(postgresql_bench: PostgresBench) -> None:
    bench = postgresql_bench
    bench.sql(
        "source",
        "CREATE TABLE {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a integer,"
        " b integer GENERATED ALWAYS AS (a * 2) STORED, version integer)",
    )
    bench.sql("source", "INSERT INTO {table} (a, version) VALUES (1, 1), (NULL, 1)")
    source, backup = bench.pair()
    assert run_sync(source, backup) == (2, 0, 0, 0)
    assert [row[:4] for row in bench.rows("backup")] == bench.rows("source") == [(1, 1, 2, 1), (2, None, None, 1)]


@pytest.mark.parametrize(
    "type_",
    ["numeric", "date", "timestamp", "timestamptz(3)", "interval", "inet", "integer[]", "int4range", "money", "real",
     "char(5)", "varchar(20)", "oid", "macaddr", "jsonb", "time", "name", '"char"', "bit varying(9)"],
)  # fmt: skip
def test_types_may_be_keys(postgresql_bench: PostgresBench, type_: str) -> None:
    bench = postgresql_bench
    values = [value for value in VALUES[type_] if value != "'NaN'"]
    bench.sql("source", f"CREATE TABLE {{table}} (v {type_} PRIMARY KEY, version integer)")
    for value in values:
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({value}, 1)")
    source, backup = bench.pair(chunk_size=1, batch_size=2)
    assert [len(source.stamps(chunk)) for chunk in source.chunks()] == [1] * len(values) + [0]
    assert run_sync(source, backup) == (len(values), 0, 0, 0)
    assert run_sync(source, backup) == (0, 0, 0, len(values))
    query = "SELECT v::text FROM {table} ORDER BY v"
    assert bench.rows("backup", query) == bench.rows("source", query)


def test_a_key_that_sorts_in_an_order_of_its_own_is_refused(postgresql_bench: PostgresBench) -> None:
    bench = postgresql_bench
    bench.sql("source", f"CREATE TYPE {bench.quoted('mood')} AS ENUM ('z', 'a')")
    bench.sql("source", f"CREATE TABLE {{table}} (id {bench.quoted('mood')} PRIMARY KEY, version integer)")
    with pytest.raises(SchemaMismatch, match="order of its own"):
        list(bench.open("source").chunks())


def test_stamps_are_the_same_whatever_the_session_shows(postgresql_bench: PostgresBench) -> None:
    bench = postgresql_bench
    bench.sql("source", "CREATE TABLE {table} (id integer PRIMARY KEY, version timestamptz, i interval)")
    bench.sql("source", "INSERT INTO {table} VALUES (1, '2024-01-02 03:04:05.678901+05:30', '1 day 2 hours')")
    before = bench.open("source").stamps(Chunk())
    database = bench.connection_strings["source"].rpartition("/")[2]
    for setting in ("TimeZone TO 'Asia/Kolkata'", "DateStyle TO 'German'", "IntervalStyle TO 'iso_8601'"):
        bench.sql("source", f"ALTER DATABASE {database} SET {setting}")
    try:
        assert bench.open("source").stamps(Chunk()) == before
    finally:
        bench.sql("source", f"ALTER DATABASE {database} RESET ALL")
