"""What differs between SQL servers, a package each; everything else about SQL stands once in `stores.sql`."""

from __future__ import annotations

from backup.core.errors import ConfigError
from backup.stores.connection import Cosmos, SqlServer, parse_connection
from backup.stores.sql.engines.base import CALL_SECONDS, CONNECTIONS, Dialect

__all__ = ["Dialect", "open_dialect"]


def open_dialect(
    connection_string: str,
    setting: str,
    *,
    default_database: str | None = None,
    connections: int = CONNECTIONS,
    call_seconds: float = CALL_SECONDS,
    left_as_it_is: bool = False,
) -> Dialect:
    """The dialect of a SQL connection string; its driver is imported here, not before.

    `default_database` replaces `master` in a SQL Server string. At most so many `connections` are open at once; who
    asks for more waits. A statement ends after `call_seconds` where the server sees to that. A file that is
    `left_as_it_is` is opened for writing only by a transaction that writes. Raises ConfigError for anything that is not
    SQL.
    """
    where = parse_connection(connection_string, setting)
    if isinstance(where, SqlServer):
        from backup.stores.sql.engines.mssql.dialect import SqlServerDialect

        if where.database.lower() == "master":
            if not default_database:
                raise ConfigError(f"Setting {setting} names the database master.", hint="Name the database itself.")
            where = where.with_database(default_database)
        return SqlServerDialect(where, connections, call_seconds)
    if isinstance(where, Cosmos):
        raise ConfigError(f"Setting {setting} names a Cosmos DB account where a SQL database is needed.")
    if where.get_backend_name() == "sqlite":
        from backup.stores.sql.engines.sqlite.dialect import SqliteDialect

        return SqliteDialect(where, connections, left_as_it_is=left_as_it_is)
    from backup.stores.sql.engines.postgresql.dialect import PostgresqlDialect

    return PostgresqlDialect(where, connections, call_seconds)
