"""A backup that holds records which no run has written: its first sync needs a word of consent."""

from __future__ import annotations

from uuid import uuid4

from azure.cosmos import PartitionKey

from backup.config.settings import load_settings
from backup.core.errors import GuardTripped
from backup.core.run_values import Trigger
from backup.runs.outcome import Outcome
from backup.services.registry import Registry
from backup.services.service import NO_OPTIONS, Options
from backup.services.service_plans import plan_of
from tests.emulators.clients import cosmos_client
from tests.scenarios.shops import EXCLUDE, IN_FILES, Shop

CONSENT = Options(allow_mass_delete=True)


def test_a_table_that_no_run_has_written_is_taken_over_with_consent_alone(shop: Shop) -> None:
    shop.sync(tables='["*Invoice"]')  # so that SyncHistory is there
    shop.run(
        """CREATE TABLE "Customer" ("Id" INTEGER PRIMARY KEY, "Name" VARCHAR(40));
        INSERT INTO "Customer" VALUES (1, 'theirs'), (9, 'alone');
        CREATE TABLE "Order Details" ("Order" INTEGER, "Line" INTEGER, PRIMARY KEY ("Order", "Line"))""",
        side="backup",
    )
    theirs = shop.rows('"Customer"')
    for _ in range(2):  # what a refused run leaves in SyncHistory is no consent
        outcomes = shop.sync(EXCLUDE)
        error = outcomes["Customer"].error
        assert isinstance(error, GuardTripped)
        assert "no run of" in str(error)
        assert "allowMassDelete" in error.hint
        assert shop.rows('"Customer"') == theirs
        assert (outcomes["Invoice"].error, outcomes["Order Details"].error) == (None, None)  # one was empty
    [plan] = plan_of(shop.registry(EXCLUDE), shop.name("Customer")).services
    assert isinstance(plan.error, GuardTripped)
    [agreed] = shop.registry(EXCLUDE).sync(shop.name("Customer"), Trigger.CLI, CONSENT)
    assert (agreed.error, agreed.run.counts.updated, agreed.run.counts.deleted) == (None, 1, 1)
    assert shop.sync(EXCLUDE)["Customer"].error is None
    undone = shop.registry(EXCLUDE).get(shop.name("Customer")).undo(agreed.run.sync_id)
    assert undone.error is None
    assert [row[:2] for row in shop.rows('"Customer"')] == theirs


@IN_FILES
def test_a_run_that_died_before_it_counted_is_known_by_the_bin(shop: Shop) -> None:
    for name in ("Customer", "Invoice"):  # the source's own column takes the place of the app's mark
        shop.run(f'ALTER TABLE "{name}" ADD COLUMN "SyncedAt" VARCHAR(30)')
    shop.sync(EXCLUDE)
    shop.run(
        'UPDATE "SyncHistory" SET "Status" = \'Failed\', "InsertedCount" = 0;'
        f'DELETE FROM "RecycleBin" WHERE "ServiceName" = \'{shop.name("Invoice")}\'',
        side="backup",
    )
    outcomes = shop.sync(EXCLUDE)
    assert outcomes["Customer"].error is None
    assert isinstance(outcomes["Invoice"].error, GuardTripped)


def test_a_container_that_no_run_has_written_is_taken_over_with_consent_alone(
    cosmos_server: str, cosmos_server_backup: str
) -> None:
    database = f"shop{uuid4().hex[:8]}"
    with cosmos_client(cosmos_server) as client, cosmos_client(cosmos_server_backup) as backup_client:
        source = client.create_database(database).create_container("cart", PartitionKey("/pk"))
        source.upsert_item({"id": "1", "pk": "a", "of": "source"})
        copies = backup_client.create_database(database).create_container("cart", PartitionKey("/pk"))
        copies.upsert_item({"id": "1", "pk": "a", "of": "others"})
    text = f"[set.shop]\nsource = '{cosmos_server}'\nbackup = '{cosmos_server_backup}'\ndatabase = '{database}'\n"
    text += 'containers = ["cart"]'

    def sync(options: Options = NO_OPTIONS) -> Outcome:
        registry = Registry(load_settings({"BACKUP_TOML": text}))
        registry.get("shop/cart").initialize()
        [outcome] = registry.sync("shop/cart", Trigger.CLI, options)
        return outcome

    assert isinstance(sync().error, GuardTripped)
    agreed = sync(CONSENT)
    assert (agreed.error, agreed.run.counts.updated) == (None, 1)
    assert sync().error is None
