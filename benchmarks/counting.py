"""Counts, at the driver, what a process asks its source: SQLite's statements, Cosmos DB's requests.

Only for turns that are not timed. `proxy` counts, outside the process, what goes to a server over a network.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

from benchmarks.drivers import sqlite_file
from benchmarks.jobs import Job, Reads


class Counts(Protocol):
    """The counts since `begin`."""

    def begin(self) -> None: ...

    def reads(self) -> Reads: ...


def install(job: Job) -> Counts | None:
    """Starts to count at the driver. Call it before anything imports the driver. Returns None where `proxy` counts."""
    if job.place.engine == "sqlite":
        return _Sqlite(job.place.source)
    if job.place.engine == "cosmos":
        return _Cosmos(job.place.source)
    return None


class _Sqlite:
    """Counts statements on the source's file, how long each was open, and the sizes of the values they returned."""

    def __init__(self, source: str) -> None:
        self._lock = threading.Lock()
        self.begin()
        # The end of the path finds the file, which callers spell as a path and as a URI.
        tail = "/".join(sqlite_file(source).parts[-2:])
        plain = sqlite3.connect

        def connect(database: Any, *args: Any, **options: Any) -> Any:
            if tail in str(database):
                options["factory"] = _connection_class(self, options.get("factory", sqlite3.Connection))
            return plain(database, *args, **options)

        sqlite3.connect = connect
        sqlite3.dbapi2.connect = connect

    def begin(self) -> None:
        self._statements, self._bytes, self._longest = 0, 0, 0.0

    def started(self) -> None:
        with self._lock:
            self._statements += 1

    def ended(self, size: int, seconds: float) -> None:
        with self._lock:
            self._bytes += size
            self._longest = max(self._longest, seconds)

    def reads(self) -> Reads:
        return Reads(self._statements, self._bytes, self._longest)


def _connection_class(counts: _Sqlite, base: type[sqlite3.Connection]) -> type[sqlite3.Connection]:
    class Cursor(sqlite3.Cursor):
        """A cursor that reports when its statement ended, without the time that counting took."""

        _since: float | None = None
        _size = 0

        def execute(self, *args: Any) -> Any:
            return self._run(super().execute, *args)

        def executemany(self, *args: Any) -> Any:
            return self._run(super().executemany, *args)

        def _run(self, method: Callable[..., Any], *args: Any) -> Any:
            self._end()
            counts.started()
            self._since = time.perf_counter()
            return method(*args)

        def fetchone(self) -> Any:
            row = super().fetchone()
            return self._seen(row, [] if row is None else [row])

        def fetchmany(self, *args: Any, **options: Any) -> Any:
            rows = super().fetchmany(*args, **options)
            return self._seen(rows, rows)

        def fetchall(self) -> Any:
            rows = super().fetchall()
            self._seen(rows, rows)
            self._end()
            return rows

        def __next__(self) -> Any:
            try:
                row = super().__next__()
            except StopIteration:
                self._end()
                raise
            return self._seen(row, [row])

        def close(self) -> None:
            self._end()
            super().close()

        def __del__(self) -> None:
            self._end()

        def _seen(self, answer: Any, rows: list[Any]) -> Any:
            if not rows:
                self._end()
                return answer
            started = time.perf_counter()
            self._size += sum(_size(value) for row in rows for value in row)
            if self._since is not None:
                self._since += time.perf_counter() - started
            return answer

        def _end(self) -> None:
            if self._since is not None:
                counts.ended(self._size, time.perf_counter() - self._since)
            self._since, self._size = None, 0

    class Connection(base):  # type: ignore[misc, valid-type] # whatever the contender opens files with
        def cursor(self, factory: Any = Cursor) -> Any:
            return sqlite3.Connection.cursor(self, factory)

        def execute(self, *args: Any) -> Any:
            return self.cursor().execute(*args)

        def executemany(self, *args: Any) -> Any:
            return self.cursor().executemany(*args)

    return Connection


def _size(value: Any) -> int:
    """Returns the bytes of a value: 8 for a number, the length in UTF-8 for a text."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    if isinstance(value, bytes):
        return len(value)
    return 0 if value is None else 8


class _Cosmos:
    """Counts requests to the source's account, and the documents, bytes and charge of their answers."""

    def __init__(self, source: str) -> None:
        from azure.core.pipeline.transport import RequestsTransport

        self._lock = threading.Lock()
        self.begin()
        [endpoint] = [pair for pair in source.split(";") if pair.lower().startswith("accountendpoint=")]
        host = urlsplit(endpoint.partition("=")[2]).netloc
        plain = RequestsTransport.send

        def send(transport: Any, request: Any, **options: Any) -> Any:
            started = time.perf_counter()
            response = plain(transport, request, **options)
            if urlsplit(request.url).netloc == host:
                self._add(response.headers, response.body(), time.perf_counter() - started)
            return response

        RequestsTransport.send = send

    def begin(self) -> None:
        self._requests, self._bytes, self._documents, self._charge, self._longest = 0, 0, 0, 0.0, 0.0

    def _add(self, headers: Any, body: bytes, seconds: float) -> None:
        with self._lock:
            self._requests += 1
            self._bytes += len(body)
            self._longest = max(self._longest, seconds)
            self._charge += float(headers.get("x-ms-request-charge") or 0)
            self._documents += _documents(body)

    def reads(self) -> Reads:
        return Reads(self._requests, self._bytes, self._longest, self._documents, round(self._charge, 2) or None)


def _documents(body: bytes) -> int:
    """Returns how many documents, or parts of documents, the answer has. Sums and numbers do not count."""
    try:
        answer = json.loads(body or b"null")
    except ValueError:
        return 0
    if not isinstance(answer, dict):
        return 0
    if isinstance(answer.get("Documents"), list):
        return sum(isinstance(document, dict) for document in answer["Documents"])  # a partition's sum comes in a list
    return int("_etag" in answer and "_self" in answer and "/docs/" in str(answer["_self"]))
