"""Keys that wait for their delete: in order, in batches, on disk if they are many."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.mirror import pending_deletes
from backup.mirror.pending_deletes import PendingDeletes


@given(st.lists(st.sets(st.tuples(st.integers(), st.text())), max_size=8), st.integers(1, 5))
def test_every_key_comes_back_once_in_batches_of_at_most_that_size(
    parts: list[set[tuple[int, str]]], size: int
) -> None:
    with PendingDeletes() as pending:
        for part in parts:
            pending.add(part)
        batches = list(pending.batches(size))
        assert len(pending) == sum(map(len, parts))
    assert all(0 < len(batch) <= size for batch in batches)
    assert [key for batch in batches for key in batch] == [key for part in parts for key in part]


def test_keys_keep_their_types() -> None:
    keys = [(1, "a"), (Decimal("1.0"), b"\x00"), (None, 2.5)]
    with PendingDeletes() as pending:
        pending.add(keys)
        [batch] = pending.batches(10)
    assert [list(map(type, key)) for key in batch] == [list(map(type, key)) for key in keys]
    assert batch == keys


def test_many_keys_lie_on_disk_and_few_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_deletes, "_MAX_BYTES_IN_MEMORY", 1000)
    with PendingDeletes() as few, PendingDeletes() as many:
        few.add([(n,) for n in range(10)])
        for start in range(0, 5000, 100):
            many.add([(n,) for n in range(start, start + 100)])
        assert not few._file._rolled  # type: ignore[attr-defined]
        assert many._file._rolled  # type: ignore[attr-defined]
        assert [key for batch in many.batches(7) for key in batch] == [(n,) for n in range(5000)]


def test_the_keys_are_gone_at_the_end_of_the_block() -> None:
    with PendingDeletes() as pending:
        pending.add([(1,)])
    with pytest.raises(ValueError, match="closed"):
        pending.add([(2,)])
