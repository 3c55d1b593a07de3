"""Tells workers that a job waits. A ring carries only the job's id. It may get lost: the sweeper rings again."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Any, Protocol

from backup.config.bindings import QUEUE
from backup.config.settings import Settings
from backup.core.log import event
from backup.core.unexpected import safe_text


class Doorbell(Protocol):
    """Tells workers that a job waits. Several threads may use it at once."""

    def ring(self, job_id: str, after_seconds: float = 0) -> bool:
        """Tells a worker about the job, after so many seconds. Returns whether it could. Never raises an error."""


class QueueDoorbell:
    """Sends messages to a queue of the app's storage account; the host's queue trigger reads them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None
        self._is_made = False

    def ring(self, job_id: str, after_seconds: float = 0) -> bool:
        """As `Doorbell` says."""
        try:
            self.check()
            # Without a time to live a message is lost after a week. The host's queue trigger expects Base64.
            self._queue().send_message(job_id, visibility_timeout=max(0, round(after_seconds)), time_to_live=-1)
        except Exception as error:
            self._is_made = False  # somebody may have removed it
            event("jobs.not_rung", level=logging.WARNING, job_id=job_id, error=safe_text(error))
            return False
        return True

    def check(self) -> None:
        """Makes the queue if it is missing. Raises BackupError, or an error of the SDK, when it cannot be used."""
        if not self._is_made:
            from azure.core.exceptions import ResourceExistsError

            with suppress(ResourceExistsError):
                self._queue().create_queue()
            self._is_made = True

    def _queue(self) -> Any:
        """The client of the queue. Threads may make one each; the last stays."""
        if self._client is None:
            from azure.storage.queue import QueueServiceClient, TextBase64EncodePolicy

            from backup.runs.storage_account import service_client

            service = service_client(self._settings, "queue", QueueServiceClient)
            self._client = service.get_queue_client(QUEUE, message_encode_policy=TextBase64EncodePolicy())
        return self._client


class LocalDoorbell:
    """Wakes the worker threads of this process. Other processes look at the records every second."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def ring(self, job_id: str, after_seconds: float = 0) -> bool:  # noqa: ARG002 - a worker looks at all waiting jobs
        """As `Doorbell` says."""
        self._rung.set()
        return True

    def wait(self, seconds: float) -> None:
        """Returns as soon as the bell has rung since the last wait, or after so many seconds."""
        self._rung.wait(seconds)
        self._rung.clear()
