"""A file that one holder has at a time, in this process or another one. The system frees it when its process ends."""

from __future__ import annotations

import os
import sys
import threading
from errno import EACCES, EAGAIN

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class LockFile:
    """A file, held from now on until `release`. For any thread; a forked process holds nothing of its parent's."""

    def __init__(self, path: str) -> None:
        """Makes the file if it is missing; it stays. Never waits. Raises BlockingIOError if somebody holds it, and
        OSError if it cannot be made or opened; then nothing is held."""
        self._descriptor: int | None = None
        while self._descriptor is None:
            with _forking:
                self._descriptor = os.open(path, _FLAGS, 0o600)
                _held.add(self)
            try:
                _lock(self._descriptor)
                if not os.fstat(self._descriptor).st_nlink:  # deleted since it was opened: nobody else will look at it
                    self._close()
            except BaseException as error:
                self._close()
                if isinstance(error, OSError) and error.errno in (EACCES, EAGAIN):
                    raise BlockingIOError(error.errno, error.strerror) from None
                raise

    def release(self) -> None:
        """Lets the file go, also where a forked process still has it open. Does nothing in a process that was forked
        meanwhile."""
        if self._descriptor is not None:
            try:
                _unlock(self._descriptor)
            finally:
                self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self)
        if descriptor is not None:
            os.close(descriptor)

    @staticmethod
    def forget_all() -> None:
        """In a process that was forked: closes its copies, by which it would hold what its parent has let go."""
        for file in [*_held]:
            file._close()
        _forking.release()


_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)

_held: set[LockFile] = set()
_forking = threading.RLock()
"""Held while a file is open that `_held` does not have yet: a process that is forked then could not close it."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_forking.acquire, after_in_parent=_forking.release, after_in_child=LockFile.forget_all)
