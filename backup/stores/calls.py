"""Gives every call an end. A call that no server answers is cut from this side, or its thread is left behind.

Knows no driver. The caller says how to cut its call. A driver whose calls cannot be cut is called in a thread of its
own, which is left to wait alone.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from backup.core import interrupts
from backup.core.errors import StoreUnavailable

T = TypeVar("T")

LEFT_BEHIND_AT_MOST = 16
"""At most so many threads of this process may be left waiting for an answer."""

_LOOK_SECONDS = 0.2


class CallEnded(Exception):
    """A call did not end in time and was cut."""


class TimedCall:
    """A running call. `end_with` says how to cut it; `check` stops work that must not go on after the cut."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.was_cut = False
        self._is_last = interrupts.has_last_words()
        self._cut: Callable[[], None] | None = None
        self._lock = threading.Lock()

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
        before, _own.call = _this(), self
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


def _this() -> TimedCall | None:
    call: TimedCall | None = getattr(_own, "call", None)
    return call


def end_this_with(cut: Callable[[], None] | None) -> None:
    """From now on `cut` ends the call that is in this thread, if there is one, as `TimedCall.end_with` says."""
    if (call := _this()) is not None:
        call.end_with(cut)


def check_this() -> None:
    """Raises CallEnded if the call that is in this thread was cut."""
    if (call := _this()) is not None:
        call.check()


class _Watch:
    """Cuts calls whose time is up. Its thread starts with the first call of the process."""

    def __init__(self) -> None:
        self._calls: set[TimedCall] = set()
        self._changed = threading.Condition()
        self._next = float("inf")
        self._runs = False

    def add(self, call: TimedCall) -> None:
        with self._changed:
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="calls", daemon=True).start()
            self._calls.add(call)
            if call.deadline < self._next:
                self._changed.notify()

    def remove(self, call: TimedCall) -> None:
        with self._changed:
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


@contextmanager
def cut_in_time(seconds: float) -> Iterator[TimedCall]:
    """Inside, a call is under way, which is told how to cut it. Raises CallEnded if it was cut."""
    call = TimedCall(seconds)
    _watch.add(call)
    try:
        yield call
    except Exception:
        call.check()  # the driver may raise anything when it is cut
        raise
    finally:
        call.end_with(None)
        _watch.remove(call)


class _Thread:
    """A thread that does one piece of work after another."""

    def __init__(self) -> None:
        self.work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="call", daemon=True).start()

    def _run(self) -> None:
        while True:
            future, work = self.work.get()
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            del future, work


class _Threads:
    """The threads that are free, and the number of those left behind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[_Thread] = []
        self._left_behind = 0

    def take(self) -> _Thread:
        with self._lock:
            if self._left_behind >= LEFT_BEHIND_AT_MOST:
                raise StoreUnavailable(
                    f"{self._left_behind} calls of this process wait for servers that do not answer. No further call "
                    "is made.",
                    hint="Check the servers, then restart the app.",
                )
            return self._free.pop() if self._free else _Thread()

    def give_back(self, thread: _Thread, *, was_left: bool = False) -> None:
        with self._lock:
            self._left_behind -= was_left
            self._free.append(thread)

    def leave(self, thread: _Thread, future: Future[Any]) -> None:
        with self._lock:
            self._left_behind += 1
        future.add_done_callback(lambda _: self.give_back(thread, was_left=True))


_threads = _Threads()


def left_in_time(seconds: float, work: Callable[[TimedCall], T]) -> T:
    """Calls `work` in another thread and returns its result. If it takes too long, the thread is left behind.

    Raises CallEnded then, and StoreUnavailable when too many threads wait already. A thread that was left goes on when
    its answer comes; `TimedCall.check` stops it there.
    """
    thread, call, future = _threads.take(), TimedCall(seconds), Future[T]()

    def begin() -> T:
        with call.in_this_thread():
            return work(call)

    thread.work.put((future, begin))
    while not _is_done(future, call):
        if call.is_over():
            call.cut()
            _threads.leave(thread, future)
            raise CallEnded
    _threads.give_back(thread)
    return future.result()


class LeavableCalls:
    """The calls of a connection whose driver takes no word while it waits: each is made in a thread that can be left
    behind, and never two at once."""

    def __init__(self, at_last: Callable[[], object]) -> None:
        """`at_last` is called once the answer that was left has come; what it raises nobody hears."""
        self._at_last = at_last
        self._woken = threading.Event()
        self.were_left = False

    def make(self, work: Callable[[], T]) -> T:
        """What `work` returns. Raises CallEnded as soon as it is left, and for each call after that; StoreUnavailable
        when too many threads wait already."""
        self._woken.clear()
        if self.were_left:
            raise CallEnded
        thread, future = _threads.take(), Future[T]()
        future.add_done_callback(lambda _: self._woken.set())
        thread.work.put((future, work))
        self._woken.wait()
        if not future.done():
            _threads.leave(thread, future)
            future.add_done_callback(lambda _: self._end())
            raise CallEnded
        _threads.give_back(thread)
        return future.result()

    def leave(self) -> None:
        """Has nobody wait any more; for any thread."""
        self.were_left = True
        self._woken.set()

    def _end(self) -> None:
        with suppress(Exception):
            self._at_last()


def made_in_time(make: Callable[[], T], close: Callable[[T], object]) -> T:
    """The connection that `make` makes: for the call that is in this thread, in another one.

    When the call is cut, that thread is left behind, and closes what it has made. Raises CallEnded then, and
    StoreUnavailable when too many threads wait already.
    """
    if _this() is None:
        return make()
    made: list[T] = []

    def work() -> T:
        made.append(make())
        return made[0]

    making = LeavableCalls(lambda: [close(connection) for connection in made])
    end_this_with(making.leave)
    return making.make(work)


def _is_done(future: Future[Any], call: TimedCall) -> bool:
    try:
        future.exception(max(0.0, min(call.deadline - time.monotonic(), _LOOK_SECONDS)))
    except TimeoutError:
        return future.done()
    return True


def _forget() -> None:
    """Starts anew in a forked process, which has none of the threads."""
    global _watch, _threads
    _watch, _threads = _Watch(), _Threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
