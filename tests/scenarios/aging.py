"""Lets time pass for the records of a SQLite file, by the clock that counts for their ages."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta

from backup.jobs.key_values import KeyValues
from backup.jobs.sqlite_key_values import SqliteKeyValues


def let_pass(keys: KeyValues, time: timedelta) -> None:
    """Makes all that is there so much older, for every process. Moves no clock."""
    assert isinstance(keys, SqliteKeyValues)

    def aged(written: str) -> str:
        etag, boot, moment = written.split()
        return f"{etag} {boot} {float(moment) - time.total_seconds()}"

    with closing(sqlite3.connect(keys._path)) as connection, connection:
        connection.create_function("aged", 1, aged)
        connection.execute("UPDATE items SET written = aged(written) WHERE written IS NOT NULL")
