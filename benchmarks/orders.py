"""Orders in Cosmos DB through the SDK, used the usual way. For the cosmos engine and its contenders."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

_OF_THE_SERVER = frozenset({"_rid", "_self", "_etag", "_ts", "_attachments"})


def preload() -> None:
    """Imports the SDK, so that no later step pays for it."""
    import azure.cosmos  # noqa: F401


def client(account: str) -> Any:
    """Opens a client of the account."""
    from azure.cosmos import CosmosClient

    warnings.filterwarnings("ignore", "Unverified HTTPS request")  # emulators sign their own certificates
    return CosmosClient.from_connection_string(account)


def container(account: str, name: str, *, create: bool = False) -> Any:
    """Returns the container `database/container`. If `create`, makes it if it is missing."""
    from azure.cosmos import PartitionKey

    database, _, container_name = name.partition("/")
    if create:
        created = client(account).create_database_if_not_exists(database)
        created.create_container_if_not_exists(container_name, PartitionKey("/customerId"))
    return client(account).get_database_client(database).get_container_client(container_name)


def drop_container(account: str, name: str) -> None:
    """Drops the container `database/container`, if it exists."""
    from azure.cosmos.exceptions import CosmosHttpResponseError

    database, _, container_name = name.partition("/")
    try:
        client(account).get_database_client(database).delete_container(container_name)
    except CosmosHttpResponseError as error:
        if error.status_code != 404:
            raise


def own(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the document without the properties that the server, or this product's backup, adds."""
    return {name: value for name, value in document.items() if name not in _OF_THE_SERVER and name != "_backup"}
