"""Which address the settings of the storage account lead to. Nothing is asked there."""

from collections.abc import Mapping

import pytest
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from backup.config.settings import load_settings
from backup.core.errors import ConfigError
from backup.runs.storage_account import Kind, service_client

NAME = {"AzureWebJobsStorage__accountName": "shop"}
URIS = {"AzureWebJobsStorage__blobServiceUri": "https://blobs.example/"}
PARTS = {"AzureWebJobsStorage": "AccountName=shop;EndpointSuffix=core.chinacloudapi.cn"}
ENDPOINT = {"AzureWebJobsStorage": "QueueEndpoint=https://queues.example/"}
AZURITE = {"AzureWebJobsStorage": "UseDevelopmentStorage=true"}


@pytest.mark.parametrize(
    ("settings", "kind", "url"),
    [
        (NAME, "blob", "https://shop.blob.core.windows.net/"),
        (NAME, "queue", "https://shop.queue.core.windows.net/"),
        (URIS, "blob", "https://blobs.example/"),
        (NAME | URIS, "blob", "https://blobs.example/"),
        (NAME | URIS, "queue", "https://shop.queue.core.windows.net/"),
        (PARTS, "queue", "https://shop.queue.core.chinacloudapi.cn/"),
        (ENDPOINT, "queue", "https://queues.example/"),
        (AZURITE, "blob", "http://127.0.0.1:10000/devstoreaccount1/"),
        (AZURITE, "queue", "http://127.0.0.1:10001/devstoreaccount1/"),
    ],
)
def test_the_settings_name_the_account(settings: Mapping[str, str], kind: Kind, url: str) -> None:
    client: type[BlobServiceClient | QueueServiceClient] = {"blob": BlobServiceClient, "queue": QueueServiceClient}[
        kind
    ]
    with service_client(load_settings(settings), kind, client) as made:
        assert made.url == url


@pytest.mark.parametrize(("settings", "kind"), [(URIS, "queue"), (ENDPOINT, "blob")])
def test_an_account_without_the_service_is_an_error_that_names_the_setting(
    settings: Mapping[str, str], kind: Kind
) -> None:
    with pytest.raises(ConfigError, match="AzureWebJobsStorage"):
        service_client(load_settings(settings), kind, BlobServiceClient)
