"""Ctrl-C, SIGTERM and the end of a terminal: how the runs of this process learn that it must end, and how it ends.

A signal only sets a mark; it raises nothing in the middle of a step. Runs look at the mark before each step. Calls that
no server answers are cut. After a few seconds the process ends, whatever still runs.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager
from typing import Any

from backup.core.errors import Interrupted
from backup.core.log import event

_HANGUP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
GRACE_SECONDS = 1.5
"""How long a running call may still take after the signal."""

LAST_SECONDS = 2.0
"""How long a call may take that records how a run was left."""

END_SECONDS = 5.0
"""The process ends after this time, whatever still runs."""


class _Mark:
    """Whether this process must end, and who must hear of it."""

    def __init__(self) -> None:
        self.signal, self.since = 0, 0.0
        self.requested = threading.Event()
        self.runs, self.idle = 0, threading.Condition()
        self.to_wake: list[Callable[[], None]] = []
        self.to_release: list[Callable[[], None]] = []
        self.own = threading.local()


_mark = _Mark()


def requested() -> bool:
    """Whether the process must end."""
    return _mark.requested.is_set()


def exit_code() -> int | None:
    """The exit code that names the signal; None without a signal."""
    return 128 + _mark.signal if _mark.signal else None


def check() -> None:
    """Raises Interrupted when the process must end. A thread inside `last_words` is spared."""
    if requested() and not has_last_words():
        raise Interrupted


def is_over() -> bool:
    """Whether running calls must be cut, because the process ends and its grace is over."""
    return requested() and time.monotonic() - _mark.since > GRACE_SECONDS


def has_last_words() -> bool:
    """Whether this thread may still record how its run was left."""
    return getattr(_mark.own, "has_last_words", False)


def seconds_for(seconds: float) -> float:
    """The time limit of a call: `seconds`, or the little that is left once the process must end."""
    return min(seconds, LAST_SECONDS) if requested() else seconds


def sleep(seconds: float) -> None:
    """Waits so many seconds. Raises Interrupted as soon as the process must end."""
    if _mark.requested.wait(seconds):
        raise Interrupted


def wait_for(futures: Collection[Future[Any]], *, or_an_error: bool = False) -> None:
    """Waits until all futures are done; with `or_an_error`, until one has failed.

    Raises Interrupted when the process must end and the futures are not done in time.
    """
    until = FIRST_EXCEPTION if or_an_error else ALL_COMPLETED
    while (waited := wait(futures, GRACE_SECONDS, until)).not_done:
        if or_an_error and any(not future.cancelled() and future.exception() for future in waited.done):
            return
        if is_over():
            raise Interrupted


@contextmanager
def last_words() -> Iterator[None]:
    """Inside this context the thread may record how its run was left, although the process must end."""
    _mark.own.has_last_words = True
    try:
        yield
    finally:
        _mark.own.has_last_words = False


@contextmanager
def running() -> Iterator[None]:
    """Inside this context a run is at work. The end of the process waits a few seconds for it."""
    with _mark.idle:
        _mark.runs += 1
    try:
        yield
    finally:
        with _mark.idle:
            _mark.runs -= 1
            _mark.idle.notify_all()


@contextmanager
def released_at_the_end(release: Callable[[], None]) -> Iterator[None]:
    """Calls `release` if the process ends while this context is open."""
    _mark.to_release.append(release)
    try:
        yield
    finally:
        _mark.to_release.remove(release)


def wake(call: Callable[[], None]) -> None:
    """From now on `call` is called when the process must end. For the watch over calls."""
    _mark.to_wake.append(call)


def request(number: int) -> None:
    """Asks the runs of this process to end, as the signal of this number does."""
    _mark.signal, _mark.since = number, time.monotonic()
    _mark.requested.set()
    event("interrupted", level=logging.WARNING, signal=signal.Signals(number).name)
    for call in list(_mark.to_wake):
        call()


def wait_until_idle() -> None:
    """Waits until no run is at work. If that takes too long it releases what runs hold elsewhere, such as leases."""
    with _mark.idle:
        idle = _mark.idle.wait_for(lambda: not _mark.runs, END_SECONDS)
    if not idle:
        release = threading.Thread(target=_release_all, daemon=True)
        release.start()
        release.join(LAST_SECONDS)


@contextmanager
def handled(tell: Callable[[], None]) -> Iterator[None]:
    """Inside this context Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) ask the runs to end; the code inside
    should then leave. Main thread only. Where SIGHUP is ignored (nohup), it stays so.

    If it takes too long, `tell` is called and the process ends. A second signal ends it at once.
    """
    has_left = threading.Event()

    def end() -> None:
        wait_until_idle()
        if not has_left.wait(GRACE_SECONDS):
            tell()
            os._exit(exit_code() or 1)

    hangup = () if _HANGUP is None or signal.getsignal(_HANGUP) is signal.SIG_IGN else (_HANGUP,)
    before, stop_listening = _listen((signal.SIGINT, signal.SIGTERM, *hangup), end)
    try:
        yield
    finally:
        has_left.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        stop_listening()


def handle_sigterm() -> None:
    """From now on SIGTERM lets the runs end first, and then ends the process.

    Does nothing outside the main thread, or where SIGTERM has a handler already, as in the command line.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return

    def end() -> None:
        wait_until_idle()
        os._exit(128 + signal.SIGTERM)

    _listen((signal.SIGTERM,), end)


def _listen(numbers: Collection[int], end: Callable[[], None]) -> tuple[dict[int, Any], Callable[[], None]]:
    """Lets these signals call `request` and then `end`, both in a thread of their own.

    Returns the handlers that the signals had, and a function that stops the listening.
    """
    reading, writing = os.pipe()

    def on_signal(number: int, _frame: Any) -> None:
        if _mark.signal:
            if number == _HANGUP:  # the system and the shell both send it
                return
            os._exit(128 + number)
        _mark.signal = number
        os.write(writing, bytes([number]))  # a thread does the rest: the thread that the signal stopped may hold a lock

    def listen() -> None:
        heard = os.read(reading, 1)
        os.close(reading)
        if heard:
            request(heard[0])
            end()

    threading.Thread(target=listen, name="interrupts", daemon=True).start()
    return {number: signal.signal(number, on_signal) for number in numbers}, lambda: os.close(writing)


def _release_all() -> None:
    for release in list(_mark.to_release):
        release()
