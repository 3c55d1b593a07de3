"""Where the local host listens, and whom it answers: programs of this machine, and pages that it served itself."""

from __future__ import annotations

import errno
import logging
import re
import socket

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from backup.core.errors import ConfigError
from backup.core.log import event


def listening_on(port: int) -> socket.socket:
    """Returns a socket that listens on this port of 127.0.0.1; 0 picks a free port. Raises ConfigError if it cannot."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        reason = "is in use by another program" if in_use else f"cannot be opened: {error.strerror}"
        raise ConfigError(
            f"Port {port} of 127.0.0.1 {reason}.",
            hint="Take another port: `python -m backup serve --port 7072`, or --port 0 for a free one.",
        ) from None


class OwnPagesOnly:
    """Answers 403 to requests of web pages of other origins, whatever the method.

    Otherwise every page that is open in a browser here could sync or restore. Programs without a browser (curl) send no
    such headers. Answers only to loopback's own names: a foreign name that leads to 127.0.0.1 would make a foreign page
    look like a page of this origin.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = _foreign(Headers(scope=scope)) if scope["type"] == "http" else None
        if reason is None:
            await self._app(scope, receive, send)
            return
        event("host.refused", level=logging.WARNING, reason=reason)
        await PlainTextResponse(f"{reason}. This host answers programs and pages of this machine alone.\n", 403)(
            scope, receive, send
        )


def _foreign(headers: Headers) -> str | None:
    """Returns why the host refuses a request; None if it does not."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or not re.fullmatch(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", hosts[0], re.I):
        return "The Host is not localhost, 127.0.0.1 or [::1]"
    if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
        return "The Origin is another"
    if any(site.lower() not in ("same-origin", "none") for site in headers.getlist("sec-fetch-site")):
        return "The request comes from a page of another site (Sec-Fetch-Site)"
    return None
