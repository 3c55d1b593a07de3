"""What a set says of the containers that the app makes on Cosmos DB: throughput, indexing policy, partition key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
from azure.cosmos import CosmosClient, DatabaseProxy, PartitionKey

from backup.config.settings import load_settings
from backup.core.errors import ConfigError
from backup.core.run_values import Trigger
from backup.services.registry import Registry
from backup.stores.cosmos.catalog import with_note
from tests.emulators.clients import cosmos_client

POLICY = {
    "indexingMode": "consistent",
    "automatic": True,
    "includedPaths": [{"path": "/type/?"}],
    "excludedPaths": [{"path": "/*"}],
}


def text(source: str, backup: str, *lines: str, database: str = "shop") -> str:
    head = f"[set.shop]\nsource = '{source}'\nbackup = '{backup}'\ndatabase = '{database}'\n"
    return head + "\n".join(('containers = ["*"]', *lines))


def test_a_container_that_the_app_makes_has_its_throughput_and_the_sources_indexing_policy(
    cosmos_server: str, cosmos_server_backup: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"shop{uuid4().hex[:8]}"
    made: dict[str, Mapping[str, Any]] = {}
    originals = CosmosClient.create_database_if_not_exists, DatabaseProxy.create_container_if_not_exists

    def make_database(client: CosmosClient, name: str, **options: Any) -> Any:
        made.setdefault(name, options)  # later calls, for history and bin, meet one that exists
        return originals[0](client, name)

    def make_container(proxy: DatabaseProxy, name: str, key: PartitionKey, **options: Any) -> Any:
        made[name] = options
        return originals[1](proxy, name, key)

    with cosmos_client(cosmos_server) as client:
        source = client.create_database(database)
        source.create_container("orders", PartitionKey("/pk"), indexing_policy=POLICY)
        source.create_container("cart", PartitionKey("/pk"))
    # The stand-in for Cosmos DB knows neither of the two, so what is asked of the SDK is looked at.
    monkeypatch.setattr(CosmosClient, "create_database_if_not_exists", make_database)
    monkeypatch.setattr(DatabaseProxy, "create_container_if_not_exists", make_container)
    monkeypatch.setattr("backup.stores.cosmos.container.CosmosContainer.indexing_policy", POLICY)
    lines = ("throughput = { shared = 600 }", '[set.shop.container."orders"]', "throughput = { autoscale = 4000 }")
    settings = {"BACKUP_TOML": text(cosmos_server, cosmos_server_backup, *lines, database=database)}
    outcomes = Registry(load_settings(settings)).sync("shop", Trigger.CLI)
    assert [outcome.error for outcome in outcomes] == [None, None]
    orders, cart = made["orders"], made["cart"]
    assert orders["offer_throughput"].auto_scale_max_throughput == 4000
    assert cart["offer_throughput"] is None
    assert made[database]["offer_throughput"] == 600
    assert orders["indexing_policy"] == with_note(POLICY)
    assert "unique_key_policy" not in orders


def test_a_copied_policy_indexes_what_a_run_asks_of_notes_once() -> None:
    policy = with_note(with_note(POLICY))
    assert policy is not None
    assert [path["path"] for path in policy["includedPaths"]] == ["/type/?", "/_backup/ts/?", "/_backup/deletedAt/?"]
    assert {**policy, "includedPaths": POLICY["includedPaths"]} == POLICY
    assert with_note(None) is None
    assert with_note({"indexingMode": "consistent"}) == {"indexingMode": "consistent"}


ACCOUNT = "AccountEndpoint=https://a/;AccountKey=b"
WRONG = [
    ("throughput = 450", "400 or more in steps of 100"),
    ("throughput = { autoscale = 400 }", "1000 or more"),
    ("throughput = true", "number of request units"),
    ('[set.shop.container."orders"]\nthroughput = { shared = 400 }', "the throughput of the whole database"),
    ('[set.shop.container."orders"]\npartition_key = "/customerId"', 'partition_key is { source = "/customerId"'),
    ('[set.shop.container."orders"]\npartition_key = { source = "/a", copy = "b" }', "partition_key is {"),
    ('[set.shop.container."orders"]\npartition_key = { source = "/a", copy = 3 }', "partition_key is {"),
    ('[set.shop.container."orders"]\npartition_key = { source = "/a", copy = ["/a"] }', "the same path for both"),
]


@pytest.mark.parametrize(("lines", "reason"), WRONG, ids=range(len(WRONG)))
def test_what_a_container_cannot_have_is_refused_with_the_reason(lines: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Registry(load_settings({"BACKUP_TOML": text(ACCOUNT, ACCOUNT.replace("//a", "//b"), lines)})).directory.names()
    assert reason in str(refused.value)


def test_tables_have_no_throughput_and_no_partition_key() -> None:
    file = "[set.shop]\nsource = 'sqlite:///a.db'\nbackup = 'sqlite:///b.db'\ntables = ['*']\n"
    key = "[set.shop.table.T]\npartition_key = { source = '/a', copy = '/b' }\n"
    for lines, option in (("throughput = 400\n", "throughput"), (key, "partition_key")):
        with pytest.raises(ConfigError, match=f"{option}: this is for containers"):
            Registry(load_settings({"BACKUP_TOML": file + lines})).directory.names()
