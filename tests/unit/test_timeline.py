"""The order of runs decides when something happened, not the clock that a run had."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.core.run_values import Run, Trigger
from backup.core.timeline import Timeline

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    return NOW + timedelta(days=number)


def timeline(*days: float) -> Timeline:
    """Runs 1, 2, … that were stamped with these days from now."""
    return Timeline([Run("x", Trigger.TIMER, False, day(at), str(n), number=n) for n, at in enumerate(days, 1)], NOW)


@pytest.mark.parametrize(
    ("stamped", "true"),
    [
        ([-3, -2, -1], [-3, -2, -1]),
        ([-3, 3_650, -1], [-3, -1, -1]),  # ahead: taken for the next run's beginning
        ([-3, 3_650, 3_651], [-3, 0, 0]),  # or for now
        ([-3, -20_000, -1], [-3, -1, -1]),  # behind: between these two, and nobody knows when
        ([-3, -20_000], [-3, 0]),
        ([3_650, -20_000, -1], [-20_000, -20_000, -1]),
        ([-9, -5, -8, -7, -6], [-9, -8, -8, -7, -6]),  # was ahead, and its time has come meanwhile
        ([-9, 3_650, -8, -30_000, -7], [-9, -8, -8, -7, -7]),  # one ahead and one behind
        ([-9, -2, -1, -8, -7, -6], [-9, -8, -8, -8, -7, -6]),
        ([], []),
    ],
)
def test_a_wrong_clock_moves_its_own_run_alone(stamped: Sequence[float], true: Sequence[float]) -> None:
    times = timeline(*stamped)
    assert [times.moment(str(n), day(at)) for n, at in enumerate(stamped, 1)] == [day(at) for at in true]


def test_a_clock_that_jumps_within_a_run_leaves_its_beginning() -> None:
    times = timeline(-3, -2, -1)
    assert (times.moment("2", day(-2)), times.moment("2", day(50))) == (day(-2), day(-1))


def test_a_moment_on_whose_two_sides_a_run_may_have_been_is_doubted() -> None:
    times = timeline(-9, -5, -8, -7, -6)  # run 2 counts from the start of run 3
    assert times.doubted(day(-7.5)) == {"2": day(-5)}
    assert times.doubted(day(-8.5)) == times.doubted(day(-1)) == {}


def test_what_is_not_known_is_never_later_than_now() -> None:
    assert (timeline().moment("?", day(5)), timeline().moment("?", day(-5))) == (NOW, day(-5))
    assert (timeline(-1).number("?"), timeline(-1).knows("?"), timeline(-1).number("1")) == (0, False, 1)


@given(st.lists(st.integers(-30, 30), max_size=8))
def test_times_follow_the_numbers_and_never_lie_ahead(days: list[int]) -> None:
    times = timeline(*days)
    moments = [times.moment(str(n), day(at)) for n, at in enumerate(days, 1)]
    assert moments == sorted(moments)
    assert all(moment <= NOW for moment in moments)
