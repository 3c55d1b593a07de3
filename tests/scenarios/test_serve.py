"""The local server, in a session as with curl."""

import contextlib
import http.client
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import copy
from typing import Any
from urllib.parse import quote

import pytest

from backup.entry.operations import OPERATIONS
from tests.scenarios.places import Place
from tests.scenarios.product import DEADLINE_SECONDS, ROOT, counts, start

KEY = "key-of-this-test"
# Names of no service, run or job. A name may have any character, so each route answers by itself.
HOSTILE = (
    "a\nb",
    "no\n",
    "\r\n",
    "n\0\x7f",
    "a/b",
    "no%2F",
    " ",
    "x" * 5_000,
    "\u202e\u05d0🙂",
    "<b>",
    "'; --",
    "n?b#c",
    ".no",
)


@pytest.fixture
def port(sqlite_place: Place, tmp_path: Path) -> Iterator[int]:
    """Of the product, served with a key from a folder that holds the app alone."""
    for file in ("function_app.py", "host.json"):
        copy(ROOT / file, tmp_path)
    settings = {**sqlite_place.settings, "SERVE_KEY": KEY}
    with start(tmp_path, settings, "-m", "backup", "serve", "--port", "0", stdout=subprocess.DEVNULL) as process:
        try:
            assert process.stderr
            listening = "running on http://127.0.0.1:"
            line = next(line for line in process.stderr if listening in line)
            yield int(line.partition(listening)[2].split()[0])
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=DEADLINE_SECONDS)
        finally:
            process.kill()


def call(port: int, method: str, path: str, body: Any = None, key: str | None = KEY) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    with contextlib.closing(connection):
        content = body if isinstance(body, bytes) else json.dumps(body) if body is not None else None
        connection.request(method, path, content, {"x-functions-key": key} if key else {})
        response = connection.getresponse()
        text = response.read().decode()
        return response.status, json.loads(text) if text else None


def test_a_session_of_calls_is_answered_as_documented(port: int, sqlite_place: Place) -> None:
    health = call(port, "GET", "/api/health", key=None)
    keyless = call(port, "POST", "/api/backup/sync", key=None)
    initialized = call(port, "POST", "/api/backup/initialize")
    synced = call(port, "POST", "/api/backup/sync")
    forced = call(port, "POST", f"/api/backup/sync/order?force=true&code={KEY}", key=None)
    deep = call(port, "GET", "/api/health?deep=true", key=None)
    assert (health[0], health[1]["Status"]) == (200, "Healthy")
    assert keyless == (401, None)
    assert (initialized[0], initialized[1]["Success"]) == (200, True)
    assert (synced[0], counts(synced[1]["Results"])) == (200, {"customer": (100, 0, 0, 0), "order": (55, 0, 0, 0)})
    assert (forced[0], counts([forced[1]])) == (200, {"order": (0, 55, 0, 0)})
    assert (deep[0], len(deep[1]["Checks"])) == (200, 4)
    assert all(service.is_mirrored() for service in sqlite_place.services)


def test_wrong_calls_are_answered_with_their_status_and_a_body_that_explains(port: int) -> None:
    wrong: list[tuple[str, Any, int]] = [
        ("/api/backup/sync", b"{", 400),
        ("/api/backup/sync", b"\xff\xfe", 400),
        ("/api/backup/sync", {"service": "all", "force": True}, 400),
        ("/api/backup/sync", {"service": "customers"}, 404),
        ("/api/backup/sync/customer?force=yes", None, 400),
        ("/api/backup/sync/customer?forced=true", None, 400),
    ]
    answers = [call(port, "POST", path, body) for path, body, _ in wrong]
    assert [status for status, _ in answers] == [status for _, _, status in wrong]
    assert {tuple(body) for _, body in answers} == {("Success", "Message", "Error", "Hint")}
    for operation in OPERATIONS:
        if "{" in operation.route and operation.function != "DashboardFile":
            for name in HOSTILE:
                path = re.sub(r"{.*?}", quote(name, safe=""), f"/api/{operation.route}")
                query = "?key=7" if path.endswith("/record") else ""
                status, body = call(port, operation.method, path + query)
                assert (status, body["Success"]) == (404, False), f"{operation.function} {name[:9]!r}: {body}"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/backup/sync", 405), ("POST", "/api/health", 405), ("POST", "/api/backup/sync/invoice", 404)],
)
def test_methods_and_routes_that_do_not_exist_are_405_and_404(port: int, method: str, path: str, status: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    with contextlib.closing(connection):
        connection.request(method, path, headers={"x-functions-key": KEY})
        assert connection.getresponse().status == status
