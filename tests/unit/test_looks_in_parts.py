"""A quiet table that is too large for one statement is looked at in parts of many chunks, up to one that differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from backup.core.errors import TransientStoreError
from backup.core.model import Chunk
from backup.core.run_values import Counts, Run, Trigger
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.guard import Guard
from backup.mirror.one_sync import sync_stores
from backup.mirror.tally import Tally
from tests.unit.memory_store import MemoryStore, record
from tests.unit.test_sync import NOW, steps

CHUNK, AT_ONCE, ROWS = 3, 12, 30


class Night:
    """Two equal sides of 30 records, and what a sync has done: its checkpoints, and how often it asked the source."""

    def __init__(self, parallelism: int, at_once: tuple[int, int] = (AT_ONCE, 40)) -> None:
        records = [record(n) for n in range(1, ROWS + 1)]
        self.sides = self.source, self.backup = MemoryStore("source", records), MemoryStore("backup", records)
        self.parallelism, self.counts, self.saved = parallelism, Counts(), list[Any]()
        self.asked = {"fingerprint": 0, "beginning": 0}
        self.failing: Callable[[str], None] = lambda _what: None
        for store, number in zip(self.sides, at_once, strict=True):
            self.serve(store, number)
        self.source.on["fingerprint"] = lambda: self.count("fingerprint")

    def count(self, what: str) -> None:
        self.asked[what] += 1
        self.failing(what)

    def serve(self, store: Any, at_once: int) -> None:
        """Makes a table of the store: no statement may be about all of it, but one about so many records."""

        def beginning(part: Chunk, records: int) -> Chunk:
            self.count("beginning")
            keys = sorted(stored["id"] for stored in store._within(part))
            return Chunk(part.after, (keys[records - 1],)) if len(keys) >= records else part

        server = {"may_look_at_once": lambda *_: False, "blocks": None, "has_none": lambda _: False}
        store.relational = SimpleNamespace(records_at_once=lambda: at_once, beginning=beginning, **server)

    def sync(
        self, records: int = ROWS, seconds_left: float = 100, start: Checkpoint | None = None
    ) -> Checkpoint | None:
        run, tally = Run("test", Trigger.CLI, False, NOW), Tally(lambda _: None)
        quiet = replace(steps(), quiet_records=records, parallelism=self.parallelism, save=self.saved.append)
        left = iter([100.0] * 2)  # at the start and behind the first chunk
        quiet = replace(quiet, seconds_left=lambda: next(left, seconds_left))
        stopped = sync_stores(self.source, self.backup, run, tally, Guard(max_delete_percent=100), quiet, start)
        self.counts = tally.counts
        return stopped

    @property
    def ends(self) -> list[int]:
        """Where the checkpoints stand, but for the one at the end."""
        return [at.after[0] for at in self.saved if at.after is not None]


@pytest.fixture(params=[1, 2])
def night(request: pytest.FixtureRequest) -> Night:
    return Night(request.param)


def test_each_part_has_as_many_records_as_both_sides_may_be_asked_about(night: Night) -> None:
    assert night.sync() is None
    assert night.counts == Counts(skipped=ROWS)
    assert night.ends == [3, 15, 27]
    assert night.asked == {"fingerprint": 4, "beginning": 2}  # all that is left is one part: its end is known


def test_what_is_left_is_cut_where_there_is_more_than_at_the_last_sync(night: Night) -> None:
    assert night.sync(records=CHUNK) is None
    assert night.counts == Counts(skipped=ROWS)
    assert night.asked == {"fingerprint": 4, "beginning": 3}


def test_a_walk_that_began_elsewhere_ends_where_it_began(night: Night) -> None:
    assert night.sync(records=18, start=Checkpoint(begin=(21,), after=(3,), wrapped=True)) is None
    assert night.ends == [6, 18]
    assert night.counts == Counts(skipped=18)


@pytest.mark.parametrize(("changed", "ends"), [((2,), []), ((20,), [3, 15]), ((29, 30), [3, 15, 27])])
def test_from_the_first_part_that_differs_on_all_goes_by_chunks(
    night: Night, changed: Sequence[int], ends: list[int]
) -> None:
    for n in changed:
        night.source.put(record(n, 9))
    del night.source.records[changed[0] - 1]
    assert night.sync() is None
    assert night.counts == Counts(updated=len(changed), deleted=1, skipped=ROWS - 1 - len(changed))
    assert night.backup.contents() == night.source.contents()
    assert night.ends[: len(ends)] == ends
    assert len(night.ends) == len(ends) + (ROWS - 1 - (ends or [0])[-1]) // CHUNK  # the last chunk is open


def test_a_run_whose_time_gets_short_goes_on_by_chunks(night: Night) -> None:
    assert night.sync(seconds_left=60) is None
    assert night.ends == [3, 15, 18, 21, 24, 27, 30]


@pytest.mark.parametrize("what", ["fingerprint", "beginning"])
def test_a_part_that_is_not_answered_in_time_goes_by_chunks(night: Night, what: str) -> None:
    def late(asked: str) -> None:
        if asked == what and night.asked[what] == 2:
            raise TransientStoreError("there was no answer within 60 s")

    night.failing = late
    assert night.sync() is None
    assert night.counts == Counts(skipped=ROWS)
    assert night.ends[-2:] == [27, 30]


@pytest.mark.parametrize("what", ["fingerprint", "beginning"])
def test_where_nobody_answers_the_run_ends(night: Night, what: str) -> None:
    def gone(asked: str) -> None:
        if asked == what and night.asked[what] == 2:
            raise TransientStoreError("connection refused", unanswered=True)

    night.failing = gone
    with pytest.raises(TransientStoreError, match="refused"):
        night.sync()


@pytest.mark.parametrize("at_once", [(0, 40), (40, 0)])
def test_a_side_that_may_not_be_asked_about_many_chunks_has_all_asked_by_chunks(at_once: tuple[int, int]) -> None:
    night = Night(1, at_once)
    assert night.sync() is None
    assert night.asked == {"fingerprint": ROWS // CHUNK + 1, "beginning": 0}
