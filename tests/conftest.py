"""Fixtures for every test: servers, started when the first test of a process needs them.

Each pytest-xdist worker has its own servers; only those that TEST_* variables name are shared by all workers. The
tests of a worker share its servers, so give databases, containers and queues unique names.
"""

import gc
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NoReturn

import pytest
from azure.cosmos import ConnectionRetryPolicy
from hypothesis import HealthCheck, settings

from backup.runs import lock
from tests.emulators import folders, servers
from tests.emulators.partitioned import Partitioned
from tests.emulators.rabbit import Rabbit
from tests.emulators.rabbit import rabbit as new_rabbit
from tests.reliability.effort import rounds

gc.disable()  # until all tests are collected: it would take a sixth of that, and finds nothing

if folder := folders.memory_folder():  # pytest makes the temporary folders of tests in it
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))

# Each connection of a client that verifies nothing would read the system's 140 root certificates, which takes 20 ms.
os.environ.update(SSL_CERT_FILE=os.devnull, SSL_CERT_DIR=os.devnull)

CI = os.environ.get("CI") == "true"

# Examples are derived from the test itself, so a test that fails here fails everywhere. A slow machine fails no test.
# print_blob prints the failing example for @reproduce_failure. TORTURE=1 tries ten times as many.
settings.register_profile(
    "default",
    derandomize=True,
    print_blob=True,
    deadline=None,
    max_examples=rounds(50, 500),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")


# Fixtures that start a server or a browser, or need one that somebody has started.
STARTED = frozenset(
    {
        *("azurite", "browser", "cosmos_server", "cosmos_server_backup", "plain_cosmos_server"),
        *("plain_cosmos_server_backup", "postgres", "rabbit", "sqlserver_urls"),
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that ask for a server by its fixture: `make check` leaves them out."""
    for item in items:
        if isinstance(item, pytest.Function) and not STARTED.isdisjoint(item.fixturenames):
            item.add_marker("server")


def pytest_collection_finish() -> None:
    """Has the garbage collector look seldom, and never at what lives as long as this process: a million objects."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def lock_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Puts the lock files of this process, and of those that it starts, into a folder that pytest removes."""
    tempfile.gettempdir()  # remembers the folder before TMPDIR changes: this process's other temporary files stay there
    folder = tmp_path_factory.mktemp("locks")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lock, "gettempdir", lambda: str(folder))
        patched.setenv("TMPDIR", str(folder))
        patched.setenv("XDG_STATE_HOME", str(folder))  # where the records of jobs lie
        yield folder


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """Undoes what a program that is tried in this process sets: it hides log lines."""
    loggers = [logging.getLogger(name) for name in ("azure", "backup")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def azurite() -> Iterator[str]:
    """The connection string of an Azure Storage account with blobs and queues."""
    yield from _serve(servers.azurite())


@pytest.fixture(scope="session")
def cosmos_accounts() -> Iterator[servers.CosmosAccounts]:
    """Cosmos DB accounts of an npm server."""
    yield from _serve(servers.cosmos())


@pytest.fixture(scope="session")
def cosmos_server(request: pytest.FixtureRequest) -> str:
    """The connection string of a Cosmos DB account: that of TEST_COSMOS_SOURCE, else one of the npm server."""
    return os.environ.get("TEST_COSMOS_SOURCE") or request.getfixturevalue("cosmos_accounts").source


@pytest.fixture(scope="session")
def cosmos_server_backup(request: pytest.FixtureRequest) -> str:
    """The connection string of a second Cosmos DB account: that of TEST_COSMOS_BACKUP, else one of the npm server."""
    return os.environ.get("TEST_COSMOS_BACKUP") or request.getfixturevalue("cosmos_accounts").backup


@pytest.fixture(scope="session")
def plain_cosmos_server(cosmos_accounts: servers.CosmosAccounts) -> str:
    """The connection string of an account without TLS, which a `Partitioned` can stand in front of."""
    return cosmos_accounts.plain


@pytest.fixture(scope="session")
def plain_cosmos_server_backup(cosmos_accounts: servers.CosmosAccounts) -> str:
    """The connection string of a second account without TLS."""
    return cosmos_accounts.plain_backup


@pytest.fixture
def sdk_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Cosmos SDK retries after a lost connection without waiting; the retries themselves stay."""
    monkeypatch.setattr(ConnectionRetryPolicy, "sleep", lambda *_: None)
    monkeypatch.setenv("AZURE_COSMOS_HEALTH_CHECK_RETRY_AFTER_MS", "1")


@pytest.fixture
def partitioned(plain_cosmos_server: str) -> Iterator[Partitioned]:
    """A Cosmos DB account for this test alone, with three physical partitions and transactional batches."""
    with Partitioned(plain_cosmos_server).running() as account:
        yield account


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The SQLAlchemy URL of a PostgreSQL server. Tests fill `postgres_database`, not the database of this URL."""
    yield from _serve(servers.postgres())


@pytest.fixture
def postgres_standby(postgres: str) -> Iterator[str]:
    """The SQLAlchemy URL of a standby of the PostgreSQL server, for this test alone."""
    yield from _serve(servers.postgres_standby(postgres))


@pytest.fixture
def postgres_database(postgres: str) -> Iterator[str]:
    """The SQLAlchemy URL of an empty PostgreSQL database for this test alone."""
    with servers.postgres_database(postgres) as url:
        yield url


@pytest.fixture
def rabbit() -> Iterator[Rabbit]:
    """A RabbitMQ server that has not been started yet."""
    try:
        with new_rabbit() as server:
            yield server
    except servers.ServerMissing as missing:
        _skip_or_fail(str(missing))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; each test opens a tab of its own."""
    from tests.scenarios.browsing import chromium  # here, for the import is slow and few processes need it

    yield from _serve(chromium())


@pytest.fixture(scope="session")
def sqlserver_urls() -> tuple[str, str]:
    """The connection strings of two SQL Server databases, source and backup, for tests to fill and empty."""
    source, backup = os.environ.get("TEST_SQLSERVER_SOURCE"), os.environ.get("TEST_SQLSERVER_BACKUP")
    if not (source and backup):
        # Skips also with CI=true: SQL Server needs Docker. The workflow on GitHub has two servers.
        pytest.skip(
            "SQL Server is not tested: start two (docker compose up sqlserver sqlserver-backup) and set"
            " TEST_SQLSERVER_SOURCE and TEST_SQLSERVER_BACKUP to connection strings that name a database"
        )
    return source, backup


def _serve(server: AbstractContextManager[Any]) -> Iterator[Any]:
    with ExitStack() as stack:
        try:
            address = stack.enter_context(server)
        except servers.ServerMissing as missing:
            _skip_or_fail(str(missing))
        yield address


def _skip_or_fail(reason: str) -> NoReturn:
    if CI:
        pytest.fail(f"{reason} (with CI=true nothing may be missing)", pytrace=False)
    pytest.skip(reason)
