"""A bench for each kind of store: two sides, which the contract suite fills, changes and reads past the store.

To put a new kind of store under the suite, add a bench here and name it in the fixture `bench`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Literal

import azure.cosmos
import sqlalchemy as sa
from azure.cosmos.exceptions import CosmosHttpResponseError

from backup.core.model import Key, utc_now
from backup.core.retry import Retry
from backup.core.run_values import Run, Trigger
from backup.stores import CopyNote, Limits, Rules, Store, pools
from backup.stores.connection import Cosmos, SqlServer, parse_connection
from backup.stores.sides import Side, open_store
from backup.stores.sql.engines import open_dialect

Role = Literal["source", "backup"]
ROLES: tuple[Role, Role] = ("source", "backup")
NOW = utc_now()
RUN = Run("contract", Trigger.CLI, False, NOW)
NOTE = CopyNote(RUN.sync_id, NOW)
ONE_TRY = Retry(max_attempts=1)
SQL_SERVER = (
    (os.environ["TEST_SQLSERVER_SOURCE"], os.environ["TEST_SQLSERVER_BACKUP"])
    if {"TEST_SQLSERVER_SOURCE", "TEST_SQLSERVER_BACKUP"} <= os.environ.keys()
    else None
)
LIMITS = Limits(retry=Retry(max_attempts=3, base_seconds=0.05, max_seconds=0.1))


@dataclass(frozen=True)
class Item:
    """A record as every kind of store can hold it. `version` None: the record has none."""

    n: int
    version: int | None = 1
    text: str = "some text"


class Bench(ABC):
    """Two sides of one kind. `items`, `put` and `remove` go past the store."""

    kind: str
    rules: Rules

    def __init__(self, connection_strings: Mapping[Role, str]) -> None:
        self.connection_strings = connection_strings
        self.opened: list[Store] = []

    def close(self) -> None:
        """Closes every store that the bench opened."""
        for store in self.opened:
            store.close()

    def open(
        self,
        role: Role,
        *,
        table: str | None = None,
        rules: Rules | None = None,
        connection_string: str | None = None,
        **limits: Any,
    ) -> Store:
        """The side's store. `limits` replace limits of the suite."""
        side = self.side(role)
        side = replace(side, connection_string=connection_string or side.connection_string, table=table or side.table)
        return self.open_at(side, rules, **limits)

    def open_at(self, side: Side, rules: Rules | None = None, **limits: Any) -> Store:
        """The store of any side. It is closed when the test ends."""
        store = open_store(side, rules or self.rules, replace(LIMITS, **limits))
        self.opened.append(store)
        return store

    def pair(self, **limits: Any) -> tuple[Store, Store]:
        """Both stores; the backup is initialized."""
        source, backup = self.open("source", **limits), self.open("backup", **limits)
        backup.catalog.initialize(source)
        return source, backup

    @abstractmethod
    def side(self, role: Role) -> Side:
        """The side as settings describe it."""

    @abstractmethod
    def nowhere(self) -> str:
        """A connection string of a server that does not exist. Where the kind has passwords, it is `hunter2`."""

    @abstractmethod
    def absent_database(self, role: Role) -> Side:
        """The side in a database that does not exist."""

    @abstractmethod
    def create(self, items: Iterable[Item] = ()) -> None:
        """Makes the source's table or container, with these records."""

    @abstractmethod
    def put(self, role: Role, *items: Item) -> None:
        """Inserts or replaces records."""

    @abstractmethod
    def remove(self, role: Role, *numbers: int) -> None:
        """Deletes records."""

    @abstractmethod
    def items(self, role: Role) -> dict[int, Item]:
        """All records."""

    @abstractmethod
    def key(self, n: int) -> Key:
        """The key of record number `n`."""

    @abstractmethod
    def drop(self, role: Role) -> None:
        """Drops the side's table or container."""


class SqlBench(Bench):
    """Tables `Id, Version, Name`, with names unique to the test. `sql` and `rows` go past the store to the driver."""

    rules = Rules(version=("Version",))
    create_table = "CREATE TABLE {table} (Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, Name {text})"
    text = "varchar(2000)"
    relays = True
    """Whether the servers of its sides copy rows by themselves."""

    def __init__(self, connection_strings: Mapping[Role, str], schema: str | None) -> None:
        super().__init__(connection_strings)
        self.schema = schema
        self.name = "Things" if schema else f"Things_{uuid.uuid4().hex[:8]}"
        # Tests set up these sessions as they like. No store has this limit of a call, so none shares them.
        self.engines = {
            role: open_dialect(text, "TEST", call_seconds=599).engine for role, text in connection_strings.items()
        }

    @property
    def table(self) -> str:
        """The table's name as settings write it."""
        return f"{self.schema}.{self.name}" if self.schema else self.name

    def quote(self, name: str) -> str:
        """The name quoted for SQL."""
        return self.engines["source"].dialect.identifier_preparer.quote_identifier(name)

    def quoted(self, name: str | None = None) -> str:
        """The table's name, or another name in its schema, quoted for SQL."""
        return ".".join(self.quote(part) for part in (self.schema, name or self.name) if part)

    def side(self, role: Role) -> Side:
        return Side("thing", role, f"{role.title()}ThingDb", self.connection_strings[role], table=self.table)

    def sql(self, role: Role, statement: str, rows: Sequence[Sequence[Any]] = ((),)) -> None:
        """Executes the statement once for each row of values, with the table's name for `{table}`, and commits."""
        connection = self.engines[role].raw_connection()
        try:
            cursor, statement = connection.cursor(), statement.replace("{table}", self.quoted())
            if len(rows) == 1:
                cursor.execute(statement, tuple(rows[0]))
            elif rows:
                cursor.executemany(statement, [tuple(row) for row in rows])
            connection.commit()
        finally:
            connection.close()

    def rows(self, role: Role, query: str = "SELECT * FROM {table} ORDER BY 1") -> list[tuple[Any, ...]]:
        """All rows of the query as the driver returns them, with the table's name for `{table}`."""
        connection = self.engines[role].raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(query.replace("{table}", self.quoted()))
            return [tuple(row) for row in cursor.fetchall()]
        finally:
            connection.close()

    def create(self, items: Iterable[Item] = ()) -> None:
        self.sql("source", self.create_table.replace("{text}", self.text))
        self.put("source", *items)

    def put(self, role: Role, *items: Item) -> None:
        mark = self.mark
        self.remove(role, *(item.n for item in items))
        self.sql(
            role,
            f"INSERT INTO {{table}} (Id, Version, Name) VALUES ({mark}, {mark}, {mark})",
            [(item.n, item.version, item.text) for item in items],
        )

    mark = "?"

    def remove(self, role: Role, *numbers: int) -> None:
        self.sql(role, f"DELETE FROM {{table}} WHERE Id = {self.mark}", [(n,) for n in numbers])

    def items(self, role: Role) -> dict[int, Item]:
        return {row[0]: Item(*row) for row in self.rows(role, "SELECT Id, Version, Name FROM {table}")}

    def key(self, n: int) -> Key:
        return (n,)

    def drop(self, role: Role) -> None:
        self.sql(role, "DROP TABLE {table}")

    def close(self) -> None:
        super().close()
        for engine in self.engines.values():
            engine.dispose()


class SqliteBench(SqlBench):
    """Two SQLite files."""

    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for role in ROLES:
            sqlite3.connect(folder / f"{role}.db").close()
        super().__init__({role: f"sqlite:///{folder}/{role}.db" for role in ROLES}, None)

    def nowhere(self) -> str:
        return f"sqlite:///{self.folder}"

    def absent_database(self, role: Role) -> Side:
        return replace(self.side(role), connection_string=f"sqlite:///{self.folder}/absent/{uuid.uuid4().hex}.db")


class ServerBench(SqlBench):
    """Two databases made once for the whole suite; each test has its own schema in both."""

    def __init__(self, connection_strings: Mapping[Role, str]) -> None:
        super().__init__(connection_strings, f"Test_{uuid.uuid4().hex[:8]}")
        self.absent: list[str] = []
        self.sql("source", f"CREATE SCHEMA {self.quote(self.schema or '')}")

    def absent_database(self, role: Role) -> Side:
        text = named(self.connection_strings[role], f"absent_{uuid.uuid4().hex[:8]}")
        self.absent.append(text)
        return replace(self.side(role), connection_string=text)


class PostgresBench(ServerBench):
    """PostgreSQL through psycopg."""

    kind = "postgresql"
    mark = "%s"

    def nowhere(self) -> str:
        return "postgresql+psycopg://someone:hunter2@127.0.0.1:1/nothing"


@contextmanager
def other_database(bench: PostgresBench, role: Role, options: str) -> Iterator[PostgresBench]:
    """A bench whose side `role` is a new database with these options; its other side is that of `bench`. Drops the
    database at the end."""
    name = f"other_{uuid.uuid4().hex[:8]}"
    server = bench.engines[role].execution_options(isolation_level="AUTOCOMMIT")
    with server.connect() as cx:
        cx.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
    other_bench = PostgresBench({**bench.connection_strings, role: named(bench.connection_strings[role], name)})
    # A connection of its own: what a test sets in it, no store shall meet in the pool.
    url = sa.make_url(other_bench.connection_strings[role]).update_query_dict({"client_encoding": "utf8"})
    other_bench.engines[role] = sa.create_engine(url, poolclass=sa.StaticPool)
    try:
        yield other_bench
    finally:
        other_bench.close()
        with server.connect() as cx:
            cx.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


class SqlServerBench(ServerBench):
    """SQL Server, or another server that speaks T-SQL, through pyodbc."""

    kind = "mssql"
    text = "nvarchar(2000)"

    @cached_property
    def relays(self) -> bool:  # type: ignore[override]
        """Whether both sides are databases of one server, which a login reaches by its name in both."""
        ways = [parse_connection(text, "TEST") for text in self.connection_strings.values()]
        return len({str(way.with_database("").keywords) for way in ways if isinstance(way, SqlServer)}) == 1

    @cached_property
    def stands_in(self) -> bool:
        """Whether the server is Babelfish, which speaks T-SQL but has its own error numbers."""
        return "Babelfish" in str(self.rows("source", "SELECT @@VERSION"))

    def nowhere(self) -> str:
        return "Server=127.0.0.1,1;Database=nothing;User Id=someone;Password=hunter2;Connect Timeout=1"


class CosmosBench(Bench):
    """Two accounts. Each test has its own database in both, with a container `Things`."""

    kind = "cosmos"
    rules = Rules(version=("lastModified", "status"), where={"type": "Order"})

    def __init__(self, connection_strings: Mapping[Role, str], partition_path: str = "/customer/id") -> None:
        super().__init__(connection_strings)
        self.database = f"test-{uuid.uuid4().hex[:8]}"
        self.partition_path = partition_path

    def side(self, role: Role) -> Side:
        setting = f"{role.title()}ThingDb"
        return Side("thing", role, setting, self.connection_strings[role], container="Things", database=self.database)

    def nowhere(self) -> str:
        return "AccountEndpoint=https://127.0.0.1:1/;AccountKey=aHVudGVyMg=="

    def absent_database(self, role: Role) -> Side:
        return replace(self.side(role), database=f"absent-{uuid.uuid4().hex[:8]}")

    def container(self, role: Role, name: str = "Things") -> azure.cosmos.ContainerProxy:
        """The container through the bench's own SDK client."""
        client = _client(self.connection_strings[role])
        return client.get_database_client(self.database).get_container_client(name)

    def create(self, items: Iterable[Item] = ()) -> None:
        client = _client(self.connection_strings["source"])
        database = client.create_database_if_not_exists(self.database)
        database.create_container_if_not_exists("Things", azure.cosmos.PartitionKey(self.partition_path))
        self.put("source", *items)

    def put(self, role: Role, *items: Item) -> None:
        for item in items:
            version = {} if item.version is None else {"lastModified": f"2024-01-01T00:00:{item.version:02}Z"}
            self.put_documents(
                role,
                {"id": f"{item.n:06}", "type": "Order", "customer": {"id": "c"}, "text": item.text, **version},
            )

    def make(self, role: Role, name: str, path: str, default_ttl: int) -> None:
        """Makes a container whose documents delete themselves."""
        database = _client(self.connection_strings[role]).create_database_if_not_exists(self.database)
        database.create_container(name, azure.cosmos.PartitionKey(path), default_ttl=default_ttl)

    def put_documents(self, role: Role, *documents: Mapping[str, Any]) -> None:
        """Inserts or replaces documents as they are."""
        container = self.container(role)
        for document in documents:
            container.upsert_item(dict(document))

    def remove(self, role: Role, *numbers: int) -> None:
        container = self.container(role)
        for n in numbers:
            container.delete_item(f"{n:06}", partition_key="c")

    def documents(self, role: Role) -> list[dict[str, Any]]:
        """All documents as the server returns them, sorted by id."""
        return sorted(self.container(role).read_all_items(), key=lambda document: str(document["id"]))

    def items(self, role: Role) -> dict[int, Item]:
        return {
            int(document["id"]): Item(
                int(document["id"]),
                int(document["lastModified"][17:19]) if "lastModified" in document else None,
                document["text"],
            )
            for document in self.documents(role)
        }

    def key(self, n: int) -> Key:
        return ('"c"', f"{n:06}")

    def drop(self, role: Role) -> None:
        client = _client(self.connection_strings[role])
        client.get_database_client(self.database).delete_container("Things")

    def close(self) -> None:
        super().close()
        for text in self.connection_strings.values():
            try:
                _client(text).delete_database(self.database)
            except CosmosHttpResponseError as error:
                if error.status_code != 404:
                    raise


@cache
def _client(connection_string: str) -> azure.cosmos.CosmosClient:
    where = parse_connection(connection_string, "TEST")
    assert isinstance(where, Cosmos)
    return azure.cosmos.CosmosClient(where.endpoint, where.key or "")


def named(connection_string: str, database: str) -> str:
    """The connection string of the database `database` on the same server."""
    where = parse_connection(connection_string, "TEST")
    if isinstance(where, SqlServer):
        return ";".join(f"{name}={value}" for name, value in where.with_database(database).keywords.items())
    assert isinstance(where, sa.URL)
    return where.set(database=database).render_as_string(hide_password=False)


def drop_database(connection_string: str) -> None:
    """Drops the database that the connection string names, if it exists. SQL Server drops none that a pool is connected
    to."""
    pools.close_idle()
    dialect = open_dialect(connection_string, "TEST")
    name = dialect.location.rpartition("/")[2]
    elsewhere = named(connection_string, "tempdb" if dialect.kind == "mssql" else "postgres")
    engine = open_dialect(elsewhere, "TEST").engine
    connection = engine.raw_connection()
    connection.driver_connection.autocommit = True  # type: ignore[union-attr]
    cursor = connection.cursor()
    cursor.execute(f"DROP DATABASE IF EXISTS {name}" + (" WITH (FORCE)" if dialect.kind == "postgresql" else ""))
    cursor.close()
    connection.close()
    engine.dispose()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Waits for other processes: servers dislike CREATE DATABASE side by side."""
    with (Path(gettempdir()) / "contract-databases.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def made_databases(servers: Mapping[Role, str]) -> Iterator[Mapping[Role, str]]:
    """A database on each of these servers, made for the block."""
    made = {role: named(text, f"contract_{role}_{uuid.uuid4().hex[:8]}") for role, text in servers.items()}
    with _one_at_a_time():
        for text in made.values():
            dialect = open_dialect(text, "TEST")
            dialect.ensure_database()
            dialect.engine.dispose()
    yield made
    with _one_at_a_time():
        for text in made.values():
            drop_database(text)


def wait_for_the_sdk() -> None:
    """Returns once no thread of the Cosmos SDK looks whether an account's region answers: each new client starts one
    with its first request."""
    for thread in threading.enumerate():
        if thread.name == "cosmos-endpoint-refresh":
            thread.join()
