"""One sync between two stores in memory: its result, the order of its steps, and what it never does."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import reduce
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.core.errors import ConstraintRefused, GuardTripped, LockLost, Stopped, StoreError, StoreUnavailable
from backup.core.model import WHOLE, Key, Record
from backup.core.run_values import Counts, Proof, Run, Trigger
from backup.core.workers import Workers
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.diff import Changes
from backup.mirror.guard import Guard
from backup.mirror.one_sync import sync_stores
from backup.mirror.pair import StorePair
from backup.mirror.settled import Settled, Spread
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.mirror.writing import Writing
from backup.runs.policy import Policy
from backup.runs.session import Session
from backup.stores import Keep, RelayedPart, Store, Written
from backup.verbs.sync import sync_with_schema
from tests.unit.memory_server import Stored
from tests.unit.memory_store import MemoryStore, fail_at_call, record

NOW = datetime(2026, 1, 1, tzinfo=UTC)

contents = st.builds(
    record,
    st.integers(0, 20),
    st.one_of(st.none(), st.integers(0, 3)),
    st.sampled_from([None, "a", "b"]),
    st.sampled_from(["x", "y"]),
)
sides = st.lists(contents, max_size=20, unique_by=lambda content: content["id"])


def keep_nothing(images: Any, transaction: Any, inserted: Any = ()) -> None:
    """Stands for the recycle bin."""


def steps(check_lock: Callable[[], None] = lambda: None, keep: Keep = keep_nothing) -> Steps:
    return Steps(check_lock, lambda: NOW, keep)


def run_sync(
    source: MemoryStore, backup: MemoryStore, *, force: bool = False, check_lock: Callable[[], None] = lambda: None
) -> Counts:
    """Runs a sync that must be proven, and returns its counts. An error has them as `counts`."""
    run, tally = Run("test", Trigger.CLI, force, NOW), Tally(lambda counts: None)
    try:
        sync_stores(source, backup, run, tally, Guard(max_delete_percent=100), steps(check_lock))
    except Exception as error:
        error.counts = tally.counts  # type: ignore[attr-defined]
        raise
    assert tally.proof is not None
    assert tally.proof.verified
    return tally.counts


def must_be_copied(source: Stored, backup: Stored) -> bool:
    """The rule of a sync, written a second time."""
    if source["version"] != backup["version"]:
        return True
    source_etag, backup_etag = (
        stored["etag"] or (stored["content"] if stored["version"] is None else None) for stored in (source, backup)
    )
    return source_etag is not None and backup_etag is not None and source_etag != backup_etag


@given(sides, sides, st.booleans(), st.integers(1, 5), st.integers(1, 4))
def test_the_backup_and_the_counts_are_what_a_model_of_two_dicts_says(
    source: list[Stored], backup: list[Stored], force: bool, chunk_size: int, batch_size: int
) -> None:
    in_source, in_backup = ({stored["id"]: stored for stored in side} for side in (source, backup))
    sides = [
        MemoryStore(name, records, chunk_size=chunk_size, batch_size=batch_size)
        for name, records in (("source", source), ("backup", backup))
    ]
    if not in_source and in_backup:
        with pytest.raises(GuardTripped):
            run_sync(*sides, force=force)
        assert sides[1].contents() == in_backup
        return
    counts = run_sync(*sides, force=force)
    common = in_source.keys() & in_backup.keys()
    copied = {key for key in common if force or must_be_copied(in_source[key], in_backup[key])}
    assert sides[1].contents() == {
        key: in_backup[key] if key in common and key not in copied else stored for key, stored in in_source.items()
    }
    assert counts == Counts(
        inserted=len(in_source.keys() - common),
        updated=len(copied),
        deleted=len(in_backup.keys() - common),
        skipped=len(common) - len(copied),
    )


@pytest.mark.parametrize(("changed", "fingerprints"), [(1, 1), (20, 2)])
def test_few_changes_are_proven_by_their_stamps_and_many_by_the_fingerprint_of_their_piece(
    changed: int, fingerprints: int
) -> None:
    source = MemoryStore("source", [record(number, 2) for number in range(40)], chunk_size=50)
    backup = MemoryStore("backup", [record(number, 1 if number < changed else 2) for number in range(40)])
    asked = list[None]()
    source.on["fingerprint"] = lambda: asked.append(None)
    assert run_sync(source, backup).updated == changed
    assert len(asked) == fingerprints


@pytest.mark.parametrize(("extra", "cuts"), [(10, 0), (11, 1)])
def test_a_chunk_of_which_the_backup_has_more_than_twice_the_records_is_cut_by_the_backups_keys(
    monkeypatch: pytest.MonkeyPatch, extra: int, cuts: int
) -> None:
    monkeypatch.setattr("backup.mirror.chunk._WHOLE_BELOW", 0)
    source = MemoryStore("source", [record(number) for number in range(10)], chunk_size=50)
    backup = MemoryStore("backup", [record(number) for number in range(10 + extra)])
    asked = list[None]()
    backup.on["chunks"] = lambda: asked.append(None)
    settled = list[Settled]()
    after = Spread.after

    def spied(spread: Spread, last: Settled) -> Spread:
        settled.append(last)
        return after(spread, last)

    monkeypatch.setattr(Spread, "after", spied)
    assert run_sync(source, backup).deleted == extra
    assert len(asked) == cuts
    assert [(chunk.deletes, chunk.source_records, chunk.backup_records) for chunk in settled] == [
        (extra, 10, 10 + extra)
    ]


@pytest.mark.parametrize(
    ("may", "seconds_left", "asked", "fingerprints"),
    [
        (None, 100.0, set(), 3),  # not a SQL server
        ({6}, 100.0, {6}, 1),
        ({6}, 60.0, set(), 3),
        ({3}, 100.0, {6, 3}, 2),  # the first chunk showed that a statement is quick
        (set(), 100.0, {6, 3}, 3),
    ],
)
def test_a_quiet_source_is_compared_at_once_only_where_both_sides_may_be_asked_about_so_many_records(
    monkeypatch: pytest.MonkeyPatch,
    may: set[int] | None,
    seconds_left: float,
    asked: set[int],
    fingerprints: int,
) -> None:
    records, compared = set[int](), list[None]()
    source, backup = (MemoryStore(name, [record(n) for n in range(6)]) for name in ("source", "backup"))

    def may_source(number: int, _seconds: float) -> bool:
        records.add(number)
        return True

    if may is not None:
        for store, may_look in ((source, may_source), (backup, lambda number, _: number in may)):
            server = SimpleNamespace(may_look_at_once=may_look, blocks=None, records_at_once=lambda: 0)
            monkeypatch.setattr(store, "relational", server)
    source.on["fingerprint"] = lambda: compared.append(None)
    run, tally = Run("test", Trigger.CLI, False, NOW), Tally(lambda counts: None)
    quiet = replace(steps(), quiet_records=6, seconds_left=lambda: seconds_left)
    assert sync_stores(source, backup, run, tally, Guard(), quiet) is None
    assert tally.counts == Counts(skipped=6)
    assert (records, len(compared)) == (asked, fingerprints)


@given(sides, sides)
def test_a_forced_sync_leaves_the_backup_equal_to_its_source(source: list[Stored], backup: list[Stored]) -> None:
    source_store, backup_store = MemoryStore("source", [*source, record(99)]), MemoryStore("backup", backup)
    run_sync(source_store, backup_store, force=True)
    assert backup_store.contents() == source_store.contents()


@given(sides, sides)
def test_a_second_sync_changes_nothing(source: list[Stored], backup: list[Stored]) -> None:
    sides = MemoryStore("source", [*source, record(99)]), MemoryStore("backup", backup)
    run_sync(*sides)
    counts, copied = run_sync(*sides), sides[1].contents()
    assert counts == Counts(skipped=len(copied))


@given(sides, sides, st.booleans())
def test_the_proof_is_of_every_record_of_both_sides(source: list[Stored], backup: list[Stored], force: bool) -> None:
    source_store, backup_store = MemoryStore("source", [*source, record(99)]), MemoryStore("backup", backup)
    run, tally = Run("test", Trigger.CLI, force, NOW), Tally(lambda counts: None)
    sync_stores(source_store, backup_store, run, tally, Guard(max_delete_percent=100), steps())
    assert tally.proof is not None
    assert tally.proof.verified
    assert tally.proof.source == tally.proof.backup
    assert tally.proof.source.records == len(source_store.records) == len(backup_store.records)


@given(sides, sides, st.integers(1, 12), st.sampled_from(["stamps", "read", "chunks"]))
def test_a_source_that_fails_on_the_way_costs_no_record_and_the_next_run_catches_up(
    source: list[Stored], backup: list[Stored], call: int, name: str
) -> None:
    source_store, backup_store = MemoryStore("source", [*source, record(99)]), MemoryStore("backup", backup)
    source_store.on[name] = fail_at_call(call)
    before = backup_store.contents().keys()
    try:
        run_sync(source_store, backup_store, force=True)
    except StoreUnavailable:
        # Deletes come after both sides were read to the end. Then the chunks are read again for the proof.
        deleted = {key for method, keys in backup_store.calls if method == "delete" for (key,) in keys}
        assert before <= backup_store.contents().keys() | (deleted - source_store.contents().keys())
        run_sync(source_store, backup_store, force=True)
    assert backup_store.contents() == source_store.contents()


@given(sides, st.sampled_from(["stamps", "write", "delete", "matching"]), st.integers(1, 6))
def test_after_a_backup_failed_on_the_way_the_next_run_catches_up(backup: list[Stored], name: str, call: int) -> None:
    source_store = MemoryStore("source", [record(n, 5) for n in range(0, 30, 2)])
    backup_store = MemoryStore("backup", backup)
    backup_store.on[name] = fail_at_call(call)
    try:
        run_sync(source_store, backup_store)
    except StoreUnavailable:
        run_sync(source_store, backup_store)
    assert backup_store.contents() == source_store.contents()


def test_deletes_come_after_the_last_write() -> None:
    source = MemoryStore("source", [record(n) for n in range(5, 15)])
    backup = MemoryStore("backup", [record(n) for n in (0, 1, 7, 20)])
    run_sync(source, backup)
    calls = [name for name, _ in backup.calls]
    assert calls == sorted(calls, key=["write", "delete"].index)
    assert calls.count("delete") == 2


def test_deletes_are_made_in_batches() -> None:
    backup = MemoryStore("backup", [record(n) for n in range(8)])
    run_sync(MemoryStore("source", [record(0)]), backup)
    assert [len(keys) for name, keys in backup.calls if name == "delete"] == [2, 2, 2, 1]


def test_a_record_that_is_there_again_right_before_its_delete_is_kept() -> None:
    source, backup = MemoryStore("source", [record(1)]), MemoryStore("backup", [record(1), record(2), record(3)])
    source.on["matching"] = lambda: source.put(record(2))
    counts = run_sync(source, backup)
    assert backup.contents().keys() == {1, 2}
    assert counts.deleted == 1


def test_deletes_that_others_must_precede_are_made_in_as_many_rounds_as_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = MemoryStore("source", [record(9)])
    backup = MemoryStore("backup", [record(n) for n in (1, 2, 3, 9)], batch_size=10)
    delete = backup.delete

    def constrained(keys: Sequence[Key], keep: Keep | None = None) -> Written:
        """Each record refers to the one before it."""
        if any((n,) in keys and n + 1 in backup.contents() for n in (1, 2)):
            raise ConstraintRefused("A record refers to it.")
        return delete(keys, keep)

    monkeypatch.setattr(backup, "delete", constrained)
    assert run_sync(source, backup) == Counts(deleted=3, skipped=1)
    assert backup.contents().keys() == {9}


@pytest.mark.parametrize("chunk_size", [3, 50], ids=["after a chunk", "before the deletes"])
@pytest.mark.parametrize(("force", "limit", "aside"), [(False, None, []), (True, None, ["[0]"]), (False, 50, ["[0]"])])
def test_what_waits_when_the_time_is_up_is_set_aside_where_the_next_call_would_not_find_it(
    monkeypatch: pytest.MonkeyPatch, chunk_size: int, force: bool, limit: int | None, aside: list[str]
) -> None:
    """A forced run would take the record for one that is written, and a run with a limit may not look there again."""
    source = MemoryStore("source", [record(n, 2) for n in range(6)], chunk_size=chunk_size)
    backup = MemoryStore("backup", [record(0, 1), record(9)])
    write = backup.write

    def constrained(records: Sequence[Record], *arguments: Any) -> Written:
        if any(written["id"] == 0 for written in records):
            raise ConstraintRefused("It exists already.")
        return write(records, *arguments)

    monkeypatch.setattr(backup, "write", constrained)
    run, tally = Run("test", Trigger.CLI, force, NOW, limit=limit), Tally(lambda counts: None)
    assert sync_stores(source, backup, run, tally, Guard(), replace(steps(), seconds_left=lambda: 0)) is not None
    assert ([*tally.failures], tally.counts.failed) == (aside, len(aside))


def test_a_run_that_the_guard_stopped_names_what_waits_since_earlier_calls_too_but_not_what_it_set_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = MemoryStore("source", [record(f"ü{n:02}", 2) for n in range(12)], chunk_size=4)
    backup = MemoryStore("backup", [record(f"ü{n:02}", 1) for n in range(12)] + [record("ü99")], batch_size=1)

    def constrained(records: Sequence[Record], *_: Any) -> Written:
        raise (StoreError if records[0]["id"] == "ü11" else ConstraintRefused)("No.")

    monkeypatch.setattr(backup, "write", constrained)
    run, tally, guard = Run("test", Trigger.CLI, False, NOW), Tally(lambda counts: None), Guard(max_deletes=0)
    left = sync_stores(source, backup, run, tally, guard, replace(steps(), seconds_left=lambda: 0))
    assert left is not None
    assert not left.complete
    with pytest.raises(GuardTripped) as stopped:
        sync_stores(source, backup, run, tally, guard, steps(), left)
    named = ", ".join(f'["ü{n:02}"]' for n in range(10))
    assert f"Not written: 11 records waiting for the deletes, {named}, …. The backup" in str(stopped.value)
    assert [*tally.failures] == ['["ü11"]']


def test_what_waits_in_a_run_whose_limit_leaves_changes_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemoryStore("source", [record(n) for n in range(6)])
    backup = MemoryStore("backup")

    def constrained(*_: Any) -> Written:
        raise ConstraintRefused("It exists already.")

    monkeypatch.setattr(backup, "write", constrained)
    run, tally = Run("test", Trigger.CLI, False, NOW, limit=2), Tally(lambda counts: None)
    assert sync_stores(source, backup, run, tally, Guard(), steps()) is None
    assert ([*tally.failures], tally.counts) == (["[0]", "[1]"], Counts(failed=2, remaining=4))


def test_calls_that_have_time_for_a_chunk_each_make_all_changes_from_the_checkpoints_that_they_saved() -> None:
    source = MemoryStore("source", [record(n, 2) for n in range(0, 20, 2)])
    backup = MemoryStore("backup", [record(n, 1) for n in range(15)])
    run, deleted, calls = Run("test", Trigger.CLI, False, NOW), 0, 0
    at: Checkpoint | None = Checkpoint()
    while at is not None:
        saved, tally, calls = list[Checkpoint](), Tally(lambda counts: None), calls + 1
        in_slices = replace(steps(), seconds_left=lambda: 0, save=saved.append)
        left = sync_stores(source, backup, run, tally, Guard(max_delete_percent=100), in_slices, at)
        deleted += tally.counts.deleted
        assert left is None or at.complete or saved[-1].after == left.after
        at = left
        assert calls < 50
    assert (backup.contents(), deleted) == (source.contents(), 7)


def test_a_source_without_records_never_empties_a_backup() -> None:
    backup = MemoryStore("backup", [record(1)])
    with pytest.raises(GuardTripped, match="source of test holds no records: 1 of 1 record would be deleted") as error:
        run_sync(MemoryStore("source"), backup, force=True)
    assert error.value.hint
    assert backup.calls == []


def test_two_empty_sides_are_equal() -> None:
    assert run_sync(MemoryStore("source"), MemoryStore("backup")) == Counts()


def test_a_backup_that_does_not_fit_is_not_written_to() -> None:
    source, backup = MemoryStore("source", [record(1)]), MemoryStore("backup")
    backup.on["match"] = fail_at_call(1)
    nothing: Any = None  # the run does not get to history, its opening and the recycle bin
    run, tally = Run("test", Trigger.CLI, False, NOW), Tally(lambda counts: None)
    with pytest.raises(StoreUnavailable):
        sync_with_schema(
            Session(source, backup, nothing, nothing, nothing, run, tally, steps(), Policy(), Checkpoint(), False)
        )
    assert backup.calls == []


@pytest.mark.parametrize("batches", [0, 1, 3, 4])  # four of writes, then one of deletes
def test_a_lost_lock_stops_the_run_before_its_next_batch(batches: int) -> None:
    asked = 0

    def check_lock() -> None:
        nonlocal asked
        asked += 1
        if asked > batches:
            raise LockLost

    source, backup = MemoryStore("source", [record(n) for n in range(6)]), MemoryStore("backup", [record(9)])
    with pytest.raises(LockLost):
        run_sync(source, backup, check_lock=check_lock)
    assert len(backup.calls) == batches


@pytest.mark.parametrize("old", ["new", "old"], ids=["only its note", "its content"])
def test_no_batch_is_written_once_the_work_of_another_chunk_has_failed(old: str) -> None:
    source, backup = MemoryStore("source", [record(1, content="new")]), MemoryStore("backup", [record(1, content=old)])
    run, tally, keys = Run("test", Trigger.CLI, False, NOW), Tally(lambda counts: None), frozenset({(1,)})
    with Workers(1) as workers:
        writing = Writing(StorePair(source, backup, workers), run, tally, steps(), workers.check)
    with pytest.raises(Stopped):  # as after an error of other work
        writing.write(WHOLE, Changes(frozenset(), keys, frozenset(), 0, touched=keys))
    assert backup.calls == []


@pytest.mark.parametrize("of_changes", [False, True])
@pytest.mark.parametrize("of_lock", [True, False], ids=["the lock is lost", "other work failed"])
@pytest.mark.parametrize("parts", [0, 1, 2])
def test_servers_that_pass_records_on_are_stopped_before_their_next_part(
    monkeypatch: pytest.MonkeyPatch, parts: int, of_lock: bool, of_changes: bool
) -> None:
    monkeypatch.setattr("backup.mirror.relays.FEWEST", 1)
    source, backup, made, asked = MemoryStore("source"), MemoryStore("backup"), list[int](), list[None]()

    def relay(*_: Any) -> Iterator[Any]:
        for n in range(4):
            made.append(n)
            yield RelayedPart(inserted=1)

    def check() -> None:
        asked.append(None)
        if len(asked) > parts:
            raise LockLost

    monkeypatch.setattr(backup, "relational", SimpleNamespace(relay=relay, relay_changes=relay))
    run, tally = Run("test", Trigger.CLI, False, NOW), Tally(lambda counts: None)
    with Workers(1) as workers:
        checks = (steps(check), workers.check) if of_lock else (steps(), check)
        writing = Writing(StorePair(source, backup, workers), run, tally, *checks)
        insert = Changes(frozenset({(0,)}), frozenset(), frozenset(), 0)
        with pytest.raises(LockLost):
            _ = writing.write(WHOLE, insert) if of_changes else writing.copy(WHOLE)
    assert (len(made), tally.counts) == (parts, Counts(inserted=parts))


@pytest.mark.parametrize("changed", [3, 2])
def test_many_changed_records_are_passed_on_by_the_servers_and_few_are_not(
    monkeypatch: pytest.MonkeyPatch, changed: int
) -> None:
    monkeypatch.setattr("backup.mirror.relays.FEWEST", 3)
    source, backup, keys = MemoryStore("source"), MemoryStore("backup"), frozenset((n,) for n in range(changed))
    relayed = list[Key]()

    def relay_changes(_source: Store, keys: Sequence[Key], *_: Any) -> list[RelayedPart]:
        relayed.extend(keys)
        return [RelayedPart(updated=len(keys))]

    monkeypatch.setattr(backup, "relational", SimpleNamespace(relay_changes=relay_changes))
    run, tally = Run("test", Trigger.CLI, False, NOW), Tally(lambda counts: None)
    with Workers(1) as workers:
        writing = Writing(StorePair(source, backup, workers), run, tally, steps(), workers.check)
        writing.write(WHOLE, Changes(frozenset(), keys, frozenset(), 0))
    assert (relayed, tally.counts) == (sorted(keys) if changed == 3 else [], Counts(updated=len(relayed)))


def test_the_counts_of_a_failed_run_are_what_it_had_done() -> None:
    source = MemoryStore("source", [record(n) for n in range(6)])
    backup = MemoryStore("backup", [record(1)])
    backup.on["write"] = fail_at_call(3)
    with pytest.raises(StoreUnavailable) as error:
        run_sync(source, backup)
    assert error.value.counts == Counts(inserted=4, skipped=1)  # type: ignore[attr-defined]


def test_progress_is_told_after_every_step() -> None:
    seen_so_far: list[int] = []
    tally = Tally(lambda counts: seen_so_far.append(counts.seen))
    source = MemoryStore("source", [record(n) for n in range(6)])
    run = Run("test", Trigger.CLI, False, NOW)
    sync_stores(source, MemoryStore("backup"), run, tally, Guard(max_delete_percent=100), steps())
    assert seen_so_far == sorted(seen_so_far)
    assert seen_so_far[-1] == 6
    assert len(seen_so_far) > 2


def lower_case(value: Any) -> Any:
    return value.lower().rstrip()


def test_the_backup_is_asked_for_other_spellings_only_where_inserts_meet_deletes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, backup = MemoryStore("source", [record(n, 2) for n in range(3)]), MemoryStore("backup", [record(1, 1)])
    asked, matching = list[Key](), backup.matching

    def matched(keys: Sequence[Key]) -> set[Key]:
        asked.extend(keys)
        return matching(keys)

    monkeypatch.setattr(backup, "matching", matched)
    assert run_sync(source, backup) == Counts(inserted=2, updated=1)
    assert asked == []


@pytest.mark.parametrize(("new", "old"), [("A", "a"), ("a ", "a"), ("STRASSE", "strasse")])
def test_a_key_that_changed_only_for_python_is_an_update_of_the_record_and_costs_nothing(new: str, old: str) -> None:
    source = MemoryStore("source", [record(new, 2), record("other")], fold=lower_case)
    backup = MemoryStore("backup", [record(old, 1), record("other")], fold=lower_case)
    counts = run_sync(source, backup)
    assert backup.contents() == source.contents()
    assert counts == Counts(updated=1, skipped=1)


@given(st.lists(st.sampled_from(["a", "A", "b", "B ", "b", "c", "C "]), unique_by=lower_case, min_size=1), st.data())
def test_under_a_collation_that_folds_keys_the_backup_ends_equal(names: list[str], data: st.DataObject) -> None:
    old = data.draw(st.lists(st.sampled_from(["a", "A", "b", "B ", "c", "C ", "d"]), unique_by=lower_case))
    source = MemoryStore("source", [record(name, 2) for name in names], chunk_size=1, fold=lower_case)
    backup = MemoryStore("backup", [record(name, 1) for name in old], fold=lower_case)
    run_sync(source, backup)
    assert backup.contents() == source.contents()


def test_a_version_lower_than_the_backups_is_updated_and_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    source, backup = MemoryStore("source", [record(7, 3)]), MemoryStore("backup", [record(7, 5)])
    counts = run_sync(source, backup)
    [line] = [line for line in caplog.records if "version_went_back" in line.getMessage()]
    assert (counts.updated, backup.contents()[7]["version"]) == (1, 3)
    assert line.levelno == logging.WARNING
    assert "7: 5 -> 3" in line.getMessage()


def test_versions_that_are_the_same_or_higher_are_not_named(caplog: pytest.LogCaptureFixture) -> None:
    source = MemoryStore("source", [record(1, 2), record(2, 1), record(3, 1)])
    run_sync(source, MemoryStore("backup", [record(1, 1), record(2, 1)]), force=True)
    assert "version_went_back" not in caplog.text


def test_the_log_names_the_number_and_a_few_of_many_lower_versions(caplog: pytest.LogCaptureFixture) -> None:
    source = MemoryStore("source", [record(n, 1) for n in range(50)], chunk_size=100)
    run_sync(source, MemoryStore("backup", [record(n, 2) for n in range(50)], chunk_size=100))
    assert "records=50" in caplog.text
    assert caplog.text.count("2 -> 1") == 10


def test_a_log_line_never_holds_a_records_content(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    source = MemoryStore("source", [record(1, 1, content="private words")])
    run_sync(source, MemoryStore("backup", [record(1, 2)]))
    assert "private words" not in caplog.text


# --- how changes are spread -------------------------------------------------------------------------------------------


def settled(changed: int, records: int = 1_000, by: Literal["fingerprints", "copy", "stamps"] = "stamps") -> Settled:
    return Settled(WHOLE, Counts(updated=changed, skipped=records - changed), records, records, by=by)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], Spread(0, many=False)),
        ([settled(1)], Spread(1, many=False)),
        ([settled(1), settled(99)], Spread(2, many=False)),
        ([settled(1), settled(100)], Spread(0, many=True)),
        ([settled(500)], Spread(0, many=True)),
        ([settled(501)], Spread(0, many=True, most=True)),
        ([settled(501), settled(1)], Spread(1, many=False)),
        ([settled(1), settled(0)], Spread(0, many=False)),
        ([replace(settled(0), deletes=99)], Spread(1, many=False)),
        ([replace(settled(1), deletes=99)], Spread(0, many=True)),
        ([settled(1), settled(0, by="fingerprints")], Spread(0, many=False)),
        ([settled(100), settled(0, by="fingerprints")], Spread(0, many=True)),
        ([settled(1), settled(1_000, by="copy")], Spread(1, many=False, copied=True)),
        ([settled(1_000, by="copy"), settled(1)], Spread(1, many=False)),
        ([settled(1_000, by="copy"), settled(0, by="fingerprints")], Spread(0, many=False)),
        ([settled(0, by="fingerprints"), settled(1), settled(2)], Spread(2, many=False)),
    ],
)
def test_the_spread_for_the_next_chunk_is_a_function_of_the_chunks_so_far_in_their_order(
    chunks: list[Settled], expected: Spread
) -> None:
    assert reduce(Spread.after, chunks, Spread()) == expected
    assert expected.is_all_over == (expected.in_a_row >= 2)


def test_the_pieces_of_a_chunk_add_up_and_one_with_unread_keys_is_enough() -> None:
    pieces = [
        Settled(WHOLE, Counts(updated=1), 3, 4, deletes=2, waiting=1, proof=Proof(differing=1), unread_keys=unread)
        for unread in (True, False)
    ]
    chunk = reduce(Settled.joined, pieces, Settled(WHOLE, Counts(), 0, 0, proof=Proof()))
    assert chunk == Settled(
        WHOLE, Counts(updated=2), 6, 8, deletes=4, waiting=2, proof=Proof(differing=2), unread_keys=True
    )
    assert chunk.joined(replace(pieces[0], proof=None)).proof is None
