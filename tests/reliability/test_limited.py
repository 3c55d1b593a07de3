"""A sync with a limit, of a table and a container: what it changes and records, and what later runs make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.run_values import Trigger
from backup.runs.outcome import Outcome, Turn
from backup.services.registry import Registry
from backup.services.service import Options
from tests.reliability import scenes
from tests.reliability.scenes import Scene, check_bin, look
from tests.scenarios.places import Contents, Sql


@pytest.fixture
def sqlite(tmp_path: Path) -> Scene:
    return begun(scenes.on_sqlite(tmp_path))


@pytest.fixture
def cosmos(tmp_path: Path, cosmos_server: str, cosmos_server_backup: str) -> Scene:
    return begun(scenes.on_cosmos(tmp_path, cosmos_server, cosmos_server_backup))


@pytest.fixture(params=["sqlite", "cosmos"])
def scene(request: pytest.FixtureRequest) -> Scene:
    made: Scene = request.getfixturevalue(request.param)
    return made


def begun(scene: Scene) -> Scene:
    scene.begin()
    return scene


def synced(scene: Scene, **options: Any) -> Outcome:
    [outcome] = scene.registry.sync(scene.service.name, Trigger.CLI, Options(**options))
    return outcome


def key_of(record: Any) -> Any:
    """The record's key in the order of its store: chunks of Cosmos DB are ranges of the id alone."""
    return record["id"] if "id" in record else record["Id"]


def with_first(changes: int, before: Contents, source: Contents) -> Contents:
    """The backup once its first changes, in the order of keys, are made."""
    records = {**before, **source}
    differing = [name for name in records if source.get(name) != before.get(name)]
    differing.sort(key=lambda name: key_of(records[name]))
    after = dict(before)
    for name in differing[:changes]:
        if name in source:
            after[name] = source[name]
        else:
            del after[name]
    return after


def test_a_limited_run_makes_the_first_changes_and_the_last_of_several_proves_the_whole(scene: Scene) -> None:
    scene.change()
    source, before = scene.service.source.contents(), look(scene.service.backup)
    whole = len([name for name in {**before.contents, **source} if source.get(name) != before.contents.get(name)])
    limit = whole * 3 // 5
    contents, remaining = before.contents, whole
    while remaining:
        expected = with_first(limit, contents, source)
        dry = synced(scene, limit=limit, dry_run=True)
        assert (dry.run.counts.processed, dry.run.counts.remaining) == (
            min(limit, remaining),
            max(0, remaining - limit),
        )
        outcome = synced(scene, limit=limit)
        state = look(scene.service.backup)
        assert outcome.error is None
        assert state.contents == expected
        assert outcome.run.counts.processed == min(limit, remaining)
        remaining -= outcome.run.counts.processed
        assert outcome.run.counts.remaining == remaining
        entry = state.runs[-1]
        assert (entry["ChangeLimit"], entry["RemainingCount"] or 0) == (limit, remaining)
        assert (bool(entry["Verified"]), entry["SourceCount"] is None) == (not remaining, bool(remaining))
        assert any("remain" in note for note in outcome.run.notes) == bool(remaining)
        check_bin(
            state.since(replace(before, contents=contents)).bin[-outcome.run.counts.processed :], contents, expected
        )
        contents, before = state.contents, state
    assert contents == source
    assert synced(scene).run.counts.processed == 0


def test_a_dry_run_leaves_every_table_of_the_backup_as_it_was_but_for_its_entry(scene: Scene) -> None:
    scene.change()
    before = look(scene.service.backup)
    for options in ({}, {"limit": 3, "force": True, "allow_mass_delete": True}):
        outcome = synced(scene, dry_run=True, **options)
        after = look(scene.service.backup)
        assert (after.contents, after.bin) == (before.contents, before.bin)
        [entry] = after.since(before).runs
        assert (entry["SyncId"], bool(entry["DryRun"])) == (outcome.run.sync_id, True)
        before = after
    assert synced(scene).run.verified


def test_a_limited_run_that_is_left_in_slices_keeps_its_limit(sqlite: Scene) -> None:
    sqlite.extra_settings = {"BackupSync__ChunkSize": "12"}
    sqlite.change()
    source, before = sqlite.service.source.contents(), sqlite.service.backup.contents()
    service = sqlite.registry.get("customer")
    outcome: Outcome | None = service.sync(Trigger.JOB, Options(limit=8), turn=Turn(0))
    calls = 0
    while outcome is not None and outcome.in_progress:
        outcome, calls = service.resume(Trigger.TIMER, Turn(0)), calls + 1
    assert outcome is not None
    assert (calls > 2, outcome.run.counts.processed, outcome.run.counts.remaining) == (True, 8, 4)
    assert sqlite.service.backup.contents() == with_first(8, before, source)


def test_only_its_own_run_is_resumed_by_id_and_no_other_is_touched(sqlite: Scene) -> None:
    sqlite.change()
    service = sqlite.registry.get("customer")
    left = service.sync(Trigger.JOB, Options(limit=8), turn=Turn(0))
    assert left.in_progress
    assert service.resume(Trigger.JOB, sync_id="00000000-0000-0000-0000-000000000000") is None
    assert sqlite.service.statuses[-1] == "InProgress"
    resumed = service.resume(Trigger.JOB, sync_id=left.run.sync_id)
    assert resumed is not None
    assert (resumed.run.sync_id, resumed.run.counts.processed) == (left.run.sync_id, 8)


def test_a_sync_without_a_limit_does_not_resume_one_with_a_limit(sqlite: Scene) -> None:
    sqlite.change()
    service = sqlite.registry.get("customer")
    left = service.sync(Trigger.JOB, Options(limit=3), turn=Turn(0))
    whole = service.sync(Trigger.TIMER)
    assert (whole.run.sync_id == left.run.sync_id, whole.run.verified, whole.run.limit) == (False, True, None)
    assert sqlite.service.is_mirrored()


def test_a_new_column_is_not_taken_as_filled_after_a_limited_run(sqlite: Scene) -> None:
    assert isinstance(sqlite.service.source, Sql)
    sqlite.service.source.run("ALTER TABLE {table} ADD COLUMN Colour TEXT DEFAULT 'red'")
    first = synced(sqlite, limit=4)
    assert (first.run.counts.updated, first.run.counts.remaining) == (4, 39)
    whole = synced(sqlite)
    assert (whole.run.counts.updated, whole.run.verified) == (43, True)
    assert {row["Colour"] for row in sqlite.service.backup.contents().values()} == {"red"}


def test_what_a_limit_left_is_not_behind_the_watermark_of_a_later_run(cosmos: Scene) -> None:
    # A watermark is asked for what has changed since; fingerprints settle the rest only if every earlier change is in.
    cosmos.change()
    assert synced(cosmos, limit=1).run.counts.remaining == 5
    assert look(cosmos.service.backup).runs[-1]["Watermark"] is None
    last = synced(cosmos)
    assert (last.run.counts.processed, last.run.verified) == (5, True)


def test_health_does_not_take_a_limited_run_for_the_nights(sqlite: Scene) -> None:
    sqlite.change()
    settings = load_settings(sqlite.settings | {"BackupSchedule__CronExpression": "0 0 0 1 1 *"})
    assert isinstance(sqlite.service.backup, Sql)
    history = replace(sqlite.service.backup, table="SyncHistory")
    for column in ("StartedAt", "HeartbeatAt", "CompletedAt"):
        history.run(f"UPDATE {{table}} SET \"{column}\" = '2020-06-01 00:00:00'")

    def concerns() -> list[str]:
        return [concern.reason for concern in Registry(settings).get("customer").ping("backup").concerns]

    assert [reason.split(":")[0] for reason in concerns()] == ["A sync is overdue"]
    synced(sqlite, limit=1)
    assert [reason.split(":")[0] for reason in concerns()] == ["A sync is overdue"]
    synced(sqlite, limit=100)
    assert concerns() == []
