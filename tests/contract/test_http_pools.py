"""HTTP connections that outlive the clients of an account, and whom they trust."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import requests
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient
from requests import sessions
from urllib3.exceptions import NameResolutionError, ReadTimeoutError

from backup.config.settings import Settings, load_settings
from backup.core.errors import SourceMissing, StoreUnavailable
from backup.core.retry import Retry
from backup.runs.storage_account import service_client
from backup.stores import http_pool, pools
from backup.stores.connection import Cosmos, parse_connection
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.http_pool import HttpPool
from backup.stores.pools import PoolState
from tests.contract.benches import wait_for_the_sdk
from tests.emulators.front import self_signed


@pytest.fixture(autouse=True)
def own_pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pools, "_pools", pools._Pools())
    yield
    pools.close_idle()


def access_to(account: str, key: str | None = None) -> CosmosAccess:
    where = parse_connection(account, "TEST")
    assert isinstance(where, Cosmos)
    where = Cosmos(where.endpoint, key or where.key)
    return CosmosAccess(where, "no-such-database", Retry(max_attempts=1), SourceMissing, "source")


def ask(access: CosmosAccess) -> None:
    """Asks once, with at most two connections: that of the request, and that of the SDK's thread, for which it waits.
    On a busy machine those threads of several clients would else meet."""
    with pytest.raises(SourceMissing):
        access.containers()
    wait_for_the_sdk()


def test_the_next_client_of_a_cosmos_account_gets_the_connections_of_the_last(cosmos_server: str) -> None:
    for _ in range(3):
        access = access_to(cosmos_server)
        ask(access)
        access.close()
    [state] = pools.states()
    assert state.kind == "cosmos"
    assert 1 <= state.open <= 2
    assert state.reconnects == 0
    assert (state.login.is_valid, state.login.refresh_count, state.last_used_at is None) == (True, 0, False)
    assert state.server in cosmos_server


def test_a_changed_key_has_connections_of_its_own(cosmos_server: str) -> None:
    ask(access_to(cosmos_server))
    with pytest.raises(StoreUnavailable):
        access_to(cosmos_server, "bm8gc3VjaCBrZXk=").containers()
    first, second = pools.states()
    assert first.server == second.server
    assert first.open > 0 < second.open


def test_clients_of_a_service_of_the_storage_account_share_their_connections(azurite: str) -> None:
    def settings(account: str) -> Settings:
        return load_settings({"AzureWebJobsStorage": account})

    for _ in range(3):
        list(service_client(settings(azurite), "blob", BlobServiceClient).list_containers())
    list(service_client(settings(azurite), "queue", QueueServiceClient).list_queues())
    list(service_client(settings(f"{azurite};"), "queue", QueueServiceClient).list_queues())
    assert [(state.kind, state.open, state.idle) for state in pools.states()] == [
        ("blob", 1, 1),
        ("queue", 1, 1),
        ("queue", 1, 1),
    ]
    assert {state.server for state in pools.states()} == {"devstoreaccount1"}


def test_an_error_of_a_connection_names_the_server_and_no_class() -> None:
    for scheme, pool_kind in http_pool.HttpPool.pools.items():
        error = ReadTimeoutError(pool_kind("a.example", 7), scheme, "Read timed out.")
        assert str(error) == "a.example:7: Read timed out."


def test_a_closed_client_leaves_the_connections_to_others(cosmos_server: str) -> None:
    first, second = access_to(cosmos_server), access_to(cosmos_server)
    ask(first)
    first.close()
    assert pools.states()[0].open > 0
    ask(second)
    ask(first)  # it can be used again
    [state] = pools.states()
    assert 1 <= state.open <= 2


# --- one pool, by itself ----------------------------------------------------------------------------------------------


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[int]]]:
    """A server's address, and the statuses of its next answers; 0 ends the connection instead."""
    statuses: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status = statuses.pop(0) if statuses else 200
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{server.server_port}/", statuses
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def getting(pool: HttpPool) -> Callable[[str], int]:
    session = pool.transport().session
    assert session is not None
    return lambda url: session.get(url, timeout=5).status_code


def state_of(pool: HttpPool) -> PoolState:
    return pool.state("test", "here")


def test_connections_are_closed_once_nobody_has_asked_for_half_a_minute() -> None:
    pool, now = HttpPool(4), [1000.0]
    pool.clock = lambda: now[0]
    with serving() as (url, _):
        getting(pool)(url)
        now[0] += 29
        pool.close_idle(30)
        assert (state_of(pool).open, pool.is_empty) == (1, False)
        now[0] += 1
        pool.close_idle(30)
        assert (state_of(pool).open, pool.is_empty) == (0, True)
        assert getting(pool)(url) == 200
        pool.close_idle(0)


def test_a_lost_connection_is_an_error_and_its_successor_a_reconnect() -> None:
    pool = HttpPool(4)
    with serving() as (url, statuses):
        statuses += [200, 0, 200, 200]
        get = getting(pool)
        get(url)
        with pytest.raises(requests.ConnectionError):
            get(url)  # never tried again here: the request may have been done
        assert (get(url), get(url), state_of(pool).reconnects) == (200, 200, 1)
        pool.close_idle(0)


def test_a_refused_login_is_not_valid_until_one_is_taken() -> None:
    pool = HttpPool(4)
    with serving() as (url, statuses):
        login_is_valid = []
        for status in (200, 401, 200, 403, 404):
            statuses.append(status)
            getting(pool)(url)
            login_is_valid.append(state_of(pool).login.is_valid)
        assert login_is_valid == [True, False, True, False, True]
        pool.close_idle(0)


# --- what the environment says ----------------------------------------------------------------------------------------


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment names proxies."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_requests_go_by_the_proxy_of_the_environment_but_not_those_to_this_machine_or_a_server_that_it_excepts(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with serving() as (proxy, of_proxy), serving() as (url, of_server):
        monkeypatch.setenv(variable, proxy)
        monkeypatch.setenv("NO_PROXY", "excepted.invalid")
        pool = HttpPool(4)
        get = getting(pool)
        of_proxy += [201, 202]
        of_server += [203, 204]
        assert [get("http://account.invalid/"), get(url), get("http://account.invalid/a"), get(url)] == [
            *(201, 203, 202, 204),
        ]
        with pytest.raises(NameResolutionError):
            get("http://excepted.invalid/")
        pool.close_idle(0)


@pytest.mark.usefixtures("no_proxies")
def test_the_environment_is_asked_for_a_proxy_once_for_each_server_and_session(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def no_proxy_for(url: str, no_proxy: str | None) -> dict[str, str]:
        asked.append(url)
        return {}

    monkeypatch.setattr(sessions, "get_environ_proxies", no_proxy_for)
    with serving() as (url, _):
        pool = HttpPool(4)
        get = getting(pool)
        localhost = url.replace("127.0.0.1", "localhost")
        for address in (f"{url}a", f"{url}b?c=d", localhost, f"{localhost}a"):
            get(address)
        assert asked == [f"{url}a", localhost]
        getting(pool)(url)
        assert asked == [f"{url}a", localhost, url]
        pool.close_idle(0)


@pytest.mark.usefixtures("no_proxies")
def test_a_callers_own_proxy_comes_before_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    pool = HttpPool(4)
    session = pool.transport().session
    assert session is not None
    with serving() as (proxy, _):
        assert session.get("http://account.invalid/", proxies={"http": proxy}, timeout=5).status_code == 200
        with pytest.raises(requests.exceptions.ProxyError):
            session.get("http://account.invalid/", timeout=5)
        pool.close_idle(0)


def test_what_stands_in_a_netrc_does_not_replace_the_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("default login someone password hidden")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    session = HttpPool(4).transport().session
    assert session is not None
    request = requests.Request("PUT", "http://account.invalid/", headers={"Authorization": "SharedKey"}, data=b"body")
    headers = session.prepare_request(request).headers
    assert (headers["Authorization"], headers["Content-Length"]) == ("SharedKey", "4")


# --- whom a connection trusts -----------------------------------------------------------------------------------------


@pytest.fixture
def roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment names roots."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("roots")
def test_a_server_whose_certificate_nobody_vouches_for_is_refused_by_each_pool_but_an_emulators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(self_signed()) as (url, _):
        with pytest.raises(requests.exceptions.SSLError):
            getting(HttpPool(4))(url)
        emulated = HttpPool(4, verified=False)
        session = emulated.transport().session
        assert session is not None
        assert session.get(url, verify=False).status_code == 200
        emulated.close_idle(0)
        with pytest.raises(requests.exceptions.SSLError):
            getting(HttpPool(4))(url)  # the one of the emulator has changed nothing for others

        # Whom the environment names is trusted then, and not by name alone.
        port = int(url.rsplit(":")[-1].strip("/"))
        (tmp_path / "roots.pem").write_text(ssl.get_server_certificate(("127.0.0.1", port)))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "roots.pem"))
        pool = HttpPool(4)
        assert getting(pool)(url) == 200
        pool.close_idle(0)
        with pytest.raises(requests.exceptions.SSLError):
            getting(HttpPool(4))(url.replace("127.0.0.1", "localhost"))
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with pytest.raises(requests.exceptions.SSLError):
            getting(HttpPool(4))(url)


@pytest.mark.usefixtures("roots")
def test_the_roots_are_read_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    getting(HttpPool(4))  # makes nothing yet
    with serving(self_signed()) as (url, _):
        for _ in range(2):
            with pytest.raises(requests.exceptions.SSLError):
                getting(HttpPool(4))(url)
        monkeypatch.setattr(http_pool, "create_urllib3_context", lambda: pytest.fail("the roots were read anew"))
        with pytest.raises(requests.exceptions.SSLError):
            getting(HttpPool(4))(url)
