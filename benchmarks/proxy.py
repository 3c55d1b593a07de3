"""A proxy between a client and its server. Counts bytes from the server, and statements and how long each took.

It reads the framing of PostgreSQL's protocol and of SQL Server's (TDS), and changes nothing. So it counts any client,
in any language. On encrypted connections it can count only bytes.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from benchmarks.jobs import EngineName, Reads

_AT_ONCE = 256 * 1024
_READY = b"Z\x00\x00\x00\x05"


class Meter:
    """The counts of all connections through the proxy."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statements, self._bytes, self._longest = 0, 0, 0.0
        self._readable = True

    def add(self, statements: int = 0, size: int = 0, seconds: float = 0.0) -> None:
        with self._lock:
            self._statements += statements
            self._bytes += size
            self._longest = max(self._longest, seconds)

    def cannot_be_read(self) -> None:
        """Notes that a connection is encrypted."""
        self._readable = False

    def reads(self) -> Reads:
        if not self._readable:
            return Reads(bytes=self._bytes)
        return Reads(self._statements, self._bytes, self._longest)


class Postgres:
    """One connection's messages. A statement is a Query, or an Execute; it ends when the server is ready again."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._sent = bytearray()
        self._started = False
        self._since: float | None = None

    def sent(self, data: bytes) -> None:
        self._sent += data
        while len(self._sent) >= 5:
            typed = self._started
            length = int.from_bytes(self._sent[1:5] if typed else self._sent[:4]) + typed
            if len(self._sent) < length:
                return
            kind = chr(self._sent[0]) if typed else ""
            # The startup message has this code; the messages before it ask for encryption.
            if not typed and int.from_bytes(self._sent[4:8]) == 196608:
                self._started = True
            if kind in "QE" and kind:
                self._meter.add(statements=1)
                self._since = self._since or time.perf_counter()
            del self._sent[:length]

    def received(self, data: bytes) -> None:
        self._meter.add(size=len(data))
        if not self._started:
            if data[:1] == b"S":
                self._meter.cannot_be_read()
            return
        # The last message says that the server is ready. To look for it in every message would slow the answer down.
        if self._since is not None and data[-6:-1] == _READY:
            self._meter.add(seconds=time.perf_counter() - self._since)
            self._since = None


class Tds:
    """One connection's packets. A statement is a batch or a procedure call; it ends with the answer's last packet."""

    _BATCH, _CALL, _ANSWER, _LAST = 1, 3, 4, 1

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._sent, self._received = bytearray(), bytearray()
        self._since: float | None = None

    def sent(self, data: bytes) -> None:
        self._sent += data
        for kind, last in _packets(self._sent):
            if kind in (self._BATCH, self._CALL) and last:
                self._meter.add(statements=1)
                self._since = time.perf_counter()

    def received(self, data: bytes) -> None:
        self._meter.add(size=len(data))
        self._received += data
        for kind, last in _packets(self._received):
            if kind == self._ANSWER and last and self._since is not None:
                self._meter.add(seconds=time.perf_counter() - self._since)
                self._since = None


def _packets(buffer: bytearray) -> Iterator[tuple[int, bool]]:
    """Takes whole packets from the start of the buffer. Yields each one's kind, and whether it ends its message."""
    while len(buffer) >= 8:
        encrypted = buffer[0] in range(0x14, 0x18) and buffer[1] == 3  # the login is always encrypted
        length = int.from_bytes(buffer[3:5]) + 5 if encrypted else int.from_bytes(buffer[2:4])
        if len(buffer) < length or length < 5:
            return
        if not encrypted:
            yield buffer[0], bool(buffer[1] & 1)
        del buffer[:length]


@contextmanager
def counted(engine: EngineName, host: str, port: int) -> Iterator[tuple[int, Meter]]:
    """Opens a port of this machine that leads to the server; closes it at the end. Yields the port and the counts."""
    meter = Meter()
    kind = Postgres if engine == "postgresql" else Tds
    opened: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                    server = socket.create_connection((host, port))
                except OSError:
                    return
                opened.extend([client, server])
                watch = kind(meter)
                for reader, writer, count in ((client, server, watch.sent), (server, client, watch.received)):
                    threading.Thread(target=_pass_on, args=(reader, writer, count), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], meter
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    for connection in opened:
        connection.close()


def _pass_on(reader: socket.socket, writer: socket.socket, count: Callable[[bytes], None]) -> None:
    with suppress(OSError):
        while data := reader.recv(_AT_ONCE):
            count(data)
            writer.sendall(data)
        writer.shutdown(socket.SHUT_WR)
