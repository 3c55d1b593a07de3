"""A copy that somebody else has emptied or dropped: what it held before is not made up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backup.core.errors import BadRequest, Conflict
from backup.core.run_values import Run, Status, Trigger
from backup.runs.outcome import Turn
from backup.services.service import Options, SyncService
from backup.verbs.restore_spec import RestoreSpec
from tests.scenarios.shops import EXCLUDE, IN_FILES, Shop


def test_a_copy_that_was_made_anew_has_no_state_of_before(shop: Shop) -> None:
    first = synced(shop)
    shop.run('UPDATE "Customer" SET "Name" = \'Bea\' WHERE "Id" = 2; DELETE FROM "Customer" WHERE "Id" = 3')
    second = synced(shop)
    shop.run('DROP TABLE "Customer"', side="backup")
    anew = synced(shop)
    assert "made it anew" in " ".join(anew.notes)
    synced(shop, force=True)
    service = customers(shop)
    for run in (first, second):
        assert run.completed_at is not None
        refused = service.restore(RestoreSpec(at=run.completed_at + timedelta(microseconds=1)))
        assert isinstance(refused.error, BadRequest)
        assert anew.sync_id in str(refused.error)
    assert isinstance(service.undo(second.sync_id, through=True).error, Conflict)
    assert service.restore(RestoreSpec(at=datetime.now(UTC))).error is None
    undone = service.undo(anew.sync_id, through=True)
    assert (undone.error, undone.run.counts.deleted) == (None, 2)


@IN_FILES
def test_a_copy_that_was_made_anew_of_an_empty_source_has_no_state_of_before(shop: Shop) -> None:
    first = synced(shop)
    shop.run('DROP TABLE "Customer"', side="backup")
    shop.run('DELETE FROM "Invoice"; DELETE FROM "Customer"')
    assert "made it anew" in " ".join(synced(shop).notes)
    assert first.completed_at is not None
    refused = customers(shop).restore(RestoreSpec(at=first.completed_at + timedelta(microseconds=1)))
    assert isinstance(refused.error, BadRequest)


@IN_FILES
def test_a_copy_that_an_undo_has_emptied_keeps_its_states(shop: Shop, tmp_path: Path) -> None:
    first = synced(shop)
    assert customers(shop).undo(first.sync_id).error is None
    assert synced(shop).notes == ()
    assert first.completed_at is not None
    spec = RestoreSpec(at=first.completed_at + timedelta(microseconds=1))
    restored = customers(shop).restore(spec, to=f"sqlite:///{tmp_path / 'to.db'}")
    assert (restored.error, restored.run.counts.inserted) == (None, 3)


@IN_FILES
@pytest.mark.parametrize("dies", [False, True])
def test_what_a_resumed_run_inserted_and_deleted_is_no_record_that_was_missed(shop: Shop, *, dies: bool) -> None:
    shop = replace(shop, settings={"BackupSync__ChunkSize": "1"})
    shop.run('DELETE FROM "Invoice"; DELETE FROM "Customer" WHERE "Id" < 3')
    synced(shop)
    shop.run('INSERT INTO "Customer" ("Id") VALUES (1)')
    sliced = customers(shop).sync(Trigger.CLI, Options(allow_mass_delete=True), turn=Turn(0))
    assert (sliced.run.status, sliced.run.counts.inserted) == (Status.IN_PROGRESS, 1)
    shop.run('DELETE FROM "Customer" WHERE "Id" = 1')
    if dies:  # behind its delete
        shop.run('DELETE FROM "Customer" WHERE "Id" = 1', side="backup")
        assert customers(shop).sync(Trigger.CLI).run.notes == ()  # other options, so it is another run
        return
    run = synced(shop)
    assert (run.sync_id, run.notes, run.counts.skipped) == (sliced.run.sync_id, (), 1)


def synced(shop: Shop, *, force: bool = False) -> Run:
    [outcome] = shop.registry(EXCLUDE).sync(shop.name("Customer"), Trigger.CLI, Options(force, allow_mass_delete=True))
    assert outcome.error is None
    return outcome.run


def customers(shop: Shop) -> SyncService:
    return shop.registry(EXCLUDE).get(shop.name("Customer"))
