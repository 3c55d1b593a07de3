"""A connection to the SQLite file of jobs: opened when it is first used, and watched for what others do to the file."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backup.core.errors import StoreUnavailable
from backup.core.log import event
from backup.stores.sqlite_waits import LOOK_SECONDS, WaitingConnection

WAIT_SECONDS = 30.0
"""How long a use waits for another program's lock, and for other threads that wait for it."""

_AFTER_IN_VAIN = 1.0
"""How long a use waits while the lock has outlasted one. Else each write of a thousand runs would take 30 seconds."""

_CLOSE_SECONDS = 2.0
"""A use that takes longer keeps its connection, so that the end of the process waits for none."""

_TABLE = """CREATE TABLE IF NOT EXISTS items (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, etag INTEGER NOT NULL, written TEXT
) WITHOUT ROWID"""
_SMALLEST = 512  # bytes; SQLite takes less for a new file
_WAL_HEADER = 32  # bytes; what is behind it are changes
_ENDS = ("", "-wal", "-shm")

_UNUSABLE = (
    "Check that the app may write the file and its folder, and that the disk is not full. "
    "BackupJobs__File names another file."
)
_LOCKED = "Another program has locked the file, such as a viewer or a copying program: end it."
_DAMAGED = (
    "The file is damaged. Stop all processes of the app. Put back a copy of it, or move it away, each time with its "
    "-wal and -shm; without a file the app begins a new one. What was done to data is in SyncHistory all the same."
)
_HINTS = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
_TO_OPEN_ANEW = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
"""After these errors what the connection remembers of the file may be wrong, or is not so any more."""


class JobsFile:
    """One connection to the file, used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = [path.with_name(f"{path.name}{end}") for end in _ENDS] if path.name else []
        self._lock = threading.Lock()
        self._connection: WaitingConnection | None = None
        self._process = 0
        self._opened: tuple[tuple[int, int], ...] = ()
        self._wait_seconds = WAIT_SECONDS

    @contextmanager
    def used(self) -> Iterator[sqlite3.Connection]:
        """Gives the connection. Raises StoreUnavailable when the file cannot be used, or was removed or replaced while
        this process used it; and for SQLite's errors inside the context."""
        ends_at = time.monotonic() + self._wait_seconds
        with self._lock:
            try:
                connection = self._current()
                connection.busy_seconds = max(LOOK_SECONDS, ends_at - time.monotonic())
                yield connection
                self._wait_seconds = WAIT_SECONDS
            except (sqlite3.Error, OSError) as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code == sqlite3.SQLITE_BUSY:
                    self._wait_seconds = _AFTER_IN_VAIN
                elif code in _TO_OPEN_ANEW:
                    self._close()
                raise StoreUnavailable(
                    f"The file of jobs {self._path} cannot be used: {error}.", hint=_HINTS.get(code, _UNUSABLE)
                ) from None

    def close(self) -> None:
        """Closes the connection. The next use opens it again, also where the file was replaced. The last connection to
        the file writes all changes into the file itself, and removes what lies beside it."""
        if self._lock.acquire(timeout=_CLOSE_SECONDS):
            try:
                self._close()
            finally:
                self._lock.release()

    def _current(self) -> WaitingConnection:
        if self._connection is None or self._process != os.getpid():  # no connection of SQLite survives a fork
            self._connection, self._process = self._open(), os.getpid()
            self._opened = self._identity()
        elif self._opened != self._identity():  # what is written into a removed file is gone with the process
            raise StoreUnavailable(
                f"The file of jobs {self._path}, or its -wal or -shm, was removed or replaced while this process used "
                "it.",
                hint="Start all processes of the app again: they take the file that is there then, or make a new one.",
            )
        return self._connection

    def _close(self) -> None:
        if self._connection is not None and self._process == os.getpid():
            with suppress(OSError):
                if self._opened[0] == self._identity()[0]:  # else SQLite would remove what lies beside the other file
                    self._connection.close()
        self._connection = None

    def _identity(self) -> tuple[tuple[int, int], ...]:
        """What tells the file, and what SQLite keeps beside it, from others in their places; zeros where there is
        none."""
        return tuple(map(_identity_of, self._files))

    def _open(self) -> WaitingConnection:
        if not self._path.name:
            raise OSError("there is no home folder; BackupJobs__File names a file")
        self._refuse_remains()
        is_new = _size(self._path) == 0
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileExistsError):  # to open and close a file ends the locks that the process has on it
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL, 0o600))
        if not os.access(self._path, os.W_OK):  # SQLite would open it to read, and never write it again
            raise PermissionError("it may not be written")
        connection = sqlite3.connect(
            self._path,
            factory=WaitingConnection,
            timeout=LOOK_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'items'").fetchone() is None:
            connection.execute(_TABLE)
            event("records.new", level=logging.INFO if is_new else logging.WARNING, file=self._path)
        _add_written(connection)
        return connection

    def _refuse_remains(self) -> None:
        """Raises StoreUnavailable where the changes of a file were left without the file: SQLite would take it for a
        new one and remove them."""
        file, wal, _ = self._files
        changes = _size(wal)  # before the file: whoever makes both writes the file first
        size = _size(file)
        if size < _SMALLEST and (size or changes > _WAL_HEADER):
            raise StoreUnavailable(
                f"The file of jobs {self._path} is {'cut off' if size else 'empty or missing'}"
                f"{f', but {wal} has changes of it' if changes > _WAL_HEADER else ''}.",
                hint="Put the file back beside it. To begin a new one, move away all that has its name, with -wal and "
                "-shm.",
            )


def _identity_of(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return 0, 0
    return status.st_dev, status.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _add_written(connection: sqlite3.Connection) -> None:
    """Adds the column to a file of an earlier release. That release goes on with the file as before."""
    query = "SELECT 1 FROM pragma_table_info('items') WHERE name = 'written'"
    if connection.execute(query).fetchone() is None:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute(query).fetchone() is None:  # no other process was faster
                connection.execute("ALTER TABLE items ADD COLUMN written TEXT")
