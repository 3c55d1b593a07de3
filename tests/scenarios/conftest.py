"""The places that scenarios run in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios import places
from tests.scenarios.places import Place


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    """Both services on SQLite, filled with the sample."""
    place = places.on_sqlite(tmp_path)
    place.fill()
    return place


@pytest.fixture
def postgres_place(postgres: str) -> Iterator[Place]:
    """Both services on PostgreSQL, in a source database and a backup database, filled with the sample."""
    with places.new_postgres_database(postgres) as source, places.new_postgres_database(postgres) as backup:
        place = places.on_postgres(source, backup)
        place.fill()
        yield place


@pytest.fixture
def cosmos_place(tmp_path: Path, cosmos_server: str, cosmos_server_backup: str) -> Place:
    """Orders on Cosmos DB, customers on SQLite, filled with the sample."""
    place = places.with_orders_on_cosmos(tmp_path, cosmos_server, cosmos_server_backup)
    place.fill()
    return place


@pytest.fixture(params=["sqlite_place", "cosmos_place", "postgres_place"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each of the places in turn."""
    found: Place = request.getfixturevalue(request.param)
    return found
