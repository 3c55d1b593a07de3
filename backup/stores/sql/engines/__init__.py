"""What differs between SQL servers, a package each; everything else about SQL stands once in `stores.sql`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from sqlalchemy.engine import URL

from backup.core.errors import ConfigError
from backup.core.suggestions import subject
from backup.stores.connection import ENGINES, Cosmos, SqlServer, parse_connection
from backup.stores.sql.engines.base import Dialect
from backup.stores.sql.engines.opening import CALL_SECONDS, CONNECTIONS, DialectOptions

__all__ = ["Dialect", "open_dialect"]


def open_dialect(
    connection_string: str,
    setting: str,
    *,
    default_database: str | None = None,
    connections: int = CONNECTIONS,
    call_seconds: float = CALL_SECONDS,
    read_only_by_default: bool = False,
) -> Dialect:
    """The dialect of a SQL connection string. Imports its driver only now.

    `default_database` replaces `master` in a SQL Server string. At most `connections` are open at once; a thread that
    needs another one waits. A statement ends after `call_seconds` where the server supports that. Only a transaction
    that writes opens a file that is `read_only_by_default` for writing. Raises ConfigError for a connection string that
    is not SQL.
    """
    where = parse_connection(connection_string, setting)
    if isinstance(where, Cosmos):
        raise ConfigError(f"{subject(setting)} names a Cosmos DB account where a SQL database is needed.")
    engine = "mssql" if isinstance(where, SqlServer) else where.get_backend_name()
    opened: Callable[[SqlServer | URL, DialectOptions], Dialect] = import_module(f"{ENGINES[engine]}.dialect").opened
    return opened(where, DialectOptions(setting, default_database, connections, call_seconds, read_only_by_default))
