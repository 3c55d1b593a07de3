"""The connections to one SQL Server database: how they are made, shared, read under SNAPSHOT, and given up."""

from __future__ import annotations

from functools import cached_property, partial
from math import ceil
from typing import Any

import sqlalchemy as sa

from backup.stores.connection import SqlServer
from backup.stores.identity import SQL_SERVER_SCOPE, IdentityLogin
from backup.stores.left_calls import made_in_time
from backup.stores.pools import PoolKey
from backup.stores.sql.engines.failures import missing_driver
from backup.stores.sql.engines.leased import LeasedEngine
from backup.stores.sql.engines.mssql.connection import connect, read_halves
from backup.stores.sql.engines.mssql.errors import failure, is_login_refused, is_session_lost
from backup.stores.sql.engines.mssql.leavable import LeavableConnection
from backup.stores.sql.engines.mssql.parameters import forget_writes, send_many, send_one
from backup.stores.sql.pool import SharedPool

_SNAPSHOTS = sa.text(
    "SELECT snapshot_isolation_state, is_read_committed_snapshot_on FROM sys.databases WHERE database_id = DB_ID()"
)
_WRITING = "READ COMMITTED"
"""The isolation level of a new session, and of all that writes."""

_TRUSTED_SECONDS = 2.0
"""A connection that was used so lately need not be asked whether it is still there. Only a statement can tell."""


class SqlServerEngines:
    """The engines of one database."""

    def __init__(self, where: SqlServer, connections: int, call_seconds: float) -> None:
        self._where, self._call_seconds = where, call_seconds
        self._leased = LeasedEngine(connections)
        self._halves = False

    @property
    def location(self) -> str:
        return f"{self._where.address}/{self._where.database}"

    @cached_property
    def engine(self) -> sa.Engine:
        ways = (sorted(self._where.keywords.items()), self._where.token, self._call_seconds, self._halves)
        return self._leased.get(lambda: PoolKey.of("mssql", self.location, *ways), self._pool)

    def _pool(self) -> SharedPool:
        engine = self._engine(self._where, poolclass=SharedPool)
        _keep_levels(engine.dialect)
        pool = engine.pool
        assert isinstance(pool, SharedPool)  # noqa: S101 - for mypy; the engine was made with it
        pool.over(engine)
        if self._where.token:
            pool.login = IdentityLogin(self._where.keywords.get("UID"), SQL_SERVER_SCOPE)
        pool.is_session_lost, pool.is_login_refused = is_session_lost, is_login_refused
        pool.cut = lambda connection: connection.leave
        pool.is_usable = lambda entry, idle_seconds: idle_seconds < _TRUSTED_SECONDS or _answers(engine, entry)
        return pool

    def close(self) -> None:
        for name in ("engine", "reading", "writing"):
            self.__dict__.pop(name, None)
        self._leased.release()

    def _engine(self, where: SqlServer, **options: Any) -> sa.Engine:
        try:
            import pyodbc  # type: ignore[import-not-found]
        except ImportError as error:
            raise missing_driver(
                "pyodbc", "It needs unixODBC: install Debian's libodbc2 (macOS: brew install unixodbc)."
            ) from error
        made = partial(connect, pyodbc, where, ceil(self._call_seconds), halves=self._halves)
        engine = sa.create_engine(
            "mssql+pyodbc://",
            creator=lambda: LeavableConnection(
                made_in_time(made, lambda driver: driver.close()),
                lambda: pyodbc.OperationalError("08S01", "the connection was given up"),
            ),
            hide_parameters=True,
            use_setinputsizes=False,  # `send_one` and `send_many` set them
            fast_executemany=True,  # so that inserts reach `send_many`, not as statements with thousands of values
            **options,
        )
        # That of every new session. SQLAlchemy asks for it twice, and not every server answers.
        engine.dialect.get_default_isolation_level = lambda _: "READ COMMITTED"  # type: ignore[assignment]
        sa.event.listen(engine, "do_execute", send_one)
        sa.event.listen(engine, "do_executemany", send_many)
        sa.event.listen(engine, "begin", forget_writes)
        return engine

    def of_server(self) -> sa.Engine:
        return self._engine(self._where.with_database("master"), isolation_level="AUTOCOMMIT")

    @cached_property
    def reading(self) -> sa.Engine:
        """Connections under SNAPSHOT, if the database allows it and READ_COMMITTED_SNAPSHOT is off."""
        try:
            with self.engine.connect() as cx:
                states = cx.execute(_SNAPSHOTS).first()
        except sa.exc.DBAPIError as error:
            cause = error.orig if isinstance(error.orig, Exception) else error
            if failure(cause, login=None).kind != "refused":
                raise
            states = None  # a server without this view has no snapshots either
        return self.engine.execution_options(isolation_level="SNAPSHOT") if states == (1, False) else self.engine

    @cached_property
    def writing(self) -> sa.Engine:
        """Connections for what writes, whatever they were used for before."""
        return self.engine.execution_options(isolation_level=_WRITING)

    def read_texts_with(self, connection: Any) -> None:
        """From now on this connection of the driver reads text as others of this database do by now."""
        if self._halves:
            read_halves(connection)

    def read_halves(self) -> None:
        """From now on, connections read text that has halves of surrogate pairs, too."""
        if not self._halves:
            self._halves = True
            self.close()  # connections of another pool read them


def _keep_levels(dialect: sa.Dialect) -> None:
    """A session keeps its isolation level until it is used under another one: who reads again and again under SNAPSHOT
    would else ask for it, and give it up, around each statement."""
    set_level: Any = dialect.set_isolation_level

    def set_if_other(session: Any, level: Any) -> None:
        if session.isolation_level != level:
            session.isolation_level = None  # if the server refuses it, nobody knows
            set_level(session, level)
            session.isolation_level = level

    dialect.set_isolation_level = set_if_other  # type: ignore[assignment,method-assign]
    dialect.reset_isolation_level = lambda _: None  # type: ignore[assignment,method-assign]


def _answers(engine: sa.Engine, entry: Any) -> bool:
    try:
        return bool(engine.dialect.do_ping(entry.dbapi_connection))
    except Exception:  # whatever the driver says of a lost connection
        return False
