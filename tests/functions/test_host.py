"""The local host over real HTTP with throwaway apps, and beside the real worker, with which it must agree."""

import json
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from backup.core.errors import ConfigError
from backup.dev import host
from tests.functions.hosted import (
    BROKEN,
    DEADLINE_SECONDS,
    ECHO,
    HEALTH,
    ITEMS,
    MEET,
    NOTHING,
    STUCK,
    TEXT,
    TIMER,
    call,
    loaded,
    next_event,
    serve_process,
    serving,
    write_app,
)
from tests.functions.worker import run_in_worker

pytestmark = pytest.mark.usefixtures("as_in_a_new_process")


# Who is answered

PAGE = """
@app.route("page", methods=["GET", "HEAD", "POST", "OPTIONS"])
def Page(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(req.get_body())
"""
KEY = "key-of-this-test"


def test_pages_of_others_are_refused_whatever_they_ask_and_programs_and_own_pages_answered(tmp_path: Path) -> None:
    own = "127.0.0.1:{port}"
    foreign: list[dict[str, str]] = [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Host": "localhost@evil.example"},
        {"Host": "0.0.0.0:{port}"},
        {"Host": ""},
        *({"Host": own, "Origin": origin} for origin in ("https://evil.example", "null", "http://localhost:{port}")),
        *({"Host": own, "Origin": origin} for origin in ("http://127.0.0.1:3000", "https://127.0.0.1:{port}", "")),
        *({"Host": own, "Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "Cross-Site", "x")),
        {"Host": own, "Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "cross-site"},
        {"Host": own, "Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
        {"Host": own, "Origin": "https://evil.example", "x-functions-key": KEY},
        {"Host": own, "Origin": "https://evil.example", "Content-Type": "text/plain"},
    ]
    known: list[dict[str, str]] = [
        *({"Host": host} for host in (own, "localhost:{port}", "LocalHost", "[::1]:{port}", "127.0.0.1")),
        {"Host": own, "Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"},
        {"Host": "localhost:{port}", "Origin": "http://localhost:{port}"},
        {"Host": own, "Sec-Fetch-Site": "none"},
    ]

    def status(method: str, path: str, headers: dict[str, str]) -> int:
        asked = {name: value.format(port=port) for name, value in headers.items()}
        return call(port, method, path, "{}" if method == "POST" else "", {"x-functions-key": KEY} | asked).status

    with serving(write_app(tmp_path, PAGE, TIMER), KEY) as port:
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            assert [status(method, "/api/page", headers) for headers in foreign] == [403] * len(foreign), method
            assert [status(method, "/api/page", headers) for headers in known] == [200] * len(known), method
        for path in ("/admin/functions", "/admin/functions/Timed", "/api/none"):
            assert status("POST", path, foreign[0]) == status("GET", path, foreign[6]) == 403


def test_without_a_key_a_program_is_answered_whatever_its_content_type_and_a_page_is_not(tmp_path: Path) -> None:
    with serving(write_app(tmp_path, PAGE)) as port:
        for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "text/plain"}):
            assert call(port, "POST", "/api/page", '{"a": 1}', headers).body == '{"a": 1}'
            assert call(port, "POST", "/api/page", "{}", headers | {"Origin": "http://evil.example"}).status == 403
            assert call(port, "POST", "/api/page", "{}", headers | {"Host": "evil.example"}).status == 403


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, mock.patch.object(signal, "signal"):
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} of 127.0.0.1 is in use") as caught:
            host.serve(write_app(tmp_path, HEALTH), port)
    assert "--port" in caught.value.hint


# HTTP


def test_hands_over_method_query_headers_and_body_and_answers_with_status_and_headers(tmp_path: Path) -> None:
    with serving(write_app(tmp_path, ECHO)) as port:
        answer = call(port, "POST", "/api/echo?a=1&b=two%20words", b"\xff\x00body", {"X-Given": "h"})
    assert json.loads(answer.body) == ["POST", {"a": "1", "b": "two words"}, {"x-given": "h"}, "\xff\0body"]
    assert answer.status == 207
    assert answer.headers["x-reply"] == "yes"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("name", "method", "path", "body"),
    [
        ("Echo", "POST", "/api/echo?a=1&a=2&empty=&c=%C3%A9", b'{"x": "\xc3\xa9"}'),
        ("Echo", "POST", "/api/echo", b"\xff\xfe"),
        ("Text", "GET", "/api/text", b""),
        ("Broken", "GET", "/api/broken", b""),
        ("Nothing", "GET", "/api/nothing", b""),
    ],
)
def test_answers_as_the_real_worker_does(tmp_path: Path, name: str, method: str, path: str, body: bytes) -> None:
    root = write_app(tmp_path, ECHO, TEXT, BROKEN, NOTHING)
    headers = {"X-Given": "h"}
    with serving(root) as port:
        answer = call(port, method, path, body, headers)
    request = {"method": method, "url": f"http://localhost{path}", "body": body, "headers": headers}
    (expected,) = run_in_worker(root, {}, [{"name": name, **request}])
    if "failed" in expected:
        assert (answer.status, answer.body) == (500, "")
    else:
        assert (answer.status, answer.body) == (expected["status"], expected["body"])
        for header, value in expected["headers"].items():
            assert answer.headers[header.lower()] == value


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/items/7", {"id": "7"}),
        ("/api/items/7/x%20y", {"id": "7", "part": "x y"}),
        ("/api/files/a/b.txt", {"path": "a/b.txt"}),
        ("/api/files", {}),  # Azure tries longer routes first, and the rest may be empty
        ("/api/files/", {}),
        ("/api/parts/a%2fb", {"path": "a%2fb"}),  # no end of a segment, and Azure leaves it as it is
        ("/api/items/a%2Fb%2525%0A", {"id": "a%2Fb%25\n"}),
        ("/api/files/a/%0Ab%0A", {"path": "a/\nb\n"}),
        ("/api/parts/one/x", {"path": "one/x"}),
        ("/api/parts/one", "one"),
        ("/api/Parts/One/", "one"),
        ("/api/parts", "parts"),
        ("/api/parts/", "parts"),
    ],
)
def test_hands_over_route_parameters_of_which_a_last_optional_one_may_be_missing(
    tmp_path: Path, path: str, expected: dict[str, str] | str
) -> None:
    with serving(write_app(tmp_path, ITEMS)) as port:
        assert json.loads(call(port, "GET", path).body) == expected


def test_an_empty_route_is_the_name_of_the_function(tmp_path: Path) -> None:
    with serving(write_app(tmp_path, HEALTH.replace('"health"', '""'))) as port:
        assert call(port, "GET", "/api/Health").body == "well"


def test_a_literal_segment_goes_before_a_parameter(tmp_path: Path) -> None:
    with serving(write_app(tmp_path, ITEMS)) as port:
        assert call(port, "GET", "/api/items/all").body == "all"


@pytest.mark.parametrize("path", ["/api/HEALTH", "/API/health/"])
def test_routes_match_regardless_of_case_and_of_a_slash_at_the_end(tmp_path: Path, path: str) -> None:
    with serving(write_app(tmp_path, HEALTH)) as port:
        assert call(port, "GET", path).body == "well"


@pytest.mark.parametrize(("prefix", "path"), [("", "/health"), ("v1/x", "/v1/x/health")])
def test_routes_begin_with_the_prefix_of_host_json(tmp_path: Path, prefix: str, path: str) -> None:
    host = {"extensions": {"http": {"routePrefix": prefix}}}
    with serving(write_app(tmp_path, HEALTH, host=host)) as port:
        assert call(port, "GET", path).status == 200
        assert call(port, "GET", "/api/health").status == 404


@pytest.mark.parametrize("path", ["/api/none", "/health", "/", "/api/healthy", "/api/health/x"])
def test_an_unknown_route_is_404(tmp_path: Path, path: str) -> None:
    with serving(write_app(tmp_path, HEALTH)) as port:
        assert call(port, "GET", path).status == 404


@pytest.mark.parametrize("method", ["HEAD", "POST", "DELETE", "BREW"])
def test_a_method_the_function_does_not_name_is_405(tmp_path: Path, method: str) -> None:
    with serving(write_app(tmp_path, HEALTH)) as port:
        assert call(port, method, "/api/health").status == 405


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH"])
def test_a_function_that_names_no_method_takes_all(tmp_path: Path, method: str) -> None:
    with serving(write_app(tmp_path, ITEMS)) as port:
        assert call(port, method, "/api/items/all").status == 200


def test_a_handler_that_raises_is_a_500_without_a_body_and_a_log_line_without_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(write_app(tmp_path, BROKEN)) as port:
        answer = call(port, "GET", "/api/broken")
    assert (answer.status, answer.body) == (500, "")
    assert "function=Broken" in caplog.text
    assert "RuntimeError: it broke" in caplog.text
    assert "c2VjcmV0" not in caplog.text


def test_requests_run_side_by_side(tmp_path: Path) -> None:
    with serving(write_app(tmp_path, MEET)) as port, ThreadPoolExecutor() as pool:
        answers = [pool.submit(call, port, "GET", "/api/meet") for _ in range(2)]
        assert [answer.result(DEADLINE_SECONDS).body for answer in answers] == ["met", "met"]


def test_a_sync_function_beyond_its_timeout_is_a_500_and_goes_on_to_its_end(tmp_path: Path) -> None:
    with serving(write_app(tmp_path, STUCK, host={"functionTimeout": "00:00:00"})) as port:
        assert call(port, "GET", "/api/stuck").status == 500
        loaded().release.set()
        assert next_event() == "ended"


def test_an_async_function_beyond_its_timeout_is_a_500_and_cancelled(tmp_path: Path) -> None:
    waiting = """
events = queue.Queue()

@app.route("wait")
async def Wait(req: func.HttpRequest) -> func.HttpResponse:
    try:
        await asyncio.sleep(3600)
    finally:
        events.put("cancelled")
"""
    with serving(write_app(tmp_path, waiting, host={"functionTimeout": "00:00:01"})) as port:
        assert call(port, "GET", "/api/wait").status == 500
        assert next_event() == "cancelled"


@pytest.mark.parametrize(("span", "seconds"), [("00:10:00", 600), ("01:02:03", 3723), ("-1", None)])
def test_a_timeout_is_hours_minutes_and_seconds_or_none(span: str, seconds: float | None) -> None:
    assert host._timeout_seconds(span) == seconds


# keys


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/text", {}, 401),
        ("/api/text", {"x-functions-key": "wrong"}, 401),
        ("/api/text", {"x-functions-key": "\xe9"}, 401),
        ("/api/text?code=wrong", {}, 401),
        ("/api/text", {"x-functions-key": "the-key"}, 200),
        ("/api/text?code=the-key", {}, 200),
        ("/api/health", {}, 200),
        ("/admin/functions", {}, 401),
        ("/admin/functions", {"x-functions-key": "the-key"}, 200),
    ],
)
def test_with_a_key_all_but_anonymous_functions_ask_for_it(
    tmp_path: Path, path: str, headers: dict[str, str], status: int
) -> None:
    with serving(write_app(tmp_path, TEXT, HEALTH), key="the-key") as port:
        assert call(port, "GET", path, headers=headers).status == status


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_nothing_asks_for_one(tmp_path: Path, key: str | None) -> None:
    with serving(write_app(tmp_path, TEXT), key) as port:
        assert call(port, "GET", "/api/text").status == 200
        assert call(port, "GET", "/api/text?code=any").status == 200
        assert call(port, "GET", "/admin/functions").status == 200


def test_a_caller_who_leaves_before_its_body_is_whole_calls_nothing_and_is_no_error(tmp_path: Path) -> None:
    with serve_process(write_app(tmp_path, ECHO, TEXT)) as (process, port):
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(b'POST /api/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"whole": true}')
            caller.shutdown(socket.SHUT_WR)
            assert b" 200 " not in caller.recv(100)
        assert call(port, "GET", "/api/text").status == 200
        process.terminate()
        assert process.stderr
        log = process.stderr.read()
    assert "Echo" not in log
    assert "Traceback" not in log


def test_the_key_is_not_logged(tmp_path: Path) -> None:
    with serve_process(write_app(tmp_path, TEXT), key="the-key") as (process, port):
        assert call(port, "GET", "/api/text?code=the-key").status == 200
        process.terminate()
        assert process.stderr
        log = process.stderr.read()
    assert "host.answered function=Text" in log
    assert "the-key" not in log
