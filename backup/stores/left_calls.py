"""Calls that nobody can cut: each is made in a thread of its own, which is left behind if no answer comes in time."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from backup.core.errors import StoreUnavailable
from backup.stores.calls import CallEnded, TimedCall, call_here, end_this_with

T = TypeVar("T")

LEFT_BEHIND_AT_MOST = 16
"""At most so many threads of this process may be left waiting for an answer."""

_LOOK_SECONDS = 0.2


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
    if call_here() is None:
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
    """Starts again in a forked process, which has none of the threads."""
    global _threads
    _threads = _Threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
