"""What a set does without SyncHistory: it completes what a killed first sync left, and hides nothing that was lost."""

from __future__ import annotations

from uuid import uuid4

from azure.cosmos import PartitionKey

from backup.config.settings import load_settings
from backup.core.errors import NotInitialized
from backup.core.run_values import Trigger
from backup.services.registry import Registry
from tests.emulators.clients import cosmos_client
from tests.scenarios.shops import EXCLUDE, IN_FILES, Shop

FAIL = 'on_new_table = "fail"'


def test_what_a_killed_first_sync_has_made_is_completed_by_the_next_one(shop: Shop) -> None:
    shop.registry(EXCLUDE).get(shop.name("Customer")).initialize()
    shop.run('DROP TABLE "SyncHistory"; DROP TABLE "RecycleBin"', side="backup")
    outcomes = shop.sync(EXCLUDE, FAIL)  # none of them is a later one
    assert {outcome.error for outcome in outcomes.values()} == {None}
    assert len(outcomes) == 4
    assert len(shop.rows('"Customer"')) == 3


@IN_FILES
def test_a_backup_that_has_lost_its_history_is_no_new_one(shop: Shop) -> None:
    shop.run('DELETE FROM "Invoice"')
    shop.sync(EXCLUDE)
    shop.run('DROP TABLE "SyncHistory"', side="backup")

    def errors() -> set[type]:
        return {type(outcome.error) for outcome in shop.sync(EXCLUDE).values()}

    assert errors() == {NotInitialized}  # there are images in the bin, and records
    shop.run('DROP TABLE "RecycleBin"', side="backup")
    assert errors() == {NotInitialized}  # there are records, though not of Invoice
    shop.run('DELETE FROM "Customer"; DELETE FROM "Order Details"; DELETE FROM "odd.na[me] 🎵"', side="backup")
    shop.run('CREATE TABLE "RecycleBin" ("EntryId" INTEGER PRIMARY KEY); INSERT INTO "RecycleBin" VALUES (1)', "backup")
    assert errors() == {NotInitialized}  # there is an image
    shop.run('DROP TABLE "RecycleBin"; DROP TABLE "Invoice"', side="backup")
    shop.run('CREATE TABLE "Invoice" ("Id" INTEGER PRIMARY KEY, "Customer" INTEGER)', side="backup")
    shop.run('DROP TABLE "Customer"; DROP TABLE "Order Details"; DROP TABLE "odd.na[me] 🎵"', side="backup")
    assert isinstance(shop.sync(EXCLUDE, tables='["Invoice"]')["Invoice"].error, NotInitialized)  # it is another's


def test_a_container_without_its_history_is_completed_while_it_is_empty(
    cosmos_server: str, cosmos_server_backup: str
) -> None:
    database = f"shop{uuid4().hex[:8]}"
    text = f"[set.shop]\nsource = '{cosmos_server}'\nbackup = '{cosmos_server_backup}'\ndatabase = '{database}'\n"
    settings = load_settings({"BACKUP_TOML": text + 'containers = ["*"]'})
    with cosmos_client(cosmos_server) as client, cosmos_client(cosmos_server_backup) as backup_client:
        source = client.create_database(database).create_container("cart", PartitionKey("/pk"))
        source.upsert_item({"id": "1", "pk": "a"})
        Registry(settings).get("shop/cart").initialize()
        backup = backup_client.get_database_client(database)
        for name in ("recycle-bin", "sync-history"):
            backup.delete_container(name)
        [outcome] = Registry(settings).sync("shop", Trigger.CLI)
        assert (outcome.error, outcome.run.counts.inserted) == (None, 1)
        backup.delete_container("sync-history")
        [outcome] = Registry(settings).sync("shop", Trigger.CLI)
        assert isinstance(outcome.error, NotInitialized)
