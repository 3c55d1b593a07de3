"""A webhook's server on 127.0.0.1 that answers as a test says: well, with errors, late, or never."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class HookRequest(NamedTuple):
    """A request that came."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def event(self) -> Any:
        return json.loads(self.body)


class Hook:
    """The server's side: `status` is what it answers; while `answers` is not set it answers nothing."""

    def __init__(self) -> None:
        self.requests: list[HookRequest] = []
        self.status: int | Callable[[Any], int] = 204
        self.location: str | None = None
        self.answers = threading.Event()
        self.answers.set()
        self.came = threading.Condition()
        self.url = ""

    def wait_for(self, number: int) -> list[HookRequest]:
        """The requests, once so many came."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.requests) >= number, 20), (
                f"{len(self.requests)} of {number} came"
            )
        return self.requests

    @property
    def events(self) -> list[Any]:
        return [request.event for request in self.requests]


@contextmanager
def hook() -> Iterator[Hook]:
    made = Hook()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with made.came:
                made.requests.append(HookRequest(self.path, dict(self.headers), body))
                made.came.notify_all()
            made.answers.wait(20)
            status = made.status if isinstance(made.status, int) else made.status(json.loads(body))
            self.send_response(status)
            if made.location:
                self.send_header("Location", made.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the server's name for it

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        made.url = f"http://127.0.0.1:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            made.answers.set()
            server.shutdown()
            thread.join()
