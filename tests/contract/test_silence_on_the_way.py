"""Servers that accept a connection and then say nothing more: whoever waits for them is let go."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from backup.core import interrupts
from backup.core.errors import BackupError, Interrupted, SourceMissing, TransientStoreError
from backup.core.retry import Retry
from backup.stores import Limits, Rules, pools
from backup.stores.connection import Cosmos, parse_connection
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.sides import Side, open_store
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.rows import small_rows
from backup.stores.sql.store import SqlStore
from tests.contract.benches import wait_for_the_sdk
from tests.scenarios.proxy import Proxy

DEADLINE_SECONDS = 30


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that may be interrupted: it lets go of running calls at once."""
    other = interrupts._Mark()
    other.to_wake = interrupts._mark.to_wake
    monkeypatch.setattr(interrupts, "_mark", other)
    monkeypatch.setattr(interrupts, "GRACE_SECONDS", 0)
    yield
    pools.close_idle()


def error_of(work: Callable[[], object]) -> tuple[threading.Thread, list[BackupError]]:
    """A thread that does the work, and the error that it gets."""
    errors: list[BackupError] = []

    def run() -> None:
        try:
            work()
        except BackupError as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, errors


def access_to(url: str, port: int, **limits: Any) -> SqlAccess:
    url = sa.make_url(url).set(port=port).render_as_string(hide_password=False)
    store = open_store(
        Side("customer", "source", "Source", url, table="Things"),
        Rules(version=("Version",)),
        Limits(retry=Retry(max_attempts=1), **limits),
    )
    assert isinstance(store, SqlStore)
    return store.access


def read(access: SqlAccess) -> None:
    for attempt in access.attempts("read"):
        with attempt as cx:
            small_rows(cx, sa.select(sa.literal_column("relname")).select_from(sa.table("pg_class")))


# While it logs in, while its session is set up, while the server is asked what it is, while rows are read.
MOMENTS = [0, 100, 450, 800, 1_200, 6_000]


@pytest.mark.usefixtures("mark")
@pytest.mark.parametrize("cut_after", MOMENTS)
def test_a_signal_lets_go_of_a_server_that_says_no_more(postgres: str, cut_after: int) -> None:
    with Proxy(sa.make_url(postgres).port or 0, cut_after=cut_after, silent=True).running() as proxy:
        access = access_to(postgres, proxy.port)
        thread, errors = error_of(lambda: read(access))
        assert proxy.reached.wait(DEADLINE_SECONDS)
        interrupts.request(signal.SIGINT)
        thread.join(DEADLINE_SECONDS)
        assert [type(error) for error in errors] == [Interrupted]
        access.close()


@pytest.mark.usefixtures("mark")
@pytest.mark.parametrize("is_known", [False, True], ids=["it logs in", "it asks"])
def test_a_signal_lets_go_of_an_account_of_cosmos_db(cosmos_server: str, is_known: bool) -> None:
    where = parse_connection(cosmos_server, "TEST")
    assert isinstance(where, Cosmos)
    port = urlsplit(where.endpoint).port or 0
    with Proxy(port, cut_after=1_000_000 if is_known else 0, silent=True).running() as proxy:
        where = Cosmos(where.endpoint.replace(str(port), str(proxy.port)), where.key)
        access = CosmosAccess(where, "none", Retry(max_attempts=1), SourceMissing, "source")
        if is_known:
            with pytest.raises(SourceMissing):
                access.containers()
            wait_for_the_sdk()
            proxy.cut_after = 0
        thread, errors = error_of(access.containers)
        assert proxy.reached.wait(DEADLINE_SECONDS)
        interrupts.request(signal.SIGINT)
        thread.join(DEADLINE_SECONDS)
        assert [type(error) for error in errors] == [Interrupted]
        access.close()


@pytest.mark.parametrize("cut_after", MOMENTS[-3:])
def test_the_time_of_a_call_is_also_that_of_its_connection(postgres: str, cut_after: int) -> None:
    with Proxy(sa.make_url(postgres).port or 0, cut_after=cut_after, silent=True).running() as proxy:
        access = access_to(postgres, proxy.port, max_call_seconds=0.3)
        thread, errors = error_of(lambda: read(access))
        thread.join(DEADLINE_SECONDS)
        assert [type(error) for error in errors] == [TransientStoreError]
        access.close()
