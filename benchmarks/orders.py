"""Orders in Cosmos DB through the SDK, as everybody would use it. For the cosmos engine and its contenders."""

from __future__ import annotations

import warnings
from typing import Any

_OF_THE_SERVER = frozenset({"_rid", "_self", "_etag", "_ts", "_attachments"})


def preload() -> None:
    """Imports the SDK, so that no later step pays for it."""
    import azure.cosmos  # noqa: F401


def client(account: str) -> Any:
    """A client of the account."""
    from azure.cosmos import CosmosClient

    warnings.filterwarnings("ignore", "Unverified HTTPS request")  # emulators sign their own certificates
    return CosmosClient.from_connection_string(account)


def container(account: str, name: str, *, create: bool = False) -> Any:
    """The container of `database/container`; made where missing if `create`."""
    from azure.cosmos import PartitionKey

    database, _, container_name = name.partition("/")
    if create:
        made = client(account).create_database_if_not_exists(database)
        made.create_container_if_not_exists(container_name, PartitionKey("/customerId"))
    return client(account).get_database_client(database).get_container_client(container_name)


def drop_container(account: str, name: str) -> None:
    """Drops the container of `database/container`, if it is there."""
    from azure.cosmos.exceptions import CosmosHttpResponseError

    database, _, container_name = name.partition("/")
    try:
        client(account).get_database_client(database).delete_container(container_name)
    except CosmosHttpResponseError as error:
        if error.status_code != 404:
            raise


def own(document: dict[str, Any]) -> dict[str, Any]:
    """The document without what the server, or this product's backup, adds to it."""
    return {name: value for name, value in document.items() if name not in _OF_THE_SERVER and name != "_backup"}
