"""A Cosmos DB account that misbehaves: a proxy before the real one that throttles, loses and delays by a seeded chance.

What becomes of a request depends on the seed, on the request and on how often the same one came before, and not on
the order in which threads happen to send theirs: the same seed does the same again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DELAY_SECONDS = 0.02
UPSTREAM_SECONDS = 30
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}
_OF_ONE_RUN = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")


class Fate(StrEnum):
    """What becomes of a request."""

    PASSED = "passed"
    THROTTLED = "throttled"
    """429, and not passed on."""
    REQUEST_LOST = "request lost"
    """The connection breaks, and it was not passed on."""
    ANSWER_LOST = "answer lost"
    """The connection breaks after the server has carried it out."""
    DELAYED = "delayed"


Odds = dict[Fate, float]
"""How likely each fate is; what is left to 1 passes."""

CALM: Odds = {}
HALF_THROTTLED: Odds = {Fate.THROTTLED: 0.5, Fate.REQUEST_LOST: 0.05, Fate.ANSWER_LOST: 0.07, Fate.DELAYED: 0.05}


@dataclass
class Chaos:
    """A proxy before the account of a connection string; `fates` counts what became of (method, fate)."""

    server: str
    odds: Odds
    seed: int
    account: str = ""
    fates: Counter[tuple[str, Fate]] = field(default_factory=Counter)
    _seen: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[Chaos]:
        """Serves under `account`, a connection string, until the block is left."""
        parts = dict(part.partition("=")[::2] for part in self.server.strip(";").split(";"))
        with _Server(self, parts["AccountEndpoint"]) as server:
            serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            serving.start()
            self.account = f"AccountEndpoint=https://127.0.0.1:{server.server_port}/;AccountKey={parts['AccountKey']};"
            try:
                yield self
            finally:
                self._ended.set()
                server.shutdown()
                serving.join()

    def count(self, fate: Fate, *methods: str) -> int:
        """How many requests met the fate, of these methods or of all."""
        return sum(n for (method, its), n in self.fates.items() if its is fate and (not methods or method in methods))

    def fate_of(self, method: str, path: str, body: bytes) -> Fate:
        signature = _OF_ONE_RUN.sub("", f"{method} {path} {_gist(body)}")
        with self._lock:
            self._seen[signature] += 1
            drawn = random.Random(f"{self.seed} {signature} {self._seen[signature]}").random()
            fate = Fate.PASSED
            for one, share in self.odds.items():
                if drawn < share:
                    fate = one
                    break
                drawn -= share
            self.fates[method, fate] += 1
            return fate

    def delay(self) -> None:
        self._ended.wait(DELAY_SECONDS)


def _gist(body: bytes) -> str:
    """What tells a query or a document from others in every run alike: times and etags differ."""
    try:
        content = json.loads(body)
        return str(content.get("query") or content.get("id"))
    except (ValueError, AttributeError):
        return ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, chaos: Chaos, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.chaos, self.upstream = chaos, urlsplit(endpoint)
        self._tls = _self_signed()
        self.to_upstream = ssl._create_unverified_context()  # noqa: S323 - emulators sign their own certificates

    def get_request(self) -> tuple[socket.socket, Any]:
        plain, address = super().get_request()
        # The handshake is left to the connection's own thread.
        return self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _pass_on(self) -> None:
        chaos = self.server.chaos
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fate = chaos.fate_of(self.command, self.path, body)
        if fate is Fate.DELAYED:
            chaos.delay()
        if fate is Fate.THROTTLED:
            self._answer(429, {"x-ms-retry-after-ms": "1"}, b'{"code": "TooManyRequests", "message": "Slow down."}')
        elif fate is Fate.REQUEST_LOST:
            self._break()
        else:
            answer = self._ask_server(body)
            if fate is Fate.ANSWER_LOST:
                self._break()
            else:
                self._answer(*answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _pass_on  # noqa: N815 - the base class calls them so

    def _ask_server(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        where = self.server.upstream
        # A connection for each request: a kept one may be closed by the server at any time, which would be a loss
        # that nobody has drawn.
        connection = http.client.HTTPSConnection(
            where.hostname or "", where.port, timeout=UPSTREAM_SECONDS, context=self.server.to_upstream
        )
        with contextlib.closing(connection):
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            return answer.status, kept, answer.read()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if status not in (204, 304):
            lines.append(f"Content-Length: {len(body)}")
        # In one piece: two would wait for each other's acknowledgement.
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if self.command == "HEAD" else body))

    def _break(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


def _self_signed() -> ssl.SSLContext:
    """TLS for 127.0.0.1 with a certificate made here and now, which the SDK does not verify."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        pem = Path(folder, "certificate-and-key.pem")
        pem.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        )
        context.load_cert_chain(pem)
    return context
