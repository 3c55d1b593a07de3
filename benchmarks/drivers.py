"""The plain drivers, as everybody would use them: connect, read in batches, insert many rows. For SQL engines.

The plain algorithm, the floor and the engines that build and check the data use it; the product does not.
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
    """A connection; what it does is committed by the caller."""
    if engine == "sqlite":
        return sqlite3.connect(sqlite_file(text), check_same_thread=False)
    if engine == "postgresql":
        import psycopg

        return psycopg.connect(text.replace("+psycopg", ""))
    # Only the product knows every kind of connection string, and where the ODBC driver lies.
    from backup.stores.sql.engines import open_dialect

    return open_dialect(text, "BENCH").engine.raw_connection()


def sqlite_file(text: str) -> Path:
    """The file of a URL."""
    return Path(text.removeprefix("sqlite:///"))


def mark(engine: EngineName) -> str:
    """What stands for a value in a statement."""
    return "%s" if engine == "postgresql" else "?"


def quoted(engine: EngineName, name: str) -> str:
    """A name of one or several parts as SQL needs it."""
    before, after = ("[", "]") if engine == "sqlserver" else ('"', '"')
    return ".".join(f"{before}{part}{after}" for part in name.split("."))


def columns(engine: EngineName) -> str:
    """All columns, for SELECT and INSERT."""
    return ", ".join(quoted(engine, name) for name in NAMES)


def create_table(engine: EngineName, table: str) -> str:
    """The statement that makes a customers' table."""
    parts = [
        f"{quoted(engine, column.name)} {column.declared(engine)}{'' if column.nullable else ' NOT NULL'}"
        for column in COLUMNS
    ]
    return f"CREATE TABLE {quoted(engine, table)} ({', '.join(parts)}, PRIMARY KEY ({quoted(engine, 'Id')}))"


def schemas(engine: EngineName, connection: Any) -> set[str]:
    """The schemas of a server's database."""
    asked = "name FROM sys.schemas" if engine == "sqlserver" else "nspname FROM pg_namespace"
    return {str(name) for (name,) in query(connection, f"SELECT {asked}")}


def create_schema(engine: EngineName, connection: Any, schema: str) -> None:
    """Makes the schema where it is missing."""
    if engine != "sqlite" and schema not in schemas(engine, connection):
        run(connection, f"CREATE SCHEMA {quoted(engine, schema)}")


def run(connection: Any, statement: str) -> None:
    """Runs one statement and commits."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)
    connection.commit()


def query(connection: Any, statement: str) -> list[Row]:
    """All rows of a small answer."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)
        found = [tuple(row) for row in cursor.fetchall()]
    connection.rollback()
    return found


def read(engine: EngineName, connection: Any, statement: str) -> Iterator[list[Any]]:
    """The rows as they come, some thousand at a time, as the driver gives them."""
    named = {"name": "bench"} if engine == "postgresql" else {}  # or the client gets all rows at once
    with closing(connection.cursor(**named)) as cursor:
        cursor.execute(statement)
        while rows := cursor.fetchmany(_READ_AT_ONCE):
            yield rows
    connection.rollback()


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows, some thousand at a time."""
    remaining = iter(rows)
    while batch := list(islice(remaining, _INSERT_AT_ONCE)):
        yield batch


def insert(engine: EngineName, connection: Any, table: str, rows: Sequence[Row]) -> None:
    """Inserts rows in the fastest way that the driver has; does not commit."""
    into = f"{quoted(engine, table)} ({columns(engine)})"
    with closing(connection.cursor()) as cursor:
        if engine == "sqlite":
            cursor.executemany(f"INSERT INTO {into} VALUES ({', '.join('?' * len(NAMES))})", rows)
        elif engine == "postgresql":
            with cursor.copy(f"COPY {into} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            shape = ", ".join(f"{quoted(engine, one.name)} {one.sqlserver} '$.{one.name}'" for one in COLUMNS)
            cursor.execute(
                f"INSERT INTO {into} SELECT {columns(engine)} FROM OPENJSON(?) WITH ({shape})",
                (json.dumps([dict(zip(NAMES, row, strict=True)) for row in rows], default=str),),
            )


def at_port(text: str, port: int) -> str:
    """The connection string of the same server behind a port of this machine, unencrypted so that it can be read."""
    if text.startswith("postgresql"):
        return re.sub(r"@[^/]*/", f"@127.0.0.1:{port}/", text)
    kept = [
        pair
        for pair in text.split(";")
        if pair.partition("=")[0].strip().lower() not in ("server", "data source", "address", "addr", "encrypt", "")
    ]
    return ";".join([f"Server=127.0.0.1,{port}", *kept, "Encrypt=no"])


def address(text: str) -> tuple[str, int]:
    """Host and port of a server's connection string."""
    if text.startswith("postgresql"):
        found = re.search(r"@([^:/]+)(?::(\d+))?/", text)
        return (found[1], int(found[2] or 5432)) if found else ("127.0.0.1", 5432)
    found = re.search(r"(?:Server|Data Source|Address|Addr)\s*=\s*(?:tcp:)?([^,;]+)(?:,(\d+))?", text, re.I)
    return (found[1], int(found[2] or 1433)) if found else ("127.0.0.1", 1433)
