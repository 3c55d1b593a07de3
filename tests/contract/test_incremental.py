"""What a table says was written lately: by times of every form, by numbers, and never by what cannot be ordered."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from backup.stores import Rules
from backup.stores.sql import incremental
from backup.stores.sql.incremental import SqlIncremental
from tests.contract.benches import SqlBench, SqlServerBench

RULES = Rules(version=("Version",), modified_by="M")
DAY = "2026-03-01"
TIMES = [f"'{DAY} 10:0{minute}:00.25'" for minute in range(5)]
WITH_ZONES = [time.replace(".25'", ".25+00:00'") for time in TIMES]
DAYS = [f"'2026-03-0{day}'" for day in range(1, 6)]
NUMBERS = ["-3", "0", "7", "8", "1795000000000"]
COLUMNS = {
    "sqlite": {
        "TIMESTAMP": TIMES,
        "TEXT": [time.replace(" ", "T").replace(".25'", "Z'") for time in TIMES],
        "DATE": DAYS,
        "INTEGER": NUMBERS,
        "": NUMBERS,
    },
    "postgresql": {
        "timestamp(3)": TIMES,
        "timestamptz": WITH_ZONES,
        "varchar(40)": TIMES,
        "date": DAYS,
        "bigint": NUMBERS,
    },
    "mssql": {
        "datetime": TIMES,
        "datetime2(7)": TIMES,
        "datetimeoffset": WITH_ZONES,
        "varchar(40)": TIMES,
        "date": DAYS,
        "bigint": NUMBERS,
    },
}

TIME = {"sqlite": "TIMESTAMP", "postgresql": "timestamp", "mssql": "datetime2(7)"}


def filled(bench: SqlBench, type_: str, *values: str) -> SqlIncremental:
    """The source's, with a table of rows with these values and of one with none. The keys count from 1."""
    if bench.opened:
        bench.drop("source")
    bench.sql("source", f"CREATE TABLE {{table}} (Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, M {type_})")
    bench.sql("source", "CREATE INDEX lately ON {table} (M)")
    for n, value in enumerate((*values, "NULL"), 1):
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({n}, 1, {value})")
    modified_by = bench.open("source", rules=RULES, chunk_size=100).incremental
    assert isinstance(modified_by, SqlIncremental)
    return modified_by


def keys(modified_by: SqlIncremental, since: str | None, overlap_seconds: float = 0) -> list[int]:
    assert since is not None
    return sorted(row[0] for rows in modified_by.recent(since, overlap_seconds) for row in rows)


def test_a_column_of_each_type_says_what_came_after_a_watermark_and_a_little_before(sql_bench: SqlBench) -> None:
    for type_, values in COLUMNS[sql_bench.kind].items():
        marks = [filled(sql_bench, type_, *values[:n]).watermark() for n in range(1, 6)]
        modified_by = filled(sql_bench, type_, *values)
        assert modified_by.watermark() == marks[-1]
        assert [keys(modified_by, mark) for mark in marks] == [[*range(n, 6)] for n in range(1, 6)], type_
        overlap = {DAYS[0]: 86_400.0, NUMBERS[0]: 60.0}.get(values[0], 60.0)
        before = 4 if values is NUMBERS else 3  # numbers have no seconds
        assert keys(modified_by, marks[3], overlap) == [*range(before, 6)], type_


def test_of_no_rows_there_is_no_watermark_and_of_another_column_nothing_new(sql_bench: SqlBench) -> None:
    assert filled(sql_bench, TIME[sql_bench.kind]).watermark() is None
    modified_by = filled(sql_bench, TIME[sql_bench.kind], *TIMES)
    assert modified_by.obstacle is None
    others = ["Other 2026-03-01 10:00:00", "m x", "m 2026-13-13 00:00:00", "m 0000000000000abc", ""]
    for other in [*others, *(["m 12"] if sql_bench.kind != "sqlite" else [])]:  # SQLite's columns may hold both
        assert keys(modified_by, other.replace("m", (modified_by.watermark() or "").partition(" ")[0])) == []


def test_two_columns_whose_long_names_begin_alike_have_watermarks_of_their_own(sql_bench: SqlBench) -> None:
    names = [f"{'m' * 60}{end}" for end in "ab"]
    bench = sql_bench
    bench.sql(
        "source", f"CREATE TABLE {{table}} (Id INTEGER PRIMARY KEY, Version INTEGER, {names[0]} INT, {names[1]} INT)"
    )
    bench.sql("source", "INSERT INTO {table} VALUES (1, 1, 5, 5)")
    marks = []
    for name in names:
        bench.sql("source", f"CREATE INDEX {name[-3:]} ON {{table}} ({name})")
        modified_by = bench.open("source", rules=replace(RULES, modified_by=name)).incremental
        assert modified_by is not None
        marks.append(modified_by.watermark())
        assert keys(modified_by, marks[-1]) == [1]  # type: ignore[arg-type] # of a table
    assert marks[0] != marks[1]
    assert all(mark is not None and len(mark) <= 62 for mark in marks)


def test_what_was_written_is_read_a_page_at_a_time_up_to_a_chunk_and_never_for_ever(
    sql_bench: SqlBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incremental, "_ROWS_AT_ONCE", 4)
    modified_by = filled(sql_bench, "integer", *map(str, range(1, 31)))
    name = (modified_by.watermark() or "").partition(" ")[0]
    assert keys(modified_by, f"{name} 20") == sorted([*range(20, 31), 21, 24, 27])  # the ends of pages are read twice
    modified_by._limits = sql_bench.open("source", chunk_size=6)._limits  # type: ignore[attr-defined] # of this store
    assert set(keys(modified_by, f"{name} 1")) == {30, 29, 28, 27, 26}
    modified_by = filled(sql_bench, "integer", *["5"] * 30)
    # More have this value than a page has room for: the chunks find them.
    assert len(keys(modified_by, f"{name} 5")) == 4


def test_values_in_the_future_are_named_and_do_not_become_the_watermark(sql_bench: SqlBench) -> None:
    ahead = {TIME[sql_bench.kind]: "'9999-12-31 00:00:00'", "date": "'9999-12-31'"}
    if sql_bench.kind == "postgresql":
        ahead |= {"timestamptz": "'9999-12-31 00:00:00+00'", "timestamp(3)": "'infinity'"}
        ahead["timestamptz(0)"] = "'20261-03-01'"
    for type_, value in ahead.items():
        modified_by = filled(sql_bench, type_, DAYS[0], DAYS[1], value)
        mark = modified_by.watermark()
        assert (mark or "").partition(" ")[2].startswith("2026-03-02"), type_
        assert modified_by.obstacle is None
        assert keys(modified_by, mark) == [2, 3]
        assert filled(sql_bench, type_, value).watermark() is None


def test_what_has_no_order_of_writes_is_of_no_use(sql_bench: SqlBench) -> None:
    for type_, value in {"double precision": "1.5", "varchar(20)": "'later'"}.items():
        modified_by = filled(sql_bench, type_, value)
        assert modified_by.watermark() is None
        assert "it has neither times nor whole numbers" in (modified_by.obstacle or "")


def test_a_view_and_an_index_that_is_not_of_all_rows_in_order_are_of_no_use(sql_bench: SqlBench) -> None:
    modified_by = filled(sql_bench, "integer", "1")
    sql_bench.sql("source", f"CREATE VIEW {sql_bench.quoted('seen')} AS SELECT * FROM {sql_bench.quoted()}")
    view_name = f"{sql_bench.schema}.seen" if sql_bench.schema else "seen"
    view = sql_bench.open("source", table=view_name, rules=Rules(key=("Id",), modified_by="M"))
    assert view.incremental is not None
    assert view.incremental.watermark() is None
    assert "no index of the source begins with it" in (view.incremental.obstacle or "")
    others = {"sqlite": ["(abs(M))"], "postgresql": ["(abs(M))", "USING hash (M)", "USING brin (M)"]}
    if not (isinstance(sql_bench, SqlServerBench) and sql_bench.stands_in):  # Babelfish's catalogue lacks the filter
        others[sql_bench.kind] = [*others.get(sql_bench.kind, []), "(M) WHERE Id > 0"]
    for index in ["(Version, M)", *others.get(sql_bench.kind, [])]:
        on = " ON {table}" if sql_bench.kind == "mssql" else ""
        sql_bench.sql("source", f"DROP INDEX {'lately' if on else sql_bench.quoted('lately')}{on}")
        sql_bench.sql("source", f"CREATE INDEX lately ON {{table}} {index}")
        modified_by = sql_bench.open("source", rules=RULES).incremental  # type: ignore[assignment] # a table's
        assert modified_by.watermark() is None, index
        assert modified_by.obstacle is not None


def test_the_latest_time_that_is_not_in_the_future_has_the_form_of_the_column() -> None:
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    cases: list[tuple[Any, Any]] = [
        ("2026-03-01 12:00:00", None),
        ("2026-03-02 02:00:00", None),  # nobody knows its zone
        ("2026-03-02 02:00:01", "2026-03-02 02:00:00"),
        ("2026-03-02T02:00:01.5", "2026-03-02T02:00:00"),
        ("2026-03-01 12:00:00+00", None),
        ("2026-03-01 14:00:00+02:00", None),
        ("2026-03-01 12:00:01+00", "2026-03-01 12:00:00+00:00"),
        ("2026-03-01 12:00:01.1234567 +00:00", "2026-03-01 12:00:00 +00:00"),
        ("2026-03-01T12:00:01Z", "2026-03-01T12:00:00Z"),
        ("2026-03-02", None),
        ("2026-03-03", "2026-03-02"),
        ("infinity", "2026-03-02 02:00:00"),
        ("12026-03-01 12:00:00.5+00", "2026-03-02 02:00:00"),
        ("20261-03-01", "2026-03-02 02:00:00"),
        ("2026-02-31 00:00:00", "2026-03-02 02:00:00"),
        (date(2026, 3, 2), None),
        (date(2026, 3, 3), date(2026, 3, 2)),
        (17, None),
        (None, None),
    ]
    for newest, latest in cases:
        assert incremental._latest_for(newest, now) == latest, newest


def test_a_time_before_keeps_its_form() -> None:
    cases = {
        ("2026-03-01 00:00:00.123", 0.0): "2026-03-01 00:00:00.123",
        ("2026-03-01 00:00:00.123", 0.5): "2026-02-28 23:59:59",
        ("2026-03-01T00:05:00.1234567 +02:00", 300): "2026-03-01T00:00:00 +02:00",
        ("2026-03-01T00:05:00Z", 1): "2026-03-01T00:04:59Z",
        ("2026-03-01", 300): "2026-02-28",
    }
    for (text, seconds), earlier in cases.items():
        assert incremental._earlier(text, seconds) == earlier
    for text in ("0001-01-01", "later"):
        with pytest.raises((ValueError, OverflowError)):
            incremental._earlier(text, 300)


def test_a_rowversion_names_all_rows_above_what_was_open_and_needs_no_overlap(mssql_bench: SqlServerBench) -> None:
    if mssql_bench.stands_in:
        pytest.skip("Babelfish has no MIN_ACTIVE_ROWVERSION")
    mssql_bench.sql(
        "source", "CREATE TABLE {table} (Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, M rowversion NOT NULL)"
    )
    mssql_bench.sql("source", "CREATE INDEX lately ON {table} (M)")
    mssql_bench.sql("source", "INSERT INTO {table} (Id, Version) VALUES (1, 1), (2, 1)")
    modified_by = mssql_bench.open("source", rules=RULES).incremental
    assert isinstance(modified_by, SqlIncremental)
    mark = modified_by.watermark()
    assert modified_by.obstacle is None
    assert keys(modified_by, mark, 300) == []
    mssql_bench.sql("source", "UPDATE {table} SET Version = 2 WHERE Id = 1")
    mssql_bench.sql("source", "INSERT INTO {table} (Id, Version) VALUES (3, 1)")
    assert keys(modified_by, mark, 300) == [1, 3]
    assert keys(modified_by, modified_by.watermark()) == []


@pytest.mark.parametrize("index", [True, False])
def test_a_rowversion_that_is_the_version_is_asked_without_being_told_where_an_index_begins_with_it(
    mssql_bench: SqlServerBench, index: bool
) -> None:
    mssql_bench.sql("source", "CREATE TABLE {table} (Id INTEGER NOT NULL PRIMARY KEY, M rowversion NOT NULL)")
    mssql_bench.sql("source", f"CREATE INDEX lately ON {{table}} {'(M)' if index else '(Id, M)'}")
    store = mssql_bench.open("source", rules=Rules(version=("M",)))
    assert (store.incremental is not None) is index
    if store.incremental is not None:
        mark = store.incremental.watermark()
        assert (mark is None) is mssql_bench.stands_in  # Babelfish has no MIN_ACTIVE_ROWVERSION
        assert store.incremental.obstacle is None
