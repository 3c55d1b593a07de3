"""Sources that are written to while they are synced."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backup.config.settings import load_settings
from backup.core.run_values import Counts, Status, Trigger
from backup.dev import sample
from backup.services.registry import Registry
from tests.emulators.servers import lent_database
from tests.reliability.effort import SEED, rounds
from tests.reliability.writers import COLUMNS, PAUSE_SECONDS, CosmosHand, Writers, order_id, postgres_hand, sqlite_hand
from tests.scenarios import places
from tests.scenarios.observing import Told
from tests.scenarios.places import Cosmos, Service, Sql

pytestmark = pytest.mark.timeout(rounds(120, 1800))

# Small chunks, so that records come and go between one chunk and the next.
SETTINGS = {
    **{"BackupRetry__BaseSeconds": "0.01", "BackupSync__ChunkSize": "100", "BackupSync__BatchSize": "50"},
    "BackupSync__MaxDeletePercentPerWeek": "100",  # many syncs of a few seconds are no week
    "BackupSync__MaxDeletePercent": "50",  # of few records the writers may delete more than a tenth between two syncs
}
WRITES_BEFORE_A_SYNC = 10


@dataclass(frozen=True)
class Written:
    """A service whose source has writers, and how its backup names a record of theirs."""

    service: Service
    writers: Writers
    key_of: Callable[[int], Any]
    syncs: int

    def sync(self, after_first_step: Callable[[], None] = lambda: None) -> Counts:
        """A run that must complete. What is given happens once it has read a chunk and has deleted nothing."""
        left = [after_first_step]

        def progress(service: str, counts: Counts) -> None:
            if left:
                left.pop()()

        registry = Registry(load_settings({**SETTINGS, **self.service.settings}))
        [outcome] = registry.sync(self.service.name, Trigger.CLI, observer=Told(progress))
        assert outcome.run.status is Status.COMPLETED, outcome.run.error
        return outcome.run.counts

    def missing(self) -> set[Any]:
        """Records that were never deleted, or were there again before the last run began to delete, and that the
        backup has not."""
        expected = map(self.key_of, (*self.writers.lasting, *self.writers.returning))
        return set(expected) - self.service.backup.contents().keys()


@pytest.fixture(params=["sqlite", "postgresql", "cosmos"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Written]:
    """A source of hundreds of records that is copied once, and writers that have not begun."""
    match request.param:
        case "sqlite":
            made = on_sqlite(tmp_path)
        case "postgresql":
            made = on_postgres(request.getfixturevalue("postgres"))
        case _:
            servers = [request.getfixturevalue(name) for name in ("cosmos_server", "cosmos_server_backup")]
            made = on_cosmos(tmp_path, *servers)
    with made as opened:
        opened.writers.fill()
        registry = Registry(load_settings(opened.service.settings))
        registry.get(opened.service.name).initialize()
        opened.sync()
        yield opened


@contextmanager
def on_sqlite(folder: Path) -> Iterator[Written]:
    service = places.on_sqlite(folder).customer
    file = folder / "customers.db"
    file.touch()
    yield customers(service, Writers(lambda: sqlite_hand(file, "Customers"), SEED), rounds(4, 200))


@contextmanager
def on_postgres(server: str) -> Iterator[Written]:
    with lent_database(server) as source, lent_database(server) as backup:
        sides = Sql(source, "Customers"), Sql(backup, "Customers")
        address = sa.make_url(source).set(drivername="postgresql").render_as_string(hide_password=False)
        writers = Writers(lambda: postgres_hand(address, '"Customers"'), SEED)
        yield customers(Service("customer", *sides), writers, rounds(2, 100))


def customers(service: Service, writers: Writers, syncs: int) -> Written:
    assert isinstance(service.source, Sql)
    service.source.run(f"CREATE TABLE {{table}} ({COLUMNS})")
    return Written(service, writers, lambda number: number, syncs)


@contextmanager
def on_cosmos(folder: Path, source: str, backup: str) -> Iterator[Written]:
    service = places.with_orders_on_cosmos(folder, source, backup).order
    at = service.source
    assert isinstance(at, Cosmos)
    make_container(at)
    # Every write costs this process as much as it costs the sync to read it.
    writers = Writers(
        lambda: CosmosHand(at.account, at.database, at.container),
        SEED,
        lasting=rounds(50, 500),
        pause_seconds=rounds(0.03, PAUSE_SECONDS),
    )
    yield Written(service, writers, order_id, rounds(2, 40))


def make_container(place: Cosmos) -> None:
    """An empty container for orders, made as the sample makes one."""
    elsewhere = replace(place, database=f"unused-{uuid.uuid4().hex}")
    settings = Service("order", place, elsewhere).settings
    sample.put(Registry(load_settings(settings)), "order", [])


def test_after_many_syncs_of_a_source_that_is_written_to_one_more_finds_both_sides_equal(written: Written) -> None:
    writers, together = written.writers, Counts()
    with writers:
        for _ in range(written.syncs):
            writers.take_away()
            writers.wait_for(WRITES_BEFORE_A_SYNC)
            counts = written.sync(after_first_step=writers.bring_back)
            together = together.plus(inserted=counts.inserted, updated=counts.updated, deleted=counts.deleted)
            assert written.missing() == set()
        writers.stop()
    written.sync()
    assert written.service.is_mirrored()
    assert written.sync().processed == 0
    assert min(together.inserted, together.updated, together.deleted) > 0
    assert min(writers.done["insert"], writers.done["update"], writers.done["delete"]) > 0
    assert written.service.statuses == ["Completed"] * (written.syncs + 3)
