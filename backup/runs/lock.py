"""One sync of a service at a time, across instances: a blob lease, or a file lock where there is no storage account."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir

from backup.config.settings import Settings
from backup.core import interrupts
from backup.core.errors import ConfigError, Locked
from backup.core.model import StillHeld
from backup.core.retry import Retry
from backup.core.safe_names import safe_name

Lock = Callable[[str, str], AbstractContextManager[StillHeld]]
"""Takes a service and its backup's location; holds the lock inside the `with`. Raises Locked when another holds it."""


def open_lock(settings: Settings, retry: Retry) -> Lock:
    """The lock that goes with the settings: a lease in `AzureWebJobsStorage` if there is one, else a file."""
    if not settings.has_storage_account:
        return _file

    def held(service: str, _backup: str) -> AbstractContextManager[StillHeld]:
        from backup.runs import blob_lease  # not at a cold start, which has to be short

        return blob_lease.hold(settings, service, retry)

    return held


def take(stack: ExitStack, lock: Lock, service: str, backup: str, wait_seconds: float = 0) -> StillHeld:
    """Takes the lock until the stack is closed, once whoever holds it for a moment has given it back.

    Raises Locked when that takes longer than `wait_seconds`.
    """
    ends_at = time.monotonic() + wait_seconds
    while True:
        try:
            return stack.enter_context(lock(service, backup))
        except Locked:
            if time.monotonic() + _SECONDS_BETWEEN_TRIES > ends_at:
                raise
        interrupts.sleep(_SECONDS_BETWEEN_TRIES)


_SECONDS_BETWEEN_TRIES = 1.0


@contextmanager
def _file(service: str, backup: str) -> Iterator[StillHeld]:
    from filelock import FileLock, Timeout

    # One file for each backup, whichever folder or checkout this user's processes run in. The system frees it when its
    # process dies.
    name = f"{safe_name(service)}-{sha256(backup.encode()).hexdigest()[:16]}.lock"
    try:
        lock = FileLock(_folder() / name)
        lock.acquire(blocking=False)
    except Timeout:
        raise Locked(f"A sync of {service} is already running on this machine.") from None
    except OSError as error:
        raise ConfigError(f"The lock file of {service} cannot be made: {error.strerror}.", hint=_ELSEWHERE) from None
    try:
        yield lambda: None
    finally:
        lock.release()


_ELSEWHERE = "Set TMPDIR to a folder that is yours, the same for all processes of the app; or set AzureWebJobsStorage."


def _folder() -> Path:
    """Where this user's lock files lie; made if missing. Nobody else can make, hold or take away a file in it.

    Each user has one, so what root leaves behind locks nobody out. Raises ConfigError for one that is somebody else's.
    """
    user = os.getuid() if hasattr(os, "getuid") else None  # on Windows the temporary folder is the user's own
    folder = Path(gettempdir()) / ("backup-locks" if user is None else f"backup-locks-{user}")
    folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or user not in (None, found.st_uid):
        raise ConfigError(
            f"{folder}, the folder for lock files, belongs to another user or is a link.", hint=_ELSEWHERE
        )
    if user is not None and stat.S_IMODE(found.st_mode) != stat.S_IRWXU:
        folder.chmod(stat.S_IRWXU)
    return folder
