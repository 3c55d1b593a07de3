"""One retry rule for every store and lock: exponential, jittered, only for errors that may pass by themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

import tenacity

from backup.core import interrupts, spans
from backup.core.errors import BackupError, TransientStoreError
from backup.core.log import event

T = TypeVar("T")


class Attempt(Generic[T]):
    """One try, as a context for `with`. Its value is that of the context in which the try runs.

    It swallows an error of its body that is worth another try. The loop that made it then makes the next try, or raises
    the error if no try is left.
    """

    def __init__(self, context: AbstractContextManager[T], value: T, is_mended: Callable[[Exception], bool]) -> None:
        self._context, self._value, self._is_mended = context, value, is_mended
        self.error: Exception | None = None
        """The error that was swallowed."""

    def __enter__(self) -> T:
        return self._value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            if not self._context.__exit__(kind, error, trace) and error is not None:
                raise error
        except Exception as failed:
            if _is_retryable(failed) or self._is_mended(failed):
                self.error = failed
                return True
            if failed is error:
                return False
            raise
        return False


def _is_retryable(error: Exception) -> bool:
    return isinstance(error, BackupError) and error.retryable


@dataclass(frozen=True)
class Retry:
    """How often a call is tried, and how long the pauses are.

    A call is tried `max_attempts` times in all. Where no server listens it is tried `unanswered_attempts` times (None:
    as often as any other). The pauses are 2, 4, 8, … seconds: `base_seconds`, doubled each time, at most `max_seconds`,
    plus up to a quarter of it at random. If the server asks for a longer pause (Retry-After), it gets that.
    """

    max_attempts: int = 5
    base_seconds: float = 2.0
    max_seconds: float = 32.0
    unanswered_attempts: int | None = None

    def attempts(self, operation: str) -> Iterator[Attempt[None]]:
        """The tries of an operation, until one ends without an error:

            for attempt in retry.attempts("take the lock"):
                with attempt:
                    lease = …

        The body must be idempotent, because a failed try may have done its work all the same. Raises the error of the
        last try. An error that is not retryable is raised at once.
        """
        return self.attempts_in(operation, lambda _: nullcontext())

    def attempts_in(
        self,
        operation: str,
        opened: Callable[[bool], AbstractContextManager[T]],
        is_mended: Callable[[Exception], bool] = lambda _: False,
    ) -> Iterator[Attempt[T]]:
        """Like `attempts`, but each try has its own context, which `opened` makes.

        An error on entering the context counts like an error of the body. `opened` gets True if an earlier try may
        still be under way. `is_mended` is called with an error that is not retryable. If it returns True, there is one
        more try, at once.
        """
        number, again = 1, False
        while True:
            error: Exception | None = None
            context = opened(again)
            try:
                value = context.__enter__()
            except BackupError as failed:
                if not failed.retryable:
                    raise
                error = failed
            else:
                attempt = Attempt(context, value, is_mended)
                yield attempt
                error = attempt.error
                del context, value, attempt  # so that nothing of this try stays in memory
            if error is None:
                return
            if not _is_retryable(error):
                is_mended = _never
                continue
            if number >= self._most(error):
                raise error
            seconds = self._wait(number, error)
            self._report(operation, number, seconds, error)
            interrupts.sleep(seconds)
            number, again = number + 1, True

    def _most(self, error: Exception) -> int:
        unanswered = isinstance(error, TransientStoreError) and error.unanswered
        limit = self.unanswered_attempts if unanswered else None
        return min(self.max_attempts, limit or self.max_attempts)

    def _wait(self, number: int, error: Exception) -> float:
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = number
        backoff = tenacity.wait_exponential(multiplier=self.base_seconds, max=self.max_seconds)(state)
        jittered = backoff + tenacity.wait_random(0, backoff / 4)(state)
        retry_after = error.retry_after_seconds if isinstance(error, TransientStoreError) else None
        return max(jittered, retry_after or 0.0)

    def _report(self, operation: str, number: int, seconds: float, error: Exception) -> None:
        spans.count("backup.retries", error=type(error).__name__)
        event(
            "retry",
            level=logging.WARNING,
            operation=operation,
            attempt=number,
            of=self.max_attempts,
            wait_seconds=round(seconds, 1),
            error=error,
        )


def _never(_: Exception) -> bool:
    return False
