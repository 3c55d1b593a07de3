"""The local host: serves function_app.py where Azure Functions Core Tools are not installed.

It does what `func start` does, as far as this app needs it: HTTP, timer and queue triggers, function keys, routePrefix
and functionTimeout of host.json. It reads a queue if the setting of its connection has a value. At start it refuses
other bindings and the `context` parameter. It listens on 127.0.0.1 only, answers no web page but its own, and is not
part of a deployment. A function that is not async runs in a thread, which nobody can stop. When it exceeds
functionTimeout, its HTTP caller gets a 500 while it goes on; a timer waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
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
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from backup.config.ncrontab import next_due
from backup.core.errors import ConfigError
from backup.core.log import event, logger, redact
from backup.dev.loopback import OwnPagesOnly, listening_on
from backup.dev.queues import QueueOptions, keep_reading
from backup.dev.routes import EncodedSlashes, Endpoint, in_azures_order, routes_of, with_key

REQUEST_GRACE_SECONDS = 5
_LOOK_SECONDS = 60  # how long a timer trusts the clock
_QUEUE_SECONDS = 10  # how long to wait after a queue did not answer
_CODECS: Any = func.get_binding_registry()  # type: ignore[no-untyped-call]


def serve(root: Path, port: int = 7071, key: str | None = None) -> None:
    """Serves the app in `root` on 127.0.0.1 until Ctrl-C or SIGTERM, then returns. Port 0 picks a free port.

    Call it from the main thread, with logging configured: the log says where it listens. At the end, requests have
    REQUEST_GRACE_SECONDS to finish. What then still runs, and what runs for a timer, ends with the process.
    Raises ConfigError as `build_app` does, and for a port that another program uses.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # does what Ctrl-C does, also while the app loads
    with listening_on(port) as listener:
        app = build_app(root, key)
        options: dict[str, Any] = {"log_config": None, "timeout_graceful_shutdown": REQUEST_GRACE_SECONDS}
        # No access log: it would show the key that a request sends as ?code=.
        server = uvicorn.Server(uvicorn.Config(app, access_log=False, **options))
        logger.info("host.started running on http://127.0.0.1:%d (Ctrl-C ends it)", listener.getsockname()[1])
        with contextlib.suppress(KeyboardInterrupt):
            server.run([listener])


def build_app(root: Path, key: str | None = None) -> Starlette:
    """Returns the web app for function_app.py in `root`; its lifespan runs the timers and reads the queues.

    Puts the values of local.settings.json into the environment, unless it has them already, and `root` onto the import
    path. With a `key`, functions of auth level function or admin, and everything under /admin, require it as the header
    x-functions-key or as ?code=. Without one (None or empty) nothing requires it.
    Raises ConfigError, which names the function or setting, for an app that cannot run, or cannot run here.
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
        options = QueueOptions.of(host)
        tasks = [asyncio.create_task(_keep_firing(function)) for function in functions if function.schedule]
        tasks += [
            asyncio.create_task(_keep_reading(function, options)) for function in functions if function.reads_queue
        ]
        yield
        for task in tasks:
            task.cancel()

    routes = [
        route
        for function in functions
        if function.trigger["type"] == "httpTrigger"
        for route in routes_of(function.name, function.trigger, _endpoint(function), prefix, key)
    ]
    return Starlette(
        routes=[*in_azures_order(routes), *_admin_routes(functions, key)],
        lifespan=lifespan,
        middleware=[Middleware(OwnPagesOnly), Middleware(EncodedSlashes)],
    )


class _Function:
    """One function: its handler, its trigger and, for a timer, its schedule."""

    def __init__(self, function: Any, timeout_seconds: float | None) -> None:
        self.name, self.handler = function.get_function_name(), function.get_user_function()
        self.timeout_seconds = timeout_seconds
        self.running = asyncio.Lock()
        bindings = [json.loads(binding) for binding in function.get_raw_bindings()]
        self.trigger = next(binding for binding in bindings if binding["type"].endswith("Trigger"))
        for kind in {binding["type"] for binding in bindings} - {"httpTrigger", "http", "timerTrigger", "queueTrigger"}:
            raise ConfigError(f"{self.name}: the local host has no {kind}; `func start` of Core Tools has.")
        # The real worker gives a context to whoever asks. Here nobody has one.
        parameters = set(inspect.signature(self.handler).parameters) - {"context"}
        bound = {binding["name"] for binding in bindings} - {"$return"}
        if parameters != bound:  # the real worker's rule; one such function takes down the whole app there
            raise ConfigError(f"{self.name} takes {sorted(parameters)}, but its bindings are {sorted(bound)}.")
        self.schedule = ""
        if self.trigger["type"] == "timerTrigger":
            self.schedule = _resolve(self.trigger["schedule"])
            next_due(self.schedule, datetime.now(UTC))  # shows a mistake at start

    @property
    def reads_queue(self) -> bool:
        """Whether its trigger is a queue whose connection has a value."""
        return self.trigger["type"] == "queueTrigger" and bool(_setting(self.trigger["connection"]))

    async def invoke(self, datum: Datum, metadata: Mapping[str, Datum] | None = None) -> Any:
        """Calls the handler and returns its result. Raises the errors of the handler, and TimeoutError."""
        argument = _CODECS.get(self.trigger["type"]).decode(datum, trigger_metadata=metadata or {})
        call = partial(self.handler, **{self.trigger["name"]: argument})
        is_async = inspect.iscoroutinefunction(self.handler)
        run = asyncio.ensure_future(call() if is_async else _in_thread(call))
        done, _ = await asyncio.wait({run}, timeout=self.timeout_seconds)
        if not done:
            if is_async:
                run.cancel()
            elif self.schedule:  # the next run must not overlap it
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
    settings = {variable.lower(): value for variable, value in os.environ.items()}  # in Azure case does not count
    return settings.get(name.lower(), "")


async def _in_thread(call: Callable[[], Any]) -> Any:
    """Makes the call in a daemon thread, which lets the process end, and returns its result."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()  # from here on nobody can cancel it

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(future)


def _endpoint(function: _Function) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:  # its caller has left: nothing is called by half of what it wanted to say
            return Response(status_code=400)
        query = {name: ",".join(request.query_params.getlist(name)) for name in request.query_params}
        parts = {
            "method": Datum(request.method, "string"),
            "url": Datum(str(request.url), "string"),
            "headers": _strings(request.headers),
            "params": _strings(request.path_params),
            "query": _strings(query),
            "body": Datum(body, "bytes"),
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
    """Returns the values as the Functions host passes them to a worker: without empty ones (?force=)."""
    return {name: Datum(value, "string") for name, value in values.items() if value}


def _response(answer: Datum) -> Response:
    if answer.type != "http":  # the handler returned a plain str
        return PlainTextResponse(answer.value)
    headers = {name: value.value for name, value in answer.value["headers"].items()}
    return Response(answer.value["body"].value, int(answer.value["status_code"].value), headers)


def _log_failure(function: _Function) -> None:
    logger.error("%s", redact(f"host.failed function={function.name}\n{traceback.format_exc()}"))


def _admin_routes(functions: list[_Function], key: str | None) -> list[Route]:
    runs: set[asyncio.Task[None]] = set()  # or the garbage collector takes them, for the event loop keeps no reference

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

    fire_route = Route("/admin/functions/{name}", with_key(fire, key), methods=["POST"])
    return [Route("/admin/functions", with_key(listing, key)), fire_route]


async def _keep_firing(timer: _Function) -> None:
    while True:
        due = next_due(timer.schedule, datetime.now(UTC))
        event("host.scheduled", function=timer.name, due=due.isoformat())
        while (wait_seconds := (due - datetime.now(UTC)).total_seconds()) > 0:
            await asyncio.sleep(min(wait_seconds, _LOOK_SECONDS))  # the machine may sleep
            due = min(due, next_due(timer.schedule, datetime.now(UTC)))  # somebody may have set the clock back
        await _fire(timer, past_due=wait_seconds < -1)


async def _keep_reading(function: _Function, options: QueueOptions) -> None:
    async def call(message: str, metadata: Mapping[str, Any]) -> bool:
        data = {name: Datum(value, "string" if isinstance(value, str) else "int") for name, value in metadata.items()}
        try:
            await function.invoke(Datum(message, "string"), data)
        except Exception:
            _log_failure(function)
            return False
        return True

    queue = _resolve(function.trigger["queueName"])
    while True:
        try:
            await keep_reading(queue, _setting(function.trigger["connection"]), options, call)
        except Exception:  # the account may answer again later
            _log_failure(function)
            await asyncio.sleep(_QUEUE_SECONDS)


async def _fire(timer: _Function, *, past_due: bool) -> None:
    """Runs the timer once its last run has ended. Logs a failure, which stops no later run."""
    status = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": None, "IsPastDue": past_due}
    async with timer.running:
        try:
            if await timer.invoke(Datum(json.dumps(status), "json")) is not None:
                raise TypeError("A timer has nowhere to return a value to.")  # the real worker raises this, too
        except Exception:
            _log_failure(timer)
