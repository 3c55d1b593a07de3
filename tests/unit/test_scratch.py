"""What a dead drill has left is dropped, and nothing stays open."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from backup.core.errors import StoreUnavailable
from backup.core.run_values import Run, Trigger
from backup.runs.scratch import drop_left, name_of
from tests.unit.memory_store import MemoryStore

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
