"""The places that scenarios run in."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from backup.core import log
from backup.stores import pools
from tests.contract.benches import ROLES, Role, made_databases
from tests.emulators.servers import lent_database, postgres_database
from tests.scenarios import places
from tests.scenarios.inside import few_orders
from tests.scenarios.places import Place
from tests.scenarios.shops import SHOP, Shop, empty


class _Broken(logging.Handler):
    """Notes the looks at a set that met an error which is none of the app's own."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("set.not_looked_at") and "Unexpected" in record.getMessage():
            self.lines.append(record.getMessage())


@pytest.fixture(autouse=True)
def broken_looks() -> Iterator[list[str]]:
    """Fails a test in which a look at a set met a mistake in the code: each table gets a run of its own then, and
    nothing else is wrong. Gives the lines of the log about such looks."""
    broken = _Broken()
    log.logger.addHandler(broken)
    yield broken.lines
    log.logger.removeHandler(broken)
    assert broken.lines == []


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    """Both services on SQLite, filled with the sample."""
    return places.filled_on_sqlite(tmp_path)


@pytest.fixture(scope="session")
def filled_databases(postgres: str) -> Iterator[list[str]]:
    """The names of a source database and a backup database, filled with the sample: what others are copied from."""
    with postgres_database(postgres) as source, postgres_database(postgres) as backup:
        places.on_postgres(source, backup).fill()
        pools.close_idle()  # a database that somebody is connected to cannot be copied
        yield [str(sa.make_url(url).database) for url in (source, backup)]


@pytest.fixture(scope="session")
def sqlserver_databases(sqlserver_urls: tuple[str, str]) -> Iterator[Mapping[Role, str]]:
    """Two databases, on the two servers that the environment names."""
    with made_databases(dict(zip(ROLES, sqlserver_urls, strict=True))) as databases:
        yield databases


@pytest.fixture
def postgres_place(postgres: str, filled_databases: list[str]) -> Iterator[Place]:
    """Both services on PostgreSQL, in a source database and a backup database, filled with the sample."""
    source, backup = (postgres_database(postgres, template=name) for name in filled_databases)
    with source as source_url, backup as backup_url:
        yield places.on_postgres(source_url, backup_url)


@pytest.fixture
def cosmos_place(tmp_path: Path, cosmos_server: str, cosmos_server_backup: str) -> Place:
    """Orders on Cosmos DB, customers on SQLite, filled with the sample."""
    return places.filled_with_orders_on_cosmos(tmp_path, cosmos_server, cosmos_server_backup)


@pytest.fixture(params=["sqlite_place", "cosmos_place", "postgres_place"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each of the places in turn."""
    chosen: Place = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def customers(tmp_path: Path) -> Place:
    """Customers alone, on SQLite, not yet mirrored."""
    return places.alone_on_sqlite(tmp_path, "customer")


@pytest.fixture
def orders(tmp_path: Path) -> Place:
    """Orders alone, on SQLite, not yet mirrored."""
    return places.alone_on_sqlite(tmp_path, "order")


@pytest.fixture
def cosmos_orders(tmp_path: Path, cosmos_server: str, cosmos_server_backup: str) -> Place:
    """A dozen orders on Cosmos DB."""
    return few_orders(places.with_orders_on_cosmos(tmp_path, cosmos_server, cosmos_server_backup).order)


@pytest.fixture
def two_postgres_databases(postgres: str) -> Iterator[tuple[str, str]]:
    """Two empty databases of one server."""
    with lent_database(postgres) as source, lent_database(postgres) as backup:
        yield source, backup


@pytest.fixture
def postgres_orders(two_postgres_databases: tuple[str, str]) -> Place:
    """A dozen orders on PostgreSQL."""
    return few_orders(places.on_postgres(*two_postgres_databases).order)


@pytest.fixture(params=["postgres_orders", "cosmos_orders"])
def served(request: pytest.FixtureRequest) -> Place:
    """A dozen orders on each kind of server in turn."""
    chosen: Place = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def sqlite_shop(tmp_path: Path) -> Shop:
    """The shop in SQLite files."""
    return Shop(f"sqlite:///{tmp_path}/source.db", f"sqlite:///{tmp_path}/backup.db", "")


@pytest.fixture
def postgres_shop(postgres: str) -> Iterator[Shop]:
    """The shop in two PostgreSQL databases."""
    with lent_database(postgres) as source, lent_database(postgres) as backup:
        yield Shop(source, backup, "public.")


@pytest.fixture
def mssql_shop(sqlserver_databases: Mapping[Role, str]) -> Iterator[Shop]:
    """The shop in two databases of SQL Server, which are emptied afterwards."""
    source, backup = sqlserver_databases["source"], sqlserver_databases["backup"]
    yield Shop(source, backup, "dbo.")
    for url in (source, backup):
        empty(places.engine(url))


@pytest.fixture(params=["sqlite_shop", "postgres_shop"])
def shop(request: pytest.FixtureRequest) -> Shop:
    """Each shop in turn, filled."""
    shop: Shop = request.getfixturevalue(request.param)
    shop.run(SHOP)
    return shop
