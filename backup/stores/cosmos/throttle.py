"""How fast one Cosmos DB account is asked: requests in flight, request units a second. Knows no SDK."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AT_MOST = 64
"""Requests in flight, however well the account takes them: one process has no use for more."""

_AT_FIRST = 8
_WEIGHT = 0.1  # of the newest charge in what the next request is thought to cost


class Throttle:
    """Lets requests through as fast as the account takes them, and counts what they cost. For any number of threads.

    `slot` is held by each piece of work that could as well wait. There is one more slot for every round of answers
    without a 429, as long as all slots are in use; half of them are gone at a 429. The 429s of requests that were under
    way when that happened say nothing new and are not counted.

    `units_per_second` is a ceiling for all requests, also for those that hold no slot: `admit` waits for it. A
    request's charge is known only afterwards, so it is let through at the price of those before it, and the difference
    is made up by what comes next.
    """

    def __init__(
        self,
        units_per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._units_per_second, self._clock, self._sleep = units_per_second, clock, sleep
        self._changed = threading.Condition()
        self.at_most = AT_MOST
        self._slots, self._taken, self._answers, self._stale = min(_AT_FIRST, AT_MOST), 0, 0, 0
        self._charge = self._price = 0.0
        self._units, self._filled_at = units_per_second or 0.0, clock()

    @property
    def slots(self) -> int:
        """How many pieces of work may be under way at once by now."""
        return self._slots

    @property
    def has_ceiling(self) -> bool:
        """Whether there is one for the request units of a second."""
        return self._units_per_second is not None

    @property
    def charge(self) -> float:
        """Request units of all answers so far."""
        return self._charge

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One of the slots, waited for."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken < self._slots)
            self._taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()

    def admit(self) -> float:
        """Waits until a request may be sent; what was set aside for it, for `answered`."""
        if self._units_per_second is None:
            return 0.0
        while True:
            with self._changed:
                now = self._clock()
                self._units += (now - self._filled_at) * self._units_per_second
                self._units = min(self._units, self._units_per_second)  # what was not used is not saved up
                self._filled_at = now
                if self._units > 0:
                    self._units -= self._price
                    return self._price
                wait_seconds = -self._units / self._units_per_second
            self._sleep(wait_seconds + 0.001)

    def answered(self, status: int, charge: float, set_aside: float = 0.0) -> None:
        """Takes in an answer, with what `admit` had set aside for it."""
        with self._changed:
            self._charge += charge
            self._price += _WEIGHT * (charge - self._price) if self._price else charge
            self._units -= charge - set_aside
            if status == 429 and not self._stale:
                self._slots = max(1, self._slots // 2)
                self._answers, self._stale = 0, max(0, self._taken - 1)
                return
            self._stale = max(0, self._stale - 1)
            if status == 429 or self._taken < self._slots:
                return  # slots that are not needed prove nothing
            self._answers += 1
            if self._answers >= self._slots and self._slots < self.at_most:
                self._slots, self._answers = self._slots + 1, 0
                self._changed.notify_all()
