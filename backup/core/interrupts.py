"""Ctrl-C and SIGTERM: how the runs of this process learn that it is to end, and how it ends.

A signal sets a mark, no more: nothing is raised in the middle of anything. Runs ask for the mark before each step, and
calls that no server answers are cut. What has not ended after a few seconds ends with the process.
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

GRACE_SECONDS = 1.5
"""How long a call that is under way may still take once the process is to end."""

LAST_SECONDS = 2.0
"""How long a call may take that says how a run was left."""

END_SECONDS = 5.0
"""After how long the process ends, whatever still goes on."""


class _Mark:
    """Whether this process is to end, and who has to hear of it."""

    def __init__(self) -> None:
        self.signal, self.since = 0, 0.0
        self.requested = threading.Event()
        self.runs, self.idle = 0, threading.Condition()
        self.to_wake: list[Callable[[], None]] = []
        self.to_release: list[Callable[[], None]] = []
        self.own = threading.local()


_mark = _Mark()


def requested() -> bool:
    """Whether the process is to end."""
    return _mark.requested.is_set()


def exit_code() -> int | None:
    """The exit code that tells of the signal; None when there was none."""
    return 128 + _mark.signal if _mark.signal else None


def check() -> None:
    """Raises Interrupted when the process is to end, but for who has `last_words`."""
    if requested() and not has_last_words():
        raise Interrupted


def is_over() -> bool:
    """Whether what is under way has to be cut, since the process is to end; but for what has `last_words`."""
    return requested() and time.monotonic() - _mark.since > GRACE_SECONDS


def has_last_words() -> bool:
    """Whether this thread may say how its run was left."""
    return getattr(_mark.own, "has_last_words", False)


def seconds_for(seconds: float) -> float:
    """How long a call may take that else has so many seconds."""
    return min(seconds, LAST_SECONDS) if requested() else seconds


def sleep(seconds: float) -> None:
    """Waits. Raises Interrupted as soon as the process is to end."""
    if _mark.requested.wait(seconds):
        raise Interrupted


def wait_for(futures: Collection[Future[Any]], *, or_an_error: bool = False) -> None:
    """Waits until all of them are done, or one has failed. Raises Interrupted when the process is to end and that is
    not so in time."""
    until = FIRST_EXCEPTION if or_an_error else ALL_COMPLETED
    while (waited := wait(futures, GRACE_SECONDS, until)).not_done:
        if or_an_error and any(not one.cancelled() and one.exception() for one in waited.done):
            return
        if is_over():
            raise Interrupted


@contextmanager
def last_words() -> Iterator[None]:
    """Inside, this thread may say how its run was left, though the process is to end."""
    _mark.own.has_last_words = True
    try:
        yield
    finally:
        _mark.own.has_last_words = False


@contextmanager
def running() -> Iterator[None]:
    """Inside, a run goes on, for which the end of the process waits a few seconds."""
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
    """Inside, `release` is called if the process ends without waiting any longer."""
    _mark.to_release.append(release)
    try:
        yield
    finally:
        _mark.to_release.remove(release)


def wake(what: Callable[[], None]) -> None:
    """Has `what` called whenever the process is to end; for what watches calls."""
    _mark.to_wake.append(what)


def request(number: int) -> None:
    """Has the runs of this process end, as that signal does."""
    _mark.signal, _mark.since = number, time.monotonic()
    _mark.requested.set()
    event("interrupted", level=logging.WARNING, signal=signal.Signals(number).name)
    for one in list(_mark.to_wake):
        one()


def wait_until_idle() -> None:
    """Waits until no run goes on any more, or it has taken too long; then gives up what is held elsewhere."""
    with _mark.idle:
        idle = _mark.idle.wait_for(lambda: not _mark.runs, END_SECONDS)
    if not idle:
        release = threading.Thread(target=_release_all, daemon=True)
        release.start()
        release.join(LAST_SECONDS)


@contextmanager
def handled(tell: Callable[[], None]) -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM have runs end; it is for who is in here to leave then. For the main thread.

    If that takes too long the process ends, after `tell`. A second signal ends it at once.
    """
    left = threading.Event()

    def end() -> None:
        wait_until_idle()
        if not left.wait(GRACE_SECONDS):
            tell()
            os._exit(exit_code() or 1)

    before, stop_listening = _listen((signal.SIGINT, signal.SIGTERM), end)
    try:
        yield
    finally:
        left.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        stop_listening()


def handle_sigterm() -> None:
    """From now on SIGTERM has runs end first, and then does what it did before. Only in the main thread, and only
    where nothing else handles it: the command line does so itself."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return

    def end() -> None:
        wait_until_idle()
        os._exit(128 + signal.SIGTERM)

    _listen((signal.SIGTERM,), end)


def _listen(numbers: Collection[int], end: Callable[[], None]) -> tuple[dict[int, Any], Callable[[], None]]:
    """Has these signals request the end, and a thread see to it; returns the handlers they had, and what ends that."""
    reading, writing = os.pipe()

    def on_signal(number: int, _frame: Any) -> None:
        if _mark.signal:
            os._exit(128 + number)
        _mark.signal = number
        os.write(writing, bytes([number]))  # all else is for a thread: the one that is stopped here may hold a lock

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
