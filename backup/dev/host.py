"""The local host: serves function_app.py where Azure Functions Core Tools are not installed.

It does as `func start` does for what this app uses: HTTP, timer and queue triggers, function keys, routePrefix and
functionTimeout of host.json. It reads a queue where the setting of its connection has a value. Other bindings and the
`context` parameter are refused at start. It never listens beyond 127.0.0.1, answers no web page but its own, and is no
part of a deployment. A sync function runs in a thread, which nobody can stop: when it exceeds functionTimeout, its HTTP
caller gets a 500 while it goes on, and a timer waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import importlib
import inspect
import json
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import azure.functions as func
import uvicorn
from azure.functions.meta import Datum
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from backup.config.ncrontab import next_due
from backup.core.errors import ConfigError
from backup.core.log import event, logger, redact
from backup.dev.loopback import OwnPagesOnly, listening_on
from backup.dev.queues import QueueOptions, keep_reading

REQUEST_GRACE_SECONDS = 5
_BEHIND_LONGER = 9
_QUEUE_SECONDS = 10  # between two tries to read a queue that does not answer
ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_CODECS: Any = func.get_binding_registry()  # type: ignore[no-untyped-call]
_Endpoint = Callable[[Request], Awaitable[Response]]


def serve(root: Path, port: int = 7071, key: str | None = None) -> None:
    """Serves the app in `root` on 127.0.0.1 until Ctrl-C or SIGTERM, then returns. Port 0 takes a free one.

    Call it from the main thread, with logging configured: the log says where it listens. Requests get
    REQUEST_GRACE_SECONDS to end in; what still runs then, or runs for a timer, ends with the process.
    Raises ConfigError as `build_app` does, and for a port that is taken.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, also while the app is imported
    with listening_on(port) as listening:
        app = build_app(root, key)
        options: dict[str, Any] = {"log_config": None, "timeout_graceful_shutdown": REQUEST_GRACE_SECONDS}
        # No access log: it would hold the key of a request that gives it as ?code=.
        server = uvicorn.Server(uvicorn.Config(app, access_log=False, **options))
        logger.info("host.started running on http://127.0.0.1:%d (Ctrl-C ends it)", listening.getsockname()[1])
        with contextlib.suppress(KeyboardInterrupt):
            server.run([listening])


def build_app(root: Path, key: str | None = None) -> Starlette:
    """The web app for function_app.py in `root`; its lifespan runs the timers.

    Values of local.settings.json go into the environment where it does not have them yet, `root` onto the
    import path. With a key, functions of auth level function or admin and all under /admin ask for it, as the
    header x-functions-key or as ?code=; without one (None or empty) nothing does.
    Raises ConfigError, naming the function or setting, for an app that cannot run, or not here.
    """
    root = root.resolve()
    for name, value in _read_json(root / "local.settings.json").get("Values", {}).items():
        os.environ.setdefault(name, value if isinstance(value, str) else json.dumps(value))
    host = _read_json(root / "host.json")
    timeout_seconds = _timeout_seconds(host.get("functionTimeout", "00:30:00"))
    prefix = host.get("extensions", {}).get("http", {}).get("routePrefix", "api")
    functions = [_Function(function, timeout_seconds) for function in _load(root).get_functions()]

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_keep_firing(one)) for one in functions if one.schedule]
        tasks += [
            asyncio.create_task(_keep_reading(one, QueueOptions.of(host))) for one in functions if one.reads_queue
        ]
        yield
        for task in tasks:
            task.cancel()

    routes = [route for function in functions for route in _routes(function, prefix, key)]
    # As in Azure, a literal segment goes before a parameter, wherever the two stand in function_app.py, and a longer
    # route before a shorter one.
    routes.sort(key=lambda route: [*(part.count("{") for part in route.path.split("/")), _BEHIND_LONGER])
    return Starlette(
        routes=[*routes, *_admin_routes(functions, key)], lifespan=lifespan, middleware=[Middleware(OwnPagesOnly)]
    )


class _Function:
    """One function: its handler, its trigger and, of a timer, its schedule."""

    def __init__(self, function: Any, timeout_seconds: float | None) -> None:
        self.name, self.handler = function.get_function_name(), function.get_user_function()
        self.timeout_seconds = timeout_seconds
        self.running = asyncio.Lock()
        bindings = [json.loads(binding) for binding in function.get_raw_bindings()]
        self.trigger = next(one for one in bindings if one["type"].endswith("Trigger"))
        for kind in {one["type"] for one in bindings} - {"httpTrigger", "http", "timerTrigger", "queueTrigger"}:
            raise ConfigError(f"{self.name}: the local host has no {kind}; `func start` of Core Tools has.")
        taken = set(inspect.signature(self.handler).parameters)
        bound = {one["name"] for one in bindings} - {"$return"}
        if taken != bound:  # the real worker's rule; there one such function takes down the whole app
            raise ConfigError(f"{self.name} takes {sorted(taken)}, but its bindings are {sorted(bound)}.")
        self.schedule = ""
        if self.trigger["type"] == "timerTrigger":
            self.schedule = _resolve(self.trigger["schedule"])
            next_due(self.schedule, datetime.now(UTC))  # so that a mistake shows at start

    @property
    def reads_queue(self) -> bool:
        """Whether it is called for the messages of a queue whose connection is set."""
        return self.trigger["type"] == "queueTrigger" and bool(_setting(self.trigger["connection"]))

    async def invoke(self, datum: Datum, metadata: Mapping[str, Datum] | None = None) -> Any:
        """What the handler returns. Raises what the handler raises, and TimeoutError."""
        argument = _CODECS.get(self.trigger["type"]).decode(datum, trigger_metadata=metadata or {})
        call = partial(self.handler, **{self.trigger["name"]: argument})
        is_async = inspect.iscoroutinefunction(self.handler)
        run = asyncio.ensure_future(call() if is_async else _in_thread(call))
        done, _ = await asyncio.wait({run}, timeout=self.timeout_seconds)
        if not done:
            if is_async:
                run.cancel()
            elif self.schedule:  # or the next run would overlap it
                await asyncio.wait({run})
            raise TimeoutError(f"{self.name} exceeded the functionTimeout of {self.timeout_seconds} s.")
        return run.result()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8-sig"))) if path.exists() else {}
    except ValueError as error:
        raise ConfigError(f"{path.name} is not valid JSON: {error}") from error


def _timeout_seconds(span: str) -> float | None:
    if span == "-1":
        return None
    hours, minutes, seconds = map(int, span.split(":"))
    return hours * 3600 + minutes * 60 + seconds


def _load(root: Path) -> func.FunctionApp:
    sys.path.insert(0, str(root))
    module = importlib.import_module("function_app")
    apps = [value for value in vars(module).values() if isinstance(value, func.FunctionApp)]
    if len(apps) != 1:
        raise ConfigError(f"function_app.py must define one FunctionApp, not {len(apps)}.")
    return apps[0]


def _resolve(text: str) -> str:
    for name in re.findall(r"%([^%]+)%", text):
        if not (value := _setting(name)):
            raise ConfigError(f"The setting {name}, which a trigger names, is missing.")
        text = text.replace(f"%{name}%", value)
    return text


def _setting(name: str) -> str:
    settings = {known.lower(): value for known, value in os.environ.items()}  # case tells nothing in Azure
    return settings.get(name.lower(), "")


async def _in_thread(call: Callable[[], Any]) -> Any:
    """The result of `call`, made in a daemon thread, which unlike an executor's lets the process end."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()  # whoever gives up waiting cannot cancel it from here on

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(future)


def _routes(function: _Function, prefix: str, key: str | None) -> Iterator[Route]:
    if function.trigger["type"] != "httpTrigger":
        return
    anonymous = function.trigger.get("authLevel") == "ANONYMOUS"
    endpoint = _guarded(_endpoint(function), None if anonymous else key)
    methods = function.trigger.get("methods") or ALL_METHODS
    path = f"{prefix}/{function.trigger.get('route') or function.name}".strip("/")
    rest = re.search(r"/\{\*\w+(:minlength\(1\))?\}$", path)
    path = "/" + re.sub(r"\{\*(\w+)(:minlength\(1\))?\}", r"{\1:path}", path)
    # A last {x?} may be left out, so it makes two routes.
    for one in {re.sub(r"/\{\w+\?\}$", "", path), path.replace("?}", "}")}:
        route = Route(one, endpoint, methods=methods)
        route.methods = set(methods)  # Starlette adds HEAD to GET, Azure does not
        # Azure matches regardless of case and of a slash at the end.
        pattern = route.path_regex.pattern.removesuffix("$")
        if rest is not None:  # what a last {*x} takes may be empty
            some = r"/\1.+)" if rest[1] else r"/?\1(?<=/).*|)"
            pattern = re.sub(r"/(\(\?P<\w+>)\.\*\)$", some, pattern)
        route.path_regex = re.compile(f"{pattern}/?$", re.I)
        event("host.route", function=function.name, methods=",".join(methods), path=one)
        yield route


def _guarded(endpoint: _Endpoint, key: str | None) -> _Endpoint:
    async def checked(request: Request) -> Response:
        given = request.headers.get("x-functions-key") or request.query_params.get("code") or ""
        if key and not hmac.compare_digest(given.encode(), key.encode()):
            return Response(status_code=401)
        return await endpoint(request)

    return checked


def _endpoint(function: _Function) -> _Endpoint:
    async def endpoint(request: Request) -> Response:
        query = {name: ",".join(request.query_params.getlist(name)) for name in request.query_params}
        parts = {
            "method": Datum(request.method, "string"),
            "url": Datum(str(request.url), "string"),
            "headers": _strings(request.headers),
            "params": _strings(request.path_params),
            "query": _strings(query),
            "body": Datum(await request.body(), "bytes"),
        }
        try:
            result = await function.invoke(Datum(parts, "http"))
            response = _response(_CODECS.get("http").encode(result, expected_type=None))
        except Exception:
            _log_failure(function)
            response = Response(status_code=500)
        event("host.answered", function=function.name, status=response.status_code)
        return response

    return endpoint


def _strings(values: Mapping[str, str]) -> dict[str, Datum]:
    """The values as the Functions host gives them to a worker: an empty one (?force=) is left out."""
    return {name: Datum(value, "string") for name, value in values.items() if value}


def _response(answer: Datum) -> Response:
    if answer.type != "http":  # the handler returned a plain str
        return PlainTextResponse(answer.value)
    headers = {name: value.value for name, value in answer.value["headers"].items()}
    return Response(answer.value["body"].value, int(answer.value["status_code"].value), headers)


def _log_failure(function: _Function) -> None:
    logger.error("%s", redact(f"host.failed function={function.name}\n{traceback.format_exc()}"))


def _admin_routes(functions: list[_Function], key: str | None) -> list[Route]:
    runs: set[asyncio.Task[None]] = set()  # the event loop alone would let them be collected

    async def listing(_: Request) -> Response:
        return JSONResponse([{"name": function.name, "trigger": function.trigger} for function in functions])

    async def fire(request: Request) -> Response:
        for timer in functions:
            if timer.schedule and timer.name == request.path_params["name"]:
                run = asyncio.create_task(_fire(timer, past_due=False))
                runs.add(run)
                run.add_done_callback(runs.discard)
                return Response(status_code=202)
        return PlainTextResponse("There is no timer of this name.", 404)

    one = Route("/admin/functions/{name}", _guarded(fire, key), methods=["POST"])
    return [Route("/admin/functions", _guarded(listing, key)), one]


async def _keep_firing(timer: _Function) -> None:
    while True:
        due = next_due(timer.schedule, datetime.now(UTC))
        event("host.scheduled", function=timer.name, due=due.isoformat())
        while (wait_seconds := (due - datetime.now(UTC)).total_seconds()) > 0:
            await asyncio.sleep(min(wait_seconds, 60))  # the clock may be set, the machine may have slept
        await _fire(timer, past_due=wait_seconds < -1)


async def _keep_reading(function: _Function, options: QueueOptions) -> None:
    async def call(message: str, metadata: Mapping[str, Any]) -> bool:
        given = {name: Datum(value, "string" if isinstance(value, str) else "int") for name, value in metadata.items()}
        try:
            await function.invoke(Datum(message, "string"), given)
        except Exception:
            _log_failure(function)
            return False
        return True

    queue = _resolve(function.trigger["queueName"])
    while True:
        try:
            await keep_reading(queue, _setting(function.trigger["connection"]), options, call)
        except Exception:  # the account does not answer; it may again
            _log_failure(function)
            await asyncio.sleep(_QUEUE_SECONDS)


async def _fire(timer: _Function, *, past_due: bool) -> None:
    """Runs the timer, after the run that still goes on. A failure is logged and stops no later run."""
    status = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": None, "IsPastDue": past_due}
    async with timer.running:
        try:
            if await timer.invoke(Datum(json.dumps(status), "json")) is not None:
                raise TypeError("A timer has nowhere to return a value to.")  # the real worker fails it, too
        except Exception:
            _log_failure(timer)
