"""Fingerprints of SQLite's tables whose key is the row's number: of the versions alone, where numbers have no gaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from backup.core.model import WHOLE, Chunk, Fingerprint
from backup.stores import Rules
from backup.stores.sql.catalog import catalog_of
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.sqlite import fingerprint, numbered
from backup.stores.sql.engines.sqlite.types import type_of
from backup.stores.sql.store import SqlStore
from tests.contract.benches import RUN, SqliteBench
from tests.contract.test_fingerprints import insert, is_told, made, table
from tests.contract.test_store import run_sync

COLUMNS = "K INTEGER PRIMARY KEY, A BIGINT NOT NULL, B TEXT"
ROWS = [(n, n % 3, "x") for n in range(-4, 21)]


@pytest.fixture
def bench(sqlite_bench: SqliteBench) -> SqliteBench:
    """A store on SQLite whose version column is called A."""
    sqlite_bench.rules = Rules(version=("A",))
    return sqlite_bench


def sides(bench: SqliteBench, columns: str = COLUMNS, rows: Sequence[Any] = ROWS) -> tuple[SqlStore, SqlStore]:
    """Source and backup with these rows, as a run knows them."""
    source, backup = table(bench, columns, rows)
    backup.catalog.match(source)
    assert dialect_and_stamps(source)[1].is_numbered
    return source, backup


def dialect_and_stamps(store: SqlStore) -> tuple[Dialect, StampColumns]:
    """The store's dialect, and what its stamps consist of."""
    catalog = catalog_of(store)
    return catalog.access.dialect, catalog.shape.stamps(catalog.access.dialect)


@pytest.mark.parametrize("rows", [ROWS, [(n * n, n, "x") for n in range(9)]], ids=["no gaps", "gaps"])
@pytest.mark.parametrize("keys_at_once", [7, 1_000])
def test_every_change_is_told_in_one_part_and_in_several(
    bench: SqliteBench, monkeypatch: pytest.MonkeyPatch, rows: Sequence[Any], keys_at_once: int
) -> None:
    monkeypatch.setattr(numbered, "KEYS_AT_ONCE", keys_at_once)
    monkeypatch.setattr(numbered, "_ROWS_OF_A_PART", 0)
    source, backup = sides(bench, rows=rows)
    assert made(source).records == len(rows)
    assert not is_told(source, backup)
    far = 20 * keys_at_once  # so many parts
    changes = [
        "UPDATE {table} SET A = A + 1 WHERE K = 9",
        "UPDATE {table} SET A = CASE K WHEN 1 THEN 0 ELSE 1 END WHERE K IN (0, 1)",  # they exchange their versions
        f"UPDATE {{table}} SET K = {far} WHERE K = 0",
        "DELETE FROM {table} WHERE K = 16",
        "DELETE FROM {table} WHERE K = (SELECT min(K) FROM {table})",
        "INSERT INTO {table} (K, A) VALUES (-100, 1)",
        f"UPDATE {{table}} SET K = K + {10 * far}",
        "DELETE FROM {table}",
    ]
    for change in changes:
        bench.sql("source", change)
        assert is_told(source, backup), change
        run_sync(source, backup, replace(RUN, allow_mass_delete=True))
        assert not is_told(source, backup), change


def test_an_index_that_holds_all_that_is_listed_does_not_give_its_order(bench: SqliteBench) -> None:
    """The versions of an index are in its order, which is the same before and after two rows exchange theirs."""
    source, backup = sides(bench)
    for role in ("source", "backup"):
        bench.sql(role, "CREATE INDEX ByVersion ON {table} (A)")
        bench.sql(role, "ANALYZE")
    assert not is_told(source, backup)
    bench.sql("source", "UPDATE {table} SET A = CASE K WHEN 1 THEN 0 ELSE 1 END WHERE K IN (0, 1)")
    assert is_told(source, backup)
    assert made(source, Chunk((-1,), (1,))) != made(backup, Chunk((-1,), (1,)))
    assert small(source) != small(backup)


@pytest.mark.parametrize("value", ["'1'", "'1,2'", "'[1'", "x'31'", "1.5", "9e999", "9.3e18", "''", "-2", "NULL"])
@pytest.mark.parametrize("rows", [[(1, 1, "x"), (2, 7, "x"), (3, 1, "x")], [(1, 1, "x"), (2, 7, "x"), (9, 1, "x")]])
def test_a_version_may_become_any_value_and_is_told(bench: SqliteBench, rows: Sequence[Any], value: str) -> None:
    source, backup = sides(bench, COLUMNS.replace(" NOT NULL", ""), rows)
    bench.sql("source", f"UPDATE {{table}} SET A = {value} WHERE K = 2")
    assert is_told(source, backup)
    run_sync(source, backup)
    assert not is_told(source, backup)
    bench.sql("source", "UPDATE {table} SET B = 'y' WHERE K = 2")
    assert is_told(source, backup) is (value == "NULL")  # a row without a version counts with its content


def test_both_sides_list_alike_where_one_key_is_no_row_number(bench: SqliteBench) -> None:
    """A unique column that is called the key is the row's number in the copy, and may be none in the source."""
    bench.rules = Rules(version=("A",), key=("K",))
    source, backup = table(bench, "K INTEGER NOT NULL UNIQUE, A BIGINT NOT NULL, B TEXT", ROWS)
    backup.catalog.match(source)
    assert not dialect_and_stamps(backup)[1].is_numbered
    assert not is_told(source, backup)


def test_numbers_at_both_ends_of_64_bits_have_a_fingerprint(bench: SqliteBench) -> None:
    rows = [(-(2**63), 1, "x"), (-(2**63) + 1, 2, "x"), (2**63 - 2, 3, "x"), (2**63 - 1, 2**63 - 1, "x")]
    source, backup = sides(bench, rows=rows)
    assert made(source).records == 4
    assert not is_told(source, backup)
    bench.sql("source", "UPDATE {table} SET A = -A WHERE K > 0")
    assert is_told(source, backup)


def test_few_rows_in_a_wide_range_are_not_asked_for_part_by_part(
    bench: SqliteBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbered, "KEYS_AT_ONCE", 1_000)
    source, backup = sides(bench, rows=[(n * 1_000_000, n, "x") for n in range(50)])
    assert not is_told(source, backup)
    dialect, stamps = dialect_and_stamps(source)
    assert not dialect.reads_in_parts(stamps)


def test_a_part_is_found_by_one_lower_bound(bench: SqliteBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two, SQLite would seek by one and read all rows from there to the other."""
    source, _ = sides(bench)
    expected = made(source, Chunk((-2,), None))
    monkeypatch.setattr(numbered, "KEYS_AT_ONCE", 7)
    monkeypatch.setattr(numbered, "_ROWS_OF_A_PART", 0)
    statements: list[str] = []
    with counted(statements):
        parts = made(source, Chunk((-2,), None))
    assert (parts.records, expected.records) == (22, 22)
    of_parts = [statement.rpartition("NOT INDEXED")[2] for statement in statements if "json" in statement]
    assert [condition.count(">") for condition in of_parts] == [1, 1, 1, 1]


@contextmanager
def counted(statements: list[str]) -> Iterator[None]:
    """Notes what is sent to SQLite meanwhile."""

    def sent(_cx: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", sent)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", sent)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO {table} (K, A) VALUES (-1000, 1)",
        "INSERT INTO {table} (K, A) VALUES (21, 1)",
        "INSERT INTO {table} (K, A) VALUES (9223372036854775807, 1)",
        "DELETE FROM {table} WHERE K = -4",
        "DELETE FROM {table} WHERE K = 20",
        "DELETE FROM {table} WHERE K = 7",
        "DELETE FROM {table}",
        "UPDATE {table} SET A = 'a' WHERE K = 7",
        "UPDATE {table} SET A = A + 1 WHERE K = 20",
        "UPDATE {table} SET K = K - 1",
    ],
)
def test_what_is_remembered_of_a_small_table_has_no_part_in_its_fingerprint(bench: SqliteBench, statement: str) -> None:
    source, backup = sides(bench)
    before = {small(store) for store in (source, backup) for _ in range(3)}
    bench.sql("source", statement)
    assert small(source) not in before
    bench.sql("backup", statement)
    after = {small(source), small(backup)}
    for store in (source, backup):
        dialect_and_stamps(store)[1].key[0].table.info.clear()
    assert {*after, small(source), small(backup)} == after
    assert len(after) == 1


def small(store: SqlStore) -> Fingerprint | None:
    """The fingerprint of a table that has no more rows than a chunk may have."""
    relational = store.relational
    assert relational is not None
    return relational.small_fingerprint()


def test_rows_that_are_added_stay_in_their_order(bench: SqliteBench) -> None:
    source, backup = sides(bench)
    before = made(source)
    insert(bench, "source", [(21, 5, "x")])
    after = made(source)
    assert after.records == before.records + 1
    assert run_sync(source, backup)[0] == 1
    assert made(backup) == after
    assert made(source, WHOLE) == after


MANY: dict[str, list[tuple[int, Any]]] = {
    "dense": [(n, n % 3) for n in range(1, 20)],
    "later": [(n, n % 3) for n in range(7, 26)],
    "gaps": [(n, n % 3) for n in range(1, 40, 2)],
    "other order": [(n, (n + 1) % 3) for n in range(1, 20)],
    "empty": [],
    "one": [(-5, 7)],
    "texts": [(1, "1"), (2, "a")],
    "wide": [(1, 1), (1_000, 1)],
    "many": [(n, 1) for n in range(1, 52)],
}


def test_tables_asked_together_have_the_fingerprints_that_each_has_alone(bench: SqliteBench) -> None:
    dialect, _ = dialect_and_stamps(table(bench, COLUMNS, ROWS)[0])
    tables = []
    for name, rows in MANY.items():
        columns = sa.Column("K", type_of("INTEGER")), sa.Column("V", type_of("BIGINT"))
        made_table = sa.Table(name, sa.MetaData(), *columns)
        tables.append(StampColumns([made_table.c.K], [made_table.c.V], None, True))
        bench.sql("source", f'CREATE TABLE "{name}" (K INTEGER PRIMARY KEY, V BIGINT)')
        for row in rows:
            bench.sql("source", f'INSERT INTO "{name}" VALUES ({row[0]}, {row[1]!r})')

    def together() -> list[Fingerprint | None]:
        with dialect.asking() as cx:
            return list(dialect.small_fingerprints(cx, tables, [50] * len(tables)))

    with dialect.asking() as cx:
        alone = [dialect.fingerprints(cx, stamps, [], at_most=50) for stamps in tables]
    for stamps in tables:
        stamps.key[0].table.info.clear()
    together()  # learns where each begins, and then which has gaps
    assert [made is None for made in together()] == [name in ("texts", "wide", "many") for name in MANY]
    for name, made_together, by_bucket in zip(MANY, together(), alone, strict=True):
        assert made_together in (None, by_bucket and by_bucket[None]), name
    assert len({*together()}) == len(MANY) - 2


@pytest.mark.parametrize("other", [(), (1, None, "x")])
def test_a_hash_of_large_values_is_the_same_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch, other: tuple[Any, ...]
) -> None:
    texts = ["plain", "it's", 'a "b"', 'it\'s "both"', "\\'\"\n\x00é\udc80\U0001f600", "'\"", "\"'" * 9]
    for value in [*texts, *(text.encode("utf-8", "surrogatepass") for text in texts)]:
        whole = fingerprint.exact_hash(value, *other)
        for large in (1, 2, 3):
            with monkeypatch.context() as patched:
                patched.setattr(fingerprint, "_LARGE", large)
                assert fingerprint.exact_hash(value, *other) == whole, (value, large)


def test_a_table_that_was_made_anew_with_a_key_of_texts_is_not_asked_by_numbers_and_leaves_no_trace(
    bench: SqliteBench,
) -> None:
    source, _ = sides(bench)
    before = made(source)
    for columns, rows in ((COLUMNS.replace("INTEGER", "TEXT"), [("a", 1, "x"), ("b", 2, "x")]), (COLUMNS, ROWS)):
        bench.sql("source", "DROP TABLE {table}")
        bench.sql("source", f"CREATE TABLE {{table}} ({columns})")
        bench.sql("source", "INSERT INTO {table} VALUES (?, ?, ?)", rows)
        assert [small(source) == before, made(source) == before] == [rows is ROWS] * 2
