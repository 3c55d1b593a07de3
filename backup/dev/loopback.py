"""What the local host listens on and answers: programs of this machine, and pages that it served itself."""

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
    """A socket that listens on this port of 127.0.0.1, or on a free one (0). Raises ConfigError if it cannot be had."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise ConfigError(
            f"Port {port} of 127.0.0.1 {'is in use by another program' if taken else 'cannot be had'}"
            f"{'' if taken else f': {error.strerror}'}.",
            hint="Take another: `python -m backup serve --port 7072`, or --port 0 for a free one.",
        ) from None


class OwnPagesOnly:
    """Refuses what a web page of another origin asks for, whatever the method, with 403: any page that is open in a
    browser here could sync or restore else. Without a browser (curl) neither header is there.

    A name that leads to 127.0.0.1 makes a page look like one of this origin; so only loopback's own names are answered.
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
    """Why a request is not answered, in words."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or not re.fullmatch(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", hosts[0], re.I):
        return "The Host is not localhost, 127.0.0.1 or [::1]"
    if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
        return "The Origin is another"
    if any(site.lower() not in ("same-origin", "none") for site in headers.getlist("sec-fetch-site")):
        return "The request comes from a page of another site (Sec-Fetch-Site)"
    return None
