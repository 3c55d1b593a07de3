"""A TCP proxy that cuts a connection at a chosen byte."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """Passes bytes on between its clients and a server on 127.0.0.1; `cuts` counts the connections it has broken.

    After `cut_after` bytes, of those from the server or (`of_client`) from the clients, it breaks the connection that
    carries them, or (`silent`) no more passes anything on from there. Then it lets everything through, or with
    `for_good` breaks every other connection too and refuses later ones. `reached` is set then.
    """

    server_port: int
    cut_after: int
    of_client: bool = False
    for_good: bool = False
    silent: bool = False
    cuts: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    port: int = 0
    _passed: int = 0
    _open: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def running(self) -> Iterator[Proxy]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
            accepting = threading.Thread(target=self._accept, args=(listening,), daemon=True)
            accepting.start()
            yield self
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for end in self._open if self.silent else ():
                end.close()

    def lead_to(self, server_port: int) -> None:
        """Breaks all connections; later ones lead to this server."""
        with self._lock:
            self.server_port = server_port
            ended = [*self._open]
        for end in ended:
            with contextlib.suppress(OSError):  # closed already
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", self.server_port))
                with self._lock:
                    refused = self.cuts and self.for_good
                    self._open += [client, server]
                if refused:
                    client.close()
                    server.close()
                    continue
                for reader, writer, counted in ((client, server, self.of_client), (server, client, not self.of_client)):
                    threading.Thread(target=self._pass_on, args=(reader, writer, counted), daemon=True).start()

    def _pass_on(self, reader: socket.socket, writer: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):  # the other direction was cut
            while data := reader.recv(16384):
                if counted and self._is_reached(len(data)):
                    self.reached.set()
                    if self.silent:
                        return
                    break
                writer.sendall(data)
        with self._lock:
            ended = self._open if self.cuts and self.for_good else [reader, writer]
        for end in ended:
            with contextlib.suppress(OSError):  # closed already
                end.shutdown(socket.SHUT_RDWR)
        reader.close()
        writer.close()

    def _is_reached(self, more: int) -> bool:
        with self._lock:
            if self.cuts:
                return False
            self._passed += more
            self.cuts = int(self._passed > self.cut_after)
            return bool(self.cuts)
