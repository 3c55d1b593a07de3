"""A walk through the key space: which parts are left, what a new walk forgets, and the text of a checkpoint."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.core.model import WHOLE, Chunk, Key
from backup.core.run_values import Counts, Proof, Total
from backup.mirror import checkpoint
from backup.mirror.checkpoint import Checkpoint

PROOF = Proof(Total(3, 2**128 - 1), Total(4, 5), differing=1, in_flight=2)


def walked(at: Checkpoint, *chunks: Chunk, deletes: bool = False) -> Checkpoint:
    for chunk in chunks:
        at = at.past(chunk, Counts(), 0, 0, None, must_return=deletes)
    return at


def test_a_new_walk_has_the_whole_key_space_before_it() -> None:
    assert Checkpoint().parts_left == [WHOLE]


def test_a_walk_from_the_start_is_complete_at_the_end_of_the_key_space() -> None:
    half = walked(Checkpoint(), Chunk(None, (5,)))
    whole = walked(half, Chunk((5,), None))
    assert (half.parts_left, half.complete) == ([Chunk((5,), None)], False)
    assert (whole.parts_left, whole.complete) == ([], True)


def test_a_walk_that_began_in_the_middle_ends_where_it_began() -> None:
    new_walk = walked(Checkpoint(), Chunk(None, (5,))).begun_anew()
    at_the_end = walked(new_walk, Chunk((5,), (9,)), Chunk((9,), None))
    past_the_start = walked(at_the_end, Chunk(None, (2,)))
    whole = walked(past_the_start, Chunk((2,), (5,)))
    assert new_walk.parts_left == [Chunk((5,), None), Chunk(None, (5,))]
    assert at_the_end.parts_left == [Chunk(None, (5,))]
    assert past_the_start.parts_left == [Chunk((2,), (5,))]
    assert [at.complete for at in (new_walk, at_the_end, past_the_start, whole)] == [False, False, False, True]


@pytest.mark.parametrize(
    "at",
    [
        Checkpoint(),
        walked(Checkpoint(), WHOLE),
        walked(Checkpoint(begin=(5,), after=(5,)), Chunk((5,), None)),
        walked(Checkpoint(begin=(5,), after=(5,)), Chunk((5,), None), Chunk(None, (5,))),
    ],
    ids=["not begun", "complete", "at the end of its first part", "complete after it went round"],
)
def test_a_new_walk_from_an_end_of_the_key_space_passes_it_once(at: Checkpoint) -> None:
    assert at.begun_anew() == Checkpoint()


def test_a_new_walk_has_nothing_of_the_one_before() -> None:
    before = Checkpoint().past(Chunk(None, (5,)), Counts(1, 2, 3, 4), 7, 8, PROOF, must_return=True)
    assert before.begun_anew() == Checkpoint(begin=(5,), after=(5,))


def test_the_numbers_of_chunks_add_up() -> None:
    at = Checkpoint().past(Chunk(None, (5,)), Counts(1, 0, 0, 2), 3, 2, PROOF, must_return=False)
    at = at.past(Chunk((5,), None), Counts(0, 4, 0, 1), 5, 9, PROOF, must_return=False)
    assert (at.counts, at.source_records, at.backup_records, at.proof) == (Counts(1, 4, 0, 3), 8, 11, PROOF + PROOF)


def test_that_a_key_could_not_be_read_is_remembered_to_the_end_of_the_walk() -> None:
    at = Checkpoint()
    for unread, chunk in ((False, Chunk(None, (1,))), (True, Chunk((1,), (2,))), (False, Chunk((2,), (3,)))):
        at = at.past(chunk, Counts(), 0, 0, None, must_return=False, unread_keys=unread)
    assert at.unread_keys
    assert not at.begun_anew().unread_keys


def test_a_chunk_with_deletes_is_remembered_until_it_is_proven() -> None:
    parts = Chunk((5,), None), Chunk(None, (5,))
    at = walked(Checkpoint(begin=(5,), after=(5,)), *parts, deletes=True)
    assert (at.deleting, at.deleting_first) == (parts, 1)
    for part, other, first in ((parts[0], parts[1], 0), (parts[1], parts[0], 1)):
        proven = at.proven(part, PROOF)
        assert (proven.deleting, proven.deleting_first, proven.proof) == ((other,), first, PROOF)


keys = st.one_of(
    st.tuples(st.integers()),
    st.tuples(st.decimals(allow_nan=False)),
    st.tuples(st.binary(max_size=4)),
    st.tuples(st.uuids()),
    st.tuples(
        st.text(max_size=4), st.integers(), st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(fold=0))
    ),
    st.tuples(st.floats(allow_nan=False), st.booleans()),
    st.tuples(st.none(), st.text(max_size=3)),
)
ends = st.none() | keys
checkpoints = st.builds(
    Checkpoint,
    begin=ends,
    after=ends,
    wrapped=st.booleans(),
    complete=st.booleans(),
    counts=st.builds(Counts, *[st.integers(0, 2**40)] * 4),
    source_records=st.integers(0, 2**40),
    backup_records=st.integers(0, 2**40),
    proof=st.just(PROOF),
    deleting=st.lists(st.builds(Chunk, ends, ends), max_size=3).map(tuple),
    deleting_first=st.integers(0, 3),
    unread_keys=st.booleans(),
)


@given(checkpoints)
def test_a_checkpoint_is_the_same_after_its_text(at: Checkpoint) -> None:
    read = Checkpoint.from_text(at.to_text())
    assert read == at
    assert repr(read) == repr(at)  # 1 is not Decimal(1), and 0.0 not -0.0


def test_a_checkpoint_that_an_earlier_release_wrote_is_read() -> None:
    text = (
        '{"begin":null,"after":"[5]","wrapped":false,"complete":false,'
        '"counts":{"inserted":1,"updated":2,"deleted":3,"skipped":4,"failed":5},"wanted":7,"held":8,'
        '"proof":{"source":[3,9],"backup":[4,5],"differing":1,"in_flight":2},'
        '"deleting":[[null,"[2]"]],"deleting_first":1}'
    )
    assert Checkpoint.from_text(text) == Checkpoint(
        after=(5,),
        counts=Counts(1, 2, 3, 4, 5),
        source_records=7,
        backup_records=8,
        proof=Proof(Total(3, 9), Total(4, 5), differing=1, in_flight=2),
        deleting=(Chunk(None, (2,)),),
        deleting_first=1,
    )


@pytest.mark.parametrize(
    "key",
    [
        (Decimal("1.50"),),
        (b"\x00\xff",),
        (UUID(int=1),),
        ("ä\ud800", 2**70, datetime(2026, 1, 1, tzinfo=UTC)),
        (float("inf"), float("-inf"), True, None),
        ('["a"]', "id"),
    ],
)
def test_a_key_of_any_type_is_exact_after_the_text(key: Key) -> None:
    at = Checkpoint(begin=key, after=key, deleting=(Chunk(key, key),))
    assert repr(Checkpoint.from_text(at.to_text())) == repr(at)


def covered(ranges: tuple[Chunk, ...], last: int) -> set[int]:
    """The numbers from 1 to `last` that lie in the ranges."""

    def bound(key: Key | None, open_end: int) -> int:
        return open_end if key is None else int(key[0])

    return {n for chunk in ranges for n in range(bound(chunk.after, 0) + 1, bound(chunk.upto, last) + 1)}


@given(st.integers(2, 60), st.integers(0, 60), st.integers(1, 8), st.randoms(use_true_random=False))
def test_however_many_ranges_there_are_each_is_covered_and_few_are_kept(
    last: int, begin: int, most: int, random: Random
) -> None:
    """Chunks of one number each; the walk goes round from `begin`, so that ranges lie on either side of the wrap."""
    begin %= last
    order = [*range(begin, last), *range(begin)]
    chosen = {n for n in order if random.random() < 0.7}
    at = Checkpoint((begin,), (begin,)) if begin else Checkpoint()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint, "_RANGES_AT_MOST", most)
        for n in order:
            chunk = Chunk((n,) if n else None, (n + 1,) if n + 1 < last else None)
            at = at.past(chunk, Counts(), 0, 0, None, must_return=n in chosen)
            assert len(at.deleting) <= most + 1  # one range on each side of the wrap stays
            at = Checkpoint.from_text(at.to_text())
    assert at.complete
    assert {n + 1 for n in chosen} <= covered(at.deleting, last)


def test_beyond_five_hundred_ranges_neighbours_are_merged() -> None:
    chunks = [Chunk((n,), (n + 1,)) for n in range(1, 1002)]
    at = Checkpoint((1,), (1,))
    for number, chunk in enumerate(chunks):
        at = at.past(chunk, Counts(), 0, 0, None, must_return=number % 2 == 0)
    assert len(at.deleting) <= 500
    assert covered(at.deleting, 1002) >= {n + 1 for n in range(1, 1002, 2)}


@pytest.mark.parametrize("text", ["", "[]", '{"proof":[]}', "[" * 100_000, '{"proof":{"source":5}}'])
def test_a_text_that_is_no_checkpoint_is_the_start_of_a_walk(text: str) -> None:
    assert Checkpoint.from_text(text) == Checkpoint()
