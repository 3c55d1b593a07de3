"""What tells workers that a job waits. It carries the job's id alone. A ring may be lost: the sweeper rings again."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Any, Protocol

from backup.config.settings import Settings
from backup.core.errors import BackupError
from backup.core.log import event

QUEUE = "backup-jobs"


class Doorbell(Protocol):
    """Tells workers of a job. Several threads may use it at once."""

    def ring(self, job_id: str, after_seconds: float = 0) -> bool:
        """Tells a worker of the job, after so many seconds; returns whether that could be done. Never raises."""


class QueueDoorbell:
    """Messages in a queue of the app's storage account, as the host's queue trigger reads them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made = False

    def ring(self, job_id: str, after_seconds: float = 0) -> bool:
        """As `Doorbell` says."""
        try:
            self.check()
            # Without a time to live a message is lost after a week. The host's queue trigger expects Base64.
            self._client().send_message(job_id, visibility_timeout=max(0, round(after_seconds)), time_to_live=-1)
        except Exception as error:
            event("jobs.not_rung", level=logging.WARNING, job_id=job_id, error=_said(error))
            return False
        return True

    def check(self) -> None:
        """Makes the queue where it is missing. Raises BackupError, or the SDK's errors, when it cannot be used."""
        if not self._made:
            from azure.core.exceptions import ResourceExistsError

            with suppress(ResourceExistsError):
                self._client().create_queue()
            self._made = True

    def _client(self) -> Any:
        from azure.storage.queue import QueueServiceClient, TextBase64EncodePolicy

        from backup.runs.storage_account import service_client

        service = service_client(self._settings, "queue", QueueServiceClient)
        return service.get_queue_client(QUEUE, message_encode_policy=TextBase64EncodePolicy())


class LocalDoorbell:
    """Wakes the worker threads of this process. Those of others look at the records every second."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def ring(self, job_id: str, after_seconds: float = 0) -> bool:  # noqa: ARG002 - a worker looks at all that wait
        """As `Doorbell` says."""
        self._rung.set()
        return True

    def wait(self, seconds: float) -> None:
        """Returns when the bell has rung since it was last waited for, or after so many seconds."""
        self._rung.wait(seconds)
        self._rung.clear()


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, BackupError) else type(error).__name__
