"""The folders of the servers that tests and benchmarks start: in memory, where there is room."""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

ROOM_BYTES = 4 << 30
YOUNG_SECONDS = 60
"""A folder this young may belong to a process that has not locked it yet."""
_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made in it has a name of its own
_PREFIX = "backup-tests-"


@contextmanager
def server_folder(server: str) -> Iterator[Path]:
    """A new folder, which ends with the block.

    One whose process was killed stays, and in memory it takes room until the machine is started anew. So those are
    removed first: a living process has a lock on its own.
    """
    for parent in (_MEMORY, Path(gettempdir())):
        for folder in parent.glob(f"{_PREFIX}*"):
            _remove_if_left(folder)
    with TemporaryDirectory(prefix=f"{_PREFIX}{server}-", dir=memory_folder()) as name:
        lock = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(lock)


def memory_folder() -> Path | None:
    """A folder that lies in memory and has room, where the system has one.

    A new database is hundreds of new files. On a disk they take several times the CPU. A file system in memory has room
    for more than there is memory: both are asked.
    """
    there = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)
    return _MEMORY if there and min(shutil.disk_usage(_MEMORY).free, _available()) >= ROOM_BYTES else None


def _available() -> int:
    """The bytes of memory that new programs may take."""
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) << 10 if found else 0


def _remove_if_left(folder: Path) -> None:
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:  # it is gone, or somebody else's
        return
    try:
        if time.time() - os.fstat(lock).st_mtime > YOUNG_SECONDS:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return  # its process lives
    finally:
        os.close(lock)
