"""The lock of a service as a lease on a blob: held across instances, renewed while a run goes on."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.storage.blob import BlobLeaseClient, BlobServiceClient

from backup.config.settings import Settings
from backup.core import interrupts
from backup.core.errors import ConfigError, Locked, LockLost, StoreUnavailable, TransientStoreError
from backup.core.log import event, redact
from backup.core.model import StillHeld
from backup.core.retry import Retry
from backup.core.safe_names import safe_name
from backup.stores.secure import check_storage, is_loopback

CONTAINER = "backup-locks"
LEASE_SECONDS = 60
RENEW_SECONDS = 15
# The SDK's own retries and waits would outlast the lease; ours are enough.
_OPTIONS: dict[str, Any] = {"retry_total": 0, "connection_timeout": 10, "read_timeout": 10}
_DEVELOPMENT_STORAGE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFs"
    "uFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
)


@contextmanager
def hold(settings: Settings, service: str, retry: Retry) -> Iterator[StillHeld]:
    """Holds the lease of a service. Raises Locked, StoreUnavailable; ConfigError for a setting that is no account."""
    # An id of our own choosing, so that a repeated try gets the lease which an unheard answer granted.
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
        container = _blob_service(settings).get_container_client(CONTAINER)
        blob = container.get_blob_client(f"{safe_name(service)}.lock")
        if not container.exists():
            _ignore(ResourceExistsError, container.create_container)
        if not blob.exists():
            _ignore(HttpResponseError, lambda: blob.upload_blob(b""))  # made or leased by another meanwhile
        return blob.acquire_lease(lease_duration=LEASE_SECONDS, lease_id=lease_id)
    except HttpResponseError as error:
        if error.status_code == 409:
            raise Locked(f"A sync of {service} is already running.") from None
        raise _storage_error(error) from None
    except (AzureError, ValueError) as error:
        raise _storage_error(error) from None


class _Renewal(threading.Thread):
    """Renews a lease in the background until `stop`, and knows whether it is still held."""

    def __init__(self, lease: BlobLeaseClient, service: str) -> None:
        super().__init__(name=f"lock-{service}", daemon=True)
        self._lease, self._service = lease, service
        self._renewed = time.monotonic()
        self._lost = False
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            asked = time.monotonic()
            try:
                self._lease.renew()
                self._renewed = asked
            except HttpResponseError as error:
                if error.status_code in (404, 409, 412):  # deleted, taken over, broken
                    self._lost = True
                    return
            except AzureError:
                event("lock.renewal_failed", level=logging.WARNING, service=self._service)

    def check(self) -> None:
        """Raises LockLost when the lease was taken away, or not renewed for so long that another may hold it."""
        if self._lost or time.monotonic() - self._renewed > LEASE_SECONDS - RENEW_SECONDS:
            raise LockLost(f"The run of {self._service} lost its lock and stopped. What it had written stays.")

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _ignore(errors: type[Exception], work: Callable[[], Any]) -> None:
    try:
        work()
    except errors as error:
        event("lock.passed_over", level=logging.DEBUG, error=type(error).__name__)


def _blob_service(settings: Settings) -> BlobServiceClient:
    setting, connection = "AzureWebJobsStorage", settings.storage_connection or ""
    if connection.strip().lower().startswith("usedevelopmentstorage=true"):
        return BlobServiceClient.from_connection_string(_DEVELOPMENT_STORAGE, **_OPTIONS)
    if re.search(r"(AccountKey|SharedAccessSignature)\s*=", connection, re.I):
        try:
            client = BlobServiceClient.from_connection_string(connection, **_OPTIONS)
        except ValueError:
            raise _not_a_connection_string() from None
        # With a key requests are signed, and the key stays here; a signature is sent as it is.
        if not re.search(r"AccountKey\s*=", connection, re.I) and not is_loopback(urlsplit(client.url).hostname or ""):
            check_storage(client.url, setting)
        return client
    named = dict(part.partition("=")[::2] for part in connection.split(";") if "=" in part)
    account = settings.storage_account or named.get("AccountName")
    address = settings.storage_blob_uri or named.get("BlobEndpoint")
    if not address and not account:
        raise _not_a_connection_string()
    from backup.stores.identity import credential

    address = address or f"https://{account}.blob.{named.get('EndpointSuffix', 'core.windows.net')}"
    check_storage(address, f"{setting}__blobServiceUri" if settings.storage_blob_uri else setting)
    return BlobServiceClient(address, credential(settings.storage_client_id), **_OPTIONS)


def _not_a_connection_string() -> ConfigError:
    return ConfigError(
        "Setting AzureWebJobsStorage is not a storage connection string.",
        hint="Take it from the account's access keys in the portal, or write UseDevelopmentStorage=true for Azurite; "
        "for a managed identity set AzureWebJobsStorage__accountName instead.",
    )


def _storage_error(error: Exception) -> StoreUnavailable:
    status = getattr(error, "status_code", None)
    reason = redact(str(getattr(error, "message", None) or error).strip().split("\n")[0].strip(" ."))
    if reason.startswith("<"):  # a page of something that stands between
        reason = str(getattr(error, "reason", None) or "an answer of something else")
    unanswered = status is None and "Failed to establish a new connection" in reason
    message = (
        "The storage account of AzureWebJobsStorage, which holds the lock, cannot be used "
        f"({f'HTTP {status}: {reason}' if status else 'nothing answers there' if unanswered else reason}). "
        "Nothing was changed."
    )
    if status in (401, 403):
        hint = (
            "Check the account's key, or the identity's role Storage Blob Data Contributor, and the account's firewall."
        )
    elif status:
        hint = "The account answers; its reason stands in the message."
    else:
        hint = "Check the setting; on a laptop start Azurite, or remove the setting to use a file lock."
    if isinstance(error, ServiceRequestError | ServiceResponseError) or (status or 0) >= 500 or status == 429:
        return TransientStoreError(message, hint=hint, unanswered=unanswered)
    return StoreUnavailable(message, hint=hint)
