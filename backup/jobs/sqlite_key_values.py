"""Keys and values in a SQLite file of the app, for an app without a storage account."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from backup.jobs.jobs_file import JobsFile
from backup.jobs.key_values import NEW, Change, Item
from backup.jobs.stored import stored_value
from backup.runs.process import this_process

_AFTER_ALL = "\x7f"  # sorts after every character that a key may have
# `written` has the etag that was written, and when. An earlier release writes none, or leaves one that does not fit.
_INSERT = """INSERT INTO items (key, value, etag, written) VALUES (:key, :value, 1, '1 ' || :moment)
    ON CONFLICT (key) DO NOTHING"""
_UPSERT = """INSERT INTO items (key, value, etag, written) VALUES (:key, :value, 1, '1 ' || :moment)
    ON CONFLICT (key) DO UPDATE
    SET value = excluded.value, etag = etag + 1, written = (etag + 1) || ' ' || :moment"""
_UPDATE_SAME = """UPDATE items SET value = :value, etag = etag + 1, written = (etag + 1) || ' ' || :moment
    WHERE key = :key AND etag = CAST(:etag AS INTEGER)"""
_DELETE = "DELETE FROM items WHERE key = :key"
_DELETE_SAME = "DELETE FROM items WHERE key = :key AND etag = CAST(:etag AS INTEGER)"


class SqliteKeyValues:
    """A SQLite file. `commit` returns once its changes are on the disk.

    The ages of its items are by the machine's clock that nobody can set. They are known until the machine starts again.
    """

    def __init__(self, path: Path, elapsed: Callable[[], float] = time.monotonic) -> None:
        """`elapsed` gives seconds since some moment that is the same for all processes of the machine."""
        self._elapsed = elapsed
        # Whoever waits for another program's lock keeps nobody from reading.
        self._reading, self._writing = JobsFile(path), JobsFile(path)

    def get(self, key: str) -> Item | None:
        """As `KeyValues` says."""
        with self._reading.used() as connection:
            row = connection.execute("SELECT key, value, etag, written FROM items WHERE key = ?", (key,)).fetchone()
        return None if row is None else self._item(row)

    def scan(self, prefix: str, *, after: str = "", limit: int) -> list[Item]:
        """As `KeyValues` says."""
        # One lower bound: of two, SQLite begins at the first, and reads all keys from there to the second.
        above = ">" if after >= prefix else ">="
        query = f"SELECT key, value, etag, written FROM items WHERE key {above} ? AND key < ? ORDER BY key LIMIT ?"  # noqa: S608
        with self._reading.used() as connection:
            rows = connection.execute(query, (max(after, prefix), prefix + _AFTER_ALL, limit)).fetchall()
        return list(map(self._item, rows))

    def get_all(self, keys: Sequence[str]) -> list[Item | None]:
        """As `KeyValues` says."""
        query = "SELECT key, value, etag, written FROM items WHERE key IN (SELECT value FROM json_each(?))"
        with self._reading.used() as connection:
            rows = connection.execute(query, (json.dumps(keys),)).fetchall()
        items = {row[0]: self._item(row) for row in rows}
        return [items.get(key) for key in keys]

    def commit(self, changes: Sequence[Change]) -> bool:
        """As `KeyValues` says."""
        with self._writing.used() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                moment = f"{_this_boot()} {self._elapsed()!r}"
                done = all(_apply(connection, change, moment) for change in changes)
                connection.execute("COMMIT" if done else "ROLLBACK")
            except BaseException:
                if connection.in_transaction:  # a full disk may have ended it
                    connection.execute("ROLLBACK")
                raise
        return done

    def close(self) -> None:
        """As `KeyValues` says."""
        self._reading.close()
        self._writing.close()

    def _item(self, row: tuple[str, str, int, str | None]) -> Item:
        key, value, etag, written = row
        return Item(key, stored_value(key, value), str(etag), self._age(str(etag), written))

    def _age(self, etag: str, written: str | None) -> timedelta | None:
        try:
            written_etag, boot, moment = str(written).split(" ")
            age = timedelta(seconds=self._elapsed() - float(moment))
        except (ValueError, OverflowError):
            return None
        return age if (written_etag, boot) == (etag, _this_boot()) and age >= timedelta() else None


@lru_cache
def _this_boot() -> str:
    """What tells the machine's start from others: the clock began anew with it. A container may have its own clock."""
    try:
        clock = str(Path("/proc/self/ns/time").readlink())
    except OSError:
        clock = ""
    return sha256(f"{this_process().boot} {clock}".encode()).hexdigest()[:8]


def _apply(connection: sqlite3.Connection, change: Change, moment: str) -> bool:
    """Makes the change if its condition holds; returns whether it did."""
    text = None if change.value is None else json.dumps(change.value, separators=(",", ":"))
    if isinstance(change.only_if, str):
        statement = _DELETE_SAME if text is None else _UPDATE_SAME
    elif change.only_if is NEW:
        statement = _INSERT
    else:
        statement = _DELETE if text is None else _UPSERT
    etag = change.only_if if isinstance(change.only_if, str) else None
    parameters = {"key": change.key, "value": text, "etag": etag, "moment": moment}
    return connection.execute(statement, parameters).rowcount == 1
