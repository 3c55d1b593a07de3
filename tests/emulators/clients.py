"""The SDK's client of a Cosmos DB account, for tests."""

from typing import Any

from azure.cosmos import CosmosClient


def cosmos_client(account: str, **options: Any) -> CosmosClient:
    """A client of the account with that connection string. To leave its block ends all that it does."""
    return _Client.from_connection_string(account, **options)


class _Client(CosmosClient):
    def __exit__(self, *error: Any) -> None:
        # A new client looks whether its account answers, in a thread that it does not wait for. In a closed client that
        # would open a connection which nobody closes: a ResourceWarning in whichever test runs when it is collected.
        looking = self.client_connection._global_endpoint_manager._refresh_thread
        if looking is not None:
            looking.join()
        super().__exit__(*error)  # type: ignore[no-untyped-call]
