"""Connections to PostgreSQL: the check of the server, the login, and the session's settings."""

from __future__ import annotations

import gc
import selectors
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from math import ceil
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from backup.core.addresses import is_loopback
from backup.core.errors import ConfigError
from backup.stores.identity import POSTGRESQL_SCOPE, IdentityLogin
from backup.stores.left_calls import made_in_time
from backup.stores.secure import logs_in_with_token
from backup.stores.sql.engines import opening
from backup.stores.sql.engines.postgresql.errors import is_login_refused, is_session_lost
from backup.stores.sql.engines.postgresql.values import set_up_values
from backup.stores.sql.engines.prepared import LARGE
from backup.stores.sql.pool import SharedPool

_ROOTS = (  # of Debian, Red Hat, Alpine and macOS
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
_OLDEST = 12  # the first version with generated columns, of which the catalogue is asked
_CHECKS_CLIENTS = 140_000  # the first version that can notice a lost client
# Whatever a role's defaults are: both sides spell values alike, and rows that a policy hides are an error.
_SETTINGS = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmloption": "content",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    "row_security": "off",
    # A process that was stopped must not hold locks for long: its successor waits for them.
    "idle_in_transaction_session_timeout": "60s",
}


def connect_options(url: URL, call_seconds: float) -> dict[str, Any]:
    """The driver's options to connect, except those that the URL sets. They end calls when the network is dead."""
    options = {
        "connect_timeout": max(2, min(30, ceil(call_seconds))),  # the driver takes less than two seconds as no limit
        "application_name": "backup",
        "client_encoding": "UTF8",  # whatever the encoding of the database and the defaults of a role or client
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": ceil(min(60, call_seconds)) * 1000,
    }
    given = {name: value for name, value in options.items() if name not in url.query or name == "client_encoding"}
    # Never a prepared statement: a connection outlives a run, and its plan the columns that somebody alters between.
    return {**given, "prepare_threshold": None}


def listen(engine: sa.Engine, url: URL, call_seconds: float) -> None:
    """Makes each connection of the engine verify the server and log in as the URL says, and sets its session up.
    Connecting raises ConfigError where the server is too old."""
    sa.event.listen(engine, "connect", partial(_set_up_session, call_seconds))
    sa.event.listen(engine, "connect", set_up_values)
    sa.event.listen(engine, "connect", _set_up_cursors)
    sa.event.listen(engine, "checkin", _close_if_large)
    sa.event.listen(engine, "do_connect", partial(_connect, url))


def pool_of(engine: sa.Engine, url: URL) -> SharedPool:
    """The engine's pool, ready to be shared."""
    pool = engine.pool
    assert isinstance(pool, SharedPool)  # noqa: S101 - for mypy; the engine was made with it
    pool.over(engine)
    pool.is_usable, pool.is_session_lost, pool.cut = _is_usable, is_session_lost, cut
    pool.is_login_refused = is_login_refused
    if logs_in_with_token(url):
        pool.login = IdentityLogin(None, POSTGRESQL_SCOPE)
    return pool


def cut(connection: Any) -> Callable[[], None]:
    """What ends a wait for the server on the driver's connection: for any thread."""

    def shut() -> None:
        # The thread that waits on the connection finds it broken. A server that hangs allows no other way.
        with suppress(Exception), socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as ended:
            ended.shutdown(socket.SHUT_RDWR)

    return shut


def _is_usable(entry: Any, _idle_seconds: float) -> bool:
    """Whether the server has nothing to say on an idle connection. It speaks unasked only to end it, or to warn."""
    connection = entry.dbapi_connection
    if connection.closed or connection.broken:
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return not selector.select(0)


def _close_if_large(_connection: Any, record: Any) -> None:
    """Closes a connection that has carried a large record: libpq never makes its buffers smaller. And the driver's
    cursors keep what they read until the garbage collector breaks their cycles."""
    if record.info.pop(LARGE, False):
        record.invalidate()
        gc.collect()


def _set_up_session(call_seconds: float, connection: Any, _record: Any) -> None:
    if 0 < (version := connection.info.server_version // 10_000) < _OLDEST:  # 0: a proxy has not said
        raise ConfigError(
            f"The server {connection.info.host}:{connection.info.port} has PostgreSQL {version}. Versions before "
            f"{_OLDEST} are not supported. Nothing was read or written.",
            hint="Upgrade the server.",
        )
    settings = {
        **_SETTINGS,
        "lock_timeout": f"{opening.LOCK_SECONDS}s",
        "statement_timeout": f"{ceil(call_seconds * 1000)}ms",
    }
    autocommit, connection.autocommit = connection.autocommit, True  # so that each of these is one statement
    try:
        if connection.info.server_version < _CHECKS_CLIENTS:
            _set(connection, settings)
            return
        try:
            # Ends a statement on the server too, after its connection was cut here. Not every system can.
            _set(connection, {**settings, "client_connection_check_interval": "10s"})
        except connection.Error:
            _set(connection, settings)
    finally:
        connection.autocommit = autocommit


def _set_up_cursors(connection: Any, _record: Any) -> None:
    connection.server_cursor_factory = _server_cursor()


@cache
def _server_cursor() -> type:
    from psycopg import Error, ServerCursor

    class EndingCursor(ServerCursor[Any]):
        """A cursor on the server that is closed also where its session was lost."""

        def close(self) -> None:
            read = self.pgresult
            try:
                super().close()
            except Error:
                super().close()  # it knows by now that there is no server to ask
            if read is not None:
                read.clear()  # the cursor lives on in a cycle, and with it all that the server sent last

    return EndingCursor


def _set(connection: Any, settings: Mapping[str, str]) -> None:
    calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
    connection.execute(f"SELECT {calls}", [text for setting in settings.items() for text in setting])


def _connect(url: URL, dialect: Any, _record: Any, args: Any, parameters: dict[str, Any]) -> Any:
    def connect() -> Any:
        if "sslmode" not in url.query and _is_led_away(url, dialect):
            parameters["sslmode"] = "verify-full"
        if "verify-full" in (url.query.get("sslmode"), parameters.get("sslmode")):
            _verify(dialect, parameters)
        if logs_in_with_token(url):
            _log_in_with_token(parameters)
        return dialect.connect(*args, **parameters)

    return made_in_time(connect, lambda connection: connection.close())


def _is_led_away(url: URL, dialect: Any) -> bool:
    """Whether the environment or a service file has libpq connect to another machine than the URL names."""
    defaults = {option.keyword: option.val for option in dialect.dbapi.pq.Conninfo.get_defaults()}
    addresses = (defaults.get(b"hostaddr") or b"").decode() if "hostaddr" not in url.query else ""
    return not all(is_loopback(address.strip()) for address in addresses.split(",") if address.strip())


def _verify(dialect: Any, parameters: dict[str, Any]) -> None:
    # With Kerberos the driver would use no TLS and verify nothing.
    parameters.setdefault("gssencmode", "disable")
    defaults = {option.keyword: option.val for option in dialect.dbapi.pq.Conninfo.get_defaults()}
    if not defaults.get(b"sslrootcert") and not Path("~/.postgresql/root.crt").expanduser().exists():
        parameters.setdefault("sslrootcert", _root_certificates())


def _root_certificates() -> str:
    """The file of the system's root certificates, else that of the package certifi. Not libpq's option `system`: old
    versions do not know it, and psycopg's own libpq looks in a folder that does not exist."""
    for path in (ssl.get_default_verify_paths().cafile, *_ROOTS):
        if path and Path(path).is_file():
            return path
    import certifi

    return certifi.where()


def _log_in_with_token(parameters: dict[str, Any]) -> None:
    from backup.stores.identity import credential

    parameters["password"] = credential().get_token(POSTGRESQL_SCOPE).token
