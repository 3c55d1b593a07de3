"""PostgreSQL and servers with T-SQL: a schema for the source, one for each contender, one for saved copies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from benchmarks import drivers
from benchmarks.data import COLUMNS, Column
from benchmarks.engines.base import EngineMissing
from benchmarks.engines.sql import SqlEngine
from benchmarks.jobs import Place
from benchmarks.proxy import Meter, counted

_SAVED = "bench_saved"
_HASH = 2**64 - 1
_LOGIN_ITERATIONS = 1_000
"""The fewest that sling's driver takes."""


@contextmanager
def server(name: Literal["postgresql", "sqlserver"], rows: int, folder: Path) -> Iterator[ServerEngine]:
    """Starts a PostgreSQL, or opens the two databases that the environment names and leaves them as they were.

    Raises EngineMissing when PostgreSQL is not installed or a variable is missing.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with _postgresql() if name == "postgresql" else _sqlserver() as (source, backup):
        engine = ServerEngine(name, rows, folder, source, backup)
        try:
            engine.build()
            yield engine
        finally:
            engine.leave()
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _postgresql() -> Iterator[tuple[str, str]]:
    from tests.emulators.servers import ServerMissing, postgres

    try:
        with postgres(_LOGIN_ITERATIONS) as url:
            for side in ("source", "backup"):
                _create_database(url, side)
            yield _named(url, "source"), _named(url, "backup")
    except ServerMissing as missing:
        raise EngineMissing(str(missing)) from None


@contextmanager
def _sqlserver() -> Iterator[tuple[str, str]]:
    source, backup = (os.environ.get(f"TEST_SQLSERVER_{side}") for side in ("SOURCE", "BACKUP"))
    if not (source and backup):
        raise EngineMissing(
            "set TEST_SQLSERVER_SOURCE and TEST_SQLSERVER_BACKUP to connection strings of two databases"
        )
    yield source, backup


def _named(url: str, database: str) -> str:
    return f"{url.rpartition('/')[0]}/{database}"


def _create_database(url: str, name: str) -> None:
    with closing(drivers.connect("postgresql", url)) as connection:
        connection.autocommit = True
        connection.execute(f"CREATE DATABASE {name}")


class ServerEngine(SqlEngine):
    """Compares the two sides by the number of their rows and the sum of the rows' hashes."""

    source_table = "bench.Customers"

    def __init__(
        self, name: Literal["postgresql", "sqlserver"], rows: int, folder: Path, source: str, backup: str
    ) -> None:
        super().__init__(rows, folder)
        self.name: Literal["postgresql", "sqlserver"] = name  # type: ignore[misc]
        self.source, self.backup = source, backup

    def place(self, contender: str) -> Place:
        return Place(
            engine=self.name,
            service="customer",
            source=self.source,
            source_table=self.source_table,
            backup=self.backup,
            backup_table=f"{_schema(contender)}.Customers",
            folder=str(self.own_folder(contender)),
        )

    def clear(self, contender: str) -> None:
        shutil.rmtree(self.own_folder(contender), ignore_errors=True)
        self.own_folder(contender).mkdir(parents=True)
        with closing(self.connect(self.backup)) as connection:
            self._drop(connection, self._tables(connection, contender))
            self._drop_empty(connection, contender)

    def save(self, contender: str) -> None:
        super().save(contender)
        with closing(self.connect(self.backup)) as connection:
            drivers.create_schema(self.name, connection, _SAVED)
            self._drop(connection, self._saved(connection, contender))
            for table in self._tables(connection, contender):
                statement = self.copy_table(self._quoted(_saved_name(table)), self._quoted(table))
                drivers.run(connection, statement)
            tables = [*self._tables(connection, contender), *self._saved(connection, contender)]
        for table in tables:
            self.settle(self.backup, table)  # else the server does it by itself while others have their turns

    def restore(self, contender: str) -> None:
        super().restore(contender)
        with closing(self.connect(self.backup)) as connection:
            saved = {
                name.lower() for name in self._saved(connection, contender)
            }  # Babelfish changes the case of a name after INTO
            tables = self._tables(connection, contender)
            self._drop(connection, [table for table in tables if _saved_name(table).lower() not in saved])
            self._drop_empty(connection, contender)
            saved_tables = [table for table in tables if _saved_name(table).lower() in saved]
            for table in saved_tables:
                drivers.run(connection, f"TRUNCATE TABLE {self._quoted(table)}")
                drivers.run(
                    connection, f"INSERT INTO {self._quoted(table)} SELECT * FROM {self._quoted(_saved_name(table))}"
                )
        for table in saved_tables:
            self.settle(self.backup, table)

    def settle(self, side: str, table: str) -> None:
        if self.name == "postgresql":
            with closing(self.connect(side)) as connection:
                connection.autocommit = True
                connection.execute(f"VACUUM ANALYZE {self._quoted(table)}")

    def finish_writes(self) -> None:
        if self.name == "postgresql":
            with closing(self.connect(self.source)) as connection:
                connection.autocommit = True
                connection.execute("CHECKPOINT")

    def difference(self, place: Place, *, exact: bool) -> str | None:  # noqa: ARG002 - types do not count here
        source = self._digest(self.source, self.source_table)
        backup = self._digest(self.backup, place.backup_table)
        if source == backup:
            return None
        if source[0] != backup[0]:
            return f"{backup[0]} rows of {source[0]}"
        return "rows differ"

    @contextmanager
    def counted(self, place: Place) -> Iterator[tuple[Place, Meter | None]]:
        with counted(self.name, *drivers.address(place.source)) as (port, meter):
            yield replace(place, source=drivers.at_port(place.source, port)), meter

    def leave(self) -> None:
        """Drops every table and schema of this benchmark."""
        for side in (self.backup, self.source):
            with closing(self.connect(side)) as connection:
                self._drop(connection, [name for name in self._every_table(connection) if name.startswith("bench")])
                for schema in drivers.schemas(self.name, connection):
                    if schema.startswith("bench"):
                        drivers.run(connection, f"DROP SCHEMA {self._quoted(schema)}")

    def _make_schema(self, connection: Any) -> None:
        drivers.create_schema(self.name, connection, "bench")

    def _quoted(self, name: str) -> str:
        return drivers.quoted(self.name, name)

    def _every_table(self, connection: Any) -> list[str]:
        rows = drivers.query(
            connection,
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'",
        )
        return [f"{schema}.{table}" for schema, table in rows]

    def _tables(self, connection: Any, contender: str) -> list[str]:
        prefixes = (f"{_schema(contender)}.", f"{_schema(contender)}_staging.")  # dlt makes the second
        return sorted(name for name in self._every_table(connection) if name.startswith(prefixes))

    def _saved(self, connection: Any, contender: str) -> list[str]:
        prefixes = tuple(_saved_name(start) for start in (f"{_schema(contender)}.", f"{_schema(contender)}_staging."))
        return [name for name in self._every_table(connection) if name.startswith(prefixes)]

    def _drop(self, connection: Any, tables: list[str]) -> None:
        for table in tables:
            drivers.run(connection, f"DROP TABLE {self._quoted(table)}")

    def _drop_empty(self, connection: Any, contender: str) -> None:
        """Drops the contender's schemas without tables: dlt believes that a schema that exists is complete."""
        filled = {table.partition(".")[0] for table in self._tables(connection, contender)}
        for schema in (_schema(contender), f"{_schema(contender)}_staging"):
            if schema in drivers.schemas(self.name, connection) and schema not in filled:
                drivers.run(connection, f"DROP SCHEMA {self._quoted(schema)}")

    def _digest(self, side: str, table: str) -> tuple[int, int]:
        values = ", ".join(self._comparable(column) for column in COLUMNS)
        with closing(self.connect(side)) as connection:
            if self.name == "postgresql":
                statement = f"SELECT count(*), sum(hash_record_extended(ROW({values}), 0)::numeric)"
                [(rows, total)] = drivers.query(connection, f"{statement} FROM {self._quoted(table)}")
                return int(rows), int(total or 0)
            rows = total = 0
            for batch in drivers.read(self.name, connection, f"SELECT {values} FROM {self._quoted(table)}"):
                rows += len(batch)
                total = (total + sum(hash(tuple(row)) for row in batch)) & _HASH
            return rows, total

    def _comparable(self, column: Column) -> str:
        """Returns the column as SQL that has the same type on both sides, whichever type a contender chose."""
        text = "text" if self.name == "postgresql" else "nvarchar(400)"
        kind = {"text": text, "key": "bigint", "version": "bigint"}.get(column.kind, column.declared(self.name))
        return f"CAST({self._quoted(column.name)} AS {kind})"


def _schema(contender: str) -> str:
    return f"bench_{contender}"


def _saved_name(table: str) -> str:
    schema, _, name = table.partition(".")
    return f"{_SAVED}.{schema}__{name}"
