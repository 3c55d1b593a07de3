"""A value of every PostgreSQL type, and its extremes, there and back; compared by the server's own text."""

from __future__ import annotations

import gc
import json
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from backup.core.errors import SchemaMismatch, StoreError
from backup.core.model import WHOLE, Chunk, unread_in
from backup.mirror.guard import Guard
from backup.mirror.one_sync import sync_stores
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.recycle_bin.bin import RecycleBin
from backup.runs.history import History
from backup.stores import Rules, stamps_in
from backup.stores.exact_json import NotANumber, key_from_text, key_to_text
from backup.stores.sql.engines.postgresql import copy
from backup.stores.sql.engines.postgresql.dialect import PostgresqlDialect
from tests.contract.benches import NOW, ROLES, RUN, PostgresBench, Role, other_database
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


@pytest.fixture(autouse=True, scope="module")
def little_to_collect() -> None:
    """Has the garbage collector leave alone what there is by now: each connection that carried a large value is closed
    with a whole collection, and the objects of all tests before took half a second each time."""
    gc.collect()
    gc.freeze()


@pytest.mark.parametrize(
    "types", [["text"], ["bytea"], [type_ for type_ in VALUES if type_ not in ("text", "bytea")]], ids=lambda t: t[0]
)
def test_values_are_copied_exactly(postgresql_bench: PostgresBench, types: list[str]) -> None:
    """Texts and bytes in tables of their own, for large values and tables with bytes are read and written in other
    ways."""
    bench = postgresql_bench
    names = {f"c{n}": type_ for n, type_ in enumerate(types)}
    declared = ", ".join(f"{name} {type_}" for name, type_ in names.items())
    bench.sql("source", f"CREATE TABLE {{table}} (id integer PRIMARY KEY, version integer, {declared})")
    rows = max(len(VALUES[type_]) for type_ in types) + 2  # the first and the last have NULL alone
    for n in range(rows):
        values = [VALUES[type_][n - 1] if 0 < n <= len(VALUES[type_]) else "NULL" for type_ in types]
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({n}, 1, {', '.join(values)})".replace("%", "%%"))
    source, backup = bench.pair()
    assert run_sync(source, backup) == (rows, 0, 0, 0)

    def stored(role: Role) -> dict[str, list[tuple[Any, ...]]]:
        """Each type's values as the server spells them, and what it says of what type they are."""
        spelled = ", ".join(f"{name}::text, pg_typeof({name})::text" for name in names)
        told = bench.rows(role, f"SELECT {spelled} FROM {{table}} ORDER BY id")
        return {type_: [row[2 * n : 2 * n + 2] for row in told] for n, type_ in enumerate(types)}

    expected = stored("source")
    assert stored("backup") == expected
    for type_, spelled in expected.items():
        assert [value for value, _ in spelled].count(None) == rows - len(VALUES[type_]), type_
    bench.sql("source", "UPDATE {table} SET version = NULL")
    bench.sql("backup", f"UPDATE {{table}} SET {', '.join(f'{name} = NULL' for name in names)}")
    assert run_sync(source, backup) == (0, rows, 0, 0)
    assert stored("backup") == expected
    assert run_sync(source, backup) == (0, 0, 0, rows)


def test_rows_with_bytes_and_large_values_are_copied_exactly(
    postgresql_bench: PostgresBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where bytes are read, all values come in the server's own form; rows with large values are written in pieces."""
    monkeypatch.setattr("backup.stores.sql.rows._LARGE_ROW", 1)
    monkeypatch.setattr(PostgresqlDialect, "relay", lambda *_: None)
    in_pieces, text_of = Counter[int](), copy._text_of

    def counted(rows: Iterable[tuple[Any, ...]], cursor: Any) -> Iterator[bytes]:
        in_pieces[len([*rows])] += 1
        return text_of(rows, cursor)

    monkeypatch.setattr(copy, "_text_of", counted)
    bench = postgresql_bench
    values = {
        "bigint": ["NULL", "-9223372036854775808", "7"],
        "numeric": ["'NaN'", "'-Infinity'", "1.500"],
        "boolean": ["NULL", "true", "false"],
        "text": ["NULL", r"E'\\N'", r"E'\t\\. a\\\\b\r\nü🎉\t'"],
        "char(5)": ["'ab'", "NULL", "''"],
        "bytea": ["NULL", r"'\x00ff5c0a09'", "''"],
        "uuid": ["'6f9619ff-8b86-d011-b42d-00c04fc964ff'", "NULL", "NULL"],
        "interval": ["'1 year 2 months -3 days 04:05:06.789'", "'0'", "NULL"],
    }
    names = [f"c{n}" for n in range(len(values))]
    declared = ", ".join(f"{name} {type_}" for name, type_ in zip(names, values, strict=True))
    bench.sql("source", f"CREATE TABLE {{table}} (id integer PRIMARY KEY, version integer, {declared})")
    for n, row in enumerate(zip(*values.values(), strict=True)):
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({n}, 1, {', '.join(row)})")
    source, backup = bench.pair(batch_bytes=1)
    run_sync(source, backup)
    query = f"SELECT id, {', '.join(f'{name}::text' for name in names)} FROM {{table}} ORDER BY id"
    expected = bench.rows("source", query)
    assert bench.rows("backup", query) == expected
    [[first]] = source.read(frozenset([(0,)]), Chunk())
    assert isinstance(first["c1"], NotANumber)
    bench.sql("source", "UPDATE {table} SET version = NULL")
    bench.sql("backup", f"UPDATE {{table}} SET {', '.join(f'{name} = NULL' for name in names)}")
    run_sync(source, backup)
    assert bench.rows("backup", query) == expected
    assert in_pieces[1] >= 2 * len(expected)


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


def test_what_names_objects_of_its_database_is_kept_as_text_and_is_no_key(postgresql_bench: PostgresBench) -> None:
    bench = postgresql_bench
    bench.sql("source", f"CREATE TYPE {bench.quoted('mood')} AS ENUM ('sad', 'ok')")
    bench.sql("source", "CREATE TABLE {table} (id integer PRIMARY KEY, version integer, t regclass, ts regtype[])")
    bench.sql("source", f"INSERT INTO {{table}} VALUES (1, 1, NULL, ARRAY['{bench.quoted('mood')}'::regtype])")
    source, backup = bench.pair()
    assert run_sync(source, backup) == (1, 0, 0, 0)
    bench.sql("source", f"CREATE TABLE {bench.quoted('other')} (); UPDATE {{table}} SET t = '{bench.quoted('other')}'")
    bench.sql("source", "UPDATE {table} SET version = 2")
    assert run_sync(source, backup) == (0, 1, 0, 0)
    query = "SELECT t::text, ts::text FROM {table}"
    assert bench.rows("backup", query) == bench.rows("source", query)
    bench.sql("source", 'ALTER TABLE {table} DROP CONSTRAINT "Things_pkey", ADD PRIMARY KEY (t)')
    with pytest.raises(SchemaMismatch, match="order of its own"):
        list(bench.open("source").chunks())


def test_no_default_of_a_role_changes_what_is_read_and_written(postgresql_bench: PostgresBench) -> None:
    options = "-c array_nulls=off -c xmloption=document -c quote_all_identifiers=on"
    database = sa.make_url(postgresql_bench.connection_strings["backup"]).update_query_dict({"options": options})
    strings = {**postgresql_bench.connection_strings, "backup": database.render_as_string(hide_password=False)}
    bench = PostgresBench(strings)
    bench.sql("source", "CREATE TABLE {table} (id integer PRIMARY KEY, version integer, v text[], x xml, d date)")
    bench.sql("source", "INSERT INTO {table} VALUES (1, 1, '{}', '<a/>', '2024-01-01'), (2, 1, '{}', NULL, NULL)")
    source, backup = bench.pair()
    run_sync(source, backup)
    bench.sql("source", "UPDATE {table} SET version = 2, v = '{NULL,\"NULL\"}', x = 'no <b/> document' WHERE id = 1")
    assert run_sync(source, backup) == (0, 1, 0, 1)
    query = "SELECT id, v::text, x::text, d FROM {table} ORDER BY id"
    assert bench.rows("backup", query) == bench.rows("source", query)
    bench.close()


def test_types_of_the_users_own_are_written_and_compared_as_what_they_are(postgresql_bench: PostgresBench) -> None:
    bench = postgresql_bench
    bench.sql("backup", f"CREATE SCHEMA {bench.quote(bench.schema or '')}")
    mood, place, label = (bench.quoted(name) for name in ("100% Mood", "place", "label"))
    for role in ROLES:
        bench.sql(
            role,
            f"CREATE TYPE {mood} AS ENUM ('sad', 'ok'); CREATE DOMAIN {label} AS {mood} CHECK (VALUE <> 'sad');"
            f"CREATE DOMAIN {place} AS timestamp(3) NOT NULL; CREATE TYPE {bench.quoted('pair')} AS (a int, m {mood});"
            f"CREATE TYPE {bench.quoted('span')} AS RANGE (subtype = text);"
            f"CREATE TABLE {{table}} (at {place}, id integer, version integer, m {mood} NOT NULL, l {label},"
            f" ms {mood}[], ls {label}[], p {bench.quoted('pair')}, s {bench.quoted('span')}, PRIMARY KEY (at, id))",
        )
    bench.sql(
        "source",
        "INSERT INTO {table} SELECT '2024-01-01 00:00:00.001'::timestamp + n * interval '1 day', n, 1,"
        " (CASE WHEN n < 30 THEN 'ok' ELSE 'sad' END)::MOOD, 'ok', '{ok,NULL,sad}', '{ok}', '(1,ok)', '[a,\"b,\")'"
        " FROM generate_series(1, 40) n".replace("MOOD", mood),
    )
    rules = Rules(version=("version",), where={"m": "ok"})
    source, backup = bench.open("source", rules=rules), bench.open("backup", rules=rules, chunk_size=9, batch_size=5)
    backup.catalog.initialize(source)
    assert run_sync(source, backup) == (29, 0, 0, 0)
    bench.sql("source", "UPDATE {table} SET version = 2, p = '(2,sad)', ls = NULL WHERE id < 4")
    bench.sql("source", "DELETE FROM {table} WHERE id = 5")
    assert run_sync(source, backup) == (0, 3, 1, 25)
    assert run_sync(source, bench.open("backup", rules=rules), replace(RUN, forced=True)) == (0, 28, 0, 0)
    query = "SELECT t::text FROM {table} t WHERE m = 'ok' ORDER BY id"
    assert bench.rows("backup", query) == bench.rows("source", query)


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


def test_a_number_that_the_server_gives_by_default_is_written_back(postgresql_bench: PostgresBench) -> None:
    bench = postgresql_bench
    bench.sql("source", "CREATE TABLE {table} (id integer PRIMARY KEY, n bigint GENERATED BY DEFAULT AS IDENTITY)")
    bench.sql("source", "INSERT INTO {table} VALUES (1, 10)")
    source, backup = bench.pair()
    run_sync(source, backup)
    bench.sql("source", "UPDATE {table} SET n = 99")
    [records] = backup.read(frozenset({(1,)}), WHOLE)
    source.write([{"id": record["id"], "n": record["n"]} for record in records])
    assert bench.rows("source") == [(1, 10)]


@pytest.mark.parametrize(
    "type_",
    ["boolean", "numeric", "real", "date", "timestamp", "timestamptz(3)", "interval", "inet", "integer[]", "int4range",
     "money", "char(5)", "varchar(20)", "oid", "macaddr", "jsonb", "time", "name", '"char"', "bit varying(9)"],
)  # fmt: skip
def test_types_may_be_keys(postgresql_bench: PostgresBench, type_: str) -> None:
    bench = postgresql_bench
    values, name = VALUES[type_], '"v\t"'
    bench.sql("source", f"CREATE TABLE {{table}} ({name} {type_} PRIMARY KEY, version integer)")
    for value in values:
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({value}, 1)")
    source, backup = bench.pair(chunk_size=3, batch_size=2)
    narrow = bench.open("source", chunk_size=1)
    assert [len(stamps_in(narrow, chunk)) for chunk in narrow.chunks()] == [1] * len(values) + [0]
    keys = stamps_in(source, WHOLE).keys()
    assert {source.keys.from_text(json.dumps(source.keys.to_json(key))) for key in keys} == keys
    assert run_sync(source, backup) == (len(values), 0, 0, 0)
    assert run_sync(source, backup) == (0, 0, 0, len(values))
    query = f"SELECT {name}::text FROM {{table}} ORDER BY {name}"
    assert bench.rows("backup", query) == bench.rows("source", query)
    assert source.matching([*keys]) == keys
    if type_ != "boolean":
        filtered = bench.open("source", rules=Rules(where={"v\t": tuple(str(key[0]) for key in keys)}))
        assert stamps_in(filtered, WHOLE).keys() == keys


def test_nan_and_the_infinities_are_the_same_in_keys_and_versions_of_both_sides(
    postgresql_bench: PostgresBench,
) -> None:
    bench = postgresql_bench
    bench.sql(
        "source",
        f"CREATE DOMAIN {bench.quoted('amount')} AS numeric;"
        f"CREATE TABLE {{table}} (a integer, k {bench.quoted('amount')}, v numeric, version numeric,"
        " PRIMARY KEY (k, a));"
        "INSERT INTO {table} SELECT a, k, 'NaN', version FROM generate_series(1, 2) a,"
        " unnest('{NaN,Infinity,-Infinity,1}'::numeric[]) k, unnest('{NaN}'::numeric[]) version",
    )
    source, backup = bench.pair(chunk_size=3)
    assert run_sync(source, backup) == (8, 0, 0, 0)
    assert run_sync(source, backup, replace(RUN, forced=True)) == (0, 8, 0, 0)
    bench.sql("source", "UPDATE {table} SET version = 2, v = 3 WHERE k = 'NaN' AND a = 1")
    bench.sql("source", "DELETE FROM {table} WHERE k = 'NaN' AND a = 2")
    bench.sql("backup", "UPDATE {table} SET version = 3 WHERE k = 'Infinity'")
    assert run_sync(source, backup) == (0, 3, 1, 4)
    query = "SELECT a, k::text, v::text, version::text FROM {table} ORDER BY 1, 2"
    assert bench.rows("backup", query) == bench.rows("source", query)
    [key] = stamps_in(source, Chunk(("Infinity", 2)))
    again = pickle.loads(pickle.dumps(key))  # noqa: S301 - this test's own
    assert source.keys.from_text('["NaN", 1]') == key_from_text(key_to_text(key)) == again == key
    assert source.matching([key]) == {key}


@pytest.mark.parametrize(("role", "encoding"), [("source", "LATIN1"), ("backup", "LATIN1"), ("source", "SQL_ASCII")])
def test_texts_of_databases_in_other_encodings_are_the_same(
    postgresql_bench: PostgresBench, role: Role, encoding: str
) -> None:
    with other_database(postgresql_bench, role, f"ENCODING '{encoding}' LOCALE 'C'") as bench:
        bench.sql(
            "source", "SET client_encoding TO 'UTF8'; CREATE TABLE {table} (id text PRIMARY KEY, version int, v text)"
        )
        bench.sql("source", "INSERT INTO {table} VALUES ('é', 1, 'ü'), ('b', NULL, 'é'), ('c', 2, 'c')")
        source, backup = bench.pair()
        assert run_sync(source, backup) == (3, 0, 0, 0)
        assert run_sync(source, backup) == (0, 0, 0, 3)
        assert bench.rows("backup", "SELECT id, version, v FROM {table} ORDER BY v") == bench.rows(
            "source", "SELECT id, version, v FROM {table} ORDER BY v"
        )
        if encoding == "SQL_ASCII":
            bench.sql("source", "SET client_encoding TO 'SQL_ASCII'")
            bench.sql("source", "INSERT INTO {table} SELECT convert_from('\\x636166e9', 'SQL_ASCII'), 1, 'x'")
            bench.sql(
                "source", "UPDATE {table} SET version = 3, v = 'C' WHERE id = 'c'; DELETE FROM {table} WHERE id = 'b'"
            )
            assert [(key, unread.of_key) for key, unread in unread_in(stamps_in(source, Chunk())).items()] == [
                (("caf\udce9",), True)
            ]
            tally, recycled = Tally(tell=lambda counts: None), RecycleBin(backup, RUN.service)
            steps = Steps(lambda: None, lambda: NOW, recycled.recorder(RUN, lambda: NOW))
            sync_stores(source, backup, RUN, tally, Guard(), steps)
            # No delete is made: what seems to be gone may have the key that cannot be read.
            assert (tally.counts.updated, tally.counts.failed, tally.counts.deleted, tally.withheld) == (1, 1, 0, 1)
            assert bench.rows("backup", "SELECT id FROM {table} ORDER BY id") == [("b",), ("c",), ("é",)]
            bench.sql("source", "UPDATE {table} SET id = 'z' WHERE v = 'x'")
            assert run_sync(source, backup) == (1, 0, 1, 2)
        elif role == "backup":
            bench.sql("source", "UPDATE {table} SET v = '🎉' WHERE id = 'é'")
            with pytest.raises(StoreError, match="no equivalent"):
                backup.write(next(source.read(None, Chunk())))


def test_characters_that_the_backups_encoding_lacks_stop_neither_deletes_nor_history(
    postgresql_bench: PostgresBench,
) -> None:
    with other_database(postgresql_bench, "backup", "ENCODING 'LATIN1' LOCALE 'C'") as bench:
        bench.sql("source", "CREATE TABLE {table} (id text PRIMARY KEY, version int)")
        bench.sql("source", "INSERT INTO {table} VALUES ('a', 1), ('é', 1), ('漢', 1), ('🎉', 1)")
        _, backup = bench.pair()
        history = History(backup)
        history.create()
        bench.sql("backup", "INSERT INTO {table} (id, version) VALUES ('a', 1), ('é', 1), ('b', 1)")
        bench.sql("source", "DELETE FROM {table} WHERE id = 'a'")
        assert backup.matching([("漢",), ("é",), ("🎉",), ("a",)]) == {("é",), ("a",)}
        run = replace(RUN, place=history.place, error="No 漢", notes=("é 🎉",), failures=(("漢", "🎉"),))
        history.save(run, new=True)
        [saved] = history.latest(RUN.service, 1)
        assert (saved.error, saved.notes, saved.failures) == (r"No \u6f22", (r"\xe9 \U0001f389",), run.failures)
        assert history.change(replace(run, error="ü"), [None], [None])
        assert history.latest(RUN.service, 1)[0].error == r"\xfc"


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
    before = stamps_in(bench.open("source"), Chunk())
    database = bench.connection_strings["source"].rpartition("/")[2]
    for setting in ("TimeZone TO 'Asia/Kolkata'", "DateStyle TO 'German'", "IntervalStyle TO 'iso_8601'"):
        bench.sql("source", f"ALTER DATABASE {database} SET {setting}")
    try:
        assert stamps_in(bench.open("source"), Chunk()) == before
    finally:
        bench.sql("source", f"ALTER DATABASE {database} RESET ALL")
