"""Limits the requests to one Cosmos DB account: how many at once, how many request units a second. Knows no SDK."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AT_MOST = 64
"""The largest number of requests at once. One process has no use for more."""

_AT_FIRST = 8
_WEIGHT = 0.1  # of the latest charge in the expected charge of the next request of its kind
_BURST_SECONDS = 0.05
"""The share of a second's request units that may be spent at once. What is left of a second flows in over it, so that
no second has more than the ceiling; and a thread that wakes up a little late loses none of it."""


class Throttle:
    """Lets requests through as fast as the account takes them, and counts what they cost. For any number of threads.

    Work that can wait takes a `slot`. The number of slots grows while all of them are in use: by one with each answer
    until the first 429, then by one after each round of answers without one. A 429 takes a quarter of them. The 429s of
    requests that were under way at that moment say nothing new and do not count.

    `units_per_second` is a ceiling for all requests, also for those without a slot: `admit` waits for it. A request's
    charge is known only with its answer. So `admit` takes the average charge of earlier requests of its kind, and later
    requests make up for the difference. Until the first of a kind was answered few others of it are let through.
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
        self._was_throttled = False
        self._charge, self._prices = 0.0, dict[str, float]()
        self._at_once = (units_per_second or 0.0) * _BURST_SECONDS
        self._units, self._filled_at = self._at_once, clock()

    @property
    def slots(self) -> int:
        """How many pieces of work may run at once now."""
        return self._slots

    @property
    def has_ceiling(self) -> bool:
        """Whether `units_per_second` limits the requests."""
        return self._units_per_second is not None

    @property
    def charge(self) -> float:
        """Request units of all answers so far."""
        return self._charge

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A context that holds one slot. Waits until one is free."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken < self._slots)
            self._taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()

    def admit(self, kind: str = "") -> float:
        """Waits until a request of this kind may be sent. Returns the request units reserved for it, for `take_in`."""
        if self._units_per_second is None:
            return 0.0
        flow = self._units_per_second - self._at_once
        while True:
            with self._changed:
                now = self._clock()
                # Unused units do not add up.
                self._units = min(self._units + (now - self._filled_at) * flow, self._at_once)
                self._filled_at = now
                if self._units > 0:
                    price = self._prices.get(kind, self._at_once)
                    self._units -= price
                    return price
                wait_seconds = -self._units / flow
            self._sleep(wait_seconds + 0.001)

    def take_in(self, status: int, charge: float, reserved: float = 0.0, kind: str = "") -> None:
        """Takes in an answer: its status, its charge, and the request units that `admit` reserved for it."""
        with self._changed:
            self._charge += charge
            if status != 429:  # which costs less than what it was asked for
                price = self._prices.get(kind, charge)
                self._prices[kind] = price + _WEIGHT * (charge - price)
            self._units -= charge - reserved
            if status == 429 and not self._stale:
                self._was_throttled = True
                self._slots = max(1, self._slots * 3 // 4)
                self._answers, self._stale = 0, max(0, self._taken - 1)
                return
            self._stale = max(0, self._stale - 1)
            if status == 429 or self._taken < self._slots:
                return  # with free slots the answer proves nothing
            self._answers += 1
            if self._answers >= (self._slots if self._was_throttled else 1) and self._slots < self.at_most:
                self._slots, self._answers = self._slots + 1, 0
                self._changed.notify_all()
