"""A snapshot of SQL Server: one connection with one transaction under SNAPSHOT isolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import uuid4

import sqlalchemy as sa

from backup.core.errors import ConfigError
from backup.stores.calls import end_this_with
from backup.stores.sql.engines.snapshot import OneConnection
from backup.stores.sql.engines.tables import TableName, whole_schema

ALLOWED = sa.text("SELECT snapshot_isolation_state FROM sys.databases WHERE database_id = DB_ID()")
# Another server has their rows.
_EXTERNAL = sa.text(
    """
    SELECT CAST(s.name AS nvarchar(128)), CAST(t.name AS nvarchar(128))
    FROM sys.tables t JOIN sys.schemas s ON s.schema_id = t.schema_id WHERE t.is_external = 1
    """
)
_NOW = sa.text("SELECT SYSUTCDATETIME()")
# The transaction's own mark, by a name that nobody else has. Not every server that speaks T-SQL numbers transactions.
_MARK = sa.text(
    "EXEC sp_getapplock @Resource = :name, @LockMode = 'Shared', @LockOwner = 'Transaction', @LockTimeout = 0"
)
_HAS_MARK = sa.text("SELECT CASE APPLOCK_MODE('public', :name, 'Transaction') WHEN 'NoLock' THEN 0 ELSE 1 END")
_ON = 1  # else it is off, or being switched on or off


def begin_under_snapshot(
    engine: sa.Engine,
    tables: Sequence[TableName],
    cut: Callable[[sa.Connection], Callable[[], None]],
    location: str,
) -> OneConnection:
    """Begins a snapshot of the database at `location`, which lasts as long as its transaction. Raises ConfigError where
    the database does not allow it, and the driver's errors; then nothing is held."""
    cx = engine.connect()
    try:
        end_this_with(cut(cx))
        with cx.begin():
            is_allowed = _state(cx) == _ON
            external = {TableName(*row) for row in cx.execute(_EXTERNAL)} if is_allowed else set()
        if not is_allowed:
            name = location.rpartition("/")[2].replace("]", "]]")
            raise ConfigError(
                f"consistent is true, and the source's database {location} does not allow SNAPSHOT isolation, so its "
                "tables cannot be read as of one moment. Nothing was read.",
                hint=f"ALTER DATABASE [{name}] SET ALLOW_SNAPSHOT_ISOLATION ON, which needs ALTER on the database and "
                "waits for open transactions. Or remove consistent from backup.toml.",
            )
        cx.execution_options(isolation_level="SNAPSHOT")
        cx.begin()
        _fix(cx, tables)
        mark = {"name": f"backup-{uuid4()}"}
        cx.execute(_MARK, mark)
        at: datetime = cx.execute(_NOW).scalar_one()
        snapshot = OneConnection(
            cx, cut(cx), at.replace(tzinfo=UTC), lambda own_cx: bool(own_cx.execute(_HAS_MARK, mark).scalar_one())
        )
    except BaseException:
        cx.close()
        raise
    snapshot.unreadable = {table: "it is an external table." for table in tables if table in external}
    return snapshot


def _state(cx: sa.Connection) -> int | None:
    try:
        state: int | None = cx.scalar(ALLOWED)
    except sa.exc.ProgrammingError as error:
        if error.connection_invalidated:
            raise
        return None  # a server without this view has no snapshots either
    return state


def anchor(table: TableName) -> sa.Select[tuple[int]]:
    """Reads one row of the table, or none."""
    return (
        sa.select(sa.literal_column("1")).select_from(sa.table(table.name, schema=whole_schema(table.schema))).limit(1)
    )


def _fix(cx: sa.Connection, tables: Sequence[TableName]) -> None:
    """Fixes the moment: the transaction sees what is committed when it first reads data, which a catalogue is not."""
    for table in tables:
        try:
            cx.execute(anchor(table)).all()
        except sa.exc.ProgrammingError as error:
            if error.connection_invalidated:  # the session may be the reason; another one will tell
                raise
        else:  # else this login may not read it, and its own run says so
            return
