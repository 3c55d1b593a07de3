"""What a sink is, what all sinks share, and the error of one that does not take an event."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from backup.core.errors import BackupError

Send = Callable[[Mapping[str, Any]], None]
"""Sends one event, as CloudEvents has it in JSON. Raises NotDelivered."""


class NotDelivered(BackupError):
    """The sink did not take the event."""

    def __init__(self, message: str, *, hint: str | None = None, is_refused: bool = False) -> None:
        """`is_refused`: the sink is up and refuses this event, so the next one may go."""
        super().__init__(message, hint=hint)
        self.is_refused = is_refused


class Sink(Protocol):
    """Where events go."""

    @property
    def name(self) -> str:
        """The name of its subscription."""

    @property
    def label(self) -> str:
        """The name with what operators may know of its address: no secret."""

    @property
    def keep(self) -> timedelta:
        """How long an event may wait for the sink before it is given up."""

    def opened(self) -> AbstractContextManager[Send]:
        """Opens the sink; gives what sends one event after the other. Raises NotDelivered if it cannot be opened."""


@dataclass(frozen=True)
class NamedSink:
    """The part of a `Sink` that all have alike."""

    name: str
    label: str
    keep: timedelta


def event_text(event: Mapping[str, Any]) -> str:
    """Returns the event in JSON, as sinks send it."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False)


def install_hint(group: str, waiting: str) -> str:
    """Returns how to install the packages of an optional group; meanwhile the `waiting` wait."""
    file = f"requirements/{group}.txt"
    return (
        f"Install the packages of {file}: for a deployment add the line `-r {file}` to requirements.txt. "
        f"Until then the {waiting} wait."
    )
