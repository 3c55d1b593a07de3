"""One retry rule for every store and lock: exponential, jittered, only for errors that may pass by themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from backup.core import interrupts
from backup.core.errors import BackupError, TransientStoreError
from backup.core.log import event

T = TypeVar("T")


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

    def call(self, operation: str, attempt: Callable[[], T]) -> T:
        """Calls `attempt` until it succeeds, and returns its result.

        `attempt` must be idempotent: the server may have carried out a try that failed. Raises the error of the last
        try unchanged; an error that is not retryable is raised at once.
        """
        try:
            return attempt()  # the usual case first: the code below costs more than a small statement
        except BackupError as error:
            if not error.retryable:
                raise
            failed = [error]

        def again() -> T:
            if failed:
                raise failed.pop()  # the first try, as the rule counts them
            return attempt()

        for trial in tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, BackupError) and e.retryable),
            stop=self._is_last,
            wait=self._wait,
            sleep=interrupts.sleep,
            before_sleep=lambda state: self._report(operation, state),
            reraise=True,
        ):
            with trial:
                return again()
        raise AssertionError("tenacity ends by returning or raising")

    def _is_last(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        unanswered = isinstance(error, TransientStoreError) and error.unanswered
        most = self.unanswered_attempts if unanswered else None
        return state.attempt_number >= min(self.max_attempts, most or self.max_attempts)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        backoff = tenacity.wait_exponential(multiplier=self.base_seconds, max=self.max_seconds)(state)
        jittered = backoff + tenacity.wait_random(0, backoff / 4)(state)
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_seconds if isinstance(error, TransientStoreError) else None
        return max(jittered, asked or 0.0)

    def _report(self, operation: str, state: tenacity.RetryCallState) -> None:
        event(
            "retry",
            level=logging.WARNING,
            operation=operation,
            attempt=state.attempt_number,
            of=self.max_attempts,
            wait_seconds=round(state.next_action.sleep, 1) if state.next_action else 0,
            error=state.outcome.exception() if state.outcome else None,
        )
