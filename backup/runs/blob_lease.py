"""The lock of a service as a lease on a blob. It holds across instances; a thread renews it while the run lasts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError
from azure.storage.blob import BlobLeaseClient, BlobServiceClient

from backup.config.settings import Settings
from backup.core import interrupts
from backup.core.errors import Locked, LockLost
from backup.core.log import event
from backup.core.model import CheckLock
from backup.core.retry import Retry
from backup.core.safe_names import safe_name
from backup.runs.storage_account import service_client, storage_error

CONTAINER = "backup-locks"
LEASE_SECONDS = 60
RENEW_SECONDS = 15


@contextmanager
def hold(settings: Settings, service: str, retry: Retry) -> Iterator[CheckLock]:
    """Holds the lease of a service inside the `with`; yields its check. Raises Locked, StoreUnavailable; ConfigError
    for a setting that names no account."""
    # The id is chosen here. So a second try gets the lease that the first try got if only its answer was lost.
    lease_id = str(uuid4())
    for attempt in retry.attempts(f"take the lock of {service}"):
        with attempt:
            lease = _acquire(settings, service, lease_id)
    renewal = _Renewal(lease, service)
    renewal.start()
    try:
        with interrupts.released_at_the_end(lambda: _ignore(AzureError, lease.release)):
            yield renewal.check
    finally:
        renewal.stop()
        _ignore(AzureError, lease.release)


def _acquire(settings: Settings, service: str, lease_id: str) -> BlobLeaseClient:
    try:
        container = service_client(settings, "blob", BlobServiceClient).get_container_client(CONTAINER)
        blob = container.get_blob_client(f"{safe_name(service)}.lock")
        if not container.exists():
            _ignore(ResourceExistsError, container.create_container)
        if not blob.exists():
            # Another process may have created or leased the blob meanwhile.
            _ignore(HttpResponseError, lambda: blob.upload_blob(b""))
        return blob.acquire_lease(lease_duration=LEASE_SECONDS, lease_id=lease_id)
    except HttpResponseError as error:
        if error.status_code == 409:
            raise Locked(f"A sync of {service} is already running.") from None
        raise storage_error(error, "the lock") from None
    except (AzureError, ValueError) as error:
        raise storage_error(error, "the lock") from None


class _Renewal(threading.Thread):
    """Renews a lease in the background until `stop`, and knows whether the run still has it."""

    def __init__(self, lease: BlobLeaseClient, service: str) -> None:
        super().__init__(name=f"lock-{service}", daemon=True)
        self._lease, self._service = lease, service
        self._renewed = time.monotonic()
        self._lost = False
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            started = time.monotonic()
            try:
                self._lease.renew()
                self._renewed = started
            except HttpResponseError as error:
                if error.status_code in (404, 409, 412):  # deleted, taken over, broken
                    self._lost = True
                    return
            except AzureError:
                event("lock.renewal_failed", level=logging.WARNING, service=self._service)

    def check(self) -> None:
        """Raises LockLost when the lease is gone, or when it is so old that another process may have it."""
        if self._lost or time.monotonic() - self._renewed > LEASE_SECONDS - RENEW_SECONDS:
            raise LockLost(f"The run of {self._service} lost its lock and stopped. What it has written stays.")

    def stop(self) -> None:
        """Ends the renewal; waits for its thread."""
        self._ended.set()
        self.join()


def _ignore(errors: type[Exception], work: Callable[[], Any]) -> None:
    try:
        work()
    except errors as error:
        event("lock.passed_over", level=logging.DEBUG, error=type(error).__name__)
