"""What a connection to SQL Server is told, what its errors mean, what tells two databases apart. Needs no server."""

from __future__ import annotations

import sqlite3
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from backup.core.errors import StoreError
from backup.stores.connection import parse_connection
from backup.stores.sql.engines.mssql.connection import connect, text_from
from backup.stores.sql.engines.mssql.dialect import SqlServerDialect
from backup.stores.sql.engines.mssql.engines import _keep_levels
from backup.stores.sql.engines.mssql.leavable import LeavableConnection, LeavableCursor
from backup.stores.sql.engines.postgresql.dialect import PostgresqlDialect
from backup.stores.sql.rows import first_rows
from tests.contract.tsql import dialect, text, unasked_server


def test_rows_that_are_read_one_by_one_are_those_of_the_driver_whatever_reads_the_rest() -> None:
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    numbers = (
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT i, hex(zeroblob(i % 900)) FROM n"
    )
    cursor, plain = LeavableConnection(memory, OSError).cursor(), memory.execute(numbers).fetchall()
    for one_by_one in (0, 1, 2, 3, 100, 1_999, 2_000):
        cursor.execute(numbers)
        first = [cursor.fetchone() for _ in range(one_by_one)]
        assert [*first, *cursor.fetchmany(700), *cursor.fetchmany(3), *cursor.fetchall()] == plain
        assert (cursor.fetchone(), cursor.fetchone()) == (None, None)
        cursor.execute(numbers)
        assert [*(cursor.fetchone() for _ in range(one_by_one)), *cursor.fetchall()] == plain


class Answered:
    """A driver's cursor. Each statement is answered by numbers of rows, rows, and errors, one behind another."""

    fast_executemany, rowcount, description = False, -1, None

    def __init__(self, *answers: int | str | Exception) -> None:
        self.answers, self.left, self.heard_out = answers, [*answers], 0

    def execute(self, *_: Any) -> None:
        self.left = [*self.answers]
        self.nextset()

    def executemany(self, *_: Any) -> None:
        self.execute()

    def nextset(self) -> bool:
        if not self.left:
            self.heard_out, self.rowcount = self.heard_out + 1, -1
            return False
        answer = self.left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.rowcount, self.description = (-1, [answer]) if isinstance(answer, str) else (answer, None)
        return True


@pytest.mark.parametrize("statement", ["INSERT INTO t SELECT 1", "UPDATE t SET a = 1", "DELETE FROM t", "EXEC p"])
def test_a_statement_has_its_own_number_of_rows_and_no_error_behind_what_its_triggers_did_is_lost(
    statement: str,
) -> None:
    """The driver stops at the first answer. But the first one is that of a trigger without NOCOUNT."""
    cursor = LeavableCursor(driver := Answered(300, 2), LeavableConnection(Unasked(), OSError))
    cursor.execute(statement)
    assert (cursor.rowcount, driver.heard_out) == (2, 1)
    cursor.executemany(statement, [(1,), (2,), (3,)])
    assert driver.heard_out == 4
    driver.answers, driver.fast_executemany = (300, "a row that a trigger shows"), True
    cursor.executemany(statement, [(1,), (2,), (3,)])
    assert driver.heard_out == (4 if statement == "EXEC p" else 5)  # of other statements, the rows may be the answer
    for _ in range(2):
        driver.answers, driver.fast_executemany = (300, ValueError("the row is refused")), not driver.fast_executemany
        for refused in (lambda: cursor.execute(statement), lambda: cursor.executemany(statement, [()])):
            with pytest.raises(ValueError, match="the row is refused"):
                refused()


def test_rows_of_a_query_are_left_to_be_fetched() -> None:
    cursor = LeavableCursor(driver := Answered("a row"), LeavableConnection(Unasked(), OSError))
    cursor.execute("SELECT a FROM t")
    assert (cursor.description, driver.heard_out) == (["a row"], 0)


class Unasked:
    """A driver's connection."""

    def close(self) -> None: ...


@pytest.mark.parametrize(("number", "hidden"), [(3903, True), (3902, False)])
def test_a_transaction_that_the_server_has_ended_hides_no_error_of_a_statement(number: int, hidden: bool) -> None:
    class Ended(Unasked):
        def rollback(self) -> None:
            raise sqlite3.OperationalError("25000", f"[25000] [SQL Server]no transaction ({number}) (SQLEndTran)")

    with nullcontext() if hidden else pytest.raises(sqlite3.OperationalError):
        LeavableConnection(Ended(), OSError).rollback()


def test_a_connection_goes_back_to_the_level_of_every_new_session_though_no_server_says_it() -> None:
    """Else SQLAlchemy would have none to go back to after SNAPSHOT, and the connection would be lost to the pool."""
    pytest.importorskip("pyodbc", exc_type=ImportError)
    server = unasked_server()
    level = server.engine.dialect.get_default_isolation_level(None)  # type: ignore[arg-type]
    server.close()
    assert level == "READ COMMITTED"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("[42000] [M][SQL Server]Deadlock victim. (1205) (SQLExecDirectW)", "transient"),
        ("[42000] [M][SQL Server]No room in nvarchar(64). (8152) (SQLExecDirectW)", "refused"),
        ("[42000] [M]One. (3621) (SQLExecute); [42000] [M]Deadlock victim. (1205)", "transient"),
        (
            "[42000] [M][SQL Server]The INSERT permission was denied on the object 'T', database 'd', schema 's'. (229)"
            " (SQLExecDirectW)",
            "denied",
        ),
        ("[HY000] [M][SQL Server]No LOCK resource. (1204) (SQLExecDirectW)", "transient"),
        ("[42000] [M][SQL Server]Marked as victim by tempdb. Retry the transaction. (3966) (SQLFetch)", "transient"),
        ("[42000] [M][SQL Server]Row version not found. tempdb is out of space. (3958) (SQLFetch)", "unavailable"),
        (
            '[42000] [M][SQL Server]Cannot drop database "d" because it is currently in use. (3702) (SQLExecDirectW)',
            "transient",
        ),
        # What a trigger throws may be about the row alone.
        ("[42000] [M][SQL Server]Row 5 does not have permission to go. (50000) (SQLExecDirectW)", "refused"),
    ],
)
def test_the_number_of_an_error_is_not_a_number_in_its_text(message: str, kind: str) -> None:
    failed = unasked_server().failure
    assert failed(Exception("42000", message)).kind == kind


@pytest.mark.parametrize("state", ["08S01", "08001", "HYT00", "40001"])
def test_what_the_driver_itself_says_of_a_connection_has_a_state_and_no_number(state: str) -> None:
    failed = unasked_server().failure
    assert failed(Exception(state, f"[{state}] [M]Communication link failure")).kind == "transient"


def test_a_level_that_a_server_has_refused_is_set_again() -> None:
    asked: list[str] = []

    def set_level(_: Any, level: str) -> None:
        asked.append(level)
        if len(asked) == 1:
            raise OSError

    session = SimpleNamespace(isolation_level="READ COMMITTED")
    dialect = SimpleNamespace(set_isolation_level=set_level)
    _keep_levels(dialect)  # type: ignore[arg-type]
    with pytest.raises(OSError):  # noqa: PT011 - that of `set_level`
        dialect.set_isolation_level(session, "SNAPSHOT")
    for level in ("READ COMMITTED", "READ COMMITTED", "SNAPSHOT"):
        dialect.set_isolation_level(session, level)
    assert asked == ["SNAPSHOT", "READ COMMITTED", "SNAPSHOT"]


@pytest.mark.parametrize("number", [41332, 41368])
def test_a_table_in_memory_that_cannot_be_read_says_which_options_would_allow_it(number: int) -> None:
    failed = unasked_server().failure
    failure = failed(Exception("42000", f"[42000] [M][SQL Server]Memory optimized tables. ({number}) (SQLExecDirectW)"))
    assert (failure.kind, "MEMORY_OPTIMIZED_ELEVATE_TO_SNAPSHOT" in (failure.hint or "")) == ("refused", True)


class Locks:
    """A connection to a server: it holds, or gives, the lock that it is asked for."""

    def __init__(self, held: str, free: int, database: int = 7, replicated: str | None = None) -> None:
        self.asked: list[str] = []
        self.info: dict[str, Any] = {}
        self._held, self._free, self._rest = held, free, (database, replicated)

    def execute(self, statement: Any, names: Any) -> Any:
        self.asked.append(text(statement))
        return SimpleNamespace(one=lambda: (self._held if "MODE" in self.asked[-1] else self._free, *self._rest))


@pytest.mark.parametrize(("free", "own_number", "is_same"), [(0, 7, True), (1, 7, False), (0, 8, False)])
def test_one_database_is_told_by_a_lock_of_the_session_which_needs_no_transaction(
    free: int, own_number: int, is_same: bool
) -> None:
    here, there = Locks("Exclusive", 1), Locks("NoLock", free, own_number)
    database = unasked_server()
    assert database.is_same_database(here, there) is is_same  # type: ignore[arg-type]
    assert here.asked == [
        "EXEC sp_getapplock @Resource = ?, @LockMode = 'Exclusive', @LockOwner = 'Session', @LockTimeout = 0",
        "SELECT APPLOCK_MODE('public', ?, 'Session'), DB_ID(), "
        "(SELECT group_database_id FROM sys.databases WHERE database_id = DB_ID())",
        "EXEC sp_releaseapplock @Resource = ?, @LockOwner = 'Session'",
    ]
    assert database.is_same_database(here, there) is is_same  # type: ignore[arg-type]
    assert len(here.asked) == 3 * (1 + is_same)  # two that were told apart stay apart
    with pytest.raises(StoreError, match="x/y gives no application lock"):
        database.is_same_database(Locks("NoLock", 1), there)  # type: ignore[arg-type]


def test_replicas_of_one_database_are_one_database() -> None:
    def is_same(own: str | None, other: str | None) -> bool:
        here, there = Locks("Exclusive", 1, 7, own), Locks("NoLock", 1, 8, other)
        return unasked_server().is_same_database(here, there)  # type: ignore[arg-type]

    asked = {(own, other): is_same(own, other) for own in ("a", None) for other in ("a", "b", None)}
    assert [pair for pair, same in asked.items() if same] == [("a", "a")]


def test_the_driver_is_told_who_asks_for_a_readable_secondary() -> None:
    asked: list[Any] = []

    class Odbc:
        SQL_CHAR = SQL_WCHAR = SQL_WVARCHAR = SQL_WLONGVARCHAR = 1

        def drivers(self) -> list[str]:
            return ["ODBC Driver 18 for SQL Server"]

        def connect(self, text: str, **_: Any) -> Odbc:
            asked.append(text)
            return self

        def execute(self, statement: str) -> Odbc:
            asked.append(statement)
            return self

        def close(self) -> None: ...

        def setdecoding(self, *_: Any, **__: Any) -> None: ...

        def add_output_converter(self, _: int, converter: Any) -> None:
            asked.append(converter)

    options = "ApplicationIntent=ReadOnly;ConnectRetryCount=3"
    where = parse_connection(rf"Server=x\y;Database=z;UID=u;PWD=a=b,}}c;{options}", "TEST")
    connect(Odbc(), where, 600)  # type: ignore[arg-type]
    sent = set(asked[0].split(";"))
    assert {"ApplicationIntent=ReadOnly", "Encrypt=yes", "PWD={a=b,}}c}", "ConnectRetryCount=0"} <= sent
    assert asked[1:] == ["SET NOCOUNT, NUMERIC_ROUNDABORT OFF; SET LOCK_TIMEOUT 60000"]
    connect(Odbc(), where, 600, halves=True)  # type: ignore[arg-type]
    assert asked[4:] == [text_from] * 3


@pytest.mark.parametrize(
    ("answer", "level"),
    [([(1, 0)], "SNAPSHOT"), ([(1, 1)], None), ([(0, 0)], None), ([(0, 1)], None), ([], None), (None, None)],
)
def test_reads_are_snapshots_where_the_database_allows_them_and_needs_it(
    answer: list[tuple[int, int]] | None, level: str | None
) -> None:
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    with engine.connect() as cx:  # stands in for a server: a catalogue with this answer, or none
        cx.connection.create_function("DB_ID", 0, lambda: 5)
        cx.exec_driver_sql("ATTACH ':memory:' AS sys")
        if answer is not None:
            columns = "database_id, snapshot_isolation_state, is_read_committed_snapshot_on"
            cx.exec_driver_sql(f"CREATE TABLE sys.databases ({columns})")
            for row in answer:
                cx.exec_driver_sql("INSERT INTO sys.databases VALUES (5, ?, ?)", row)
            cx.commit()
    dialect = unasked_server()
    dialect._engines.__dict__["engine"] = engine
    assert dialect._engines.reading.get_execution_options().get("isolation_level") == level
    assert "isolation_level" not in dialect.engine.get_execution_options()  # with which it writes


def test_a_server_that_does_not_answer_is_not_one_that_offers_no_snapshots() -> None:
    def refuse() -> Any:
        raise sqlite3.OperationalError("08001", "no answer")

    dialect = unasked_server()
    dialect._engines.__dict__["engine"] = sa.create_engine("sqlite://", creator=refuse)
    for _ in range(2):
        with pytest.raises(sa.exc.OperationalError):
            _ = dialect._engines.reading


@pytest.mark.parametrize("server", [SqlServerDialect, PostgresqlDialect])
def test_a_servers_time_is_aware_utc_whatever_its_driver_gives(server: Any) -> None:
    read = server.server_clock.fget(None).type.result_processor(dialect(), None)
    time = datetime(2026, 1, 2, 3, tzinfo=UTC)
    for value in (time.replace(tzinfo=None), time.astimezone(timezone(timedelta(hours=2)))):
        assert (read(value), read(value).tzinfo) == (time, UTC)


def test_rows_that_are_fetched_one_by_one_change_threads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    connection = LeavableConnection(memory, OSError)
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, creator=lambda: connection)
    calls: list[object] = []
    call = connection.call

    def noted(work: Any) -> Any:
        calls.append(work)
        return call(work)

    monkeypatch.setattr(connection, "call", noted)
    rows = sa.text("WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 900) SELECT n FROM t")
    with engine.connect() as cx:
        fetched = first_rows(cx, rows.columns(sa.column("n")).subquery().select(), 1 << 20, None)
        before = len(calls)
    assert (fetched.rows, fetched.complete) == ([(n,) for n in range(1, 901)], True)
    assert before < 10
