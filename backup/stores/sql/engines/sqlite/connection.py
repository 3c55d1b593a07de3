"""Connections to a SQLite file, for reading and for writing, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.engine import URL

from backup.stores.sql.engines.failures import FULL_HINT, Failure, driver_text, name_in
from backup.stores.sql.engines.prepared import TABLES_KEPT
from backup.stores.sql.engines.sqlite.fingerprint import HASH, HASHES_OF_BYTES, exact_hash, exact_hash_of_bytes
from backup.stores.sql.engines.sqlite.text import UTF_16, exact_row, text_of
from backup.stores.sqlite_waits import LOOK_SECONDS, WaitingConnection

_BUSY_SECONDS = 30.0
Mode = Literal["ro", "rw", "rwc"]


class NotOpened(OSError):
    """The file was not opened, because reading it would leave other files beside it."""


class Replaced(OSError):
    """Another file has taken the place of the one that was read before."""

    def __init__(self) -> None:
        super().__init__(0, "another file has taken the place of the one that was read before")


class OpenFile(WaitingConnection):
    """A connection that knows which file it has opened: device and inode. A path may lead to another file later."""

    identity: tuple[int, int] | None = None
    is_immutable = False
    """Whether it was opened as a file that nobody writes."""

    path: Path | None = None
    catalog: tuple[int, tuple[Any, ...]] | None = None
    """The rows of sqlite_master as they were read last, and the file's schema version before that."""

    @property
    def encoding(self) -> str:
        """The encoding of the file's texts, as a connection has read it last: the first table of a file settles it."""
        return _encodings.get(self.path, "UTF-8")


def begin_anew(connection: Any, *_: Any) -> None:
    """Makes the connection ready for its next user. A listener of SQLAlchemy's pool event `checkout`."""
    if isinstance(connection, OpenFile):
        connection.was_interrupted = False  # that was about an earlier call
        connection.row_factory = exact_row if connection.encoding in UTF_16 else None


def is_same_file(connection: Any, path: Path) -> bool:
    """Whether the path still leads to the file that the connection has opened."""
    identity = connection.identity if isinstance(connection, OpenFile) else None
    return identity is not None and identity == _identity(path)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def is_same_connected(here: OpenFile, there: OpenFile) -> bool:
    """Whether both connections have opened one file: it may have several names."""
    return here.identity is not None and here.identity == there.identity


class SqliteFile:
    """A file and how its URL says to open it: always in a `mode`, or as `immutable`, a file that nobody writes."""

    def __init__(self, url: URL) -> None:
        self.path = Path(os.path.realpath(url.database or ""))
        self._mode = url.query.get("mode")
        self._immutable = url.query.get("immutable") == "1"
        self.reads_any_bytes = False
        """Whether new connections read texts that are not valid UTF-8, which is slower."""

    @property
    def ways(self) -> tuple[Any, ...]:
        """All that decides how a connection is made, beside the path and the mode that is asked for."""
        return (self._mode, self._immutable, self.reads_any_bytes)

    @property
    def encoding(self) -> str:
        """The encoding of the file's texts, as the last connection has read it."""
        return _encodings.get(self.path, "UTF-8")

    @property
    def hashed_encoding(self) -> str | None:
        """The encoding in which texts are hashed by their bytes, because not every text comes to a Python function as
        it is; None where each does."""
        return self.encoding if self.reads_any_bytes or self.encoding in UTF_16 else None

    def make(self, encoding: str) -> None:
        """Makes the file where it is missing. One without tables gets this encoding for its texts."""
        connection = self.connect("rwc")
        try:
            if encoding != self.encoding and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                connection.execute(f"PRAGMA encoding = '{encoding}'")
                connection.executescript(_KEEP_ENCODING)
                _encodings[self.path] = encoding
        finally:
            connection.close()

    def connect(self, mode: Mode) -> OpenFile:
        """A new connection. Only `rwc` creates a missing file: an unmounted disk must not look like an empty source.

        `ro` changes no byte of the file and of its -wal. Raises NotOpened where reading would create a -wal and a -shm
        that belong to another user than the file: the owner's program could not use them.
        """
        spelled = self.spelled(mode)
        # Before it is opened: if another file takes its place meanwhile, the connection counts as one to the old file.
        identity = _identity(self.path)
        connection = sqlite3.connect(
            spelled,
            uri=True,
            factory=OpenFile,
            timeout=min(LOOK_SECONDS, _BUSY_SECONDS),
            check_same_thread=False,
            cached_statements=0,  # each would keep its last parameters in memory, however large
        )
        connection.busy_seconds = _BUSY_SECONDS
        try:
            # Opening reads nothing. Only this shows that the file is a database.
            [_encodings[self.path]] = connection.execute("PRAGMA encoding").fetchone()
            connection.create_function(HASH, -1, exact_hash, deterministic=True)
            for encoding, name in HASHES_OF_BYTES.items():
                connection.create_function(name, -1, partial(exact_hash_of_bytes, encoding), deterministic=True)
            self.read_texts_with(connection)
            connection.identity, connection.path = identity, self.path
            begin_anew(connection)
            connection.is_immutable = self._immutable
        except BaseException:
            connection.close()
            raise
        return connection

    def read_texts_with(self, connection: Any) -> None:
        """From now on the connection reads texts as this file wants it."""
        connection.text_factory = text_of if self.reads_any_bytes else str

    def spelled(self, mode: Mode) -> str:
        """The file's name for SQLite, which says how to open it. Raises NotOpened as `connect` does."""
        mode = "rw" if self._mode == "rw" and mode == "ro" else "ro" if self._mode == "ro" else mode
        if mode == "ro" and not self._immutable:
            self._refuse_foreign_files()
        return f"{_uri(self.path)}?mode={mode}{'&immutable=1' if self._immutable else ''}"

    def failure(self, error: Exception) -> Failure:
        """What a driver's error means for this file."""
        text, whole = driver_text(error), getattr(error, "sqlite_errorcode", 0)
        code = whole & 0xFF
        if isinstance(error, OSError):
            hints = {NotOpened: _FOREIGN_HINT, Replaced: _REPLACED_HINT}
            return Failure("unavailable", f"{error.strerror}.", hints.get(type(error)))
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Failure("transient", text)
        if code == sqlite3.SQLITE_CANTOPEN and not self.path.exists():
            return Failure("database_missing", "there is no such file.")
        unreadable = code == sqlite3.SQLITE_CANTOPEN or whole in _NO_WAL_CODES
        if unreadable and self.path.is_file() and _is_wal(self.path):
            return Failure("unavailable", f"{_NO_WAL}.", _FOLDER_HINT)
        if code == sqlite3.SQLITE_CANTOPEN and self._can_be_opened():
            return Failure("transient", text)  # another thread made the file at this moment
        if whole in (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY):
            return Failure("unavailable", f"{_CRASHED}.", _CRASHED_HINT)
        if code == sqlite3.SQLITE_READONLY:
            return Failure("unavailable", text, _READ_ONLY_HINT)
        if "Could not decode to UTF-8" in text or "user-defined function raised" in text:  # which needs valid text
            return Failure("undecoded", f"a text is not valid {self.encoding} ({text})")
        if "no such table" in text:
            return Failure("missing", text, name=name_in(text))
        if "no such column" in text or "has no column named" in text:
            return Failure("column_missing", text)
        if code == sqlite3.SQLITE_FULL:
            return Failure("unavailable", text, FULL_HINT)
        if code in _UNUSABLE:
            return Failure("unavailable", text)
        if whole in (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY):
            return Failure("unique", text)
        return Failure("constraint" if code == sqlite3.SQLITE_CONSTRAINT else "refused", text)

    def _can_be_opened(self) -> bool:
        folder = self.path.parent
        return self.path.is_file() and all(os.access(path, os.R_OK | os.W_OK) for path in (self.path, folder))

    def _refuse_foreign_files(self) -> None:
        reader = os.geteuid() if hasattr(os, "geteuid") else 0
        if reader == 0 or not self.path.is_file() or self.path.stat().st_uid == reader:
            return  # files that SQLite creates for root belong to the file's owner
        exist = all(Path(f"{self.path}-{end}").exists() for end in ("wal", "shm"))
        if not exist and _is_wal(self.path):
            raise NotOpened(
                0,
                "it is in WAL mode and belongs to another user, who could not use -wal and -shm of this one",
            )


_FOREIGN_HINT = (
    "Run the app as the file's owner, or while a program of the owner has it open. For a file that nobody writes to, "
    "say ?immutable=1 in the connection string."
)
_REPLACED_HINT = "What was written before stays. The next run compares everything with the file that is there now."
_NO_WAL = "it is in WAL mode, and its -wal and -shm cannot be made or read in this folder"
_FOLDER_HINT = (
    "Let the app's user write to the folder, or keep the file open in a program of its owner. For a file that nobody "
    "writes to, say ?immutable=1 in the connection string."
)
_NO_WAL_CODES = (sqlite3.SQLITE_READONLY_CANTINIT, sqlite3.SQLITE_READONLY_DIRECTORY)
_UNUSABLE = (
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR),
    sqlite3.SQLITE_PERM,
)
_CRASHED = "beside it lies the journal of a write that did not end"
_CRASHED_HINT = (
    "A program died while it wrote to the file. Open it once with that program, which repairs it: a sync does not "
    "write to its source."
)
_READ_ONLY_HINT = (
    "Let the app's user write to the file and its folder, and leave mode=ro and immutable=1 out of the connection "
    "string."
)
_KEEP_ENCODING = 'BEGIN IMMEDIATE; CREATE TABLE "backup made" (id); DROP TABLE "backup made"; COMMIT'
_encodings: dict[Path | None, str] = {}
_open_files: dict[Path, tuple[tuple[int, int], int]] = {}


@lru_cache(TABLES_KEPT)
def _uri(path: Path) -> str:
    return path.as_uri()


def _is_wal(path: Path) -> bool:
    """Whether the file's header says WAL mode; False if it cannot be read."""
    try:
        stat = path.stat()
        opened, file = _open_files.get(path, (None, -1))
        if opened != (stat.st_dev, stat.st_ino):
            # Stays open: to close it would release every lock of SQLite on the file in this process.
            _open_files[path] = (stat.st_dev, stat.st_ino), os.open(path, os.O_RDONLY)
            if opened is not None:
                os.close(file)  # another file has replaced this one
        return os.pread(_open_files[path][1], 2, 18) == b"\2\2"
    except OSError:
        return False
