"""A queue of the app's storage account as a sink."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from backup.config.settings import Settings
from backup.core.errors import BackupError
from backup.notify.sink import NamedSink, NotDelivered, Send, event_text
from backup.runs.storage_account import service_client, storage_error


@dataclass(frozen=True)
class StorageQueue(NamedSink):
    """A queue of the app's storage account; made if it is missing.

    Messages are in Base64, as queue triggers of Azure Functions expect them, and stay until somebody takes them.
    """

    settings: Settings = field(repr=False)
    queue: str

    @contextmanager
    def opened(self) -> Iterator[Send]:
        """As `Sink` says."""
        from azure.core.exceptions import AzureError, ResourceExistsError
        from azure.storage.queue import QueueServiceClient, TextBase64EncodePolicy

        try:
            service = service_client(self.settings, "queue", QueueServiceClient)
        except BackupError as error:
            raise NotDelivered(str(error), hint=error.hint) from None

        def send(event: Mapping[str, Any]) -> None:
            try:
                client.send_message(event_text(event), time_to_live=-1)
            except AzureError as error:
                raise _not_delivered(error) from None

        with service, service.get_queue_client(self.queue, message_encode_policy=TextBase64EncodePolicy()) as client:
            try:
                with suppress(ResourceExistsError):
                    client.create_queue()
            except AzureError as error:
                raise _not_delivered(error) from None
            yield send


def _not_delivered(error: Exception) -> NotDelivered:
    failed = storage_error(error, "the queue of events", "queue")
    return NotDelivered(str(failed), hint=failed.hint)
