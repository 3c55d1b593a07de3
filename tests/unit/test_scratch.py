"""What a dead drill has left is dropped, and nothing stays open."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from backup.core.errors import StoreUnavailable
from backup.core.run_values import Run, Status, Trigger
from backup.runs.history import History
from backup.runs.open_runs import drop_all_scratches
from backup.runs.scratch import drop_left, name_of
from tests.unit.memory_store import MemoryStore, fail_at_call

RUN = Run("customer", Trigger.CLI, False, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("fails", [False, True])
def test_a_scratch_place_is_dropped_by_its_runs_name_and_closed_also_when_that_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    backup, left, calls = MemoryStore("backup"), MemoryStore("scratch"), list[str]()

    def drop() -> None:
        calls.append("drop")
        if fails:
            raise StoreUnavailable("It does not answer.")

    def beside(name: str) -> MemoryStore:
        calls.append(name)
        return left

    monkeypatch.setattr(backup.catalog, "beside", beside)
    monkeypatch.setattr(left.catalog, "drop", drop)
    monkeypatch.setattr(left, "close", lambda: calls.append("close"))
    assert drop_left(backup, RUN)  # it has none
    run = replace(RUN, scratch="another name")
    assert drop_left(backup, run) is not fails
    assert calls == [name_of(run.sync_id), "drop", "close"]
    assert ("drill.not_dropped" in caplog.text) is fails


@pytest.mark.parametrize("fails", [False, True])
def test_the_entry_of_a_dead_drill_names_its_place_until_it_is_dropped(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    backup, left = MemoryStore("backup"), MemoryStore("scratch")
    if fails:
        monkeypatch.setattr(left.catalog, "drop", fail_at_call(1))
    monkeypatch.setattr(backup.catalog, "beside", lambda name: left)
    history = History(backup)
    history.create()
    place = backup.catalog.qualified_name()
    run = replace(RUN, scratch=name_of(RUN.sync_id), status=Status.FAILED, place=place, number=1)
    history.save(run, new=True)
    drop_all_scratches(backup, history, run.service, run.started_at)
    assert [entry.scratch for entry in history.latest(run.service, 2)] == [run.scratch if fails else None]
