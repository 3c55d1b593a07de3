"""The local host over real HTTP with throwaway apps, and beside the real worker, with which it must agree."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import pytest
import uvicorn

from backup.config import ncrontab
from backup.core.errors import ConfigError
from backup.dev import host
from tests.functions.worker import WorkerFailed, run_in_worker, worker

DEADLINE_SECONDS = 30
HEAD = """
import asyncio, json, logging, os, queue, threading
import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
"""
ECHO = """
@app.route("echo", methods=["POST"])
def Echo(req: func.HttpRequest) -> func.HttpResponse:
    headers = {name: value for name, value in req.headers.items() if name.startswith("x-")}
    seen = [req.method, dict(req.params), headers, req.get_body().decode("latin-1")]
    print("printed by Echo")
    logging.getLogger("demo").info("logged by Echo")
    return func.HttpResponse(json.dumps(seen), status_code=207, headers={"X-Reply": "yes"},
                             mimetype="application/json")
"""
TEXT = """
@app.route("text", methods=["GET"])
async def Text(req: func.HttpRequest) -> str:
    return "plain"
"""
BROKEN = """
@app.route("broken", methods=["GET"])
def Broken(req: func.HttpRequest) -> func.HttpResponse:
    raise RuntimeError("it broke with AccountKey=c2VjcmV0")
"""
NOTHING = """
@app.route("nothing", methods=["GET"])
def Nothing(req: func.HttpRequest) -> func.HttpResponse:
    pass
"""
HEALTH = """
@app.route("health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def Health(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("well")
"""
ITEMS = """
@app.route("items/{id}/{part?}")
def Item(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(json.dumps(dict(req.route_params)))

@app.route("items/all")
def AllItems(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("all")

@app.route("files")
def Files(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("hidden")

@app.route("files/{*path}")
def File(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(json.dumps(dict(req.route_params)))

@app.route("parts")
def Parts(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(json.dumps("parts"))

@app.route("parts/{*path:minlength(1)}")
def Part(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(json.dumps(dict(req.route_params)))

@app.route("parts/one")
def OnePart(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(json.dumps("one"))
"""
MEET = """
both = threading.Barrier(2)

@app.route("meet")
def Meet(req: func.HttpRequest) -> func.HttpResponse:
    both.wait(timeout=30)
    return func.HttpResponse("met")
"""
STUCK = """
release, events = threading.Event(), queue.Queue()

@app.route("stuck")
def Stuck(req: func.HttpRequest) -> func.HttpResponse:
    logging.getLogger("demo").info("Stuck has begun")
    release.wait()
    events.put("ended")
    return func.HttpResponse()
"""
TIMER = """
release, events = threading.Event(), queue.Queue()

@app.timer_trigger(arg_name="timer", schedule="%Cron%")
def Timed(timer: func.TimerRequest) -> None:
    events.put("past due" if timer.past_due else "began")
    release.wait()
    if os.environ.get("TIMER_FAILS"):
        raise RuntimeError("it broke")
    events.put("ended")
"""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


@pytest.fixture(autouse=True)
def as_in_a_new_process() -> Iterator[None]:
    """Takes back what loading an app does to the process."""
    path = sys.path.copy()
    sys.modules.pop("function_app", None)  # the product's own, where another test of this process has loaded it
    with mock.patch.dict(os.environ, {"Cron": "0 0 0 * * *"}):
        yield
    sys.path[:] = path
    sys.modules.pop("function_app", None)


def write_app(
    root: Path, *functions: str, host: dict[str, Any] | None = None, values: dict[str, Any] | None = None
) -> Path:
    root.joinpath("function_app.py").write_text(HEAD + "".join(functions))
    root.joinpath("host.json").write_text(json.dumps({"version": "2.0"} | (host or {})))
    if values is not None:
        root.joinpath("local.settings.json").write_text(json.dumps({"Values": values}))
    return root


@contextlib.contextmanager
def serving(root: Path, key: str | None = None) -> Iterator[int]:
    """The port of the app, served from a thread of this process."""
    # Whoever connects to a listening socket waits until it is served.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(host.build_app(root, key), log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def serve_process(root: Path, key: str | None = None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process in `serve`, and the port that it says it listens on."""
    script = (
        "import logging, sys; from pathlib import Path; from backup.dev import host;"
        "logging.basicConfig(level=logging.INFO); host.REQUEST_GRACE_SECONDS = 0;"
        f"host.serve(Path(sys.argv[1]), port=0, key={key!r}); logging.info('serve returned')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(root)],
        cwd=Path(host.__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = read_until(process, "running on http://127.0.0.1:")
            yield process, int(line.rpartition("127.0.0.1:")[2].split()[0])
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr
    logged = ""
    for line in process.stderr:
        logged += line
        if text in line:
            return line
    raise AssertionError(f"{text!r} was not logged:\n{logged}")


def call(port: int, method: str, path: str, body: str | bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read().decode())


def loaded() -> ModuleType:
    return sys.modules["function_app"]


def next_event() -> str:
    event: str = loaded().events.get(timeout=DEADLINE_SECONDS)
    return event


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


def test_the_key_is_not_logged(tmp_path: Path) -> None:
    with serve_process(write_app(tmp_path, TEXT), key="the-key") as (process, port):
        assert call(port, "GET", "/api/text?code=the-key").status == 200
        process.terminate()
        assert process.stderr
        log = process.stderr.read()
    assert "host.answered function=Text" in log
    assert "the-key" not in log


# timers


def test_a_timer_runs_when_it_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "next_due", lambda schedule, now: now)
    with serving(write_app(tmp_path, TIMER)):
        loaded().release.set()
        assert next_event() == "began"


def test_a_timer_that_runs_late_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "next_due", lambda schedule, now: now - timedelta(minutes=5))
    with serving(write_app(tmp_path, TIMER)):
        loaded().release.set()
        assert next_event() == "past due"


def test_a_timer_is_not_run_before_it_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "next_due", lambda schedule, now: now + timedelta(hours=1))
    with serving(write_app(tmp_path, TIMER)) as port:
        call(port, "GET", "/admin/functions")
        assert loaded().events.empty()


def test_a_timer_that_fails_is_logged_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host, "next_due", lambda schedule, now: now)
    monkeypatch.setenv("TIMER_FAILS", "yes")
    with serving(write_app(tmp_path, TIMER)):
        loaded().release.set()
        assert [next_event(), next_event()] == ["began", "began"]
    assert "function=Timed" in caplog.text
    assert "RuntimeError: it broke" in caplog.text


def test_a_timer_that_returns_a_value_fails_as_in_the_real_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    function = """
events = queue.Queue()

@app.timer_trigger(arg_name="timer", schedule="0 0 0 * * *")
def Timed(timer: func.TimerRequest):
    events.put("ran")
    return "a value"
"""
    monkeypatch.setattr(host, "next_due", lambda schedule, now: now)
    root = write_app(tmp_path, function)
    with serving(root):
        assert [next_event(), next_event()] == ["ran", "ran"]
    assert "host.failed function=Timed" in caplog.text
    with worker(root, {}) as running:
        assert "returned a non-None value" in running.timer("Timed")["failed"]


def test_a_timer_can_be_run_by_hand(tmp_path: Path) -> None:
    with serving(write_app(tmp_path, TIMER)) as port:
        loaded().release.set()
        answer = call(port, "POST", "/admin/functions/Timed", "{}", {"Content-Type": "application/json"})
        assert (answer.status, answer.body) == (202, "")
        assert [next_event(), next_event()] == ["began", "ended"]


def test_to_run_a_timer_by_hand_takes_the_key(tmp_path: Path) -> None:
    with serving(write_app(tmp_path, TIMER), key="the-key") as port:
        loaded().release.set()
        assert call(port, "POST", "/admin/functions/Timed").status == 401
        assert loaded().events.empty()
        key = {"x-functions-key": "the-key"}
        assert call(port, "POST", "/admin/functions/Timed", headers=key).status == 202


@pytest.mark.parametrize("name", ["None", "Health"])
def test_only_a_timer_can_be_run_by_hand(tmp_path: Path, name: str) -> None:
    with serving(write_app(tmp_path, HEALTH, TIMER)) as port:
        assert call(port, "POST", f"/admin/functions/{name}").status == 404


def test_admin_lists_the_functions(tmp_path: Path) -> None:
    with serving(write_app(tmp_path, HEALTH, TIMER)) as port:
        listed = json.loads(call(port, "GET", "/admin/functions").body)
    assert [(function["name"], function["trigger"]["type"]) for function in listed] == [
        ("Health", "httpTrigger"),
        ("Timed", "timerTrigger"),
    ]


@pytest.mark.parametrize("timeout", ["-1", "00:00:00"])
def test_a_timer_never_overlaps_itself_even_beyond_its_timeout(tmp_path: Path, timeout: str) -> None:
    with serving(write_app(tmp_path, HEALTH, TIMER, host={"functionTimeout": timeout})) as port:
        call(port, "POST", "/admin/functions/Timed")
        assert next_event() == "began"
        call(port, "POST", "/admin/functions/Timed")
        call(port, "GET", "/api/health")  # a turn of the event loop and a thread later
        loaded().release.set()
        assert [next_event() for _ in range(3)] == ["ended", "began", "ended"]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("0 0 0 * * *", "2026-01-02T00:00:00"),
        ("30 */5 * * * *", "2026-01-01T10:30:30"),
        ("0 0 0 13 * 5", "2026-02-13T00:00:00"),  # the 13th AND a Friday
        ("0 0 9-17 * Jan Mon-Fri", "2026-01-01T11:00:00"),
        ("0 0 0 1,15 */6 *", "2026-01-15T00:00:00"),
    ],
)
def test_schedules_are_ncrontab_in_utc(schedule: str, expected: str) -> None:
    now = datetime.fromisoformat("2026-01-01T12:26:00+02:00")
    assert ncrontab.next_due(schedule, now) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "schedule",
    [
        *("", "0 0 * * *", "0 0 0 * * * 2026", "@daily", "00:05:00", "60 0 0 * * *", "0 0 0 31 2 *"),
        *("0 0 0 L * *", "0 0 0 15W * *", "0 0 0 ? * *", "0 0 0 * * 7", "0 0 0 * * 1#2", "0 0 0 R * *"),
        *("0 0 0 1, * *", "0 0 0 * * Monday"),
    ],
)
def test_what_is_not_ncrontab_is_refused(schedule: str) -> None:
    with pytest.raises(ConfigError, match="is not an NCRONTAB expression"):
        ncrontab.next_due(schedule, datetime(2026, 1, 1, tzinfo=UTC))


# start


@pytest.mark.parametrize(
    "function",
    [
        '@app.route("x")\ndef Bad(request: func.HttpRequest) -> func.HttpResponse: ...\n',
        '@app.route("x")\ndef Bad() -> func.HttpResponse: ...\n',
        '@app.timer_trigger("timer", "0 0 0 * * *")\ndef Bad(t: func.TimerRequest) -> None: ...\n',
        '@app.route("x")\ndef Bad(req: func.HttpRequest, more: str) -> func.HttpResponse: ...\n',
    ],
)
def test_parameters_that_do_not_match_the_bindings_are_refused_as_by_the_real_worker(
    tmp_path: Path, function: str
) -> None:
    root = write_app(tmp_path, HEALTH, function)
    with pytest.raises(ConfigError, match=r"^Bad takes "):
        host.build_app(root)
    with pytest.raises(WorkerFailed, match="Bad"):
        run_in_worker(root, {}, [])


def test_other_triggers_are_refused_by_name(tmp_path: Path) -> None:
    function = """
@app.blob_trigger(arg_name="blob", path="a/b", connection="AzureWebJobsStorage")
def Work(blob: func.InputStream) -> None: ...
"""
    with pytest.raises(ConfigError, match=r"^Work: the local host has no blobTrigger"):
        host.build_app(write_app(tmp_path, function))


@pytest.mark.parametrize("more", ["app = None\n", "second = func.FunctionApp()\n"])
def test_an_app_file_without_exactly_one_app_is_refused(tmp_path: Path, more: str) -> None:
    with pytest.raises(ConfigError, match="must define one FunctionApp"):
        host.build_app(write_app(tmp_path, more))


def test_a_schedule_whose_setting_is_missing_is_refused_by_the_name_of_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("Cron")
    with pytest.raises(ConfigError, match=r"^The setting Cron, .* is missing"):
        host.build_app(write_app(tmp_path, TIMER))


def test_a_schedule_finds_its_setting_regardless_of_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("Cron")
    monkeypatch.setenv("CRON", "0 0 0 * * *")
    with serving(write_app(tmp_path, TIMER)) as port:
        assert call(port, "GET", "/admin/functions").status == 200


def test_a_schedule_that_is_not_ncrontab_is_refused_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Cron", "0 0 * * *")
    with pytest.raises(ConfigError, match=r"'0 0 \* \* \*' is not an NCRONTAB expression"):
        host.build_app(write_app(tmp_path, TIMER))


@pytest.mark.parametrize("name", ["local.settings.json", "host.json"])
def test_a_settings_file_that_is_not_json_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write_app(tmp_path, HEALTH).joinpath(name).write_text("{")
    with pytest.raises(ConfigError, match=f"{name} is not valid JSON"):
        host.build_app(tmp_path)


def test_local_settings_fill_the_environment_and_do_not_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SET_BEFORE", "environment")
    values = {"SET_BEFORE": "file", "NOT_SET": "file", "A_FLAG": True}
    host.build_app(write_app(tmp_path, HEALTH, values=values))
    environment_values = [os.environ[name] for name in values]
    assert environment_values == ["environment", "file", "true"]


# serve


def test_serve_listens_on_one_loopback_address_only(tmp_path: Path) -> None:
    with serve_process(write_app(tmp_path, HEALTH)) as (_, port):
        assert call(port, "GET", "/api/health").body == "well"
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.2", port)) != 0


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_cleanly_on_a_signal_even_while_a_function_runs(tmp_path: Path, stop: signal.Signals) -> None:
    with serve_process(write_app(tmp_path, STUCK)) as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/api/stuck")
            read_until(process, "Stuck has begun")
            process.send_signal(stop)
            read_until(process, "serve returned")
            assert process.wait(DEADLINE_SECONDS) == 0


# the harness of the real worker


def test_the_worker_runs_calls_side_by_side(tmp_path: Path) -> None:
    with worker(write_app(tmp_path, MEET), {}) as running:
        calls = [running.call("Meet") for _ in range(2)]
        assert [pending.result(DEADLINE_SECONDS)["body"] for pending in calls] == ["met", "met"]


def test_the_worker_keeps_what_the_app_prints_and_logs(tmp_path: Path) -> None:
    with worker(write_app(tmp_path, ECHO), {}) as running:
        assert running.http("Echo", "POST")["status"] == 207
        assert "printed by Echo" in running.log
        assert "logged by Echo" in running.log


def test_the_worker_runs_timers(tmp_path: Path) -> None:
    function = """
@app.timer_trigger(arg_name="timer", schedule="%Cron%")
def Punctual(timer: func.TimerRequest) -> None:
    if timer.past_due:
        raise RuntimeError("too late")
"""
    with worker(write_app(tmp_path, function), {}) as running:
        assert running.timer("Punctual") == {}
        assert "too late" in running.timer("Punctual", past_due=True)["failed"]


def test_the_worker_has_the_given_settings_and_none_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SourceDb__ConnectionString", "of this process")
    monkeypatch.setenv("AzureWebJobsStorage", "of this process")
    function = """
@app.route("settings")
def Settings(req: func.HttpRequest) -> func.HttpResponse:
    names = ["SourceDb__ConnectionString", "AzureWebJobsStorage", "BackupDb__ConnectionString"]
    return func.HttpResponse(json.dumps([os.environ.get(name) for name in names]))
"""
    env = {"BackupDb__ConnectionString": "given"}
    (answer,) = run_in_worker(write_app(tmp_path, function), env, [{"name": "Settings"}])
    assert json.loads(answer["body"]) == [None, None, "given"]


def test_a_worker_that_dies_fails_the_call_that_waits_for_it(tmp_path: Path) -> None:
    with worker(write_app(tmp_path, STUCK), {}) as running:
        waiting = running.call("Stuck")
        running.process.kill()
        with pytest.raises(WorkerFailed, match="The worker ended"):
            waiting.result(DEADLINE_SECONDS)
