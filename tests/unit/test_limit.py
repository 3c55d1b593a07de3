"""A sync with a limit, between two stores in memory: which changes it makes, and what it counts as remaining."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.core.errors import BadRequest, GuardTripped
from backup.core.run_values import Counts, Run, Status, Trigger, Verb
from backup.entry.requests import SyncRequest, parse_body, parse_limit
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.guard import Guard
from backup.mirror.one_sync import sync_stores
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.runs.history import is_synced
from tests.unit.memory_server import Stored
from tests.unit.memory_store import MemoryStore, record
from tests.unit.test_sync import contents, keep_nothing, must_be_copied

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LENIENT = Guard(max_delete_percent=100)

sides = st.lists(contents, min_size=1, max_size=20, unique_by=lambda content: content["id"])


def limited(limit: int, **more: Any) -> Run:
    return Run("test", Trigger.CLI, more.pop("force", False), NOW, limit=limit, **more)


class Sides:
    """The two stores, and what a whole sync would do with each key."""

    def __init__(self, source: list[Stored], backup: list[Stored], chunk_size: int, batch_size: int) -> None:
        self.source, self.backup = (
            MemoryStore(name, records, chunk_size=chunk_size, batch_size=batch_size)
            for name, records in (("source", source), ("backup", backup))
        )
        self.in_source, self.in_backup = ({stored["id"]: stored for stored in side} for side in (source, backup))

    def changes(self, force: bool) -> list[int]:
        keys = self.in_source.keys() | self.in_backup.keys()
        return sorted(key for key in keys if self._changes(key, force))

    def after(self, keys: list[int]) -> dict[int, Stored]:
        """The backup with the changes of these keys made."""
        expected = {key: stored for key, stored in self.in_backup.items() if key not in keys}
        return expected | {key: self.in_source[key] for key in keys if key in self.in_source}

    def _changes(self, key: int, force: bool) -> bool:
        if key not in self.in_source or key not in self.in_backup:
            return True
        return force or must_be_copied(self.in_source[key], self.in_backup[key])


@given(sides, sides, st.integers(1, 25), st.booleans(), st.integers(1, 5), st.integers(1, 4))
def test_the_first_changes_in_the_order_of_keys_are_made_and_the_others_counted(
    source: list[Stored], backup: list[Stored], limit: int, force: bool, chunk_size: int, batch_size: int
) -> None:
    places, tally = Sides(source, backup, chunk_size, batch_size), Tally(lambda counts: None)
    changes = places.changes(force)
    run = limited(limit, force=force)
    left = sync_stores(
        places.source, places.backup, run, tally, LENIENT, Steps(lambda: None, lambda: NOW, keep_nothing)
    )
    assert left is None
    assert places.backup.contents() == places.after(changes[:limit])
    assert (tally.counts.processed, tally.counts.remaining) == (min(limit, len(changes)), max(0, len(changes) - limit))
    if not tally.counts.remaining:
        assert tally.proof is not None
        assert tally.proof.verified
        assert tally.proof.source.records == len(source)


@given(sides, sides, st.integers(1, 25), st.integers(1, 5))
def test_a_dry_run_counts_and_names_what_a_limited_run_would_do(
    source: list[Stored], backup: list[Stored], limit: int, chunk_size: int
) -> None:
    places, tally = Sides(source, backup, chunk_size, 4), Tally(lambda counts: None)
    changes, run = places.changes(force=False), limited(limit, dry_run=True)
    sync_stores(places.source, places.backup, run, tally, LENIENT, Steps(lambda: None, lambda: NOW, keep_nothing))
    assert places.backup.contents() == places.in_backup
    assert sorted(key for (key,), _ in tally.changes) == changes[:limit]
    assert (tally.counts.processed, tally.counts.remaining) == (min(limit, len(changes)), max(0, len(changes) - limit))


@given(sides, sides, st.integers(1, 25), st.integers(1, 3))
def test_a_limited_run_in_slices_makes_the_same_changes(
    source: list[Stored], backup: list[Stored], limit: int, chunk_size: int
) -> None:
    places, counts, start = Sides(source, backup, chunk_size, 2), Counts(), Checkpoint()
    changes, calls = places.changes(force=False), 0
    while True:
        # Each call goes on from the text of the last checkpoint, and the bin says what earlier calls changed.
        tally = Tally(lambda _: None)
        tally.counts = Counts(counts.inserted, counts.updated, counts.deleted, 0, 0, start.counts.remaining)
        steps = Steps(lambda: None, lambda: NOW, keep_nothing, seconds_left=lambda: 0)
        left = sync_stores(places.source, places.backup, limited(limit), tally, LENIENT, steps, start)
        counts, calls = tally.counts, calls + 1
        assert counts.processed <= limit
        if left is None:
            break
        start = Checkpoint.from_text(left.to_text())
    assert calls >= len(source) // chunk_size
    assert places.backup.contents() == places.after(changes[:limit])
    assert counts.remaining == max(0, len(changes) - limit)


def test_the_guard_judges_all_deletes_not_only_those_within_the_limit() -> None:
    backup = [record(number) for number in range(100)]
    places = Sides([*backup[:50], record(200)], backup, 10, 10)
    tally = Tally(lambda counts: None)
    with pytest.raises(GuardTripped, match="50 of 100 records"):
        sync_stores(
            *(places.source, places.backup, limited(1), tally, Guard()),
            Steps(lambda: None, lambda: NOW, keep_nothing),
        )
    assert tally.counts.deleted == 0


def test_a_run_that_leaves_changes_is_neither_verified_nor_a_success_to_build_on() -> None:
    run = limited(5)
    assert run.is_partial  # it may still leave some
    some, none = (run.ended(Status.COMPLETED, NOW, Counts(inserted=5, remaining=left)) for left in (1, 0))
    assert (some.verified, is_synced(some), is_synced(none)) == (False, False, True)


def test_a_limited_run_neither_resumes_another_nor_is_resumed_by_a_later_sync() -> None:
    whole, part = (Run("test", Trigger.CLI, False, NOW, checkpoint="{}", limit=limit) for limit in (None, 5))
    assert whole.takes_over(whole)
    assert not whole.takes_over(part)
    assert not part.takes_over(whole)
    assert not part.takes_over(part)
    assert part.verb is Verb.SYNC


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("1000000000", 1_000_000_000), ("null", None), ("1e3", 1_000), ("1.0", 1)],
    ids=["small", "largest", "none", "power", "fraction of zero"],
)
def test_a_limit_in_a_body_is_taken(text: str, value: int | None) -> None:
    assert parse_body(SyncRequest, f'{{"limit": {text}}}'.encode()).limit == value


@pytest.mark.parametrize(
    "text", ["0", "-1", '"5"', "true", "1.5", "1e10", "1e400", "1000000001", "9" * 60, "[5]", "NaN"]
)
def test_a_limit_that_is_no_number_of_changes_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="malformed"):
        parse_body(SyncRequest, f'{{"limit": {text}}}'.encode())


@pytest.mark.parametrize(
    "text", ["0", "-1", "", "true", "1e3", "1.0", "1000000001", "9" * 60, "\u0665", " 5", "+5", "5_0"]
)
def test_a_limit_in_an_address_that_is_no_number_of_changes_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="limit"):
        parse_limit({"limit": text})


def test_a_limit_in_an_address_is_taken() -> None:
    assert (parse_limit({"limit": "12"}), parse_limit({})) == (12, None)
