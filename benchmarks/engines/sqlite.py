"""SQLite: a file for the source, and a folder with a file for each contender. To save is to copy the folder."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from benchmarks import drivers
from benchmarks.data import COLUMNS, Column
from benchmarks.engines.sql import SqlEngine
from benchmarks.jobs import EngineName, Place


@contextmanager
def sqlite(rows: int, folder: Path) -> Iterator[SqliteEngine]:
    """Opens the engine in a new folder, and removes the folder at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        engine = SqliteEngine(rows, folder)
        engine.build()
        yield engine
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class SqliteEngine(SqlEngine):
    """All files were just written or copied, so they are in the system's cache."""

    name: ClassVar[EngineName] = "sqlite"
    source_table = "Customers"

    def __init__(self, rows: int, folder: Path) -> None:
        super().__init__(rows, folder.resolve())
        self.source = f"sqlite:///{self.folder / 'source.db'}"

    def place(self, contender: str) -> Place:
        own = self.own_folder(contender)
        return Place(
            "sqlite", "customer", self.source, "Customers", f"sqlite:///{own / 'backup.db'}", "Customers", str(own)
        )

    def copy_table(self, table: str, of: str) -> str:
        return f"CREATE TABLE {table} AS SELECT * FROM {of}"

    def clear(self, contender: str) -> None:
        shutil.rmtree(self.own_folder(contender), ignore_errors=True)
        self.own_folder(contender).mkdir(parents=True)

    def difference(self, place: Place, *, exact: bool) -> str | None:
        copies = f"copy.{place.backup_table}"
        with closing(sqlite3.connect(drivers.sqlite_file(self.source))) as connection:
            connection.execute("ATTACH ? AS copy", (str(drivers.sqlite_file(place.backup)),))
            source = _value_of(connection, "SELECT COUNT(*) FROM main.Customers")
            copied = _value_of(connection, f"SELECT COUNT(DISTINCT Id) FROM {copies}")
            rows = _value_of(connection, f"SELECT COUNT(*) FROM {copies}")
            if source != rows or source != copied:
                return f"{rows} rows, {copied} keys, of {source}"
            # The copy may have no index on its key, so this looks up the source's keys.
            equal = " AND ".join(_equal(column, exact) for column in COLUMNS)
            same = _value_of(
                connection,
                f"SELECT COUNT(*) FROM {copies} AS b CROSS JOIN main.Customers AS a ON a.Id = b.Id WHERE {equal}",
            )
            return None if same == source else f"{source - same} of {source} rows differ"

    def _make_schema(self, connection: Any) -> None:
        """SQLite has no schemas."""


def _value_of(connection: sqlite3.Connection, statement: str) -> int:
    [[value]] = connection.execute(statement)
    return int(value)


def _equal(column: Column, exact: bool) -> str:
    a, b = f"a.{column.name}", f"b.{column.name}"
    if exact or column.kind not in ("flag", "time", "decimal"):
        return f"{a} IS {b}"
    if column.kind == "flag":
        return f"{a} IS CASE {b} WHEN 'true' THEN 1 WHEN 'false' THEN 0 ELSE {b} END"
    if column.kind == "decimal":
        return f"{a} IS CAST({b} AS REAL)"
    # To the millisecond, because SQLite's own functions read no more of a time.
    return f"strftime('%Y-%m-%d %H:%M:%f', {a}) IS strftime('%Y-%m-%d %H:%M:%f', {b})"
