"""A set of containers of Cosmos DB."""

from __future__ import annotations

from uuid import uuid4

from azure.cosmos import PartitionKey

from backup.config.settings import load_settings
from backup.core.errors import ConfigError
from backup.core.run_values import Run, Trigger
from backup.mirror.planned_changes import PlannedChanges
from backup.runs.outcome import Outcome
from backup.services.registry import Registry
from backup.services.service_plans import plan_of
from tests.emulators.clients import cosmos_client


def test_a_set_of_containers_copies_those_that_fit_and_follows_its_filter(
    cosmos_server: str, cosmos_server_backup: str
) -> None:
    database = f"shop{uuid4().hex[:8]}"
    with cosmos_client(cosmos_server) as client:
        source = client.create_database(database)
        for name in ("orders", "cart", "cart-old", "other"):
            container = source.create_container(name, PartitionKey("/pk"))
            container.upsert_item({"id": "1", "pk": "a", "type": {"is": "Order"}})
            container.upsert_item({"id": "2", "pk": "a", "type": {"is": "Draft"}})
            container.upsert_item({"id": "3", "pk": "a", "type": "Order", "type.is": "Order"})
    text = f"""
[set.shop]
source = '{cosmos_server}'
backup = '{cosmos_server_backup}'
database = '{database}'
containers = ["orders", "cart*", "nothing*"]
exclude = ["*-old"]
where = {{ orders = {{ "type.is" = KIND }} }}
"""

    def sync(kind: str) -> dict[str, Outcome]:
        registry = Registry(load_settings({"BACKUP_TOML": text.replace("KIND", kind)}))
        return {outcome.run.service: outcome for outcome in registry.sync("shop", Trigger.CLI)}

    first = sync("'Order'")
    assert first.keys() == {"shop", "shop/orders", "shop/cart"}
    assert isinstance(first["shop"].error, ConfigError)
    assert (first["shop/orders"].run.counts.inserted, first["shop/cart"].run.counts.inserted) == (1, 3)
    other = sync("'Draft'")["shop/orders"].run.counts
    assert (other.inserted, other.deleted) == (1, 1)
    both = sync("['Order', 'Draft']")
    assert (both["shop/orders"].run.counts.inserted, both["shop/cart"].run.counts.processed) == (1, 0)
    [plan] = plan_of(Registry(load_settings({"BACKUP_TOML": text.replace("KIND", "'Draft'")})), "shop/orders").services
    assert (plan.key, plan.version, plan.changes) == (
        *("partition key, id", "_etag"),
        PlannedChanges(deletes=1, source_records=1, backup_records=2),
    )
    left = sync("'Draft'")["shop/orders"]
    assert (left.error, left.run.counts.deleted) == (None, 1)


def test_another_filter_finds_as_many_documents_of_the_same_seconds(
    cosmos_server: str, cosmos_server_backup: str
) -> None:
    database = f"shop{uuid4().hex[:8]}"

    def registry_for(kind: str) -> Registry:
        text = f"""
[set.shop]
source = '{cosmos_server}'
backup = '{cosmos_server_backup}'
database = '{database}'
containers = "orders"
where = {{ orders = {{ type = ["{kind}", "Both"] }} }}
"""
        return Registry(load_settings({"BACKUP_TOML": text, "BackupSync__OverlapSeconds": "0"}))

    def sync(kind: str) -> Run:
        [outcome] = registry_for(kind).sync("shop", Trigger.CLI)
        assert outcome.error is None, outcome.error
        return outcome.run

    with cosmos_client(cosmos_server) as client:
        container = client.create_database(database).create_container("orders", PartitionKey("/pk"))

        def written(number: str, kind: str) -> int:
            return int(container.upsert_item({"id": number, "pk": "a", "type": kind})["_ts"])

        while written("1", "Order") != (second := written("2", "Draft")):
            pass
        while written("3", "Both") == second:  # so that the last sync's watermark lies behind the first two
            pass
    assert sync("Order").counts.inserted == 2
    [plan] = plan_of(registry_for("Draft"), "shop").services
    assert plan.changes == PlannedChanges(inserts=1, deletes=1, source_records=2, backup_records=2)
    counts = sync("Draft").counts
    assert (counts.inserted, counts.deleted, counts.skipped) == (1, 1, 1)
    assert sync("Draft").counts.processed == 0
