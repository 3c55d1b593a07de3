"""One run of a service at a time, across instances: a blob lease, or a file lock without a storage account."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir

from backup.config.settings import Settings
from backup.core import interrupts
from backup.core.errors import ConfigError, Locked
from backup.core.model import CheckLock
from backup.core.retry import Retry
from backup.core.safe_names import safe_name
from backup.runs.lock_file import LockFile

Lock = Callable[[str, str], AbstractContextManager[CheckLock]]
"""Takes a service and its backup's location; holds the lock inside the `with`. Raises Locked when it is taken."""


def open_lock(settings: Settings, retry: Retry) -> Lock:
    """The lock that the settings ask for: a lease in `AzureWebJobsStorage` if that is set, else a file."""
    if not settings.has_storage_account:
        return _file

    def lease(service: str, _backup: str) -> AbstractContextManager[CheckLock]:
        from backup.runs import blob_lease  # not at a cold start, which has to be short

        return blob_lease.hold(settings, service, retry)

    return lease


def take(stack: ExitStack, lock: Lock, service: str, backup: str, wait_seconds: float) -> CheckLock:
    """Takes the lock until the stack is closed. Waits up to `wait_seconds` while another run has it.

    Returns a check that raises LockLost once the lock is lost. Raises Locked when the wait was too short.
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
def _file(service: str, backup: str) -> Iterator[CheckLock]:
    try:
        file = LockFile(_path(_folder(), service, backup))
    except BlockingIOError:
        raise Locked(f"A sync of {service} is already running on this machine.") from None
    except OSError as error:
        raise ConfigError(
            f"The lock file of {service} cannot be created: {error.strerror}. Nothing was changed.", hint=_ELSEWHERE
        ) from None
    try:
        yield _nothing
    finally:
        file.release()


@lru_cache(2_500)
def _path(folder: Path, service: str, backup: str) -> str:
    """One file for each backup, in whatever folder this user's processes run."""
    return str(folder / f"{safe_name(service)}-{sha256(backup.encode()).hexdigest()[:16]}.lock")


def _nothing() -> None:
    """The check of a lock that nobody can take away."""


_ELSEWHERE = "Set TMPDIR to a folder that is yours, the same for all processes of the app; or set AzureWebJobsStorage."


def _folder() -> Path:
    """The folder of this user's lock files; creates it if it is missing. No other user can create, lock or delete files
    in it.

    Each user has a folder, so a file of root keeps no other user out. Raises ConfigError if the folder belongs to
    another user.
    """
    user = os.getuid() if hasattr(os, "getuid") else None  # on Windows the temporary folder is the user's own
    folder = _folder_of(user, gettempdir())
    try:
        status = folder.lstat()
    except FileNotFoundError:
        folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)
        status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or user not in (None, status.st_uid):
        raise ConfigError(
            f"{folder}, the folder for lock files, belongs to another user or is a link. Nothing was changed.",
            hint=_ELSEWHERE,
        )
    if user is not None and stat.S_IMODE(status.st_mode) != stat.S_IRWXU:
        folder.chmod(stat.S_IRWXU)
    return folder


@lru_cache(4)
def _folder_of(user: int | None, temporary: str) -> Path:
    return Path(temporary) / ("backup-locks" if user is None else f"backup-locks-{user}")
