"""A TCP proxy in front of PostgreSQL that loses the answer to a COMMIT, after the server has carried it out."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
"""The message as psycopg sends it: alone, and psycopg sends nothing else before the answer."""


@dataclass
class DeafProxy:
    """Passes bytes on. If `is_lost` returns True for a COMMIT, drops the answer and closes the connection.

    `is_lost` gets the COMMIT's number, from 1, among all of the proxy and among those of its connection.
    """

    server_port: int
    is_lost: Callable[[int, int], bool]
    port: int = 0
    commits: int = 0
    lost: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def running(self) -> Iterator[DeafProxy]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
            accepting = threading.Thread(target=self._accept, args=(listening,), daemon=True)
            accepting.start()
            try:
                yield self
            finally:
                listening.shutdown(socket.SHUT_RDWR)
                accepting.join()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", self.server_port))
                deaf = threading.Event()
                threading.Thread(target=self._ask, args=(client, server, deaf), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client, deaf), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, deaf: threading.Event) -> None:
        last, commits = b"", 0
        with contextlib.suppress(OSError):  # the other direction was cut
            while data := client.recv(16384):
                last = (last + data)[-len(_COMMIT) :]
                if last == _COMMIT:
                    commits += 1
                    if self._is_lost(commits):
                        deaf.set()
                server.sendall(data)
        _end(client, server)

    def _answer(self, server: socket.socket, client: socket.socket, deaf: threading.Event) -> None:
        with contextlib.suppress(OSError):
            # The server sends nothing before the answer to the COMMIT, and answers after it has committed.
            while (data := server.recv(16384)) and not deaf.is_set():
                client.sendall(data)
        _end(client, server)

    def _is_lost(self, of_connection: int) -> bool:
        with self._lock:
            self.commits += 1
            lost = self.is_lost(self.commits, of_connection)
            self.lost += lost
            return lost


def _end(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
