"""Runs work in a few threads at once and gives the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from threading import Event, Lock
from types import TracebackType
from typing import Any, Self, TypeVar

from backup.core import spans
from backup.core.errors import Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")
Other = TypeVar("Other")
Begin = Callable[[Callable[[], Any]], Callable[[], Any]]
"""Begins a call in another thread, as `Workers.begun` does, and returns what waits for its result."""


class Workers:
    """Does up to `parallelism` pieces of work at once. With 1, the calling thread does them one after the other.

    Use it as a context: its end waits for the work that still runs.
    """

    def __init__(self, parallelism: int) -> None:
        self._parallelism = parallelism
        self._stack = ExitStack()
        self._failed = Event()
        self._first: BaseException | None = None
        self._lock = Lock()

    def __enter__(self) -> Self:
        if self._parallelism > 1:
            self._pool = self._stack.enter_context(ThreadPoolExecutor(self._parallelism, "chunk"))
            self._asking = self._stack.enter_context(ThreadPoolExecutor(self._parallelism, "ask"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._failed.set()
        self._stack.close()

    def check(self) -> None:
        """Raises Stopped in the calling thread when the work of another thread has failed."""
        if self._failed.is_set():
            raise Stopped

    def both(self, first: Callable[[], Result], second: Callable[[], Other]) -> tuple[Result, Other]:
        """Calls both functions at the same time and returns both results."""
        if self._parallelism == 1:
            return first(), second()
        first_result = self._asking.submit(first)
        second_result = second()
        return first_result.result(), second_result

    def begun(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Begins the work in another thread, and returns what waits for its result. With a parallelism of 1, that does
        the work."""
        return work if self._parallelism == 1 else self._asking.submit(work).result

    def ahead(self, items: Iterator[Item], alone: Callable[[Item], bool]) -> Iterator[Item]:
        """The items; the next one is fetched while the caller works on the current one.

        Where `alone(item)` is true the next one waits, so that this item is the only one in memory. No item may be
        None.
        """
        if self._parallelism == 1:
            yield from items
            return
        next_item: Future[Item | None] | None = None
        try:
            while True:
                item = (next_item or self._asking.submit(next, items, None)).result()
                if item is None:
                    return
                next_item = None if alone(item) else self._asking.submit(next, items, None)
                yield item
                del item
        finally:
            if next_item is not None:
                next_item.cancel()
                wait([next_item])

    def in_order(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results in the order of the items. An item is fetched when a worker is free.

        Raises the first error; the work of the other threads then stops at its next `check`.
        """
        if self._parallelism == 1:
            yield from map(work, items)
            return
        waiting: deque[Future[Result]] = deque()
        watched = spans.carried(self._watched)
        try:
            for item in items:
                waiting.append(self._pool.submit(watched, work, item))
                if len(waiting) >= self._parallelism:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except Exception as error:
            first = self._first or error
            if first is error:
                raise
            raise first from None

    def _watched(self, work: Callable[[Item], Result], item: Item) -> Result:
        self.check()
        try:
            return work(item)
        except Stopped:
            raise
        except BaseException as error:
            with self._lock:
                self._first = self._first or error
            self._failed.set()
            raise
