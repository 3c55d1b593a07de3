"""The connections to a Cosmos DB account, below the SDK: one for each request at once. Knows no database."""

from __future__ import annotations

import ssl
from typing import Any

from azure.core.pipeline.transport import RequestsTransport
from requests import Session
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry as NoRetry


def transport(connections: int, *, verified: bool) -> RequestsTransport:
    """The transport of the SDK's requests. It keeps so many `connections` open. Without `verified` it does not check
    the server's certificate: for emulators."""
    session = Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Connections(connections, verified))
    return RequestsTransport(session=session)


class _Connections(HTTPAdapter):
    """Keeps a connection for each request at once. The SDK's own adapter keeps ten and opens a new one for each other.

    Never retries: errors reach the SDK unchanged, and `CosmosAccess` retries.
    """

    def __init__(self, maxsize: int, verified: bool) -> None:
        self._verified = verified
        super().__init__(pool_maxsize=maxsize, max_retries=NoRetry(total=False, redirect=False, raise_on_status=False))

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        if not self._verified:
            # Without a context each connection reads the system's certificates: a tenth of a second for nothing.
            options["ssl_context"] = context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        super().init_poolmanager(connections, maxsize, block, **options)
