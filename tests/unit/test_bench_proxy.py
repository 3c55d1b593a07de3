"""What the benchmark's proxy counts, by the bytes of the two protocols that it reads."""

from __future__ import annotations

import socket
import threading

import pytest

from benchmarks.proxy import Meter, Postgres, Tds, counted

READY = b"Z\x00\x00\x00\x05I"
STARTUP = b"\x00\x00\x00\x0d\x00\x03\x00\x00user\x00"
ENCRYPT = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


def packet(kind: int, body: bytes, last: bool = True) -> bytes:
    return bytes([kind, last]) + (len(body) + 8).to_bytes(2) + b"\x00\x00\x01\x00" + body


def test_queries_and_executes_of_postgresql_are_statements() -> None:
    meter = Meter()
    connection = Postgres(meter)
    connection.sent(STARTUP)
    connection.sent(message(b"Q", b"BEGIN\x00"))
    connection.received(READY)
    connection.sent(message(b"P", b"parse") + message(b"E", b"execute") + message(b"S", b""))
    connection.received(b"D" + b"row" * 10)
    connection.received(READY)
    assert (meter.reads().statements, meter.reads().bytes) == (2, 43)
    assert meter.reads().longest_seconds


def test_messages_of_postgresql_may_come_in_pieces() -> None:
    meter = Meter()
    connection = Postgres(meter)
    for byte in STARTUP + message(b"Q", b"SELECT 1\x00"):
        connection.sent(bytes([byte]))
    assert meter.reads().statements == 1


def test_a_server_that_refuses_encryption_is_read_and_one_that_agrees_is_not() -> None:
    refused, agreed = Meter(), Meter()
    for meter, answer in ((refused, b"N"), (agreed, b"S")):
        connection = Postgres(meter)
        connection.sent(ENCRYPT)
        connection.received(answer)
    assert refused.reads().statements == 0
    assert agreed.reads().statements is None


@pytest.mark.parametrize("login", [b"", b"\x17\x03\x03\x00\x04abcd"])
def test_batches_and_calls_of_tds_are_statements(login: bytes) -> None:
    meter = Meter()
    connection = Tds(meter)
    connection.sent(packet(0x12, b"prelogin") + login)
    connection.sent(packet(1, b"half", last=False))
    connection.sent(packet(1, b"SELECT 1") + packet(3, b"call")[:5])
    connection.received(packet(4, b"rows", last=False) + packet(4, b"done"))
    connection.sent(packet(3, b"call")[5:])
    assert meter.reads().statements == 2
    assert meter.reads().longest_seconds


def test_what_passes_the_proxy_arrives_and_is_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(100)[::-1])

        threading.Thread(target=answer, daemon=True).start()
        with counted("postgresql", "127.0.0.1", server.getsockname()[1]) as (port, meter):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"there")
                assert client.recv(100) == b"ereht"
            assert meter.reads().bytes == 5
