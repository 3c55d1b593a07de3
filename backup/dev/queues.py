"""Queue triggers of the local host: reads queues the way the Functions host does, and calls the functions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from backup.core.log import event
from backup.runs.storage_account import development_storage

_INVISIBLE_SECONDS = 600
_IDLE_SECONDS = 1.0


class QueueOptions(NamedTuple):
    """What host.json says about queues, with the defaults of the Functions host."""

    at_once: int = 24
    retry_seconds: int = 0
    tries: int = 5

    @classmethod
    def of(cls, host: Mapping[str, Any]) -> QueueOptions:
        """Returns the options of a host.json."""
        options = host.get("extensions", {}).get("queues", {})
        batch = options.get("batchSize", 16)
        hours, minutes, seconds = map(int, options.get("visibilityTimeout", "00:00:00").split(":"))
        return cls(
            batch + options.get("newBatchThreshold", batch // 2),
            hours * 3600 + minutes * 60 + seconds,
            options.get("maxDequeueCount", 5),
        )


Call = Callable[[str, Mapping[str, Any]], Awaitable[bool]]


async def keep_reading(queue: str, connection: str, options: QueueOptions, call: Call) -> None:
    """Calls the function for each message of the queue, several side by side, until somebody cancels it.

    `call` gets the message and its metadata, and returns whether the function succeeded. After a failure the message is
    tried again; after `options.tries` failures it goes to the queue NAME-poison.
    """
    client = _client(connection, queue)
    poison = _client(connection, f"{queue}-poison")
    for queue_client in (client, poison):
        await asyncio.to_thread(_make, queue_client)
    at_work: set[asyncio.Task[None]] = set()

    async def handle(message: Any) -> None:
        metadata = {
            "Id": message.id,
            "DequeueCount": message.dequeue_count,
            "InsertionTime": message.inserted_on.isoformat(),
            "PopReceipt": message.pop_receipt,
        }
        if await call(message.content, metadata):
            await asyncio.to_thread(_delete, client, message)
        elif message.dequeue_count >= options.tries:
            await asyncio.to_thread(poison.send_message, message.content, time_to_live=-1)
            await asyncio.to_thread(_delete, client, message)
        else:
            await asyncio.to_thread(client.update_message, message, visibility_timeout=options.retry_seconds)

    while True:
        message = None
        if len(at_work) < options.at_once:
            message = await asyncio.to_thread(client.receive_message, visibility_timeout=_INVISIBLE_SECONDS)
        if message is None:
            await asyncio.sleep(_IDLE_SECONDS)
            continue
        task = asyncio.create_task(handle(message))
        at_work.add(task)
        task.add_done_callback(at_work.discard)


def _client(connection: str, queue: str) -> Any:
    from azure.storage.queue import QueueClient, TextBase64DecodePolicy, TextBase64EncodePolicy

    if connection.strip().lower().startswith("usedevelopmentstorage=true"):
        connection = development_storage()
    policies: dict[str, Any] = {
        "message_encode_policy": TextBase64EncodePolicy(),
        "message_decode_policy": TextBase64DecodePolicy(),
    }
    return QueueClient.from_connection_string(connection, queue, **policies)


def _make(client: Any) -> None:
    from azure.core.exceptions import ResourceExistsError

    with contextlib.suppress(ResourceExistsError):
        client.create_queue()


def _delete(client: Any, message: Any) -> None:
    from azure.core.exceptions import HttpResponseError

    try:
        client.delete_message(message)
    except HttpResponseError as error:  # its receipt has changed, so the message comes again
        event("host.not_deleted", status=error.status_code, at=datetime.now(UTC).isoformat())
