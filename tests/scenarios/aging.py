"""What may happen to the records in a SQLite file: time passes, by the clock that counts for ages; a disk is full."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

from backup.jobs.key_values import Change, KeyValues
from backup.jobs.sqlite_key_values import SqliteKeyValues


def let_pass(keys: KeyValues, time: timedelta) -> None:
    """Makes all that is there so much older, for every process. Moves no clock."""
    assert isinstance(keys, SqliteKeyValues)

    def aged(written: str) -> str:
        etag, boot, moment = written.split()
        return f"{etag} {boot} {float(moment) - time.total_seconds()}"

    with closing(sqlite3.connect(keys._reading._path)) as connection, connection:
        connection.create_function("aged", 1, aged)
        connection.execute("UPDATE items SET written = aged(written) WHERE written IS NOT NULL")


@contextmanager
def no_room(keys: KeyValues) -> Iterator[None]:
    """Inside, the file has no room for more than there is, for this process."""
    assert isinstance(keys, SqliteKeyValues)
    assert keys.commit([Change("item:0", {})])
    connection = keys._writing._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 1")
    yield
    connection.execute("PRAGMA max_page_count = 100000")
