"""A file that one process at a time has locked, on every system."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

if sys.platform == "win32":

    @contextmanager
    def locked(path: Path) -> Iterator[bool]:
        """Whether the file was free; if so, locks it inside the `with`. Makes the file if it is missing.

        The system frees it when the process ends. For any number of threads. Raises OSError if it cannot be made.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

else:
    import fcntl

    _opening = Lock()
    _open_files: dict[object, int] = {}

    @contextmanager
    def locked(path: Path) -> Iterator[bool]:
        """Whether the file was free; if so, locks it inside the `with`. Makes the file if it is missing.

        The system frees it when the process ends. A process forked inside the `with` has not locked it, and frees
        nothing. For any number of threads; 10 µs. Raises OSError if the file cannot be made, is a link, or lies where
        no file can be locked.
        """
        opened = object()
        with _opening:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, stat.S_IRUSR | stat.S_IWUSR)
            _open_files[opened] = file
        try:
            yield _lock(file)
        finally:
            if _open_files.pop(opened, None) is not None:
                fcntl.flock(file, fcntl.LOCK_UN)  # to close it would not free it while a forked process has it open
                os.close(file)

    def _lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # CIFS says the latter of a file that another has locked
            return False
        return os.fstat(file).st_nlink > 0  # somebody has deleted it since it was opened: the next makes another

    def _forget() -> None:
        """Closes the files in a forked process. Otherwise they would stay locked if the parent died before it."""
        for file in _open_files.values():
            os.close(file)
        _open_files.clear()
        _opening.release()

    # No process is forked between the opening of a file and its note.
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_forget)
