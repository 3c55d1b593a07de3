"""A copy that somebody else has emptied or dropped: what it held before is not made up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from backup.core.errors import BadRequest, Conflict
from backup.core.run_values import Run, Trigger
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


def synced(shop: Shop, *, force: bool = False) -> Run:
    [outcome] = shop.registry(EXCLUDE).sync(shop.name("Customer"), Trigger.CLI, Options(force, allow_mass_delete=True))
    assert outcome.error is None
    return outcome.run


def customers(shop: Shop) -> SyncService:
    return shop.registry(EXCLUDE).get(shop.name("Customer"))
