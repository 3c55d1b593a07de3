"""One sync of a service at a time, across instances: a blob lease, or a file lock where there is no storage account."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path

from backup.errors import ConfigError, Locked
from backup.models import Held
from backup.retry import Retry
from backup.settings import Settings

Lock = Callable[[str, str], AbstractContextManager[Held]]
"""Takes a service and its backup's location; holds the lock inside the `with`. Raises Locked when another holds it."""


def open_lock(settings: Settings, retry: Retry) -> Lock:
    """The lock that goes with the settings: a lease in `AzureWebJobsStorage` if there is one, else a file."""
    if not (settings.storage_connection or settings.storage_account or settings.storage_blob_uri):
        return _file

    def held(service: str, _backup: str) -> AbstractContextManager[Held]:
        from backup import lease  # not at a cold start, which has to be short

        return lease.hold(settings, service, retry)

    return held


@contextmanager
def _file(service: str, backup: str) -> Iterator[Held]:
    from filelock import FileLock, Timeout

    # One file for each backup, whichever folder or checkout the processes of this machine run in. The system frees it
    # when its process dies.
    name = f"backup-{service}-{sha256(backup.encode()).hexdigest()[:16]}.lock"
    lock = FileLock(Path(tempfile.gettempdir()) / name)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise Locked(f"A sync of {service} is already running on this machine.") from None
    except OSError as error:
        raise ConfigError(f"The lock file of {service} cannot be made: {error.strerror}.") from None
    try:
        yield lambda: None
    finally:
        lock.release()
