"""Drives the real Azure Functions worker (the package azure-functions-runtime) as the Functions host does.

A process holds one app and one environment, so every `worker()` is a process of its own: this file, as a
script. Calls go in and results come out as lines of JSON, told apart by an id. What the app prints or logs
goes to standard error and is kept as `log`. Routes, keys and schedules are the host's, unknown to the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any
from urllib.parse import parse_qsl, urlsplit

from tests.programs import Program

ANSWER_SECONDS = 120  # no call of a test takes longer, unless it hangs
ENDING_SECONDS = 10


class WorkerFailed(Exception):
    """The worker refused the app, or ended before it answered."""


def run_in_worker(app_dir: Path, env: dict[str, str], calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of the calls, made one after the other in a worker process of their own.

    A call is {"name": function, …} with the arguments of `Worker.http` or `Worker.timer`.
    Raises WorkerFailed.
    """
    with worker(app_dir, env) as running:
        return [running.call(**call).result(ANSWER_SECONDS) for call in calls]


@contextlib.contextmanager
def worker(app_dir: Path, env: dict[str, str]) -> Iterator[Worker]:
    """A worker process that has indexed `app_dir`/function_app.py. It ends with the block, killed if need be.

    Its environment is `env` and this process's, less what looks like an app's setting (AzureWebJobs…, …__…).
    Raises WorkerFailed with the worker's own reason when it refuses the app.
    """
    inherited = {k: v for k, v in os.environ.items() if "__" not in k and not k.startswith("AzureWebJobs")}
    with tempfile.TemporaryDirectory() as scratch:
        log_file = Path(scratch, "log")
        with log_file.open("w") as log:
            arguments = ["-P", __file__, str(app_dir.resolve())]
            process = Program(arguments, app_dir, inherited | env, subprocess.PIPE, subprocess.PIPE, log)
        with process:
            running = Worker(process, log_file)
            try:
                running.indexed.result(ANSWER_SECONDS)
                yield running
            finally:
                running.end()


class Worker:
    """A running worker process. Several threads may call it; calls run side by side, as they do in Azure."""

    def __init__(self, process: Program, log_file: Path) -> None:
        self.process = process
        self.indexed = Future[dict[str, Any]]()
        self._waiting = {"indexed": self.indexed}
        self._lock = threading.Lock()
        self._log_file = log_file
        self._receiver = threading.Thread(target=self._receive)
        self._receiver.start()

    @property
    def log(self) -> str:
        """All that the app and the worker have logged or printed so far."""
        return self._log_file.read_text(errors="replace")

    def http(
        self,
        name: str,
        method: str = "GET",
        url: str = "http://localhost/",
        body: str | bytes = b"",
        headers: dict[str, str] | None = None,
        route: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """{"status", "headers", "body"} of the answer, or {"failed": reason}: for the host, a 500.

        `route` are the parameters that the host finds in the address.
        """
        call = self.call(name, method=method, url=url, body=body, headers=headers, route=route)
        return call.result(ANSWER_SECONDS)

    def timer(self, name: str, past_due: bool = False) -> dict[str, Any]:
        """{} once the timer function has run, {"failed": reason} when the host would log it as failed."""
        return self.call(name, past_due=past_due).result(ANSWER_SECONDS)

    def queue(self, name: str, message: str | bytes, dequeued: int = 1) -> dict[str, Any]:
        """{} once the queue function has taken the message, which the host has decoded; {"failed": reason} when the
        host would hand it out again, `dequeued` being how often it has."""
        return self.call(name, body=message, dequeued=dequeued).result(ANSWER_SECONDS)

    def call(self, name: str, **arguments: Any) -> Future[dict[str, Any]]:
        """Starts a call, with the arguments of `http`, `timer` or `queue`, and does not wait for its result."""
        if isinstance(body := arguments.get("body"), bytes):
            arguments["body"] = body.decode("utf-8", "surrogateescape")
        result, call_id = Future[dict[str, Any]](), str(uuid.uuid4())
        line = json.dumps({"call_id": call_id, "name": name, **arguments})
        with self._lock:
            self._waiting[call_id] = result
            print(line, file=self.process.stdin, flush=True)
        return result

    def end(self) -> None:
        """Lets the calls that run end, for ENDING_SECONDS; then kills the process."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._receiver.join()

    def _receive(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            answer = json.loads(line)
            result = self._waiting.pop(answer.pop("call_id"))
            if "refused" in answer:
                result.set_exception(WorkerFailed(answer["refused"]))
            else:
                result.set_result(answer)
        with self._lock:
            for result in self._waiting.values():
                result.set_exception(WorkerFailed(f"The worker ended. Its log:\n{self.log}"))


# From here on: inside the worker process.


SUCCESS = 1
ENUMS: dict[str, dict[str, Any]] = {
    "StatusResult": {"Failure": 0, "Success": SUCCESS},
    "BindingInfo": {"undefined": 0, "out": 1, "inout": 2},
}


class _Messages:
    """Stands for the gRPC protocol's messages, of which the worker sets and reads attributes only."""

    def __getattr__(self, name: str) -> type:
        return type(name, (SimpleNamespace,), dict(ENUMS.get(name, {})))


class _App:
    """The indexed app, as the host sees it."""

    def __init__(self, functions: list[Any]) -> None:
        self._ids = {function.name: function.function_id for function in functions}
        self._triggers = {function.name: _trigger(function.raw_bindings) for function in functions}

    @classmethod
    async def index(cls, app_dir: str) -> _App:
        import azure_functions_runtime as runtime  # type: ignore[import-untyped]

        sys.path.insert(0, app_dir)
        runtime.start_threadpool_executor()
        request = SimpleNamespace(capabilities={}, function_app_directory=app_dir)
        init = await runtime.worker_init_request(
            SimpleNamespace(
                request=SimpleNamespace(worker_init_request=request),
                properties={"protos": _Messages(), "host": "127.0.0.1"},
            )
        )
        if init.result.status != SUCCESS:
            raise WorkerFailed(init.result.exception.message)
        metadata = await runtime.functions_metadata_request(SimpleNamespace())
        if not metadata.function_metadata_results:
            raise WorkerFailed("No functions found.")
        return cls(metadata.function_metadata_results)

    async def invoke(self, name: str, **arguments: Any) -> dict[str, Any]:
        from azure_functions_runtime.native_invocation import (  # type: ignore[import-untyped]
            invocation_request_native,
        )

        trigger = self._triggers[name]
        datum, metadata = _MAKERS[trigger["type"]](**arguments)
        succeeded, returned, _, error, trace = await invocation_request_native(
            str(uuid.uuid4()), self._ids[name], [(trigger["name"], datum)], metadata
        )
        if not succeeded:
            return {"failed": f"{error}\n{trace}"}
        if trigger["type"] != "httpTrigger":
            return {}
        if returned.type != "http":  # the function returned a plain str
            return {"status": 200, "headers": {}, "body": returned.value}
        answer = returned.value
        return {
            "status": int(answer["status_code"].value),
            "headers": {name: value.value for name, value in answer["headers"].items()},
            "body": answer["body"].value.decode("utf-8", "surrogateescape"),
        }


def _trigger(raw_bindings: list[str]) -> dict[str, Any]:
    bindings: list[dict[str, Any]] = [json.loads(binding) for binding in raw_bindings]
    return next(binding for binding in bindings if binding["type"].endswith("Trigger"))


def _http_datum(
    method: str = "GET",
    url: str = "http://localhost/",
    body: str = "",
    headers: dict[str, str] | None = None,
    route: dict[str, str] | None = None,
) -> Any:
    from azure_functions_runtime.bindings.datumdef import Datum  # type: ignore[import-untyped]

    def strings(values: dict[str, str]) -> dict[str, Any]:
        return {name: Datum(value, "string") for name, value in values.items()}

    query: dict[str, str] = {}
    for name, value in parse_qsl(urlsplit(url).query):  # leaves out empty values, as the host does
        query[name] = f"{query[name]},{value}" if name in query else value
    datum = Datum(
        {
            "method": Datum(method, "string"),
            "url": Datum(url, "string"),
            "headers": strings({name.lower(): value for name, value in (headers or {}).items()}),
            "params": strings(route or {}),
            "query": strings(query),
            "body": Datum(body.encode("utf-8", "surrogateescape"), "bytes"),
        },
        "http",
    )
    return datum, {}


def _timer_datum(past_due: bool = False) -> Any:
    from azure_functions_runtime.bindings.datumdef import Datum

    status = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": None, "IsPastDue": past_due}
    return Datum(json.dumps(status), "json"), {}


def _queue_datum(body: str, dequeued: int) -> Any:
    from azure_functions_runtime.bindings.datumdef import Datum

    metadata = {
        "Id": Datum(str(uuid.uuid4()), "string"),
        "DequeueCount": Datum(dequeued, "int"),
        "PopReceipt": Datum("a receipt", "string"),
        "InsertionTime": Datum(json.dumps("2026-11-29T12:00:00+00:00"), "json"),
    }
    return Datum(body.encode("utf-8", "surrogateescape"), "bytes"), metadata


_MAKERS: dict[str, Any] = {
    "httpTrigger": _http_datum,
    "timerTrigger": _timer_datum,
    "queueTrigger": _queue_datum,
}


async def _serve(app_dir: str, answers: IO[str]) -> None:
    """Indexes the app, then answers the calls on standard input, side by side, until that ends."""

    def answer(call_id: str, content: dict[str, Any]) -> None:
        print(json.dumps({"call_id": call_id, **content}), file=answers, flush=True)

    async def take(call_id: str, **call: Any) -> None:
        answer(call_id, await app.invoke(**call))

    try:
        app = await _App.index(app_dir)
    except WorkerFailed as refusal:
        answer("indexed", {"refused": str(refusal)})
        return
    answer("indexed", {})
    async with asyncio.TaskGroup() as tasks:
        while line := await asyncio.to_thread(sys.stdin.readline):
            tasks.create_task(take(**json.loads(line)))


if __name__ == "__main__":
    private_stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the app prints must not come between the answers
    # Of a log record the worker forwards nothing but the formatted message.
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(_serve(sys.argv[1], private_stdout))
