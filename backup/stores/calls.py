"""Gives every call an end. A call that no server answers in time is cut from this side.

Knows no driver. The caller says how to cut its call; `left_calls` is for calls that cannot be cut.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from backup.core import interrupts

T = TypeVar("T")

_LOOK_SECONDS = 0.2


class CallEnded(Exception):
    """A call did not end in time and was cut."""


class TimedCall:
    """A running call, for as long as a `with` lasts. `end_with` says how to cut it; `check` stops work that must not go
    on after the cut. The end of the `with` raises CallEnded in the place of an error, if the call was cut."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.was_cut = False
        self._is_last = interrupts.has_last_words()
        self._cut: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        _watch.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_with(None)
        _watch.remove(self)
        if isinstance(error, Exception):
            self.check()  # the driver may raise anything when it is cut

    def end_with(self, cut: Callable[[], None] | None) -> None:
        """From now on `cut` ends the call; None: it cannot be cut now, or is over."""
        with self._lock:
            self._cut = cut
            if cut is not None and self.was_cut:
                cut()

    def cut(self) -> None:
        """Ends the call, now or as soon as it can be cut."""
        with self._lock:
            self.was_cut = True
            if self._cut is not None:
                self._cut()
                self._cut = None

    @contextmanager
    def in_this_thread(self) -> Iterator[None]:
        """Inside, this thread waits for nothing but the call. Pools and connections say how each wait is cut, by
        `end_this_with` and `made_in_time`."""
        before, _own.call = call_here(), self
        try:
            yield
        finally:
            _own.call = before

    def is_over(self) -> bool:
        """Whether the time of the call is up, or that of the process."""
        return self.deadline <= time.monotonic() or (interrupts.is_over() and not self._is_last)

    def check(self) -> None:
        """Raises CallEnded if the call was cut."""
        if self.was_cut:
            raise CallEnded


_own = threading.local()


def call_here() -> TimedCall | None:
    """The call that is in this thread; None if there is none."""
    call: TimedCall | None = getattr(_own, "call", None)
    return call


@contextmanager
def long_here() -> Iterator[None]:
    """Inside, the calls of this thread take long, and others have work for the same server meanwhile: so a pool opens
    a further connection for them, if it may, and leaves an idle one to those."""
    _own.is_long = True
    try:
        yield
    finally:
        _own.is_long = False


def is_long_here() -> bool:
    """Whether the calls of this thread take long, as `long_here` says."""
    return getattr(_own, "is_long", False)


def end_this_with(cut: Callable[[], None] | None) -> None:
    """From now on `cut` ends the call that is in this thread, if there is one, as `TimedCall.end_with` says."""
    if (call := call_here()) is not None:
        call.end_with(cut)


def check_this() -> None:
    """Raises CallEnded if the call that is in this thread was cut."""
    if (call := call_here()) is not None:
        call.check()


class _Watch:
    """Cuts calls whose time is up. Its thread starts with the first call of the process."""

    def __init__(self) -> None:
        self._calls: set[TimedCall] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._next = float("inf")
        self._runs = False

    def add(self, call: TimedCall) -> None:
        with self._lock:
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="calls", daemon=True).start()
            self._calls.add(call)
            if call.deadline < self._next:
                self._changed.notify()

    def remove(self, call: TimedCall) -> None:
        with self._lock:
            self._calls.discard(call)

    def wake(self) -> None:
        """Makes the thread look at its calls at once."""
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                over = [call for call in self._calls if call.is_over()]
                self._calls.difference_update(over)
                self._next = min((call.deadline for call in self._calls), default=float("inf"))
                if not over:
                    self._changed.wait(self._wait())
            for call in over:
                call.cut()

    def _wait(self) -> float | None:
        if interrupts.requested():
            return _LOOK_SECONDS
        return None if self._next == float("inf") else self._next - time.monotonic()


_watch = _Watch()
interrupts.wake(lambda: _watch.wake())


def _forget() -> None:
    """Starts again in a forked process, which does not have the thread."""
    global _watch
    _watch = _Watch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
