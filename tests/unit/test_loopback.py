"""Which requests the local host answers, by their headers alone. Requests over a socket: `functions/test_host.py`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from backup.dev.loopback import OwnPagesOnly


def status(*headers: tuple[str, str]) -> int:
    """What a request with these headers is answered."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": raw}
    asyncio.run(OwnPagesOnly(PlainTextResponse("answered"))(scope, receive, send))
    return int(sent[0]["status"])


OWN, FOREIGN = ("host", "127.0.0.1:7071"), ("host", "evil.example")
PAGE = ("origin", "http://127.0.0.1:7071")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([OWN], 200),
        ([OWN, PAGE], 200),
        ([], 403),
        ([OWN, FOREIGN], 403),
        ([FOREIGN, OWN], 403),
        ([OWN, OWN], 403),  # a proxy before this host may look at the other one
        ([OWN, PAGE, ("origin", "http://evil.example")], 403),
        ([OWN, ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], 403),
    ],
)
def test_a_header_that_comes_twice_hides_no_foreign_value(headers: list[tuple[str, str]], expected: int) -> None:
    assert status(*headers) == expected
