"""Which records of a batch are set aside, and at what cost."""

from collections.abc import Iterator, Sequence
from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.core.errors import (
    ConstraintRefused,
    GuardTripped,
    LockLost,
    RecordRefused,
    Stopped,
    StoreError,
    StoreUnavailable,
)
from backup.core.model import Key, Record, Unread, Version
from backup.core.run_values import Proof
from backup.mirror.compared import Compared
from backup.mirror.diff import Changes
from backup.mirror.set_aside import Refusal, bisect, read_bisecting, until_refused

bad_numbers = st.sets(st.integers(0, 63), max_size=6)


def key_of(number: int) -> Key:
    return (number,)


@given(bad_numbers, st.integers(1, 64))
def test_the_others_of_a_batch_are_written_each_once_and_those_refused_are_given(bad: set[int], size: int) -> None:
    tries, written = 0, list[int]()

    def write(numbers: Sequence[int]) -> None:
        nonlocal tries
        tries += 1
        if bad.intersection(numbers):
            raise StoreError("refused")

    refused = list(bisect(range(size), key_of, write, written.extend))
    mine = sorted(bad.intersection(range(size)))
    assert [refusal.keys for refusal in refused] == [[(number,)] for number in mine]
    assert sorted(written) == [number for number in range(size) if number not in bad]
    assert tries <= 1 + 2 * len(mine) * ceil(log2(size) if size > 1 else 0)


@pytest.mark.parametrize(("error", "part"), [(ConstraintRefused(), [4, 5, 6, 7]), (StoreError(), [5])])
def test_the_search_for_what_a_constraint_refuses_may_end_above_single_records(
    error: StoreError, part: list[int]
) -> None:
    def write(numbers: Sequence[int]) -> None:
        if 5 in numbers:
            raise error

    [refused] = bisect(range(16), key_of, write, lambda numbers: None, smallest_part=4)
    assert refused.keys == [(number,) for number in part]
    assert refused.may_pass == isinstance(error, ConstraintRefused)


def test_what_a_store_names_itself_is_not_looked_for() -> None:
    written = list[int]()

    def write(numbers: Sequence[int]) -> None:
        raise RecordRefused(refused={(2,): "too large", (3,): "taken"}, in_the_way={(3,)})

    large, taken = bisect(range(4), key_of, write, written.extend)
    assert (large.keys, str(large.error), written) == ([(2,)], "too large", [0, 1])
    assert (taken.keys, taken.may_pass, taken.may_exchange) == ([(3,)], True, True)
    assert (large.may_pass, large.may_exchange) == (False, False)


@pytest.mark.parametrize(
    "error", [StoreUnavailable("gone"), LockLost(), GuardTripped(), Stopped(), OSError(), MemoryError()]
)
def test_what_is_not_about_records_ends_the_work(error: Exception) -> None:
    def fail(keys: object) -> None:
        raise error

    def read(keys: frozenset[Key]) -> Iterator[Sequence[Record]]:
        yield from ()
        fail(keys)

    with pytest.raises(type(error)):
        list(bisect(range(4), key_of, fail, fail))
    with pytest.raises(type(error)):
        list(read_bisecting({(1,), (2,)}, lambda record: (record["id"],), read, lambda refused: None))
    with pytest.raises(type(error)):
        list(until_refused(read(frozenset())))


@pytest.mark.parametrize("error", [OverflowError("4711"), UnicodeEncodeError("ascii", "4711", 0, 1, "x"), TypeError()])
def test_a_value_that_no_driver_takes_is_one_record_s_fault_and_is_not_told(error: Exception) -> None:
    def write(numbers: Sequence[int]) -> None:
        if 3 in numbers:
            raise error

    [refused] = bisect(range(4), key_of, write, lambda numbers: None)
    assert refused.keys == [(3,)]
    assert type(error).__name__ in str(refused.error)
    assert "4711" not in str(refused.error)


@pytest.mark.parametrize(
    ("unread", "in_source", "expected"),
    [
        (Unread("no text", of_key=True), True, True),
        (Unread("no text", of_key=True), False, False),
        (Unread("no text"), True, False),
    ],
    ids=["a key of the source", "a key of the backup", "another value"],
)
def test_a_piece_has_unread_keys_only_where_the_source_has_them(
    unread: Unread, in_source: bool, expected: bool
) -> None:
    stamps = {("row 1",): Version((unread,))}
    of_source, of_backup = (stamps, {}) if in_source else ({}, stamps)
    nothing = Changes(frozenset(), frozenset(), frozenset(), 0)
    compared = Compared(set(), set(), of_source, of_backup, nothing, Proof(), None, {("row 1",): unread})
    assert compared.has_unread_keys is expected


@given(bad_numbers, st.integers(1, 7))
def test_a_batch_that_cannot_be_read_is_read_apart(bad: set[int], batch: int) -> None:
    def read(keys: frozenset[Key]) -> Iterator[Sequence[Record]]:
        ordered = sorted(keys)
        for start in range(0, len(ordered), batch):
            part = ordered[start : start + batch]
            if any(number in bad for (number,) in part):
                raise StoreError("a value that cannot be read")
            yield [{"id": number} for (number,) in part]

    refused = list[Refusal]()
    batches = read_bisecting({(n,) for n in range(64)}, lambda record: (record["id"],), read, refused.append)
    assert sorted(record["id"] for records in batches for record in records) == sorted(set(range(64)) - bad)
    assert sorted(key for refusal in refused for key in refusal.keys) == [(number,) for number in sorted(bad)]


@given(bad_numbers, st.integers(1, 7))
def test_records_that_a_read_names_as_refused_are_told_with_their_reasons_and_the_others_given(
    bad: set[int], batch: int
) -> None:
    def read(keys: frozenset[Key]) -> Iterator[Sequence[Record]]:
        ordered = sorted(keys)
        for start in range(0, len(ordered), batch):
            part = ordered[start : start + batch]
            yield [{"id": number} for (number,) in part if number not in bad]
            if wrong := {key: f"no {key[0]}" for key in part if key[0] in bad}:
                raise RecordRefused(refused=wrong)

    refused = list[Refusal]()
    batches = read_bisecting({(n,) for n in range(64)}, lambda record: (record["id"],), read, refused.append)
    assert sorted(record["id"] for records in batches for record in records) == sorted(set(range(64)) - bad)
    reasons = {key: str(refusal.error) for refusal in refused for key in refusal.keys}
    assert reasons == {(number,): f"no {number}" for number in bad}
