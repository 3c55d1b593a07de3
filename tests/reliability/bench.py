"""A service on two SQLite files with a clock of its own, in this process, that dies when told; and both files' rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, count, repeat
from math import inf
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch
from uuid import UUID

import sqlalchemy as sa

from backup.config.settings import load_settings
from backup.core import run_values
from backup.core.model import CheckLock
from backup.core.retry import Retry
from backup.mirror import chunk
from backup.recycle_bin import entries
from backup.runs.outcome import Turn
from backup.services.presets import CustomerSyncService
from backup.stores import Limits
from backup.stores.key_hash import key_hash
from backup.stores.sql import image_writes
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.engines import mixing
from backup.verbs import relaying
from tests.reliability import plain
from tests.reliability.keys import Key, Keys
from tests.reliability.plain import Row, State

START = datetime(2026, 1, 1, tzinfo=UTC)
RECYCLE_DAYS = 2
# One thread: a death comes at the same step each time.
LIMITS = Limits(chunk_size=4, batch_size=2, parallelism=1, retry=Retry(max_attempts=1))

Moment = Literal["before", "uncommitted", "after"]
Side = Literal["source", "backup"]
Entry = dict[str, Any]
"""Of the recycle bin or SyncHistory, by column."""


def keys_of(text: str) -> list[Key]:
    """The keys of an entry of the recycle bin: one, or ranges of those that were inserted together."""
    parsed = json.loads(text)
    if isinstance(parsed[0], list):
        return [(key,) for first, last in parsed for key in range(first, last + 1)]
    return [tuple(parsed)]


def as_utc(text: str) -> datetime:
    """A time of the app's own tables."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class Killed(BaseException):
    """The process is gone: nothing that waits for an Exception hears of it."""


@dataclass(frozen=True)
class Kill:
    """Death at the n-th piece of SQL work, or the n-th of this kind: before it, right before its commit, or after it.

    One that names a kind has to come.
    """

    call: int
    moment: Moment
    operation: str | None = None


@contextmanager
def dying(kill: Kill | None) -> Iterator[None]:
    """Inside, the process dies there."""
    once, calls = SqlAccess.once, 0

    @contextmanager
    def counted(access: SqlAccess, operation: str, **how: Any) -> Iterator[sa.Connection]:
        nonlocal calls
        counts = kill is not None and kill.operation in (None, operation)
        calls += counts
        moment = kill.moment if kill is not None and counts and calls == kill.call else None
        if moment == "before":
            raise Killed
        with once(access, operation, **how) as cx:
            yield cx
            if moment == "uncommitted":
                raise Killed
        if moment == "after":
            raise Killed

    with patch.object(SqlAccess, "once", counted):
        yield
    assert kill is None or kill.operation is None, f"the run ended before it died: {kill}"


@contextmanager
def stopping(asks: int | None) -> Iterator[None]:
    """Inside, a run's time is up once it has asked so often how much is left: before each chunk, after each batch of
    deletes, and after each part that is proven again."""

    def countdown(_: Turn) -> Callable[[], float]:
        left = chain(repeat(inf) if asks is None else repeat(inf, asks), repeat(0.0))
        return lambda: next(left)

    with patch.object(Turn, "countdown", countdown):
        yield


@contextmanager
def unsafe_but_fast() -> Iterator[None]:
    """Inside, no SQLite waits for its disk."""

    def hurry(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    sa.event.listen(sa.Engine, "connect", hurry)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "connect", hurry)


@dataclass
class Clock:
    """Moves by a second whenever it is asked, and as far as one likes in between."""

    now: datetime = START

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


_BEGUN: dict[tuple[tuple[str, str], ...], dict[str, bytes]] = {}
"""The files of a service that was initialized and has done nothing yet, by the key's columns: made once for all."""


@contextmanager
def _unlocked(service: str, place: str) -> Iterator[CheckLock]:
    yield lambda: None


class Bench:
    """The service, and the two tables as the plain driver sees them."""

    def __init__(self, folder: Path, keys: Keys) -> None:
        self.keys, self.clock = keys, Clock()
        # SyncIds in their order, so that the same steps are the same steps again.
        ids = map(UUID, map("{:032x}".format, count(1)))
        # And batches of two keys are enough for one entry of both, a few records for buckets, of one key each.
        self._patches: list[Any] = [
            patch.object(run_values, "uuid4", lambda: next(ids)),
            patch.object(entries, "_FEWEST_TOGETHER", 2),
            patch.object(chunk, "_NARROW_ABOVE", 2),
            patch.object(image_writes, "FEWEST_IMAGES", 2),
            patch.object(relaying, "FEWEST_BACK", 2),
            patch.object(mixing, "_NEIGHBOURS", 1),
        ]
        for patched in self._patches:
            patched.start()
        begun = _BEGUN.get(tuple(keys.columns.items()), {})
        for name, content in begun.items():
            (folder / name).write_bytes(content)
        self._files = {
            side: sqlite3.connect(folder / f"{side}.db", isolation_level=None) for side in ("source", "backup")
        }
        for file in self._files.values():
            file.row_factory = sqlite3.Row
            file.execute("PRAGMA synchronous = OFF")
        self._types = {"Name": "VARCHAR(10)", "Version": "INTEGER"}
        if not begun:
            self._make("Customers")
        settings = load_settings(
            {
                **{
                    f"{side.title()}CustomerDb__ConnectionString": f"sqlite:///{folder / side}.db"
                    for side in self._files
                },
                "BackupSync__MaxDeletePercent": str(plain.MAX_DELETE_PERCENT),
                "BackupSync__MaxDeletePercentPerWeek": "100",  # a history here is of hours and days
                "BackupSync__DeleteGuardFloor": str(plain.DELETE_GUARD_FLOOR),
                "BackupSync__MaxDeletes": str(plain.MAX_DELETES),
                "BackupSync__RecycleDays": str(RECYCLE_DAYS),
            }
        )
        self.service = CustomerSyncService(settings, LIMITS, _unlocked, self.clock)
        if not begun:
            self.service.initialize()
            _BEGUN[tuple(keys.columns.items())] = {path.name: path.read_bytes() for path in folder.glob("*.db")}

    def close(self) -> None:
        for patched in self._patches:
            patched.stop()
        for file in self._files.values():
            file.close()

    def rows(self, side: Side) -> State:
        rows = (self.row(dict(row)) for row in self._files[side].execute("SELECT * FROM Customers"))
        return {self.key_of(row): row for row in rows}

    def row(self, record: Mapping[str, Any]) -> Row:
        """A record without what the backup adds, and without its NULLs."""
        return {name: value for name, value in record.items() if value is not None and name != "SyncedAt"}

    def key_of(self, row: Row) -> Key:
        return self.keys.fold(tuple(row[name] for name in self.keys.columns))

    def columns(self, side: Side) -> set[str]:
        columns = self._files[side].execute("SELECT name FROM pragma_table_info('Customers')")
        return {row["name"] for row in columns} - {"SyncedAt"}

    def entries(self) -> dict[str, Entry]:
        """The recycle bin by entry and key, with the folded key as `Key` and the record as `Row`."""
        return {
            f"{row['EntryId']} {key}": {**dict(row), "Key": self.keys.fold(key), "KeyHash": key_hash(key)}
            | {"Row": row["Record"] and self.row(json.loads(row["Record"])), "RecycledAt": as_utc(row["RecycledAt"])}
            for row in self._files["backup"].execute("SELECT * FROM RecycleBin")
            for key in keys_of(row["RecordKey"])
        }

    def history(self) -> dict[str, Entry]:
        """SyncHistory by SyncId."""
        return {
            row["SyncId"]: {**dict(row), "AddedColumns": json.loads(row["AddedColumns"] or "[]")}
            | {"UndoneRuns": json.loads(row["UndoneRuns"] or "[]")}
            for row in self._files["backup"].execute("SELECT * FROM SyncHistory ORDER BY StartedAt")
        }

    def write(self, rows: Sequence[Row]) -> None:
        """Into the source; a row of the same key gives way."""
        for row in rows:
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            self._files["source"].execute(f"REPLACE INTO Customers ({names}) VALUES ({marks})", list(row.values()))

    def delete(self, keys: Sequence[Key]) -> None:
        condition = " AND ".join(f"{name} = ?" for name in self.keys.columns)
        for key in keys:
            self._files["source"].execute(f"DELETE FROM Customers WHERE {condition}", key)

    def add_column(self, name: str, default: str | None) -> None:
        self._types[name] = "VARCHAR(10)" if default is None else f"VARCHAR(10) DEFAULT '{default}'"
        self._files["source"].execute(f"ALTER TABLE Customers ADD COLUMN {name} {self._types[name]}")

    def drop_column(self, name: str) -> None:
        del self._types[name]
        self._files["source"].execute(f"ALTER TABLE Customers DROP COLUMN {name}")

    def widen(self, size: int) -> None:
        """Gives the column Name more room."""
        self._types["Name"] = f"VARCHAR({size})"
        self._make("Wider")
        names = ", ".join((*self.keys.columns, *self._types))
        source = self._files["source"]
        source.execute(f"INSERT INTO Wider ({names}) SELECT {names} FROM Customers")
        source.execute("DROP TABLE Customers")
        source.execute("ALTER TABLE Wider RENAME TO Customers")

    def _make(self, table: str) -> None:
        keyed = [f"{name} {kind} NOT NULL" for name, kind in self.keys.columns.items()]
        others = [f"{name} {kind}" for name, kind in self._types.items()]
        self._files["source"].execute(
            f"CREATE TABLE {table} ({', '.join((*keyed, *others))}, PRIMARY KEY ({', '.join(self.keys.columns)}))"
        )
