"""SQLite's waits for the lock of another program: they end by a signal, by their call's limit, or with the lock."""

import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from backup.core import interrupts
from backup.core.errors import BackupError, Interrupted, TransientStoreError
from backup.core.retry import Retry
from backup.jobs.sqlite_key_values import SqliteKeyValues
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect
from backup.stores.sqlite_waits import WaitingConnection

SOON_SECONDS = 10  # a fraction of how long SQLite would wait
ONE_TRY = Retry(max_attempts=1)


@pytest.fixture(autouse=True)
def unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    other = interrupts._Mark()
    other.to_wake = interrupts._mark.to_wake
    monkeypatch.setattr(interrupts, "_mark", other)
    monkeypatch.setattr(WaitingConnection, "busy_seconds", 60.0)
    monkeypatch.setattr("backup.stores.sql.engines.sqlite.connection._BUSY_SECONDS", 60.0)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "file.db", isolation_level=None, check_same_thread=False)
    connection.executescript("CREATE TABLE t (n); INSERT INTO t VALUES (1)")
    yield connection
    connection.close()


def access_to(folder: Path, call_seconds: float = 60.0) -> SqlAccess:
    dialect = SqliteDialect(sa.make_url(f"sqlite:///{folder}/file.db"))
    return SqlAccess(dialect, ONE_TRY, BackupError, "file", call_seconds)


def read(access: SqlAccess) -> None:
    with access.once("read") as cx:
        cx.exec_driver_sql("SELECT n FROM t").all()


def write(access: SqlAccess) -> None:
    with access.once("write", writes=True) as cx:
        cx.exec_driver_sql("INSERT INTO t VALUES (2)")


WAITS = [
    pytest.param("BEGIN EXCLUSIVE", read, id="read"),
    pytest.param("BEGIN IMMEDIATE", write, id="write"),
    pytest.param("BEGIN; SELECT * FROM t", write, id="commit"),
]


def taken(seconds_at_most: float, work: Callable[[], object]) -> None:
    began = time.monotonic()
    work()
    assert time.monotonic() - began < seconds_at_most


@pytest.mark.parametrize(("lock", "use"), WAITS)
def test_a_signal_ends_the_wait_for_another_program(
    tmp_path: Path, other: sqlite3.Connection, lock: str, use: Callable[[SqlAccess], None]
) -> None:
    for statement in lock.split(";"):
        held = other.execute(statement)
        held.fetchone()
    timer = threading.Timer(0.3, lambda: interrupts.request(signal.SIGTERM))
    timer.start()

    def waits() -> None:
        with pytest.raises(Interrupted):
            use(access_to(tmp_path))

    taken(SOON_SECONDS, waits)
    timer.join()
    other.execute("ROLLBACK")
    assert other.execute("SELECT n FROM t").fetchall() == [(1,)]


@pytest.mark.parametrize(("lock", "use"), WAITS)
def test_the_limit_of_a_call_ends_the_wait(
    tmp_path: Path, other: sqlite3.Connection, lock: str, use: Callable[[SqlAccess], None]
) -> None:
    for statement in lock.split(";"):
        held = other.execute(statement)
        held.fetchone()
    access = access_to(tmp_path, call_seconds=0.3)

    def waits() -> None:
        with pytest.raises(TransientStoreError, match="no answer within"):
            use(access)

    taken(SOON_SECONDS, waits)
    other.execute("ROLLBACK")
    use(access)  # what was cut before does not end this one


@pytest.mark.parametrize(("lock", "use"), WAITS)
def test_a_call_goes_on_once_the_other_program_is_done(
    tmp_path: Path, other: sqlite3.Connection, lock: str, use: Callable[[SqlAccess], None]
) -> None:
    for statement in lock.split(";"):
        held = other.execute(statement)
        held.fetchone()
    timer = threading.Timer(0.5, lambda: other.execute("ROLLBACK"))
    timer.start()
    try:
        use(access_to(tmp_path))
    finally:
        timer.join()


def refused(connection: sqlite3.Connection, statement: str) -> None:
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        connection.execute(statement)


def test_two_that_would_wait_for_each_other_do_not_wait(tmp_path: Path, other: sqlite3.Connection) -> None:
    own = sqlite3.connect(tmp_path / "file.db", factory=WaitingConnection, timeout=0.2, isolation_level=None)
    for connection in (own, other):
        connection.execute("BEGIN")
        connection.execute("SELECT n FROM t").fetchall()
    other.execute("INSERT INTO t VALUES (3)")
    taken(SOON_SECONDS, lambda: refused(own, "INSERT INTO t VALUES (4)"))
    own.close()


def test_a_connection_does_not_wait_for_what_it_reads_itself(tmp_path: Path, other: sqlite3.Connection) -> None:
    other.execute("PRAGMA journal_mode = WAL")
    own = sqlite3.connect(tmp_path / "file.db", factory=WaitingConnection, timeout=0.2, isolation_level=None)
    reading = own.execute("SELECT n FROM t UNION ALL SELECT 1")
    reading.fetchone()
    other.execute("INSERT INTO t VALUES (3)")
    taken(SOON_SECONDS, lambda: refused(own, "BEGIN IMMEDIATE"))
    own.close()


def test_a_new_file_of_jobs_waits_for_another_program_that_writes_it(tmp_path: Path) -> None:
    """Outside a transaction, SQLite says at once that it cannot get a file's only lock."""
    path = tmp_path / "jobs.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.executescript("CREATE TABLE t (n); BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
    timer.start()
    values = SqliteKeyValues(path)
    try:
        assert values.commit([])
    finally:
        timer.join()
        other.close()
        values.close()


def test_a_signal_ends_the_wait_for_the_file_of_jobs(tmp_path: Path) -> None:
    values = SqliteKeyValues(tmp_path / "jobs.db")
    values.commit([])
    other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, lambda: interrupts.request(signal.SIGINT))
    timer.start()

    def waits() -> None:
        with pytest.raises(Interrupted):
            values.commit([])

    taken(SOON_SECONDS, waits)
    timer.join()
    other.close()
    values.close()
