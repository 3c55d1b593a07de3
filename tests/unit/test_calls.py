"""Calls that have an end, whatever becomes of their answers."""

import threading

import pytest

from backup.core.errors import StoreUnavailable
from backup.stores import calls
from backup.stores.calls import Call, CallEnded, cut_in_time, left_in_time

DEADLINE_SECONDS = 30


def test_a_call_is_cut_when_its_time_is_up() -> None:
    answer = threading.Event()

    def wait(call: Call) -> None:
        call.end_with(answer.set)
        assert answer.wait(DEADLINE_SECONDS), "it was not cut"
        raise ConnectionError("the driver's own word for it")

    with pytest.raises(CallEnded):
        cut_in_time(0.01, wait)


def test_a_call_that_ends_in_time_gives_its_answer_and_its_own_error() -> None:
    def fail(call: Call) -> None:
        raise LookupError

    for in_time in (cut_in_time, left_in_time):
        assert in_time(DEADLINE_SECONDS, lambda call: 7) == 7
        with pytest.raises(LookupError):
            in_time(DEADLINE_SECONDS, fail)


def test_threads_are_left_behind_up_to_a_number_and_do_no_more_when_they_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "LEFT_BEHIND_AT_MOST", 2)
    answer, done, came_back = threading.Event(), [], threading.Semaphore(0)

    def wait(call: Call) -> None:
        answer.wait(DEADLINE_SECONDS)
        try:
            call.check()
            done.append("committed")
        finally:
            came_back.release()

    for _ in range(2):
        with pytest.raises(CallEnded):
            left_in_time(0.01, wait)
    with pytest.raises(StoreUnavailable):
        left_in_time(0.01, wait)
    answer.set()
    assert came_back.acquire(timeout=DEADLINE_SECONDS)
    assert came_back.acquire(timeout=DEADLINE_SECONDS)
    assert done == []
