"""The plain drivers of SQL engines, used the usual way: connect, read in batches, insert many rows.

The plain algorithm, the floor, and the engines that build and check the data use this module; the product does not.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.data import COLUMNS, NAMES
from benchmarks.jobs import EngineName

_READ_AT_ONCE = 10_000
_INSERT_AT_ONCE = 10_000

Row = tuple[Any, ...]


def preload(engine: EngineName) -> None:
    """Imports the driver, so that no later step pays for it."""
    if engine == "postgresql":
        import psycopg  # noqa: F401
    elif engine == "sqlserver":
        import sqlalchemy.dialects.mssql.pyodbc  # noqa: F401


def connect(engine: EngineName, text: str) -> Any:
    """Opens a connection. The caller commits."""
    if engine == "sqlite":
        return sqlite3.connect(sqlite_file(text), check_same_thread=False)
    if engine == "postgresql":
        import psycopg

        return psycopg.connect(text.replace("+psycopg", ""))
    # Only the product knows every kind of connection string, and where to find the ODBC driver.
    from backup.stores.sql.engines import open_dialect

    return open_dialect(text, "BENCH").engine.raw_connection()


def sqlite_file(text: str) -> Path:
    """Returns the file of a URL."""
    return Path(text.removeprefix("sqlite:///"))


def mark(engine: EngineName) -> str:
    """Returns the placeholder of a value in a statement."""
    return "%s" if engine == "postgresql" else "?"


def quoted(engine: EngineName, name: str) -> str:
    """Returns a name, of one or several parts, with the quotes that SQL needs."""
    before, after = ("[", "]") if engine == "sqlserver" else ('"', '"')
    return ".".join(f"{before}{part}{after}" for part in name.split("."))


def columns(engine: EngineName) -> str:
    """Returns all columns, for SELECT and INSERT."""
    return ", ".join(quoted(engine, name) for name in NAMES)


def create_table(engine: EngineName, table: str) -> str:
    """Returns the statement that makes a table of customers."""
    parts = [
        f"{quoted(engine, column.name)} {column.declared(engine)}{'' if column.nullable else ' NOT NULL'}"
        for column in COLUMNS
    ]
    return f"CREATE TABLE {quoted(engine, table)} ({', '.join(parts)}, PRIMARY KEY ({quoted(engine, 'Id')}))"


def schemas(engine: EngineName, connection: Any) -> set[str]:
    """Returns the names of the schemas of a server's database."""
    names = "name FROM sys.schemas" if engine == "sqlserver" else "nspname FROM pg_namespace"
    return {str(name) for (name,) in query(connection, f"SELECT {names}")}


def create_schema(engine: EngineName, connection: Any, schema: str) -> None:
    """Makes the schema if it is missing."""
    if engine != "sqlite" and schema not in schemas(engine, connection):
        run(connection, f"CREATE SCHEMA {quoted(engine, schema)}")


def run(connection: Any, statement: str) -> None:
    """Runs one statement and commits."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)
    connection.commit()


def query(connection: Any, statement: str) -> list[Row]:
    """Returns all rows of a small answer."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)
        rows = [tuple(row) for row in cursor.fetchall()]
    connection.rollback()
    return rows


def read(engine: EngineName, connection: Any, statement: str) -> Iterator[list[Any]]:
    """Yields the rows as the driver returns them, 10,000 at a time."""
    named = {"name": "bench"} if engine == "postgresql" else {}  # without a name the client gets all rows at once
    with closing(connection.cursor(**named)) as cursor:
        cursor.execute(statement)
        while rows := cursor.fetchmany(_READ_AT_ONCE):
            yield rows
    connection.rollback()


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yields the rows, 10,000 at a time."""
    remaining = iter(rows)
    while batch := list(islice(remaining, _INSERT_AT_ONCE)):
        yield batch


def insert(engine: EngineName, connection: Any, table: str, rows: Sequence[Row]) -> None:
    """Inserts rows in the fastest way that the driver has. Does not commit."""
    into = f"{quoted(engine, table)} ({columns(engine)})"
    with closing(connection.cursor()) as cursor:
        if engine == "sqlite":
            cursor.executemany(f"INSERT INTO {into} VALUES ({', '.join('?' * len(NAMES))})", rows)
        elif engine == "postgresql":
            with cursor.copy(f"COPY {into} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            shape = ", ".join(
                f"{quoted(engine, column.name)} {column.sqlserver} '$.{column.name}'" for column in COLUMNS
            )
            cursor.execute(
                f"INSERT INTO {into} SELECT {columns(engine)} FROM OPENJSON(?) WITH ({shape})",
                (json.dumps([dict(zip(NAMES, row, strict=True)) for row in rows], default=str),),
            )


_BIN = ("EntryId", "ServiceName", "SyncId", "Side", "Action", "KeyHash", "RecordKey", "Version", "Record", "RecycledAt")


def create_bin(engine: EngineName, connection: Any, name: str) -> None:
    """Makes an empty table like the product's recycle bin, with its indexes. `name` is quoted."""
    run(connection, f"DROP TABLE IF EXISTS {name}")
    columns_of_bin = ", ".join(f"{quoted(engine, column)} varchar(4000)" for column in _BIN)
    columns_of_bin = columns_of_bin.replace('"Record" varchar(4000)', '"Record" text')
    run(connection, f"CREATE TABLE {name} ({columns_of_bin}, PRIMARY KEY ({quoted(engine, 'EntryId')}))")
    # SQLite names an index with its schema, PostgreSQL without.
    for column in ("KeyHash", "RecycledAt"):
        run(connection, f"CREATE INDEX {quoted(engine, f'bench_{column}')} ON {name} ({quoted(engine, column)})")


def make_images(engine: EngineName, bin_name: str, table: str) -> str:
    """Returns the statement that puts an image of each row of the table into the bin, as plain JSON."""
    key, version = quoted(engine, "Id"), quoted(engine, "Version")
    if engine == "sqlite":
        pairs = ", ".join(f"'{name}', {quoted(engine, name)}" for name in NAMES)
        digits, hashed, record = f"printf('%016x', {key})", "lower(hex(randomblob(16)))", f"json_object({pairs})"
    else:
        digits, hashed, record = f"lpad(to_hex({key}), 16, '0')", f"md5({key}::text)", "row_to_json(rows)::text"
    shared = "'customer', 'run', 'backup', 'Deleted'"
    values = f"'{'0' * 32}b' || {digits}, {shared}, {hashed}, '[' || {key} || ']', '[' || {version} || ']', {record}"
    return f"INSERT INTO {bin_name} SELECT {values}, '2026-01-01 00:00:00' FROM {table} AS rows"


def at_port(text: str, port: int) -> str:
    """Returns the connection string of the same server behind a port of this machine.

    It turns encryption off, so that `proxy` can read the traffic.
    """
    if text.startswith("postgresql"):
        return re.sub(r"@[^/]*/", f"@127.0.0.1:{port}/", text)
    pairs = [
        pair
        for pair in text.split(";")
        if pair.partition("=")[0].strip().lower() not in ("server", "data source", "address", "addr", "encrypt", "")
    ]
    return ";".join([f"Server=127.0.0.1,{port}", *pairs, "Encrypt=no"])


def address(text: str) -> tuple[str, int]:
    """Returns host and port of a server's connection string."""
    if text.startswith("postgresql"):
        match = re.search(r"@([^:/]+)(?::(\d+))?/", text)
        return (match[1], int(match[2] or 5432)) if match else ("127.0.0.1", 5432)
    match = re.search(r"(?:Server|Data Source|Address|Addr)\s*=\s*(?:tcp:)?([^,;]+)(?:,(\d+))?", text, re.I)
    return (match[1], int(match[2] or 1433)) if match else ("127.0.0.1", 1433)
