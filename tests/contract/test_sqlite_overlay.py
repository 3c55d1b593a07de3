"""Rows of SQLite that a forced run writes over their copies by one statement, and tables where that is not exact."""

from __future__ import annotations

from typing import Any

import pytest

from backup.core.model import Action
from backup.stores.sql.engines.sqlite import dialect, overlay
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect
from backup.stores.sql.staged import Staged
from tests.contract.benches import Item, SqliteBench
from tests.contract.test_overwriting import filled, forced


@pytest.fixture
def overlaid(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each part, whether it was written so."""
    noted, overlay_rows = list[bool](), overlay.overlay_rows

    def overlay_and_note(*arguments: Any) -> Any:
        rows = overlay_rows(*arguments)
        noted.append(rows is not None)
        return rows

    monkeypatch.setattr(dialect, "overlay_rows", overlay_and_note)
    return noted


OLD = [Item(n, 9 if n in (4, 5) else 1, "old") for n in range(4, 41)]
NEW = [Item(n, 2, "new") for n in (*range(1, 31), *range(33, 39))]


def test_every_row_is_written_as_it_is_in_the_source_and_kept_as_it_was(
    sqlite_bench: SqliteBench, overlaid: list[bool]
) -> None:
    sides = filled(sqlite_bench, NEW, OLD)
    tally = forced(sides, 1)
    assert sqlite_bench.items("backup") == sqlite_bench.items("source")
    assert (tally.counts.inserted, tally.counts.updated, tally.counts.deleted) == (3, 33, 4)
    kept = sides.of(1)
    assert {key[0] for key, entry in kept.items() if entry.version == (9,)} == {4, 5}
    assert {key for key, action in sides.actions(1).items() if action is Action.INSERTED} == {(1,), (2,), (3,)}
    assert {*overlaid} == {True}


STAND_IN_THE_WAY = {
    "a trigger": "CREATE TRIGGER noted BEFORE INSERT ON {table} BEGIN UPDATE {table} SET Name = 'x' WHERE Id = 40; END",
    "a unique index": "CREATE UNIQUE INDEX own ON {table} (Name, Id)",
    "a part of a unique index": "CREATE UNIQUE INDEX own ON {table} (Version) WHERE Id = 4",
    "a column of its own": "ALTER TABLE {table} ADD COLUMN Own TEXT NOT NULL DEFAULT 'own'",
}


@pytest.mark.parametrize("statement", STAND_IN_THE_WAY.values(), ids=STAND_IN_THE_WAY)
def test_a_table_in_which_an_insert_may_do_something_else_is_written_by_a_temporary_table(
    sqlite_bench: SqliteBench, overlaid: list[bool], statement: str
) -> None:
    sides = filled(sqlite_bench, [Item(n, 2, "new") for n in range(1, 41)], [Item(n, 1, "old") for n in range(1, 41)])
    sqlite_bench.sql("backup", statement)
    if "Own" in statement:
        sqlite_bench.sql("backup", "UPDATE {table} SET Own = 'kept'")
    tally = forced(sides, 1)
    assert (tally.counts.updated, tally.counts.failed) == (40, 0)
    assert {*overlaid} == {False}
    columns = "Id, Version, Name"
    rows = [sqlite_bench.rows(side, f"SELECT {columns} FROM {{table}} ORDER BY 1") for side in ("source", "backup")]
    assert rows[0] == rows[1]
    if "Own" in statement:
        assert sqlite_bench.rows("backup", "SELECT DISTINCT Own FROM {table}") == [("kept",)]


def test_a_generated_column_of_the_copy_is_computed(sqlite_bench: SqliteBench, overlaid: list[bool]) -> None:
    sides = filled(sqlite_bench, [Item(n, 2, "new") for n in range(1, 41)], [Item(n, 1, "old") for n in range(1, 41)])
    sqlite_bench.sql("backup", "ALTER TABLE {table} ADD COLUMN Twice INTEGER AS (Version * 2)")
    forced(sides, 1)
    assert sqlite_bench.rows("backup", "SELECT DISTINCT Name, Twice FROM {table}") == [("new", 4)]
    assert {*overlaid} == {True}


def test_all_statements_of_a_part_read_the_source_as_of_one_moment(
    sqlite_bench: SqliteBench, monkeypatch: pytest.MonkeyPatch, overlaid: list[bool]
) -> None:
    items = [Item(n, 1, "old") for n in range(1, 21)]
    sides = filled(sqlite_bench, items, items, batch_size=20)
    sqlite_bench.sql("source", "PRAGMA journal_mode = WAL")
    put, seen = SqliteDialect.overlay, list[tuple[Any, ...]]()

    def change_meanwhile(*arguments: Any) -> Any:
        rows = put(*arguments)
        assert rows is not None
        if not seen:
            sqlite_bench.sql("source", "UPDATE {table} SET Version = 2, Name = 'new' WHERE Id < 5")
            sqlite_bench.sql("source", "DELETE FROM {table} WHERE Id = 20")
            seen.extend(arguments[1].execute(rows.table.select()).fetchall())
        return rows

    monkeypatch.setattr(SqliteDialect, "overlay", change_meanwhile)
    write, parts = Staged.write, list[Any]()

    def write_and_note(*arguments: Any) -> Any:
        parts.append(write(*arguments))
        return parts[-1]

    monkeypatch.setattr(Staged, "write", write_and_note)
    forced(sides, 1)
    assert [row[:3] for row in seen] == [(n, 1, "old") for n in range(1, 21)]
    assert [part.updated for part in parts] == [20]
    assert sqlite_bench.items("backup") == sqlite_bench.items("source")
    assert {*overlaid} == {True}
