"""What is sent over a session of SQL Server from its first statement on: by the engine, its pool and its listeners, as
they are. Needs no server: the driver's connections record what they are asked, and answer what is scripted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from backup.stores import Limits, Rules
from backup.stores.pools import close_idle
from backup.stores.sides import Side, open_store
from backup.stores.sql.store import SqlStore

NOW = datetime(2026, 3, 1, 12)  # noqa: DTZ001 - as the driver gives it
ANSWERS: list[tuple[str, Any]] = [
    (r"SERVERPROPERTY\('ProductVersion'\)", "16.0.4100.1"),
    (r"schema_name\(\)", "dbo"),
    (r"^SELECT 1$", 1),
    (r"sysutcdatetime\(\)", NOW),
    (r"FROM sys\.databases", (1, False)),
    (r"count_big\(\*\)", 3),
    (r"fn_listextendedproperty|max support", "x"),
    (r"^(SET|INSERT)", None),
]


class Session:
    """A connection of the driver."""

    autocommit = False

    def __init__(self, asked: list[str]) -> None:
        self.asked = asked

    def execute(self, statement: str) -> Cursor:
        return self.cursor().execute(statement)

    def cursor(self) -> Cursor:
        return Cursor(self.asked)

    def commit(self) -> None:
        self.asked.append("COMMIT")

    def rollback(self) -> None:
        self.asked.append("ROLLBACK")

    def close(self) -> None:
        self.asked.append("closed")

    def setdecoding(self, *_: Any, **__: Any) -> None: ...

    def add_output_converter(self, *_: Any) -> None: ...


class Cursor:
    """A cursor of the driver. It refuses a statement for which there is no answer."""

    fast_executemany, rowcount, description, messages = False, -1, None, ()

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked
        self._rows: list[Any] = []

    def setinputsizes(self, sizes: Any) -> None: ...

    def execute(self, statement: str, *_: Any) -> Cursor:
        text = " ".join(statement.split())
        self._asked.append(text)
        answers = [answer for pattern, answer in ANSWERS if re.search(pattern, text, re.I)]
        assert answers, f"nobody expects: {text}"
        self._rows = [] if answers[0] is None else [answers[0] if isinstance(answers[0], tuple) else (answers[0],)]
        self.description = [(f"c{i}", *[None] * 6) for i in range(len(self._rows[0]))] if self._rows else None
        return self

    def executemany(self, statement: str, rows: Any) -> None:
        self.execute(f"{statement} {len(rows)} times, {'as one array' if self.fast_executemany else 'one by one'}")

    def fetchone(self) -> Any:
        return self._rows.pop(0) if self._rows else None

    def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    def fetchmany(self, *_: int) -> list[Any]:
        return self.fetchall()

    def nextset(self) -> bool:
        return False

    def close(self) -> None: ...


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What all sessions were asked, in order."""
    pyodbc = pytest.importorskip("pyodbc", exc_type=ImportError)
    statements: list[str] = []
    monkeypatch.setattr(pyodbc, "connect", lambda *_, **__: Session(statements))
    yield statements
    close_idle()


GREETING = [
    "SET NOCOUNT, NUMERIC_ROUNDABORT OFF; SET LOCK_TIMEOUT 60000",
    "SELECT CAST(SERVERPROPERTY('ProductVersion') AS VARCHAR)",
    "SELECT schema_name()",
    "SELECT CAST('test max support' AS NVARCHAR(max))",
    "SELECT 1 FROM fn_listextendedproperty(default, default, default, default, default, default, default)",
    "ROLLBACK",
    "SELECT snapshot_isolation_state, is_read_committed_snapshot_on FROM sys.databases WHERE database_id = DB_ID()",
    "ROLLBACK",
]
SNAPSHOT, COMMITTED = (f"SET TRANSACTION ISOLATION LEVEL {level}" for level in ("SNAPSHOT", "READ COMMITTED"))


def test_a_session_reads_again_and_again_under_one_level_and_writes_under_that_of_every_new_one(
    asked: list[str],
) -> None:
    side = Side("s", "source", "T", r"Server=x\y;Database=z;UID=u;PWD=p", table="dbo.T")
    store = open_store(side, Rules(), Limits())
    assert isinstance(store, SqlStore)
    store.ping()
    assert asked == [*GREETING, SNAPSHOT, "COMMIT", "SELECT 1", "COMMIT", "ROLLBACK"]
    del asked[:]
    assert store.server_time() == NOW.replace(tzinfo=UTC)
    assert asked == ["SELECT sysutcdatetime() AS sysutcdatetime_1", "COMMIT", "ROLLBACK"]
    del asked[:]
    for _ in range(2):
        with store.access.once("write", writes=True) as cx:
            cx.execute(sa.table("T", sa.column("a")).insert(), [{"a": 1}, {"a": 2}])
    written = ["INSERT INTO [T] (a) VALUES (?) 2 times, as one array", "COMMIT", "ROLLBACK"]
    assert asked == [COMMITTED, *written, *written]
    store.ping()
    assert asked[7:] == [SNAPSHOT, "COMMIT", "SELECT 1", "COMMIT", "ROLLBACK"]
    store.close()
