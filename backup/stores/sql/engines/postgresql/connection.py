"""Connections to PostgreSQL: how the server is verified, which login, and the session's settings."""

from __future__ import annotations

import gc
import ssl
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from backup.stores.secure import logs_in_with_token
from backup.stores.sql.engines import base
from backup.stores.sql.engines.postgresql.values import settle_values
from backup.stores.sql.engines.prepared import LARGE

_TOKEN_SCOPE = "https://ossrdbms-aad.database.windows.net/.default"  # noqa: S105 - a scope, not a token
_ROOTS = (  # of Debian, Red Hat, Alpine and macOS
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
# Both sides must spell values alike, no lock is waited for without an end, and rows that a policy hides are an error,
# whatever a role's defaults are.
_CHECKS_CLIENTS = 140_000
_SETTINGS = (
    "SET DateStyle TO 'ISO, YMD'",
    "SET IntervalStyle TO 'postgres'",
    "SET TimeZone TO 'UTC'",
    "SET extra_float_digits TO 1",
    "SET bytea_output TO 'hex'",
    "SET lc_monetary TO 'C'",
    "SET row_security TO off",
    # A process that was stopped must not hold for long what its successor waits for.
    "SET idle_in_transaction_session_timeout TO '60s'",
)


def ways(url: URL, call_seconds: float) -> dict[str, Any]:
    """How to connect, as far as the URL does not say so: what makes a dead network end a call."""
    options = {
        "connect_timeout": max(2, min(30, ceil(call_seconds))),  # less than two seconds are none to the driver
        "application_name": "backup",
        "client_encoding": "UTF8",  # whatever the database is kept in: nothing is left to a role or a client
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": ceil(min(60, call_seconds)) * 1000,
    }
    return {name: value for name, value in options.items() if name not in url.query or name == "client_encoding"}


def listen(engine: sa.Engine, url: URL, call_seconds: float) -> None:
    """Has each of the engine's connections verified and logged in as the URL asks, and settled."""
    sa.event.listen(engine, "connect", partial(_settle_session, call_seconds))
    sa.event.listen(engine, "connect", settle_values)
    sa.event.listen(engine, "checkin", _let_go_if_large)
    if url.query.get("sslmode") == "verify-full":
        sa.event.listen(engine, "do_connect", _verify)
    if logs_in_with_token(url):
        sa.event.listen(engine, "do_connect", _log_in_with_token)


def _let_go_if_large(_connection: Any, record: Any) -> None:
    """Closes a connection through which a large record went: libpq keeps its buffers as large as they ever were. And
    the driver's cursors hold what they read until the cycles that they are part of are found."""
    if record.info.pop(LARGE, False):
        record.invalidate()
        gc.collect()


def _settle_session(call_seconds: float, connection: Any, _record: Any) -> None:
    if connection.info.server_version >= _CHECKS_CLIENTS:
        # So that a statement ends on the server, too, once it was cut here. Not every system can.
        try:
            connection.execute("SET client_connection_check_interval TO '10s'")
        except Exception:
            connection.rollback()
    with connection.cursor() as cursor:
        ends = {"statement_timeout": ceil(call_seconds * 1000), "lock_timeout": base.LOCK_SECONDS * 1000}
        for statement in (*_SETTINGS, *(f"SET {name} TO '{milliseconds}ms'" for name, milliseconds in ends.items())):
            cursor.execute(statement)
    connection.commit()


def _verify(dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
    # Kerberos would be taken before TLS, and nothing verified then.
    parameters.setdefault("gssencmode", "disable")
    defaults = {option.keyword: option.val for option in dialect.dbapi.pq.Conninfo.get_defaults()}
    if not defaults.get(b"sslrootcert") and not Path("~/.postgresql/root.crt").expanduser().exists():
        parameters.setdefault("sslrootcert", _root_certificates())


def _root_certificates() -> str:
    """The file of the system's root certificates, else those that came with Python's packages. libpq's own word for
    them, `system`, is not known to old ones, and means a folder that is not there to those that psycopg brings."""
    for path in (ssl.get_default_verify_paths().cafile, *_ROOTS):
        if path and Path(path).is_file():
            return path
    import certifi

    return certifi.where()


def _log_in_with_token(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
    from backup.stores.identity import credential

    parameters["password"] = credential().get_token(_TOKEN_SCOPE).token
