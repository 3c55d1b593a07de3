"""Where the two services of a test lie. Reads their records with the plain drivers, never through a store."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, TypeVar

import sqlalchemy as sa
from azure.cosmos import CosmosClient

from backup.config.settings import load_settings
from backup.dev import sample
from backup.services.registry import Registry
from backup.stores.sql.engines import open_dialect
from tests.emulators.clients import cosmos_client
from tests.emulators.servers import database_engine

T = TypeVar("T")
Contents = dict[Any, dict[str, Any]]
_ADDED_BY_THE_BACKUP = {"SyncedAt", "_backup"}
_ADDED_BY_THE_SERVER = {"_rid", "_self", "_etag", "_ts", "_attachments"}


@dataclass(frozen=True)
class Sql:
    """A table on an SQL server, or in a SQLite file."""

    url: str
    table: str

    def settings(self, prefix: str) -> dict[str, str]:
        return {f"{prefix}__ConnectionString": self.url, f"{prefix}__Table": self.table}

    def contents(self) -> Contents:
        """All rows by key, without the columns that the backup adds."""
        query = sa.select(sa.text("*")).select_from(self._named())
        return {row["Id"]: _without(row, _ADDED_BY_THE_BACKUP) for row in self._run(query)}

    def history(self) -> list[dict[str, Any]]:
        """The rows of SyncHistory beside the table, oldest run first."""
        query = sa.select(sa.text("*")).select_from(self._named("SyncHistory")).order_by(sa.text('"StartedAt"'))
        return self._run(query)

    def run(self, statement: str, **values: Any) -> None:
        """Executes a statement, with the table's name for {table}, and values for names like :this."""
        with engine(self.url).begin() as cx:
            text = statement.format(table=cx.dialect.identifier_preparer.format_table(self._named()))
            cx.execute(sa.text(text), values) if values else cx.exec_driver_sql(text)

    def _named(self, name: str | None = None) -> Any:
        schema, _, table = self.table.rpartition(".")
        return sa.table(name or table, schema=schema or None)

    def _run(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with engine(self.url).connect() as cx:
            return [dict(row) for row in cx.execute(query).mappings()]


@dataclass(frozen=True)
class Cosmos:
    """A container of a Cosmos DB account."""

    account: str
    database: str
    container: str

    def settings(self, prefix: str) -> dict[str, str]:
        return {
            f"{prefix}__ConnectionString": self.account,
            f"{prefix}__DatabaseName": self.database,
            f"{prefix}__ContainerName": self.container,
        }

    def contents(self) -> Contents:
        """All documents by id, without the properties that the server and the backup add."""
        documents = self._all(self.container)
        added = _ADDED_BY_THE_BACKUP | _ADDED_BY_THE_SERVER
        return {document["id"]: _without(document, added) for document in documents}

    def history(self) -> list[dict[str, Any]]:
        """The entries of the container sync-history, oldest run first, with the field names of SyncHistory on SQL."""
        entries = sorted(self._all("sync-history"), key=lambda entry: entry["startedAt"])
        return [{name[:1].upper() + name[1:]: value for name, value in entry.items()} for entry in entries]

    def run(self, statement: str, **values: Any) -> NoReturn:
        """Always raises: a container takes no SQL statement."""
        raise TypeError(f"{self.container} is no table: {statement}")

    def _all(self, container: str) -> list[dict[str, Any]]:
        database = _client(self.account).get_database_client(self.database)
        return list(database.get_container_client(container).read_all_items())


@dataclass(frozen=True)
class Service:
    """The two sides of one service."""

    name: str
    source: Sql | Cosmos
    backup: Sql | Cosmos

    @property
    def settings(self) -> dict[str, str]:
        title = self.name.capitalize()
        return {**self.source.settings(f"Source{title}Db"), **self.backup.settings(f"Backup{title}Db")}

    def on(self, side: str, place: Sql | Cosmos) -> Service:
        """This service with another place on the side."""
        return replace(self, source=place) if side == "source" else replace(self, backup=place)

    def is_mirrored(self) -> bool:
        """Whether the backup has exactly the records of the source."""
        return self.source.contents() == self.backup.contents()

    def let_minutes_pass(self) -> None:
        """Makes the heartbeat of the run in progress years old."""
        self._set_in_open_entry("HeartbeatAt", "2020-01-01 00:00:00")

    def say_that_another_machine_runs(self) -> None:
        """Makes another machine the owner of the run in progress."""
        self._set_in_open_entry("Owner", "another boot=1 pidns=1 pid=1 started=1")

    def _set_in_open_entry(self, column: str, value: str) -> None:
        assert isinstance(self.backup, Sql)
        schema, dot, _ = self.backup.table.rpartition(".")
        history = replace(self.backup, table=f"{schema}{dot}SyncHistory")
        history.run(f"UPDATE {{table}} SET \"{column}\" = '{value}' WHERE \"Status\" = 'InProgress'")

    @property
    def statuses(self) -> list[str]:
        """The status of each run in SyncHistory, oldest first."""
        return [entry["Status"] for entry in self.backup.history()]


@dataclass(frozen=True)
class Place:
    """The two services of a test."""

    customer: Service
    order: Service

    @property
    def services(self) -> Sequence[Service]:
        return (self.customer, self.order)

    @property
    def settings(self) -> dict[str, str]:
        return {**self.customer.settings, **self.order.settings}

    @property
    def registry(self) -> Registry:
        return Registry(load_settings(self.settings))

    def fill(self) -> None:
        """Fills the sources with 100 customers and 55 orders, and initializes the backups."""
        sample.fill(self.registry)
        self.initialize()

    def initialize(self) -> None:
        for name in self.registry.directory.names():
            self.registry.get(name).initialize()


def on_sqlite(folder: Path) -> Place:
    """Both services in four SQLite files of the folder; creates no file."""

    def table(file: str, name: str) -> Sql:
        return Sql(f"sqlite:///{folder / file}", name)

    return Place(
        Service("customer", table("customers.db", "Customers"), table("customers_backup.db", "Customers")),
        Service("order", table("orders.db", "Orders"), table("orders_backup.db", "Orders")),
    )


def filled_on_sqlite(folder: Path) -> Place:
    """Both services in four SQLite files of the folder, filled."""
    for name, content in _filled_files().items():
        (folder / name).write_bytes(content)
    return on_sqlite(folder)


def alone_on_sqlite(folder: Path, name: str) -> Place:
    """A place with only this service, in SQLite files of the folder, filled."""
    service: Service = getattr(filled_on_sqlite(folder), name)
    return Place(service, service)


def folder_of(service: Service) -> Path:
    """Where the SQLite files of the service lie."""
    assert isinstance(service.source, Sql)
    return Path(str(sa.make_url(service.source.url).database)).parent


def with_files(folder: Path, name: str, make: Callable[[], T]) -> T:
    """Has `make` fill the folder with SQLite files; what it returns. All later calls of that name get copies of what it
    has left there, but for records of jobs, and the same answer: they cost a hundredth of a sync."""
    if name not in _MADE:
        answer = make()
        made = {path.name: path.read_bytes() for path in folder.glob("*.db") if path.name != "jobs.db"}
        _MADE[name] = made, answer
        return answer
    files, answer = _MADE[name]
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return answer


_MADE: dict[str, tuple[dict[str, bytes], Any]] = {}


@cache
def _filled_files() -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        on_sqlite(Path(folder)).fill()
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def with_orders_on_cosmos(folder: Path, source: str, backup: str) -> Place:
    """Customers in SQLite files, orders in containers of the two accounts; creates none of them."""
    name = f"orders-{uuid.uuid4().hex}"
    orders = Service("order", Cosmos(source, f"{name}-source", "orders"), Cosmos(backup, f"{name}-backup", "orders"))
    return Place(on_sqlite(folder).customer, orders)


def filled_with_orders_on_cosmos(folder: Path, source: str, backup: str) -> Place:
    """Customers in SQLite files, orders in containers of the two accounts; all filled."""
    filled_on_sqlite(folder)
    place = with_orders_on_cosmos(folder, source, backup)
    Place(place.order, place.order).fill()
    return place


def on_postgres(source: str, backup: str) -> Place:
    """Both services in tables of the two PostgreSQL databases; creates no table."""
    return Place(
        Service("customer", Sql(source, "customer.Customers"), Sql(backup, "customer.Customers")),
        Service("order", Sql(source, "Orders"), Sql(backup, "Orders")),
    )


@cache
def engine(url: str) -> sa.Engine:
    """Keeps no connection to a file open, and one to a PostgreSQL database. Asks a server once what an engine asks at
    first. SQL Server's is the product's own, with a limit of time that no store has: so no session of a store is one of
    these."""
    if url.startswith("Server="):
        return open_dialect(url, "TEST", call_seconds=599).engine
    return sa.create_engine(url, poolclass=sa.NullPool) if url.startswith("sqlite") else database_engine(url)


@cache
def _client(account: str) -> CosmosClient:
    return cosmos_client(account)


def _without(record: Any, names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}
