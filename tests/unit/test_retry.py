"""The retry rule; nothing here waits."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.core import interrupts
from backup.core.errors import BackupError, ConfigError, StoreError, StoreUnavailable, TransientStoreError
from backup.core.retry import Retry


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were to be waited."""
    seconds: list[float] = []
    monkeypatch.setattr(interrupts, "sleep", seconds.append)
    return seconds


def tried(retry: Retry, work: Callable[[], str], operation: str = "try") -> str:
    """What the work returns, done as often as the rule says."""
    for attempt in retry.attempts(operation):
        with attempt:
            result = work()
    return result


def failing(errors: list[Exception]) -> Callable[[], str]:
    """Raises these errors one after the other, then returns."""
    left = list(errors)

    def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return attempt


def test_what_succeeds_is_called_once(waits: list[float]) -> None:
    assert tried(Retry(), failing([])) == "done"
    assert waits == []


def test_a_transient_error_is_tried_again(waits: list[float]) -> None:
    assert tried(Retry(), failing([TransientStoreError()] * 4)) == "done"
    assert len(waits) == 4


def test_after_five_tries_the_last_error_is_raised_as_it_is(waits: list[float]) -> None:
    errors: list[Exception] = [TransientStoreError(str(n)) for n in range(1, 7)]
    with pytest.raises(TransientStoreError, match=r"^5$"):
        tried(Retry(), failing(errors))
    assert len(waits) == 4


@pytest.mark.parametrize("error", [StoreError(), StoreUnavailable(), ConfigError(), BackupError(), ValueError("x")])
def test_an_error_that_will_not_pass_is_raised_at_once(waits: list[float], error: Exception) -> None:
    with pytest.raises(type(error)):
        tried(Retry(), failing([error]))
    assert waits == []


def test_waits_double_up_to_the_longest_with_up_to_a_quarter_more(waits: list[float]) -> None:
    tried(Retry(max_attempts=8), failing([TransientStoreError()] * 7))
    for seconds, least in zip(waits, [2, 4, 8, 16, 32, 32, 32], strict=True):
        assert least <= seconds <= least * 1.25


def test_waits_are_jittered(waits: list[float]) -> None:
    for _ in range(20):
        tried(Retry(), failing([TransientStoreError()]))
    assert len(set(waits)) > 1


def test_a_longer_retry_after_of_the_server_is_honoured(waits: list[float]) -> None:
    tried(Retry(), failing([TransientStoreError(retry_after=45.0), TransientStoreError(retry_after=0.5)]))
    assert waits[0] == 45.0
    assert 4 <= waits[1] <= 5


@given(st.integers(1, 8), st.integers(0, 10))
def test_an_operation_is_called_until_it_succeeds_or_its_tries_are_used_up(tries: int, failures: int) -> None:
    calls = 0

    def work() -> str:
        nonlocal calls
        calls += 1
        if calls <= failures:
            raise TransientStoreError
        return "done"

    retry = Retry(max_attempts=tries, base_seconds=0)
    if failures < tries:
        tried(retry, work)
    else:
        with pytest.raises(TransientStoreError):
            tried(retry, work)
    assert calls == min(tries, failures + 1)


def test_each_further_try_is_a_log_line_that_names_the_operation(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    tried(Retry(), failing([TransientStoreError("gone away")]), "read the stamps")
    [line] = caplog.messages
    assert line.startswith('retry operation="read the stamps" attempt=1 of=5 wait_seconds=2')
    assert line.endswith('error="gone away"')
