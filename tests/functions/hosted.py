"""Throwaway apps, the local host that serves them, and its callers."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import uvicorn

from backup.dev import host

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
