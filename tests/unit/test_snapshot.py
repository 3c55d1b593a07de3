"""A snapshot that one connection holds: how SQL Server begins it, and how its end is noticed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.mssql.pyodbc import dialect as mssql_dialect

from backup.core.errors import ConfigError
from backup.core.model import utc_now
from backup.stores.sql.engines.mssql.snapshot import begin_under_snapshot
from backup.stores.sql.engines.postgresql import snapshot as postgresql
from backup.stores.sql.engines.snapshot import OneConnection, SnapshotLost, SnapshotReads
from backup.stores.sql.engines.tables import TableName

AT = datetime(2026, 11, 30, 1, 2, 3, 456)  # noqa: DTZ001 - as the driver gives it
TABLES = [TableName("dbo", "Hidden"), TableName("dbo", "odd]name"), TableName("dbo", "Third")]


class SqlServer:
    """Stands for an engine and its connection: keeps what it is asked in T-SQL, and answers as a server would."""

    def __init__(self, state: int | None = 1) -> None:
        self.state, self.transaction = state, 7
        self.asked: list[str] = []
        self.marked: dict[str, int] = {}
        self.closed = 0
        self.begun = 0
        self.is_out_of_date = False

    def connect(self) -> SqlServer:
        return self

    def begin(self) -> SqlServer:
        self.begun += 1
        return self

    def __enter__(self) -> SqlServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append("-- the end of a transaction")

    def execution_options(self, isolation_level: str) -> None:
        self.asked.append(f"-- {isolation_level}")

    def scalar(self, statement: Any) -> int | None:
        self.asked.append(spelled(statement))
        if self.state is None:
            raise sa.exc.ProgrammingError("", {}, Exception("no such view"))
        return self.state

    def execute(self, statement: Any, names: Any = None) -> Any:
        self.asked.append(spelled(statement))
        if "sp_getapplock" in self.asked[-1]:
            self.marked[names["name"]] = self.transaction
        if "APPLOCK_MODE" in self.asked[-1]:
            return Rows([int(self.marked[names["name"]] == self.transaction)])
        if "is_external" in self.asked[-1]:
            return [("dbo", "Third"), ("dbo", "of another set")]
        if "Hidden" in self.asked[-1]:
            raise sa.exc.ProgrammingError("", {}, Exception("denied"), connection_invalidated=self.is_out_of_date)
        return Rows([AT])

    def close(self) -> None:
        self.closed += 1


class Rows(list[Any]):
    def scalar_one(self) -> Any:
        [row] = self
        return row

    def all(self) -> Any:
        return self


def spelled(statement: Any) -> str:
    return " ".join(str(statement.compile(dialect=mssql_dialect())).split())  # type: ignore[no-untyped-call]


def begun(server: Any) -> OneConnection:
    return begin_under_snapshot(server, TABLES, lambda _: lambda: None, "db.example.net/Shop")


def test_sql_server_reads_data_under_snapshot_before_anybody_else_does() -> None:
    server = SqlServer()
    snapshot = begun(server)
    assert [*snapshot.unreadable] == TABLES[2:]
    assert snapshot.at == AT.replace(tzinfo=UTC)
    assert server.asked == [
        "SELECT snapshot_isolation_state FROM sys.databases WHERE database_id = DB_ID()",
        "SELECT CAST(s.name AS nvarchar(128)), CAST(t.name AS nvarchar(128)) FROM sys.tables t"
        " JOIN sys.schemas s ON s.schema_id = t.schema_id WHERE t.is_external = 1",
        "-- the end of a transaction",
        "-- SNAPSHOT",
        "SELECT TOP __[POSTCOMPILE_param_1] 1 FROM dbo.[Hidden]",
        "SELECT TOP __[POSTCOMPILE_param_1] 1 FROM dbo.[odd]]name]",
        "EXEC sp_getapplock @Resource = :name, @LockMode = 'Shared', @LockOwner = 'Transaction', @LockTimeout = 0",
        "SELECT SYSUTCDATETIME()",
    ]
    snapshot.close()
    assert server.closed == 1


def test_a_session_that_may_be_the_reason_of_a_refusal_begins_no_snapshot() -> None:
    server = SqlServer()
    server.is_out_of_date = True
    with pytest.raises(sa.exc.ProgrammingError):
        begun(server)
    assert server.closed == 1


@pytest.mark.parametrize("state", [0, 2, 3, None])
def test_a_database_that_does_not_allow_it_is_refused_with_the_statement_that_would(state: int | None) -> None:
    server = SqlServer(state)
    with pytest.raises(ConfigError, match="does not allow SNAPSHOT isolation") as refused:
        begun(server)
    assert "ALTER DATABASE [Shop] SET ALLOW_SNAPSHOT_ISOLATION ON" in str(refused.value.hint)
    assert (server.closed, server.begun) == (1, 1)


def test_an_error_that_ended_the_transaction_loses_the_snapshot_and_another_one_does_not() -> None:
    server: Any = SqlServer()
    snapshot, engine = begun(server), server
    with pytest.raises(ValueError, match="of a row"), snapshot.turn(), snapshot.reading(engine):
        raise ValueError("of a row")
    reads = SnapshotReads(snapshot)
    assert (reads.current, reads.read_as_of) == (snapshot, snapshot.at)
    server.transaction = 8
    with pytest.raises(ValueError, match="rolled back"), snapshot.turn(), snapshot.reading(engine):
        raise ValueError("it was rolled back")
    assert (reads.current, reads.read_as_of, reads.outside) == (None, None, "it was rolled back.")
    assert SnapshotReads(snapshot).read_as_of == snapshot.at  # which has read nothing so far
    with pytest.raises(SnapshotLost), snapshot.reading(engine):
        pass


def test_a_connection_that_does_not_answer_any_more_loses_the_snapshot() -> None:
    def lost(_: sa.Connection) -> bool:
        raise sa.exc.OperationalError("", {}, Exception("the connection is gone"))

    server: Any = SqlServer()
    snapshot = OneConnection(server, lambda: None, utc_now(), lost)
    with pytest.raises(ValueError, match="first"), snapshot.reading(server):
        raise ValueError("first")
    assert snapshot.lost == "the connection is gone."


def test_postgresql_uses_the_connection_that_holds_a_snapshot_and_notices_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Holder:
        used = closed = 0

        def exec_driver_sql(self, _: str) -> None:
            self.used += 1
            if self.used == 3:
                raise sa.exc.OperationalError("", {}, Exception("terminating connection"))

        def close(self) -> None:
            self.closed += 1

    monkeypatch.setattr(postgresql, "_BEAT_SECONDS", 0.001)
    holder: Any = Holder()
    held = postgresql.ExportedSnapshot(holder, lambda: None, utc_now(), "0-1")
    held._thread.join(30)
    assert (holder.used, held.lost) == (3, "terminating connection.")
    with pytest.raises(SnapshotLost), held.reading(holder):
        pass
    held.close()
    assert holder.closed == 1
