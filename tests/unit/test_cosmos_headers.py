"""What headers of a Cosmos DB account say: numbers that the SDK or a wait would not survive."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from azure.cosmos.exceptions import CosmosHttpResponseError

from backup.stores.connection import Cosmos
from backup.stores.cosmos.connection import CosmosConnection
from backup.stores.cosmos.errors import retry_after_seconds
from backup.stores.cosmos.throttle import Throttle


def taken_in(status: int, **headers: str) -> tuple[dict[str, str], CosmosConnection]:
    """The headers that the SDK gets of such an answer, and the connection that has passed them on."""
    connection = CosmosConnection(Cosmos("https://account", "a2V5"), Throttle(), frozenset(), 600)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = SimpleNamespace(status_code=status, headers=named)
    request = SimpleNamespace(url="https://account/dbs/d/colls/c/docs/")
    response: Any = SimpleNamespace(http_response=answer, http_request=request, context={})
    connection._take_in(response)
    return named, connection


@pytest.mark.parametrize(
    ("asked", "milliseconds"),
    [("250", "250"), ("0", "0"), ("soon", "1000"), ("-5", "1000"), ("nan", "1000"), ("inf", "1000"), ("1e12", "10000")],
)
def test_the_sdk_waits_for_a_number_and_not_long(asked: str, milliseconds: str) -> None:
    headers, _ = taken_in(429, x_ms_retry_after_ms=asked)
    assert headers["x-ms-retry-after-ms"] == milliseconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"x-ms-retry-after-ms": "soon", "Retry-After": "3"}, 3),
        ({"Retry-After": "86400"}, 10),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "Tue, 01 Dec 2026 16:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_a_wait_that_a_server_asks_for_is_a_number_and_not_long(headers: dict[str, str], seconds: float | None) -> None:
    response: Any = SimpleNamespace(status_code=503, headers=headers, reason="", request=None, text=lambda: "")
    made: Any = CosmosHttpResponseError
    error = made(status_code=503, message="", response=response)
    assert retry_after_seconds(error) == seconds


@pytest.mark.parametrize(("charge", "counted"), [("2.5", 2.5), ("much", 0), ("nan", 0), ("inf", 0), ("-1", 0)])
def test_a_charge_that_is_no_number_costs_nothing(charge: str, counted: float) -> None:
    _, connection = taken_in(200, x_ms_request_charge=charge)
    assert connection.throttle.charge == counted
