"""What a sink is, and the error of one that does not take an event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
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
