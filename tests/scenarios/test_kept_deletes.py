"""A set with deletes = "keep": what the source deletes stays in the backup, marked with the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from azure.cosmos import PartitionKey

from backup.config.settings import load_settings
from backup.core.errors import GuardTripped, SchemaMismatch
from backup.core.model import Action, Chunk
from backup.core.run_values import Counts, Run, Trigger
from backup.mirror.verification import Depth
from backup.mirror.writing import WriteCounts, Writing
from backup.runs.outcome import Outcome
from backup.services.registry import Registry
from backup.services.service import Options, SyncService
from backup.services.service_plans import plan_of
from backup.verbs.restore_spec import RestoreSpec
from tests.emulators.clients import cosmos_client
from tests.scenarios.places import with_files
from tests.scenarios.shops import IN_FILES, SHOPS, Shop
from tests.scenarios.test_relayed_past import reads_no_image

ROWS = """
CREATE TABLE "Thing" ("Id" INTEGER PRIMARY KEY, "Name" VARCHAR(40));
INSERT INTO "Thing" VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four');
"""
KEEP = ('deletes = "keep"', "delete_guard_floor = 0", "max_delete_percent = 60", "max_delete_percent_per_week = 100")
MIRROR = KEEP[1:]
DELETED = 'SELECT "Id" FROM "Thing" WHERE "DeletedAt" IS NOT NULL ORDER BY "Id"'


@pytest.fixture(params=SHOPS)
def shop(request: pytest.FixtureRequest) -> Shop:
    """A shop on each server with four things, of which the source has deleted the second since the first sync."""
    return synced(request.getfixturevalue(request.param))


@pytest.fixture
def file_shop(sqlite_shop: Shop, tmp_path: Path) -> Shop:
    """The same in files alone."""
    with_files(tmp_path, "four things", lambda: synced(sqlite_shop))
    return sqlite_shop


def synced(shop: Shop) -> Shop:
    shop.run(ROWS)
    assert sync(shop).counts.inserted == 4
    shop.run('DELETE FROM "Thing" WHERE "Id" = 2')
    return shop


def sync(shop: Shop, *lines: str) -> Run:
    outcome = outcome_of(shop, *(lines or KEEP))
    assert outcome.error is None, outcome.error
    return outcome.run


def outcome_of(shop: Shop, *lines: str) -> Outcome:
    return shop.sync(*lines)["Thing"]


def service(shop: Shop, *lines: str) -> SyncService:
    return shop.registry(*(lines or KEEP)).get(shop.name("Thing"))


def done(outcome: Outcome) -> Run:
    assert outcome.error is None, outcome.error
    return outcome.run


def masked_again(own: SyncService) -> int:
    """How many marked copies the masks have not made yet."""
    with own.stores() as (_, backup):
        assert backup.kept_deletes is not None
        return backup.kept_deletes.mask(lambda: None)


def test_what_the_source_deleted_stays_with_its_time_and_is_counted_once(shop: Shop) -> None:
    [plan] = plan_of(shop.registry(*KEEP), shop.name("Thing")).services
    assert plan.notes == ["deletes is keep: 1 copy stays in the backup, each with the time."]
    before = datetime.now(UTC) - timedelta(seconds=1)
    assert sync(shop).counts == Counts(deleted=1, skipped=3)
    [(at,)] = [(row[-1],) for row in shop.rows('"Thing"') if row[0] == 2]
    marked_at = datetime.fromisoformat(str(at))
    assert before < (marked_at if marked_at.tzinfo else marked_at.replace(tzinfo=UTC)) <= datetime.now(UTC)
    again = sync(shop)
    assert again.counts == Counts(skipped=3)
    assert again.proof is not None
    assert again.proof.backup.records == 3
    verified = done(service(shop).verify(Depth(full=True)))
    assert verified.proof is not None
    assert verified.proof.differing == 0
    shown = service(shop).past.show("2")
    assert shown.record is not None
    assert shown.record["DeletedAt"] is not None
    assert [kept.action for kept in shown.changes] == [Action.INSERTED, Action.DELETED]


def test_a_record_that_the_source_has_again_comes_back_to_life(shop: Shop) -> None:
    sync(shop)
    shop.run("INSERT INTO \"Thing\" VALUES (2, 'again')")
    back = sync(shop)
    assert back.counts == Counts(inserted=1, skipped=3)
    assert shop.column(DELETED) == []
    assert sync(shop).counts == Counts(skipped=4)
    assert done(service(shop).undo(back.sync_id)).counts.deleted == 1
    assert shop.column(DELETED) == [2]
    assert shop.column('SELECT "Name" FROM "Thing" WHERE "Id" = 2') == ["two"]


def test_a_table_whose_rows_are_all_marked_is_copied_over_them(shop: Shop) -> None:
    shop.run('DELETE FROM "Thing"')
    marking = done(service(shop).sync(Trigger.CLI, Options(allow_mass_delete=True)))
    assert marking.counts == Counts(deleted=4)
    shop.run("INSERT INTO \"Thing\" VALUES (2, 'again'), (5, 'new')")
    back = sync(shop)
    assert back.counts == Counts(inserted=2)
    assert shop.column(DELETED) == [1, 3, 4]
    assert done(service(shop).undo(back.sync_id)).counts.deleted == 2
    assert shop.column(DELETED) == [1, 2, 3, 4]


def test_an_undo_takes_the_mark_back_and_an_undo_of_that_sets_it_again(file_shop: Shop) -> None:
    undone = done(service(file_shop).undo(sync(file_shop).sync_id))
    assert (undone.counts.inserted, file_shop.column(DELETED)) == (1, [])
    done(service(file_shop).undo(undone.sync_id))
    assert file_shop.column(DELETED) == [2]


def test_an_undo_leaves_nothing_of_what_its_run_inserted_and_marked(
    sqlite_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Writing.copy

    def copied(writing: Writing, chunk: Chunk) -> WriteCounts:
        counts = copy(writing, chunk)
        sqlite_shop.run('DELETE FROM "Thing" WHERE "Id" = 2')  # after its copy, before the proof of the chunk
        return counts

    monkeypatch.setattr(Writing, "copy", copied)
    sqlite_shop.run(ROWS)
    run = sync(sqlite_shop)
    assert (run.counts, sqlite_shop.column(DELETED)) == (Counts(inserted=4, deleted=1, skipped=0), [2])
    assert done(service(sqlite_shop).undo(run.sync_id, dry_run=True)).counts.deleted == 4
    assert done(service(sqlite_shop).undo(run.sync_id)).counts.deleted == 4
    assert sqlite_shop.rows('"Thing"') == []


def test_the_guard_counts_what_would_be_marked(file_shop: Shop) -> None:
    file_shop.run('DELETE FROM "Thing" WHERE "Id" < 4')
    assert isinstance(outcome_of(file_shop, *KEEP).error, GuardTripped)
    assert file_shop.column(DELETED) == []


def test_a_restore_leaves_marked_records_out_unless_it_goes_back_to_their_time(
    file_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The servers make the records of their images, as for any other backup."""
    monkeypatch.setattr("backup.verbs.relaying.FEWEST_BACK", 1)
    reads_no_image(monkeypatch)
    while_there = service(file_shop).past.history(1)[0]
    marking = sync(file_shop)
    newest = done(service(file_shop).restore(RestoreSpec()))
    assert (newest.counts.inserted, file_shop.column('SELECT count(*) FROM "Thing"', "source")) == (0, [3])
    assert while_there.completed_at is not None
    older = done(service(file_shop).restore(RestoreSpec(at=while_there.completed_at)))
    assert (older.counts.inserted, file_shop.column('SELECT count(*) FROM "Thing"', "source")) == (1, [4])
    sync(file_shop)  # it lives again, and is marked anew
    file_shop.run('DELETE FROM "Thing" WHERE "Id" = 2')
    sync(file_shop)
    assert marking.completed_at is not None
    between = done(service(file_shop).restore(RestoreSpec(at=marking.completed_at)))
    assert between.counts.inserted == 0
    of_run = done(service(file_shop).restore(RestoreSpec(run=marking.sync_id)))
    assert (of_run.counts.inserted, file_shop.column('SELECT count(*) FROM "Thing"', "source")) == (1, [4])


def test_a_restore_to_another_place_says_how_many_it_leaves_out(file_shop: Shop) -> None:
    sync(file_shop)
    target = file_shop.backup.replace("backup.db", "target.db")
    restored = done(service(file_shop).restore(RestoreSpec(), to=target))
    assert restored.counts.inserted == 3
    assert "1 record that the source has deleted stays in the backup and is not restored." in restored.notes
    engine = sa.create_engine(target)
    assert [column["name"] for column in sa.inspect(engine).get_columns("Thing")] == ["Id", "Name"]
    engine.dispose()
    drilled = done(service(file_shop).verify(Depth(full=True), drilled=True))
    assert drilled.proof is not None
    assert drilled.proof.differing == 0


def test_masks_that_begin_later_mask_what_was_kept_too(shop: Shop) -> None:
    sync(shop)
    shop.run('DELETE FROM "Thing" WHERE "Id" = 3')  # seen by the sync that begins to mask
    shop.settings["BackupMask__Key"] = "a key of the masks that is long enough"
    masked, names = (
        (*KEEP, '[set.shop.table."*"]', 'mask = { Name = "hmac" }'),
        'SELECT "Name" FROM "Thing" ORDER BY "Id"',
    )
    begun = sync(shop, *masked)
    assert begun.counts == Counts(updated=2, deleted=1)
    assert "The masks are new: 2 copies of deleted records were masked." in begun.notes
    values = shop.column(names)
    assert ({len(value) for value in values}, shop.column(DELETED)) == ({16}, [2, 3])
    assert masked_again(service(shop, *masked)) == 0
    shop.run("INSERT INTO \"Thing\" VALUES (2, 'two')")
    back = sync(shop, *masked)
    assert (back.counts, shop.column(names)) == (Counts(inserted=1, skipped=2), values)
    assert done(service(shop, *masked).undo(back.sync_id)).counts.deleted == 1
    assert (shop.column(names), shop.column(DELETED)) == (values, [2, 3])


@IN_FILES
def test_a_set_that_mirrors_again_deletes_what_it_kept_through_guard_and_bin(shop: Shop) -> None:
    marking = sync(shop)
    shop.run('DELETE FROM "Thing" WHERE "Id" = 3')
    sync(shop)
    shop.run("INSERT INTO \"Thing\" VALUES (3, 'three')")  # as it was, between the two settings
    stopped = outcome_of(shop, *MIRROR[:1], "max_delete_percent = 10")
    assert isinstance(stopped.error, GuardTripped)
    assert shop.column(DELETED) == [2, 3]
    refused = service(shop, *MIRROR).restore(RestoreSpec())
    assert "Sync first" in str(getattr(refused.error, "hint", ""))
    mirrored = sync(shop, *MIRROR)
    assert mirrored.counts == Counts(deleted=1, skipped=3)
    assert shop.column('SELECT "Id" FROM "Thing" ORDER BY "Id"') == [1, 3, 4]
    assert shop.column(DELETED) == []
    assert marking.completed_at is not None
    shop.run('DELETE FROM "Thing" WHERE "Id" = 4')
    at_that_time = done(service(shop, *MIRROR).restore(RestoreSpec(at=marking.completed_at)))
    assert shop.column('SELECT "Id" FROM "Thing" ORDER BY "Id"', "source") == [1, 3, 4]
    assert at_that_time.counts.inserted == 1
    done(service(shop, *MIRROR).undo(mirrored.sync_id))
    assert shop.column(DELETED) == [2]


def test_a_source_with_a_column_of_that_name_is_refused(file_shop: Shop) -> None:
    file_shop.run('ALTER TABLE "Thing" ADD COLUMN "DeletedAt" VARCHAR(40)')
    refused = outcome_of(file_shop, *KEEP)
    assert isinstance(refused.error, SchemaMismatch)
    assert "needs the column DeletedAt for itself" in str(refused.error)


def test_a_set_can_begin_to_keep_later_and_a_record_that_leaves_the_filter_is_kept(
    sqlite_shop: Shop,
) -> None:
    sqlite_shop.run(ROWS)
    sync(sqlite_shop, *MIRROR)
    kept = sync(sqlite_shop, *KEEP, "where = { Thing = { Name = ['one', 'two', 'three'] } }")
    assert kept.counts == Counts(deleted=1, skipped=3)
    assert sqlite_shop.column(DELETED) == [4]
    preview = done(service(sqlite_shop, *MIRROR).sync(Trigger.CLI, Options(dry_run=True)))
    assert (preview.counts, sqlite_shop.column(DELETED)) == (Counts(skipped=4), [4])


def test_a_container_keeps_what_was_deleted(cosmos_server: str, cosmos_server_backup: str) -> None:
    database = f"shop{uuid4().hex[:8]}"

    def registry(rule: str = "keep", mask: str = "") -> Registry:
        text = f"""
[set.shop]
source = '{cosmos_server}'
backup = '{cosmos_server_backup}'
database = '{database}'
containers = "orders"
deletes = "{rule}"
{mask}
"""
        settings = {"BackupMask__Key": "a key of the masks that is long enough"}
        return Registry(load_settings({"BACKUP_TOML": text, **settings}))

    def counts(rule: str = "keep") -> Counts:
        [outcome] = registry(rule).sync("shop", Trigger.CLI)
        return done(outcome).counts

    with (
        cosmos_client(cosmos_server) as client,
        cosmos_client(cosmos_server_backup) as backup_client,
    ):
        container = client.create_database(database).create_container("orders", PartitionKey("/pk"))
        for number in "123":
            container.upsert_item({"id": number, "pk": "a", "name": "x"})
        assert counts() == Counts(inserted=3)
        copies = backup_client.get_database_client(database).get_container_client("orders")

        def is_marked() -> bool:
            return "deletedAt" in copies.read_item("2", "a")["_backup"]

        container.delete_item("2", "a")
        assert counts() == Counts(deleted=1, skipped=2)
        assert is_marked()
        [outcome] = registry().sync("shop", Trigger.CLI)
        assert done(outcome).counts == Counts(skipped=2)
        shop = registry().get("shop/orders")
        verified = done(shop.verify(Depth(full=True)))
        assert verified.proof is not None
        assert verified.proof.differing == 0
        container.upsert_item({"id": "2", "pk": "a", "name": "x"})
        back = done(registry().sync("shop", Trigger.CLI)[0])
        assert back.counts == Counts(inserted=1, skipped=2)
        assert not is_marked()
        done(shop.undo(back.sync_id))
        assert is_marked()
        container.delete_item("2", "a")
        assert counts() == Counts(skipped=2)
        mask = '[set.shop.container.orders]\nmask = { name = "hmac" }'
        masking = registry(mask=mask)
        begun = done(masking.sync("shop", Trigger.CLI)[0])
        assert "The masks are new: 1 copy of a deleted record was masked." in begun.notes
        [once] = {document["name"] for document in copies.read_all_items()}
        assert (len(once), is_marked(), masked_again(masking.get("shop/orders"))) == (16, True, 0)
        container.upsert_item({"id": "2", "pk": "a", "name": "x"})
        back = done(masking.sync("shop", Trigger.CLI)[0])
        assert back.counts == Counts(inserted=1, skipped=2)
        done(masking.get("shop/orders").undo(back.sync_id))
        assert ({document["name"] for document in copies.read_all_items()}, is_marked()) == ({once}, True)
        container.delete_item("2", "a")
        assert done(registry("mirror", mask).sync("shop", Trigger.CLI)[0]).counts == Counts(deleted=1, skipped=2)
        assert {item["id"] for item in copies.read_all_items()} == {"1", "3"}
