"""The connections to a Cosmos DB account, below the SDK: one for each request in flight. Knows no database."""

from __future__ import annotations

import ssl
from typing import Any

from azure.core.pipeline.transport import RequestsTransport
from requests import Session
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry as NoRetry


def transport(kept: int, *, verified: bool) -> RequestsTransport:
    """What sends the SDK's requests, with so many connections that are kept. Unless `verified`, nobody asks who the
    server is: for emulators."""
    session = Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Connections(kept, verified))
    return RequestsTransport(session=session)


class _Connections(HTTPAdapter):
    """Keeps a connection for each request in flight; the SDK's own would keep ten, and open one for each beyond.

    What fails is told as it was, as the SDK has it, and tried again above.
    """

    def __init__(self, kept: int, verified: bool) -> None:
        self._verified = verified
        super().__init__(pool_maxsize=kept, max_retries=NoRetry(total=False, redirect=False, raise_on_status=False))

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        if not self._verified:
            # Else each connection reads the system's certificates, which takes a tenth of a second, to verify nothing.
            options["ssl_context"] = context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        super().init_poolmanager(connections, maxsize, block, **options)
