"""A server before a Cosmos DB account: speaks HTTPS with its clients, and asks the account what it wants of it.

What it answers is for its subclasses to say. It decides nothing and keeps nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from urllib.parse import urljoin

import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

UPSTREAM_SECONDS = 30
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass(frozen=True)
class Request:
    """What is asked. Names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What is answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        """The body, which is JSON; None when there is none."""
        return json.loads(self.body) if self.body else None


@dataclass
class Front:
    """Stands before the account of a connection string."""

    server: str
    account: str = field(default="", init=False)
    """Its own connection string, while it runs."""
    ended: threading.Event = field(default_factory=threading.Event, init=False)
    _upstream: urllib3.PoolManager = field(default_factory=lambda: _pool(), init=False)

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Serves under `account` until the block is left."""
        key = _parts(self.server)["AccountKey"]
        with _Server(self) as server:
            serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            serving.start()
            self.account = f"AccountEndpoint=https://127.0.0.1:{server.server_port}/;AccountKey={key};"
            try:
                yield self
            finally:
                self.ended.set()
                server.shutdown()
                serving.join()
                self._upstream.clear()

    def respond(self, request: Request) -> Answer | None:
        """The answer; None breaks the connection."""
        raise NotImplementedError

    def ask(self, request: Request) -> Answer:
        """What the account answers."""
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        url = urljoin(_parts(self.server)["AccountEndpoint"], request.path)
        answer = self._upstream.request(
            request.method, url, body=request.body or None, headers=headers, decode_content=False
        )
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        return Answer(answer.status, kept, answer.data)


def _pool() -> urllib3.PoolManager:
    # Emulators sign their own certificates. What is lost is lost: it is for the client to ask again.
    return urllib3.PoolManager(cert_reqs="CERT_NONE", retries=False, timeout=UPSTREAM_SECONDS, maxsize=64)


def _parts(connection_string: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in connection_string.strip(";").split(";"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, front: Front) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.front, self._tls = front, self_signed()

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

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.front.respond(Request(self.command, self.path, headers, body))
        if answer is None:
            self._break()
        else:
            self._answer(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _respond  # noqa: N815 - the base class calls them so

    def _answer(self, answer: Answer) -> None:
        lines = [f"HTTP/1.1 {answer.status} {http.client.responses.get(answer.status, '')}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        body = b"" if answer.status in (204, 304) else answer.body
        if answer.status not in (204, 304):
            lines.append(f"Content-Length: {len(body)}")
        # In one piece: two would wait for each other's acknowledgement.
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if self.command == "HEAD" else body))

    def _break(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


@cache
def self_signed() -> ssl.SSLContext:
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
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
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
