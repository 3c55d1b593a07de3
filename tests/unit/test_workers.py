"""Work side by side: results in order, the first error, and the others stop."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from backup.core.workers import Workers

PATIENCE_SECONDS = 60
"""For what comes at once, unless the code is broken."""


def wait(event: threading.Event) -> None:
    assert event.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("parallelism", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(parallelism: int) -> None:
    with Workers(parallelism) as workers:
        assert list(workers.in_order(lambda n: n * n, range(20))) == [n * n for n in range(20)]


def test_a_result_waits_for_those_before_it() -> None:
    last_done = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            wait(last_done)
        if number == 1:
            last_done.set()
        return number

    with Workers(2) as workers:
        assert list(workers.in_order(work, [0, 1])) == [0, 1]


def test_as_many_pieces_as_wished_are_worked_on_at_once() -> None:
    all_there = threading.Barrier(3)

    with Workers(3) as workers:
        assert sorted(workers.in_order(lambda _: all_there.wait(PATIENCE_SECONDS), range(3))) == [0, 1, 2]


def test_items_are_asked_for_only_as_workers_become_free() -> None:
    asked = 0

    def items() -> Iterator[int]:
        nonlocal asked
        for number in range(100):
            asked += 1
            yield number

    with Workers(3) as workers:
        results = workers.in_order(lambda n: n, items())
        assert next(results) == 0
        assert asked == 3


def test_with_one_worker_everything_is_done_in_the_calling_thread_one_after_the_other() -> None:
    steps: list[tuple[str, int]] = []

    def items() -> Iterator[int]:
        for number in range(3):
            steps.append(("asked", number))
            yield number

    def work(number: int) -> threading.Thread:
        steps.append(("worked", number))
        return threading.current_thread()

    with Workers(1) as workers:
        assert {
            *workers.in_order(work, items()),
            *workers.both(threading.current_thread, threading.current_thread),
        } == {threading.current_thread()}
    assert steps == [(step, n) for n in range(3) for step in ("asked", "worked")]


@pytest.mark.parametrize("parallelism", [1, 3])
def test_an_error_is_raised_after_the_results_before_it(parallelism: int) -> None:
    def work(number: int) -> int:
        if number == 2:
            raise ValueError(number)
        return number

    with Workers(parallelism) as workers:
        results = workers.in_order(work, range(5))
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ValueError, match="2"):
            next(results)


def test_when_one_piece_fails_the_others_stop_at_their_next_check_and_its_error_is_raised() -> None:
    begun, failed = threading.Event(), threading.Event()
    stopped: list[int] = []

    def work(number: int) -> None:
        if number == 1:
            wait(begun)
            failed.set()
            raise ValueError("the first")
        begun.set()
        wait(failed)
        stopped.append(number)
        while True:
            workers.check()

    with Workers(2) as workers, pytest.raises(ValueError, match="the first"):
        list(workers.in_order(work, [0, 1]))
    assert stopped == [0]


def test_the_first_error_wins_whichever_piece_is_asked_first() -> None:
    failed = threading.Event()

    def work(number: int) -> None:
        if number == 1:
            try:
                raise ValueError("the first")
            finally:
                failed.set()
        wait(failed)
        try:
            while True:
                workers.check()
        except Exception:
            raise KeyError("a consequence") from None

    with Workers(2) as workers, pytest.raises(ValueError, match="the first"):
        list(workers.in_order(work, [0, 1]))


def test_an_error_of_the_items_ends_the_work() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise OSError("no more chunks")

    done: list[int] = []
    with Workers(2) as workers, pytest.raises(OSError, match="no more chunks"):
        list(workers.in_order(done.append, items()))
    assert done == [0]


def test_pieces_that_have_not_begun_when_one_failed_are_not_begun() -> None:
    begun: list[int] = []
    go_on = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            wait(go_on)
            raise ValueError("the first")
        go_on.set()

    with Workers(2) as workers:
        with pytest.raises(ValueError, match="the first"):
            list(workers.in_order(work, [0, 1]))
        with pytest.raises(ValueError, match="the first"):
            list(workers.in_order(work, [2, 3]))
    assert sorted(begun) == [0, 1]


def test_an_abandoned_walk_lets_nothing_run_on_behind_it() -> None:
    begun = threading.Event()
    ended: list[int] = []

    def work(number: int) -> int:
        if number == 1:
            begun.set()
            try:
                while True:
                    workers.check()
            finally:
                ended.append(number)
        return number

    with Workers(2) as workers:
        assert next(iter(workers.in_order(work, [0, 1]))) == 0
        wait(begun)
    assert ended == [1]


@pytest.mark.parametrize("parallelism", [1, 4])
def test_both_gives_both_results(parallelism: int) -> None:
    with Workers(parallelism) as workers:
        assert workers.both(lambda: "one", lambda: "other") == ("one", "other")


def test_both_asks_at_the_same_time() -> None:
    met = threading.Barrier(2)

    with Workers(2) as workers:
        places = workers.both(lambda: met.wait(PATIENCE_SECONDS), lambda: met.wait(PATIENCE_SECONDS))
    assert sorted(places) == [0, 1]


def test_every_worker_may_ask_both_at_once() -> None:
    met = threading.Barrier(4)

    def work(_: int) -> tuple[int, int]:
        return workers.both(lambda: met.wait(PATIENCE_SECONDS), lambda: met.wait(PATIENCE_SECONDS))

    with Workers(2) as workers:
        places = [place for pair in workers.in_order(work, range(2)) for place in pair]
    assert sorted(places) == [0, 1, 2, 3]


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize("which", ["one", "other"])
def test_both_raises_the_error_of_either(parallelism: int, which: str) -> None:
    def ask(name: str) -> str:
        if name == which:
            raise ValueError(name)
        return name

    with Workers(parallelism) as workers, pytest.raises(ValueError, match=which):
        workers.both(lambda: ask("one"), lambda: ask("other"))


@pytest.mark.parametrize("parallelism", [1, 3])
def test_items_read_ahead_come_in_their_order(parallelism: int) -> None:
    with Workers(parallelism) as workers:
        assert list(workers.ahead(iter(range(1, 50)), lambda item: False)) == list(range(1, 50))
        assert list(workers.ahead(iter(()), lambda item: False)) == []


def test_the_next_item_is_read_while_the_last_is_worked_on() -> None:
    asked = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        asked.set()
        yield 2

    with Workers(2) as workers:
        ahead = workers.ahead(items(), lambda item: False)
        assert next(ahead) == 1
        wait(asked)
        assert list(ahead) == [2]


def test_an_error_of_an_item_read_ahead_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken off")

    with Workers(2) as workers:
        ahead = workers.ahead(items(), lambda item: False)
        assert next(ahead) == 1
        with pytest.raises(ValueError, match="broken off"):
            next(ahead)
