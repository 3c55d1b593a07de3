"""Connections that are made for real: what leaves over them, and what is said where none comes about."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from backup.core.errors import ConfigError, StoreUnavailable, TransientStoreError
from backup.core.retry import Retry
from backup.stores import Limits, Rules, Store, identity
from backup.stores.sides import Side, open_store
from backup.stores.sql.engines.postgresql import connection as of_postgresql

SECRET = "token-or-password"
RULES = Rules(version=("Version",))


def opened(text: str, retry: Retry | None = None, **more: str) -> Store:
    side = Side("customer", "source", "SourceCustomerDb", text, table="Things", **more)  # type: ignore[arg-type]
    return open_store(side, RULES, Limits(retry=retry or Retry(max_attempts=1)))


@contextmanager
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """The port of a server of PostgreSQL's that has no TLS and asks for the password in clear, and what it received."""
    received: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(10_000):
                    received.append(data)
                    asks_for_tls = data[4:8] == b"\x04\xd2\x16\x2f"
                    connection.sendall(b"N" if asks_for_tls else b"R\0\0\0\x08\0\0\0\x03")
                    if data[:1] == b"p":
                        break

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], received
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("url", "arrives"),
    [
        ("postgresql://app@shop.postgres.database.azure.com:{port}/x?hostaddr=127.0.0.1", False),
        (f"postgres://app:{SECRET}@db.example.net:{{port}}/x?hostaddr=127.0.0.1", False),
        (f"postgresql://app@db.example.net:{{port}}/x?hostaddr=127.0.0.1&password={SECRET}", False),
        (f"postgresql://app:{SECRET}@db.example.net:{{port}}/x?hostaddr=127.0.0.1&sslmode=prefer", True),
        (f"postgresql://app:{SECRET}@127.0.0.1:{{port}}/x", True),
    ],
)
def test_no_secret_reaches_a_server_that_refuses_tls_unless_the_url_allows_it(
    url: str, arrives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        identity, "credential", lambda: SimpleNamespace(get_token=lambda _: SimpleNamespace(token=SECRET))
    )
    with listening() as (port, received):
        store = opened(url.format(port=port))
        with pytest.raises(StoreUnavailable) as caught:
            store.ping()
        store.close()
    assert received
    assert (SECRET.encode() in b"".join(received)) == arrives
    assert arrives or "sslmode" in caught.value.hint


@pytest.mark.parametrize("host", ["localhost", ""])  # the second is a socket's folder
def test_no_secret_goes_where_the_environment_leads_instead_of_this_machine(
    host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    monkeypatch.setattr(of_postgresql, "is_loopback", lambda address: address != "127.0.0.1")
    with listening() as (port, received):
        store = opened(f"postgresql://app:{SECRET}@{host}:{port}/x" + ("" if host else f"?host={tmp_path}"))
        with pytest.raises(StoreUnavailable):
            store.ping()
        store.close()
    assert SECRET.encode() not in b"".join(received)


def test_a_server_of_postgresql_without_tls_is_used_on_loopback_and_elsewhere_where_the_url_says_so(
    postgres: str,
) -> None:
    here = sa.make_url(postgres)
    elsewhere = here.set(host="db.example.net").update_query_dict({"hostaddr": "127.0.0.1"})
    refused = opened(elsewhere.render_as_string(hide_password=False))
    with pytest.raises(StoreUnavailable, match="does not support SSL"):
        refused.ping()
    for url in (here, elsewhere.update_query_dict({"sslmode": "disable"})):
        store = opened(url.render_as_string(hide_password=False))
        store.ping()
        store.close()


def test_a_server_of_postgresql_that_is_too_old_is_named_before_anything_is_asked(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_postgresql, "_OLDEST", 99)
    own_pool = sa.make_url(postgres).update_query_dict({"application_name": "too-old"})
    store = opened(own_pool.render_as_string(hide_password=False))
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:\d+ has PostgreSQL \d+\. Versions before 99"):
        store.count()
    store.close()


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:p@127.0.0.1:1/x",
        "postgresql://u:p@no-such-host.invalid/x?sslmode=disable",
        "Server=127.0.0.1,1;Database=x;User Id=u;Password=p",
        "Server=tcp:localhost,1;Database=x;User Id=u;Password=p",
    ],
)
def test_a_server_that_is_not_there_is_told_at_the_second_try_to_whoever_waits(text: str) -> None:
    store = opened(text, replace(Retry(5, 0.01, 0.01), unanswered_attempts=2))
    with pytest.raises(TransientStoreError) as caught:
        store.count()
    store.close()
    assert caught.value.unanswered
    assert "host and port" in caught.value.hint
