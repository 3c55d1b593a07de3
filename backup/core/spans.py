"""Spans and numbers of runs, for whoever listens. While nobody does, a call does nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, TypeVar

AnyWork = TypeVar("AnyWork", bound=Callable[..., Any])


class Span(Protocol):
    """A piece of work that has a beginning and an end."""

    def tell(self, **attributes: Any) -> None:
        """Adds what is known of the work by now."""

    def failed(self, error: BaseException) -> None:
        """Says that the work has failed, by the kind of its error alone: a message may quote a record."""


class Listener(Protocol):
    """Who hears of spans and numbers. For any number of threads. Its methods raise nothing."""

    def span(self, name: str, attributes: dict[str, Any]) -> AbstractContextManager[Span]:
        """A span that lasts as long as the block; those inside it in the same thread are parts of it."""

    def carried(self, work: AnyWork) -> AnyWork:
        """The work, for another thread: its spans are parts of the span that is open here."""

    def count(self, name: str, amount: float, attributes: dict[str, Any]) -> None:
        """Adds to a number that only grows."""

    def measure(self, name: str, value: float, attributes: dict[str, Any]) -> None:
        """Adds a value to a distribution."""

    def under(self, parent: str | None, state: str | None) -> AbstractContextManager[None]:
        """Inside the block, spans are parts of the span of another program: W3C's traceparent and tracestate."""


class _Nothing(AbstractContextManager["_Nothing"]):
    """A span and a block that nobody hears of."""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets the error pass."""

    def tell(self, **attributes: Any) -> None:
        """As `Span` says."""

    def failed(self, error: BaseException) -> None:
        """As `Span` says."""


_nothing = _Nothing()
_listener: Listener | None = None


def tell_spans_to(listener: Listener | None) -> None:
    """From now on the listener hears of all spans and numbers of this process; None: nobody does."""
    global _listener
    _listener = listener


def is_heard() -> bool:
    """Whether somebody listens."""
    return _listener is not None


def span(name: str, **attributes: Any) -> AbstractContextManager[Span]:
    """A span of this name, with what is known at its beginning."""
    return _nothing if _listener is None else _listener.span(name, attributes)


def carried(work: AnyWork) -> AnyWork:
    """The work as another thread does it: as `Listener` says; the work itself if nobody listens."""
    return work if _listener is None else _listener.carried(work)


def count(name: str, amount: float = 1, **attributes: Any) -> None:
    """As `Listener` says."""
    if _listener is not None:
        _listener.count(name, amount, attributes)


def measure(name: str, value: float, **attributes: Any) -> None:
    """As `Listener` says."""
    if _listener is not None:
        _listener.measure(name, value, attributes)


def under(parent: str | None, state: str | None = None) -> AbstractContextManager[Any]:
    """As `Listener` says."""
    return _nothing if _listener is None else _listener.under(parent, state)
