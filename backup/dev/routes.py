"""The HTTP routes of the local host: which addresses lead to which function, and which requests need the key."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from backup.core.log import event

ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_AFTER_LONGER_ROUTES = 9

Endpoint = Callable[[Request], Awaitable[Response]]


def routes_of(
    name: str, trigger: Mapping[str, Any], endpoint: Endpoint, prefix: str, key: str | None
) -> Iterator[Route]:
    """Yields the routes of a function with this HTTP trigger. They match addresses as Azure does."""
    anonymous = trigger.get("authLevel") == "ANONYMOUS"
    guarded = with_key(endpoint, None if anonymous else key)
    methods = trigger.get("methods") or ALL_METHODS
    path = f"{prefix}/{trigger.get('route') or name}".strip("/")
    rest = re.search(r"/\{\*\w+(:minlength\(1\))?\}$", path)
    path = "/" + re.sub(r"\{\*(\w+)(:minlength\(1\))?\}", r"{\1:path}", path)
    # A request may leave out a last {x?}, so it makes two routes.
    for full_path in {re.sub(r"/\{\w+\?\}$", "", path), path.replace("?}", "}")}:
        route = Route(full_path, guarded, methods=methods)
        route.methods = set(methods)  # Starlette adds HEAD to GET, Azure does not
        # In Azure neither case nor a slash at the end counts.
        pattern = route.path_regex.pattern.removesuffix("$")
        if rest is not None:  # a last {*x} may be empty
            any_rest = r"/\1.+)" if rest[1] else r"/?\1(?<=/).*|)"
            pattern = re.sub(r"/(\(\?P<\w+>)\.\*\)$", any_rest, pattern)
        route.path_regex = re.compile(rf"{pattern}/?\Z", re.I | re.S)  # a name may have, or end with, a line break
        event("host.route", function=name, methods=",".join(methods), path=full_path)
        yield route


def in_azures_order(routes: Sequence[Route]) -> list[Route]:
    """Returns the routes in the order in which Azure tries them, wherever they stand in function_app.py.

    A literal segment goes before a parameter, and a longer route before a shorter one.
    """

    def rank(route: Route) -> list[int]:
        return [*(segment.count("{") for segment in route.path.split("/")), _AFTER_LONGER_ROUTES]

    return sorted(routes, key=rank)


class EncodedSlashes:
    """Leaves a %2F in an address as it is, as Azure does: it is part of a name, and no end of a segment."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if raw := scope.get("raw_path"):
            kept = re.sub(b"%(2f)", rb"%25\1", raw.partition(b"?")[0], flags=re.I)
            scope = {**scope, "path": unquote_to_bytes(kept).decode(errors="replace")}
        await self._app(scope, receive, send)


def with_key(endpoint: Endpoint, key: str | None) -> Endpoint:
    """Returns an endpoint that answers 401 to requests without the key. If `key` is None or empty, it lets all pass."""

    async def guarded(request: Request) -> Response:
        sent_key = request.headers.get("x-functions-key") or request.query_params.get("code") or ""
        if key and not hmac.compare_digest(sent_key.encode(), key.encode()):
            return Response(status_code=401)
        return await endpoint(request)

    return guarded
