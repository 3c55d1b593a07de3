"""What a run takes from SyncHistory at once, and that it asks for what may be older."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backup.core.run_values import Counts, Run, Status, Trigger, Verb
from backup.runs import history_entries, retention
from backup.runs.columns_to_fill import columns_to_fill
from backup.runs.history import History, is_synced
from backup.runs.history_entries import entry_of, run_of
from backup.runs.of_all_services import newest_starts
from backup.runs.opening import NEWEST, Opening
from backup.stores import Store
from tests.scenarios.places import filled_on_sqlite

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def ended(number: int, verb: Verb = Verb.SYNC, status: Status = Status.COMPLETED) -> Run:
    """The run of this number: one an hour."""
    at = NOW - timedelta(days=9) + timedelta(hours=number)
    run = Run("customer", Trigger.CLI, False, at, verb=verb, number=number)
    return run.ended(status, at + timedelta(minutes=1), Counts())


@pytest.fixture
def backup(tmp_path: Path) -> Iterator[Store]:
    """The customers' backup, with no run yet."""
    place = filled_on_sqlite(tmp_path)
    with place.registry.get("customer").stores() as (_, store):
        yield store


def save(backup: Store, *runs: Run) -> tuple[History, Opening]:
    history = History(backup)
    for run in runs:
        history.save(replace(run, place=history.place))
    return history, history.opening("customer")


def test_what_is_older_than_the_newest_runs_is_asked_for(backup: Store) -> None:
    synced = replace(ended(1), removed_columns=("Gone",))
    died = replace(ended(2, status=Status.FAILED), added_columns=("New",))
    left = replace(ended(3), status=Status.IN_PROGRESS, completed_at=None)
    verifies = [ended(number, Verb.VERIFY) for number in range(4, 4 + NEWEST)]
    history, opening = save(backup, synced, died, left, *verifies)
    assert [run.number for run in opening.newest] == [run.number for run in reversed(verifies)]
    assert (opening.is_whole, opening.next_number) == (False, 4 + NEWEST)
    assert [run.number for run in opening.open_runs] == [3]
    assert columns_to_fill(history, "customer", opening, ["Id", "gone", "new"]) == {"gone", "new"}
    last = opening.first(is_synced, lambda: history.last_synced("customer"))
    assert last is not None
    assert last.sync_id == synced.sync_id
    assert opening.after(last) is None
    assert [run.sync_id for run in history.later(last, opening)] == [died.sync_id]


def test_entries_that_cannot_be_read_hide_none_that_can(backup: Store, caplog: pytest.LogCaptureFixture) -> None:
    history, _ = save(backup, *map(ended, range(1, 4)))
    unreadable = [{**entry_of(replace(ended(n), place=history.place)), "Status": "Odd"} for n in range(4, 9)]
    history.entries.put(unreadable)
    assert [run.number for run in history.runs("customer", 2)] == [3, 2]
    assert "history.not_read" in caplog.text


def test_the_entry_of_an_older_run_is_read_when_somebody_asks_for_that_run(
    backup: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def counted(entry: Mapping[str, Any]) -> Run | None:
        read.append(entry["RunNumber"])
        return run_of(entry)

    monkeypatch.setattr(history_entries, "run_of", counted)
    left = replace(ended(1, Verb.DRILL), scratch="drill")
    _, opening = save(backup, left, *map(ended, range(2, 5)))
    assert (opening.newest[0].number, opening.ahead(NOW), bool(opening.newest)) == (4, None, True)
    assert [run.number for run in opening.with_scratch] == [1]
    assert read == [4]
    assert [run.number for run in opening.newest] == [run.number for run in opening.newest[:]] == [4, 3, 2, 1]
    assert read == [4, 3, 2, 1]


def test_an_entry_that_is_saved_again_is_replaced(backup: Store) -> None:
    history, _ = save(backup, run := ended(1), replace(run, status=Status.FAILED))
    assert [saved.status for saved in history.runs("customer", 9)] == [Status.FAILED]


def test_a_run_that_could_not_begin_gets_the_number_after_the_highest(backup: Store) -> None:
    history, _ = save(backup, ended(2), ended(7), ended(5))
    assert history.next_number("customer") == 8
    history.add(ended(0, status=Status.FAILED))
    assert history.next_number("customer") == 9
    assert history.next_number("order") == 1


def test_history_is_not_asked_again_where_all_its_runs_are_known(backup: Store) -> None:
    runs = [ended(1), ended(2, status=Status.FAILED), ended(3, Verb.VERIFY)]
    _, opening = save(backup, *runs)
    assert opening.is_whole
    assert opening.first(lambda run: run.verb is Verb.UNDO, lambda: pytest.fail("it was asked for")) is None
    assert [run.number for run in opening.after(runs[0]) or ()] == [3, 2]


def test_the_clock_goes_on_from_the_last_run_and_from_what_a_dead_one_kept_but_not_from_what_lies_ahead() -> None:
    ahead = replace(ended(3), completed_at=NOW + timedelta(days=1))
    runs = [ahead, ended(2), ended(1)]
    opening = Opening(runs, times=[run.completed_at for run in runs if run.completed_at])
    behind = ended(2).started_at - timedelta(minutes=1)
    assert opening.clock(lambda: behind, None)() > ended(2).started_at
    assert opening.clock(lambda: NOW, None)() == NOW
    kept_at = behind + timedelta(minutes=4)
    assert opening.clock(lambda: behind, kept_at)() > kept_at
    assert (opening.ahead(NOW), opening.ahead(NOW + timedelta(days=1))) == (ahead, None)


def test_the_bin_is_asked_for_its_newest_image_only_where_a_run_may_have_died() -> None:
    assert not Opening([ended(1)]).bin_may_be_newer
    assert Opening([ended(2)], open_runs=[ended(1)]).bin_may_be_newer
    assert Opening([ended(1)], has_unplaced=True).bin_may_be_newer
    assert Opening().bin_may_be_newer


def test_old_runs_are_looked_at_once_each_latest_first_a_page_at_a_time(
    backup: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_PAGE", 2)
    history, _ = save(backup, *map(ended, range(1, 7)))
    pages = list(retention._begun_before(history, "customer", ended(6).started_at))
    assert [[run.number for run in page] for page in pages] == [[5, 4], [3, 2], [1]]


def test_runs_of_an_earlier_release_have_no_number_and_began_before_all_that_have_one() -> None:
    first, early, other = ended(1), replace(ended(2), number=None), replace(ended(3), number=None)
    opening = Opening([other, early, first])
    assert opening.after(early) == [first]
    assert opening.after(first) == []


def test_syncs_and_verifies_are_found_by_what_they_did(backup: Store) -> None:
    dry = replace(ended(2), dry_run=True)
    verifying = replace(ended(3, Verb.VERIFY), status=Status.IN_PROGRESS, completed_at=None)
    failed = ended(4, status=Status.FAILED)
    syncing = replace(ended(5), status=Status.IN_PROGRESS, completed_at=None)
    history, _ = save(backup, ended(1), dry, verifying, failed, syncing)
    newest = history.newest_verify("customer")
    assert newest is not None
    assert newest.number == 3
    assert history.newest_verify("order") is None
    assert [run.number for run in history.newest_syncs("customer", 9)] == [5, 4, 1]
    assert [run.number for run in history.newest_syncs("customer", 9, ended=True)] == [4, 1]
    starts = [("customer", ended(n).started_at) for n in (5, 4, 1)]
    later = starts[0][1] + timedelta(days=1)
    assert (newest_starts(history.entries, later), newest_starts(history.entries, starts[0][1])) == (starts, starts[1:])
    assert failed.completed_at is not None
    assert history.has_synced("customer", failed.completed_at - timedelta(seconds=1), later)
    assert not history.has_synced("customer", failed.completed_at, later)
    assert not history.has_synced("customer", failed.completed_at - timedelta(seconds=1), failed.completed_at)


def test_an_entry_whose_number_or_time_is_out_of_reach_leaves_numbers_and_times_to_the_others(backup: Store) -> None:
    history, _ = save(backup, ended(1))
    odd = replace(ended(2), place=history.place)
    history.entries.put([{**entry_of(odd), "RunNumber": 2**63 - 1, "SyncedAt": NOW.replace(year=9999)}])
    history.entries.put([{**entry_of(replace(odd, sync_id="early")), "StartedAt": NOW.replace(year=1)}])
    opening = history.opening("customer")
    assert (opening.next_number, history.next_number("customer")) == (3, 3)
    assert opening.clock(lambda: NOW, None)() == NOW
    assert history.timeline("customer", NOW).since(ended(1).sync_id)
