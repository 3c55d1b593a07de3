"""One HTTP function as the description knows it: its route, its parameters, and the types of what goes in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backup.entry.answer_models import ErrorAnswer
from backup.entry.requests import ApiRequest

Schema = Mapping[str, Any]

LISTS = (400, 500, 503)
"""How a function may fail that reads many things. `LOOKS`: it reads one thing. `WORKS`: that thing may be locked."""
LOOKS = (400, 404, 500, 503)
WORKS = (400, 404, 409, 500, 503)


@dataclass(frozen=True)
class Operation:
    """One function: its name and route as the host knows them, and the types of its body and of its answers by status.

    `failed` is the type of its answers with one of the `statuses`, which say that it failed. `anonymous`: no key.
    `media`: the type of the content that it answers with; no type of it is known where that is not JSON.
    """

    function: str
    method: str
    route: str
    summary: str
    answers: Mapping[int, Any]
    statuses: Sequence[int] = LISTS
    body: type[ApiRequest] | None = None
    query: Mapping[str, Schema] = field(default_factory=dict)
    failed: Any = ErrorAnswer
    anonymous: bool = False
    media: str = "application/json"


def getting(
    function: str,
    route: str,
    summary: str,
    answer: Any,
    statuses: Sequence[int] = LISTS,
    query: Mapping[str, Schema] | None = None,
) -> Operation:
    """Returns a function that reads, and answers with 200 alone."""
    return Operation(function, "GET", route, summary, {200: answer}, statuses, query=query or {})


def posting(
    function: str,
    route: str,
    summary: str,
    answers: Mapping[int, Any],
    body: type[ApiRequest] | None = None,
    statuses: Sequence[int] = WORKS,
    failed: Any = ErrorAnswer,
) -> Operation:
    """Returns a function that does what its body asks for."""
    return Operation(function, "POST", route, summary, answers, statuses, body, failed=failed)
