"""How fast an account is asked: as many requests in flight as it takes, as many request units as allowed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.stores.cosmos_pace import AT_MOST, Pace

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


def a_round(pace: Pace, *statuses: int) -> None:
    """All slots taken, and that many answers to them."""
    with all_slots(pace):
        for status in statuses:
            pace.answered(status, 1.0)


@contextmanager
def all_slots(pace: Pace) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(pace.slots):
            stack.enter_context(pace.slot())
        yield


def test_each_round_without_a_throttled_answer_adds_a_slot_up_to_the_bound() -> None:
    pace = Pace()
    seen = [pace.slots]
    while pace.slots < AT_MOST:
        a_round(pace, *[TAKEN] * pace.slots)
        seen.append(pace.slots)
    assert seen == list(range(seen[0], AT_MOST + 1))
    a_round(pace, *[TAKEN] * 2 * AT_MOST)
    assert pace.slots == AT_MOST


def test_a_throttled_answer_halves_the_slots_and_they_grow_again() -> None:
    pace = Pace()
    while pace.slots < 20:
        a_round(pace, *[TAKEN] * pace.slots)
    a_round(pace, THROTTLED)
    assert pace.slots == 10
    a_round(pace, *[TAKEN] * 30)
    assert pace.slots == 10 + 1


def test_the_answers_to_what_was_under_way_at_a_throttled_one_count_as_one_with_it() -> None:
    pace = Pace()
    while pace.slots < 16:
        a_round(pace, *[TAKEN] * pace.slots)
    a_round(pace, *[THROTTLED] * 16)
    assert pace.slots == 8
    a_round(pace, THROTTLED)
    assert pace.slots == 4


def test_one_slot_is_left_however_much_is_throttled() -> None:
    pace = Pace()
    for _ in range(50):
        a_round(pace, THROTTLED)
    assert pace.slots == 1
    a_round(pace, TAKEN)
    assert pace.slots == 2


def test_slots_that_nobody_needs_do_not_grow() -> None:
    pace = Pace()
    before = pace.slots
    with pace.slot():
        for _ in range(1000):
            pace.answered(TAKEN, 1.0)
    assert pace.slots == before


def test_who_finds_no_slot_waits_for_one() -> None:
    pace = Pace()
    waited = threading.Event()

    def work() -> None:
        with pace.slot():
            waited.set()

    with all_slots(pace):
        worker = threading.Thread(target=work)
        worker.start()
        assert not waited.wait(0.05)
    worker.join(5)
    assert waited.is_set()


def test_never_more_work_is_under_way_than_there_are_slots() -> None:
    pace = Pace()
    lock, under_way, most = threading.Lock(), 0, 0

    def work(n: int) -> None:
        nonlocal under_way, most
        with pace.slot():
            with lock:
                under_way += 1
                assert under_way <= AT_MOST
                most = max(most, under_way)
            pace.answered(THROTTLED if n % 7 == 0 else TAKEN, 1.0)
            with lock:
                under_way -= 1

    workers = [threading.Thread(target=work, args=(n,)) for n in range(100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most >= 1
    assert pace.charge == 100


def test_the_charges_of_all_answers_are_added() -> None:
    pace = Pace()
    for status, charge in ((TAKEN, 5.25), (THROTTLED, 0.5), (404, 1.0)):
        pace.answered(status, charge)
    assert pace.charge == 6.75


@given(
    charges=st.lists(st.floats(0.5, 300), min_size=20, max_size=200),
    ceiling=st.floats(50, 5_000),
)
def test_requests_one_by_one_cost_no_more_a_second_than_the_ceiling(charges: list[float], ceiling: float) -> None:
    clock = Clock()
    pace = Pace(ceiling, clock, clock.sleep)
    for charge in charges:
        pace.answered(TAKEN, charge, pace.admit())
    pace.admit()
    # What one second holds may be spent at once, at first.
    assert pace.charge <= ceiling * (clock.now - 1000.0) + ceiling + max(charges)


def test_many_requests_at_once_are_let_through_at_the_price_of_those_before() -> None:
    clock = Clock()
    pace = Pace(100, clock, clock.sleep)
    pace.answered(TAKEN, 10, pace.admit())
    started = clock.now
    admitted = [pace.admit() for _ in range(50)]  # none is answered yet
    for set_aside in admitted:
        pace.answered(TAKEN, 10, set_aside)
    assert clock.now - started == pytest.approx(50 * 10 / 100, abs=1.1)


def test_the_ceiling_is_used_up_where_there_is_enough_to_do() -> None:
    clock = Clock()
    pace = Pace(200, clock, clock.sleep)
    for _ in range(500):
        pace.answered(TAKEN, 7, pace.admit())
    assert pace.charge / (clock.now - 1000.0) == pytest.approx(200, rel=0.1)


def test_units_that_were_not_used_are_not_saved_up_beyond_a_second() -> None:
    clock = Clock()
    pace = Pace(100, clock, clock.sleep)
    pace.answered(TAKEN, 1, pace.admit())
    clock.now += 3600
    started = clock.now
    for _ in range(500):
        pace.answered(TAKEN, 1, pace.admit())
    assert clock.now - started >= 3.9


def test_without_a_ceiling_nothing_waits() -> None:
    pace = Pace(None, Clock(), pytest.fail)
    for _ in range(1000):
        pace.answered(TAKEN, 1e6, pace.admit())
