"""What a run costs beside its work, counted in calls of the backup: one to know the state (three on Cosmos DB), two
entries, one look at rivals (two there). And what a whole quiet sync of a quiet table costs: six statements."""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backup.core.model import utc_now
from backup.core.run_values import Trigger
from backup.core.workers import Begin
from backup.dev import sample
from backup.mirror.verification import Depth
from backup.runs import upgrade
from backup.services.service import SyncService
from backup.stores import pools
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.catalog import SqlCatalog
from tests.emulators.servers import postgres_database
from tests.scenarios.places import Place, on_postgres, on_sqlite
from tests.scenarios.test_places import service, sides_on, synced
from tests.scenarios.test_unchanged import connected


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts the calls of history and recycle bin by what they are for, in words that hold for each engine."""
    counts: Counter[str] = Counter()

    def counted(once: Callable[..., AbstractContextManager[Any]]) -> Callable[..., AbstractContextManager[Any]]:
        def call(access: Any, operation: str, **how: Any) -> AbstractContextManager[Any]:
            words = operation.replace("sync-history", "SyncHistory").replace("recycle-bin", "RecycleBin")
            if words.endswith(("SyncHistory", "RecycleBin")):
                counts[words] += 1
            return once(access, operation, **how)

        return call

    with monkeypatch.context() as patches:
        patches.setattr(SqlAccess, "once", counted(SqlAccess.once))
        patches.setattr(CosmosAccess, "once", counted(CosmosAccess.once))
        yield counts


@pytest.fixture(params=["sqlite", "postgresql", "cosmos"])
def quiet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SyncService]:
    """Orders of which the backup has everything."""
    with sides_on(request.param, request, tmp_path) as place:
        orders = Place(place.order, place.order)
        sample.put(orders.registry, "order", [sample.order(n) for n in (1, 2, 3)])
        orders.initialize()
        order = service(orders.settings, "order")
        synced(order)
        yield order


def opening_reads(service: SyncService) -> int:
    """How many queries tell a run what SyncHistory says."""
    with service.stores() as (_, backup):
        return 3 if backup.place.kind == "cosmos" else 1


def rival_reads(service: SyncService) -> int:
    """How many queries tell a run of its rivals."""
    with service.stores() as (_, backup):
        return 2 if backup.place.kind == "cosmos" else 1


def test_a_quiet_sync_reads_history_once_and_looks_for_rivals_and_writes_it_twice(
    quiet: SyncService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counting(monkeypatch) as asked:
        assert quiet.sync(Trigger.CLI).run.counts.skipped == 3
    assert asked == {"read SyncHistory": opening_reads(quiet) + rival_reads(quiet), "write SyncHistory": 2}


def test_a_verify_reads_history_once_and_writes_it_once(quiet: SyncService, monkeypatch: pytest.MonkeyPatch) -> None:
    with counting(monkeypatch) as asked:
        assert quiet.verify(Depth()).run.verified
    assert asked == {"read SyncHistory": opening_reads(quiet), "write SyncHistory": 1}


def test_a_look_for_an_unfinished_sync_reads_history_once(quiet: SyncService, monkeypatch: pytest.MonkeyPatch) -> None:
    with counting(monkeypatch) as asked:
        assert quiet.resume(Trigger.TIMER) is None
    assert asked == {"read SyncHistory": 1}


# --- all of a quiet sync, by the log of the server --------------------------------------------------------------------


class Log:
    """What a server of PostgreSQL logs of the sessions of these databases."""

    def __init__(self, *urls: str) -> None:
        self._engines = [sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool) for url in urls]
        for engine in self._engines:
            with engine.connect() as cx:
                cx.exec_driver_sql(f"ALTER DATABASE {engine.url.database} SET log_statement = 'all'")
                self._file = Path(str(cx.scalar(sa.text("SHOW data_directory")))).with_name("log")

    def sessions(self) -> list[list[int]]:
        """The sessions of each database, but for the one that asks."""
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        pids = []
        for engine in self._engines:
            with engine.connect() as cx:
                pids.append(sorted(cx.scalars(sa.text(query))))
        return pids

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """A list that has, behind the block, the first word of each statement of the sessions of before it."""
        pids = {str(pid) for of_database in self.sessions() for pid in of_database}
        before = self._file.stat().st_size
        first_words: list[str] = []
        yield first_words
        text = self._file.read_bytes()[before:].decode()
        logged = re.findall(r"\[(\d+)\] LOG:  (?:statement|execute .*?):\s+(\w+)", text)
        first_words += [first_word for pid, first_word in logged if pid in pids]


@contextmanager
def describing_threads() -> Iterator[set[int]]:
    """The threads that ask PostgreSQL for the columns of a table inside the block."""
    threads = set[int]()

    def sent(_cx: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "pg_attribute" in statement:
            threads.add(threading.get_ident())

    sa.event.listen(sa.Engine, "before_cursor_execute", sent)
    try:
        yield threads
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", sent)


def test_a_quiet_sync_on_postgresql_costs_six_statements_over_one_connection_a_side(postgres: str) -> None:
    with postgres_database(postgres) as source, postgres_database(postgres) as backup:
        log = Log(source, backup)
        place = on_postgres(source, backup)
        customers = Place(place.customer, place.customer)
        sample.put(customers.registry, "customer", [sample.customer(n) for n in (1, 2, 3)])
        customers.initialize()
        synced(service(customers.settings, "customer"))
        pools.close_idle()
        synced(service(customers.settings, "customer"))
        sessions = log.sessions()
        with log.statements() as asked, describing_threads() as threads:
            assert synced(service(customers.settings, "customer")).counts.skipped == 3
        assert log.sessions() == sessions
        assert len(threads) == 2  # both catalogues at the same time
        assert [len(of_database) for of_database in sessions] == [1, 1]
    # Of each side its catalogue and a fingerprint; what SyncHistory says; the entry.
    assert Counter(asked) == {"SELECT": 5, "INSERT": 1, "BEGIN": 1, "COMMIT": 1}


def test_a_column_that_is_made_behind_the_look_at_the_catalogue_is_newer_than_the_start_of_the_run(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_ahead, opening_of, made_at = SqlCatalog.read_ahead, upgrade.opening_of, list[datetime]()

    def read_now(catalog: SqlCatalog, begin: Begin) -> None:
        read_ahead(catalog, begin)
        assert catalog._begun is not None
        catalog._begun()

    with postgres_database(postgres) as source, postgres_database(postgres) as backup:
        place = on_postgres(source, backup)
        customers = Place(place.customer, place.customer)
        sample.put(customers.registry, "customer", [sample.customer(1)])
        customers.initialize()
        synced(service(customers.settings, "customer"))

        def opened(*arguments: Any) -> Any:
            customers.customer.source.run("ALTER TABLE {table} ADD fax TEXT DEFAULT 'new'")
            made_at.append(utc_now())
            return opening_of(*arguments)

        monkeypatch.setattr(SqlCatalog, "read_ahead", read_now)
        monkeypatch.setattr(upgrade, "opening_of", opened)
        run = synced(service(customers.settings, "customer"))
    assert run.added_columns == ()
    assert [run.started_at < at for at in made_at] == [True]


@contextmanager
def traced() -> Iterator[list[str]]:
    """The statements that SQLite itself has seen inside the block, over connections that are opened there."""
    statements: list[str] = []

    def trace(connection: Any, _entry: Any) -> None:
        connection.set_trace_callback(statements.append)

    sa.event.listen(sa.Pool, "connect", trace)
    try:
        yield statements
    finally:
        sa.event.remove(sa.Pool, "connect", trace)


def test_a_quiet_sync_on_sqlite_costs_six_statements_over_one_connection_a_side(tmp_path: Path) -> None:
    place = on_sqlite(tmp_path)
    customers = Place(place.customer, place.customer)
    sample.put(customers.registry, "customer", [sample.customer(n) for n in (1, 2, 3)])
    customers.initialize()
    for _ in range(3):
        synced(service(customers.settings, "customer"))
    with traced() as statements, connected() as opened:
        assert synced(service(customers.settings, "customer")).counts.skipped == 3
    assert len(opened) == 2
    # Beside these, each connection is asked once how its file's texts are encoded.
    words = Counter(statement.split()[0] for statement in statements)
    del words["--"]  # how SQLite answers a query of a PRAGMA
    assert words == {"SELECT": 5, "INSERT": 1, "BEGIN": 1, "COMMIT": 1}
