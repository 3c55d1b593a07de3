"""Fixtures that every test may ask for: servers, started when the first test of a process wants them.

Each pytest-xdist worker has servers of its own; only those named by TEST_* variables are shared by all
workers. The tests of a worker share its servers, so name databases, containers and queues uniquely.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import NoReturn

import pytest
from azure.cosmos import ConnectionRetryPolicy
from hypothesis import HealthCheck, settings

from backup.runs import lock
from tests.emulators import servers
from tests.emulators.partitioned import Partitioned

CI = os.environ.get("CI") == "true"

# Examples are derived from the test itself: what fails here fails everywhere, a busy machine fails none.
# print_blob names the failing example, for @reproduce_failure.
settings.register_profile(
    "default",
    derandomize=True,
    print_blob=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")


@pytest.fixture(scope="session", autouse=True)
def lock_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps the lock files of this process and of those it starts in a folder that pytest removes."""
    tempfile.gettempdir()  # noticed before the variable changes: only this process's locks move
    folder = tmp_path_factory.mktemp("locks")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lock, "gettempdir", lambda: str(folder))
        patched.setenv("TMPDIR", str(folder))
        patched.setenv("XDG_STATE_HOME", str(folder))  # where the records of jobs lie
        yield folder


@pytest.fixture(scope="session")
def azurite() -> Iterator[str]:
    """The connection string of an Azure Storage account with blobs and queues."""
    yield from _serve(servers.azurite())


@pytest.fixture(scope="session")
def cosmos_server() -> Iterator[str]:
    """The connection string of a Cosmos DB account: Microsoft's emulator if TEST_COSMOS_SOURCE names it."""
    yield from _serve_unless_named("TEST_COSMOS_SOURCE")


@pytest.fixture(scope="session")
def cosmos_server_backup() -> Iterator[str]:
    """The connection string of a second Cosmos DB account, likewise of TEST_COSMOS_BACKUP."""
    yield from _serve_unless_named("TEST_COSMOS_BACKUP")


@pytest.fixture(scope="session")
def plain_cosmos_server() -> Iterator[str]:
    """The connection string of an npm server without TLS, for a `Partitioned` to stand before."""
    yield from _serve(servers.plain_cosmos())


@pytest.fixture(scope="session")
def plain_cosmos_server_backup() -> Iterator[str]:
    """The connection string of a second one."""
    yield from _serve(servers.plain_cosmos())


@pytest.fixture
def sdk_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's own second tries after a lost connection come at once; what they do stays."""
    monkeypatch.setattr(ConnectionRetryPolicy, "sleep", lambda *_: None)
    monkeypatch.setenv("AZURE_COSMOS_HEALTH_CHECK_RETRY_AFTER_MS", "1")


@pytest.fixture
def partitioned(plain_cosmos_server: str) -> Iterator[Partitioned]:
    """A Cosmos DB account of this test's own with three physical partitions, and with transactional batches."""
    with Partitioned(plain_cosmos_server).running() as account:
        yield account


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The SQLAlchemy URL of a PostgreSQL server's first database; `postgres_database` is the one to fill."""
    yield from _serve(servers.postgres())


@pytest.fixture
def postgres_database(postgres: str) -> Iterator[str]:
    """The SQLAlchemy URL of an empty PostgreSQL database of this test's own."""
    with servers.postgres_database(postgres) as url:
        yield url


@pytest.fixture(scope="session")
def sqlserver_urls() -> tuple[str, str]:
    """The connection strings of two SQL Server databases, source and backup, for tests to fill and empty."""
    source, backup = os.environ.get("TEST_SQLSERVER_SOURCE"), os.environ.get("TEST_SQLSERVER_BACKUP")
    if not (source and backup):
        # Also with CI=true: there is no SQL Server without Docker. The workflow on GitHub has two.
        pytest.skip(
            "SQL Server is not tested: start two (docker compose up sqlserver sqlserver-backup) and set"
            " TEST_SQLSERVER_SOURCE and TEST_SQLSERVER_BACKUP to connection strings that name a database"
        )
    return source, backup


def _serve_unless_named(variable: str) -> Iterator[str]:
    if address := os.environ.get(variable):
        yield address
    else:
        yield from _serve(servers.cosmos())


def _serve(server: AbstractContextManager[str]) -> Iterator[str]:
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
