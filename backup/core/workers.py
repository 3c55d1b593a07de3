"""Work side by side in a few threads, its results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from threading import Event
from types import TracebackType
from typing import Self, TypeVar

from backup.core.errors import Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")
Other = TypeVar("Other")


class Workers:
    """Up to `parallelism` pieces of work at once; with 1 everything is done in the calling thread, one after the other.

    As a context it waits at its end for what still runs.
    """

    def __init__(self, parallelism: int) -> None:
        self._parallelism = parallelism
        self._stack = ExitStack()
        self._failed = Event()
        self._first: BaseException | None = None

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
        """Stops the calling thread's work when another one's has failed."""
        if self._failed.is_set():
            raise Stopped

    def both(self, one: Callable[[], Result], other: Callable[[], Other]) -> tuple[Result, Other]:
        """The results of both, asked at the same time."""
        if self._parallelism == 1:
            return one(), other()
        asked = self._asking.submit(one)
        theirs = other()
        return asked.result(), theirs

    def ahead(self, items: Iterator[Item], alone: Callable[[Item], bool]) -> Iterator[Item]:
        """The items, none of them None, each asked for while the one before is worked on, unless that is to be alone in
        memory."""
        if self._parallelism == 1:
            yield from items
            return
        asked: Future[Item | None] | None = None
        try:
            while True:
                item = (asked or self._asking.submit(next, items, None)).result()
                if item is None:
                    return
                asked = None if alone(item) else self._asking.submit(next, items, None)
                yield item
                del item
        finally:
            if asked is not None:
                asked.cancel()
                wait([asked])

    def in_order(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results in the order of the items, which are asked for as workers become free.

        Raises the first error; work in other threads then stops at its next `check`.
        """
        if self._parallelism == 1:
            yield from map(work, items)
            return
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(self._watched, work, item))
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
            if not self._failed.is_set():
                self._first = error
            self._failed.set()
            raise
