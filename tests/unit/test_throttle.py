"""How fast an account is asked: as many requests in flight as it takes, as many request units as allowed."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.stores.cosmos.throttle import AT_MOST, Throttle

TAKEN, THROTTLED = 200, 429


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def a_round(throttle: Throttle, *statuses: int) -> None:
    """All slots taken, and that many answers to them."""
    with all_slots(throttle):
        for status in statuses:
            throttle.take_in(status, 1.0)


@contextmanager
def all_slots(throttle: Throttle) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(throttle.slots):
            stack.enter_context(throttle.slot())
        yield


def throttled_at(slots: int) -> Throttle:
    """With that many slots, and so many requests under way when an answer was a 429 for the first time."""
    throttle = Throttle()
    while throttle.slots < slots:
        a_round(throttle, TAKEN)
    a_round(throttle, THROTTLED)
    return throttle


def test_each_answer_adds_a_slot_up_to_the_bound_until_one_is_throttled() -> None:
    throttle = Throttle()
    first = throttle.slots
    for answers in range(1, AT_MOST - first + 1):
        a_round(throttle, TAKEN)
        assert throttle.slots == first + answers
    a_round(throttle, *[TAKEN] * AT_MOST)
    assert throttle.slots == AT_MOST


def test_after_a_throttled_answer_each_round_without_another_adds_a_slot() -> None:
    throttle = throttled_at(20)
    assert throttle.slots == 15
    a_round(throttle, *[TAKEN] * 14)
    assert throttle.slots == 15
    a_round(throttle, TAKEN)
    assert throttle.slots == 16
    while throttle.slots < AT_MOST:
        a_round(throttle, *[TAKEN] * throttle.slots)
    a_round(throttle, *[TAKEN] * 2 * AT_MOST)
    assert throttle.slots == AT_MOST


def test_the_answers_to_what_was_under_way_at_a_throttled_one_count_as_one_with_it() -> None:
    throttle = throttled_at(16)
    a_round(throttle, *[THROTTLED] * 15)
    assert throttle.slots == 12
    a_round(throttle, THROTTLED)
    assert throttle.slots == 9


class Account:
    """Gives so many request units in each second of the clock, and refuses the rest until the next one begins."""

    def __init__(self, units_per_second: float) -> None:
        self._units_per_second = units_per_second
        self._second, self._spent = 0, 0.0

    def seconds_to_wait(self, now: float, charge: float) -> float | None:
        """None if it takes the request."""
        if int(now) > self._second:
            # The last request of a second may take more than was left: the next ones pay for that.
            self._spent = max(0.0, self._spent - self._units_per_second * (int(now) - self._second))
            self._second = int(now)
        if self._spent >= self._units_per_second:
            return self._second + 1 - now
        self._spent += charge
        return None


def written(charge: float, latency_seconds: float, seconds: float = 30) -> tuple[float, float]:
    """Request units and 429s a second, of writes without end to an account of 4,000, repeated as the SDK does."""
    throttle, account, numbers = Throttle(), Account(4_000), count()
    events: list[tuple[float, int, Literal["send", "answer"], float | None, ExitStack]] = []
    now, refused, under_way = 0.0, 0, 0

    def later(seconds: float, kind: Literal["send", "answer"], wait: float | None, slot: ExitStack) -> None:
        heapq.heappush(events, (now + seconds, next(numbers), kind, wait, slot))

    while now < seconds:
        while under_way < throttle.slots:
            slot = ExitStack()
            slot.enter_context(throttle.slot())
            under_way += 1
            later(0, "send", None, slot)
        now, number, kind, wait_seconds, slot = heapq.heappop(events)
        if kind == "send":
            answered = latency_seconds * (0.7 + 0.6 * (number * 0.37 % 1))
            later(answered, "answer", account.seconds_to_wait(now, charge), slot)
        elif wait_seconds is None:
            throttle.take_in(TAKEN, charge)
            slot.close()
            under_way -= 1
        else:
            refused += 1
            throttle.take_in(THROTTLED, 0.0)
            later(wait_seconds, "send", None, slot)
    return throttle.charge / seconds, refused / seconds


def test_writes_use_up_an_account_without_a_storm_of_throttled_answers() -> None:
    for charge in (6, 40, 600):
        for latency_seconds in (0.005, 0.02, 0.08):
            units, refused = written(charge, latency_seconds)
            assert units >= 0.95 * 4_000, (charge, latency_seconds)
            assert refused <= AT_MOST, (charge, latency_seconds)


def test_one_slot_is_left_however_much_is_throttled() -> None:
    throttle = Throttle()
    for _ in range(50):
        a_round(throttle, THROTTLED)
    assert throttle.slots == 1
    a_round(throttle, TAKEN)
    assert throttle.slots == 2


def test_slots_that_nobody_needs_do_not_grow() -> None:
    throttle = Throttle()
    before = throttle.slots
    with throttle.slot():
        for _ in range(1000):
            throttle.take_in(TAKEN, 1.0)
    assert throttle.slots == before


def test_who_finds_no_slot_waits_for_one() -> None:
    throttle = Throttle()
    waited = threading.Event()

    def work() -> None:
        with throttle.slot():
            waited.set()

    with all_slots(throttle):
        worker = threading.Thread(target=work)
        worker.start()
        assert not waited.wait(0.05)
    worker.join(5)
    assert waited.is_set()


def test_never_more_work_is_under_way_than_there_are_slots() -> None:
    throttle = Throttle()
    lock, under_way, most = threading.Lock(), 0, 0

    def work(n: int) -> None:
        nonlocal under_way, most
        with throttle.slot():
            with lock:
                under_way += 1
                assert under_way <= AT_MOST
                most = max(most, under_way)
            throttle.take_in(THROTTLED if n % 7 == 0 else TAKEN, 1.0)
            with lock:
                under_way -= 1

    workers = [threading.Thread(target=work, args=(n,)) for n in range(100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most >= 1
    assert throttle.charge == 100


def test_the_charges_of_all_answers_are_added() -> None:
    throttle = Throttle()
    for status, charge in ((TAKEN, 5.25), (THROTTLED, 0.5), (404, 1.0)):
        throttle.take_in(status, charge)
    assert throttle.charge == 6.75


@given(
    charges=st.lists(st.floats(0.5, 300), min_size=20, max_size=200),
    ceiling=st.floats(50, 5_000),
)
def test_requests_one_by_one_cost_no_more_a_second_than_the_ceiling(charges: list[float], ceiling: float) -> None:
    clock = Clock()
    throttle = Throttle(ceiling, clock, clock.sleep)
    for charge in charges:
        throttle.take_in(TAKEN, charge, throttle.admit())
    throttle.admit()
    # A twentieth of what one second holds may be spent at once.
    assert throttle.charge <= ceiling * (0.95 * (clock.now - 1000.0) + 0.05) + max(charges)


def test_no_second_has_more_than_the_ceiling_also_the_first_and_one_in_which_other_requests_begin() -> None:
    clock = Clock()
    throttle, sent = Throttle(1_000, clock, clock.sleep), list[tuple[float, float]]()
    answers: list[tuple[float, float, float, str]] = []  # when, charge, reserved, kind
    for kind, charge, number in (("query", 3, 200), ("create", 40, 150), ("query", 3, 100), ("upsert", 12, 300)):
        for _ in range(number):
            reserved = throttle.admit(kind)
            sent.append((clock.now, charge))
            heapq.heappush(answers, (clock.now + 0.03, charge, reserved, kind))
            while answers[0][0] <= clock.now or len(answers) == AT_MOST:  # no more are under way at once
                at, *answer, of = heapq.heappop(answers)
                clock.now = max(clock.now, at)
                throttle.take_in(TAKEN, answer[0], answer[1], of)
    for start, _ in sent:
        # The last request of a second is let through while something is left.
        assert sum(charge for at, charge in sent if start <= at < start + 1) <= 1_000 + 2 * 40, start
    assert sum(charge for _, charge in sent) >= 0.9 * 1_000 * (clock.now - 1000.0)


def test_many_requests_at_once_are_let_through_at_the_price_of_those_before() -> None:
    clock = Clock()
    throttle = Throttle(100, clock, clock.sleep)
    throttle.take_in(TAKEN, 10, throttle.admit())
    started = clock.now
    admitted = [throttle.admit() for _ in range(50)]  # none is answered yet
    for reserved in admitted:
        throttle.take_in(TAKEN, 10, reserved)
    assert clock.now - started == pytest.approx(50 * 10 / 100, abs=1.1)


def test_the_ceiling_is_used_up_where_there_is_enough_to_do() -> None:
    clock = Clock()
    throttle = Throttle(200, clock, clock.sleep)
    for _ in range(500):
        throttle.take_in(TAKEN, 7, throttle.admit())
    assert throttle.charge / (clock.now - 1000.0) == pytest.approx(200, rel=0.1)


def test_units_that_were_not_used_are_not_saved_up() -> None:
    clock = Clock()
    throttle = Throttle(100, clock, clock.sleep)
    throttle.take_in(TAKEN, 1, throttle.admit())
    clock.now += 3600
    started = clock.now
    for _ in range(500):
        throttle.take_in(TAKEN, 1, throttle.admit())
    assert clock.now - started >= 5


def test_without_a_ceiling_nothing_waits() -> None:
    throttle = Throttle(None, Clock(), lambda seconds: pytest.fail(f"waits {seconds} s"))
    for _ in range(1000):
        throttle.take_in(TAKEN, 1e6, throttle.admit())
