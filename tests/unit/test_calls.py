"""Calls that have an end, whatever becomes of their answers."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from backup.core.errors import SourceMissing, StoreUnavailable, TransientStoreError
from backup.core.retry import Retry
from backup.stores import left_calls
from backup.stores.calls import CallEnded, TimedCall
from backup.stores.left_calls import LeavableCalls, left_in_time
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.engines.mssql.leavable import LeavableConnection
from backup.stores.sql.engines.opening import CONNECTIONS
from backup.stores.sql.engines.sqlite.connection import SqliteFile
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect
from backup.stores.sql.engines.sqlite.engines import SqliteEngines

DEADLINE_SECONDS = 30


@pytest.fixture(autouse=True)
def own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread is left behind by an earlier test."""
    monkeypatch.setattr(left_calls, "_threads", left_calls._Threads())


def test_a_call_is_cut_when_its_time_is_up() -> None:
    answer = threading.Event()

    def wait() -> None:
        with TimedCall(0.01) as call:
            call.end_with(answer.set)
            assert answer.wait(DEADLINE_SECONDS), "it was not cut"
            raise ConnectionError("the driver's own word for it")

    with pytest.raises(CallEnded):
        wait()


def test_a_call_that_ends_in_time_gives_its_answer_and_its_own_error() -> None:
    def fail(call: TimedCall) -> None:
        raise LookupError

    assert left_in_time(DEADLINE_SECONDS, lambda call: 7) == 7
    with pytest.raises(LookupError):
        left_in_time(DEADLINE_SECONDS, fail)
    with pytest.raises(LookupError), TimedCall(DEADLINE_SECONDS) as call:
        fail(call)
    calls = LeavableCalls(lambda: None)
    assert calls.make(lambda: 7) == 7
    with pytest.raises(LookupError):
        calls.make(lambda: fail(call))


def test_threads_are_left_behind_up_to_a_number_and_do_no_more_when_they_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(left_calls, "LEFT_BEHIND_AT_MOST", 2)
    answer, done, came_back = threading.Event(), [], threading.Semaphore(0)

    def wait(call: TimedCall) -> None:
        answer.wait(DEADLINE_SECONDS)
        try:
            call.check()
            done.append("committed")
        finally:
            came_back.release()

    for _ in range(2):
        with pytest.raises(CallEnded):
            left_in_time(0.01, wait)
    with pytest.raises(StoreUnavailable):
        left_in_time(0.01, wait)
    answer.set()
    assert came_back.acquire(timeout=DEADLINE_SECONDS)
    assert came_back.acquire(timeout=DEADLINE_SECONDS)
    assert done == []


class DeafEngines(SqliteEngines):
    def __init__(self, path: Path, connections: int, answer: threading.Event) -> None:
        super().__init__(SqliteFile(URL.create("sqlite", database=str(path))), connections, read_only=False)
        self.answer, self.closed = answer, threading.Semaphore(0)

    def _opener(self, mode: Literal["ro", "rw", "rwc"]) -> Any:
        connect, answer, closed, path = super()._opener(mode), self.answer, self.closed, self.file.path

        class Cursor(sqlite3.Cursor):
            def nextset(self) -> None:
                """There is no second answer."""

        class Connection(sqlite3.Connection):
            identity = None

            def cursor(self, *_: Any) -> Any:
                return super().cursor(Cursor)

            def close(self) -> None:
                self.rollback()  # as other drivers do; else a statement that is not gone yet keeps its lock
                super().close()
                closed.release()

        def opened() -> LeavableConnection:
            connect().close()
            driver = sqlite3.connect(path, check_same_thread=False, factory=Connection)
            driver.create_function("answer", 0, lambda: answer.wait(DEADLINE_SECONDS))
            return LeavableConnection(driver, lambda: sqlite3.ProgrammingError("Cannot operate on a closed database."))

        return opened


class Deaf(SqliteDialect):
    """SQLite by a driver that takes no word while it waits: a statement `answer()` waits for one."""

    def __init__(self, url: URL, answer: threading.Event, connections: int = CONNECTIONS) -> None:
        super().__init__(url, connections)
        self._engines = DeafEngines(self.path, connections, answer)
        self.closed = self._engines.closed

    def cut(self, cx: sa.Connection) -> Callable[[], None]:
        leave: Callable[[], None] = cast("LeavableConnection", cx.connection.driver_connection).leave
        return leave


@pytest.fixture
def deaf(tmp_path: Path) -> tuple[SqlAccess, Deaf, threading.Event]:
    path, answer = tmp_path / "source.db", threading.Event()
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE Things (Id)")
    file.close()
    dialect = Deaf(URL.create("sqlite", database=str(path)), answer)
    return SqlAccess(dialect, Retry(max_attempts=1), SourceMissing, "source", call_seconds=0.1), dialect, answer


def test_a_driver_that_takes_no_word_is_left_and_what_it_had_written_is_undone(
    deaf: tuple[SqlAccess, Deaf, threading.Event],
) -> None:
    access, dialect, answer = deaf

    def written(statement: str) -> None:
        for attempt in access.attempts("write records", writes=True):
            with attempt as cx:
                cx.execute(sa.text("INSERT INTO Things VALUES (1)"))
                cx.execute(sa.text(statement))

    with pytest.raises(TransientStoreError, match=r"no answer within 0\.1 s"):
        written("SELECT answer()")
    answer.set()
    assert dialect.closed.acquire(timeout=DEADLINE_SECONDS), "the answer came, and its connection stays"
    for attempt in access.attempts("count"):
        with attempt as cx:
            rows = cx.scalar(sa.text("SELECT COUNT(*) FROM Things"))
    assert rows == 0
    written("SELECT answer()")  # answers in time, and so it is committed
    for attempt in access.attempts("count"):
        with attempt as cx:
            rows = cx.scalar(sa.text("SELECT COUNT(*) FROM Things"))
    assert rows == 1
    access.close()


def test_whoever_waits_for_a_connection_waits_no_longer_than_its_call_may_take(
    deaf: tuple[SqlAccess, Deaf, threading.Event],
) -> None:
    _, given, _ = deaf
    dialect = Deaf(URL.create("sqlite", database=given.location), threading.Event(), connections=1)
    access = SqlAccess(dialect, Retry(max_attempts=1), SourceMissing, "source", call_seconds=0.1)
    with dialect.reading(), pytest.raises(TransientStoreError, match=r"no answer within 0\.1 s"), access.once("count"):
        pytest.fail("there is no second connection")
    access.close()


def test_a_connection_that_was_left_makes_no_more_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_calls, "LEFT_BEHIND_AT_MOST", 1)
    answer, asked, made, ended = threading.Event(), threading.Event(), [], threading.Semaphore(0)

    def ask() -> None:
        asked.set()
        answer.wait(DEADLINE_SECONDS)

    connection = LeavableCalls(ended.release)

    def leave() -> None:
        if asked.wait(DEADLINE_SECONDS):
            connection.leave()

    threading.Thread(target=leave).start()
    with pytest.raises(CallEnded):
        connection.make(ask)
    with pytest.raises(CallEnded):
        connection.make(lambda: made.append(1))
    with pytest.raises(StoreUnavailable):
        LeavableCalls(ended.release).make(lambda: made.append(2))
    answer.set()
    assert ended.acquire(timeout=DEADLINE_SECONDS)
    assert made == []


def test_what_can_be_cut_only_later_is_cut_as_soon_as_it_can() -> None:
    call, cuts = TimedCall(60), list[str]()
    call.cut()
    assert call.was_cut
    call.end_with(lambda: cuts.append("cut"))
    assert cuts == ["cut"]
    with pytest.raises(CallEnded):
        call.check()
