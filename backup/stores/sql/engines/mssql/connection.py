"""Connections to SQL Server: the ODBC driver, the login, and the session's settings."""

from __future__ import annotations

import re
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from backup.core.errors import ConfigError
from backup.stores.connection import SqlServer
from backup.stores.sql.engines import opening

_LOGIN_TIMEOUT_SECONDS = 15  # as in ADO.NET; the driver waits that long even when the connection is refused at once
_ACCESS_TOKEN_ATTRIBUTE = 1256  # SQL_COPT_SS_ACCESS_TOKEN in msodbcsql.h
_LOOK_SECONDS = 5
_WIDE = (-8, -9, -10)  # SQL_WCHAR, SQL_WVARCHAR and SQL_WLONGVARCHAR in sqlucode.h


def connect(pyodbc: Any, where: SqlServer, call_seconds: int, *, halves: bool = False) -> Any:
    """A new connection of the driver. Its statements end after `call_seconds`.

    With `halves` it reads texts with half a surrogate pair, which takes a third more processor time. Without, such a
    text raises UnicodeDecodeError. Raises OSError if nothing listens at the server's address.
    """
    refuse_unanswered(where)
    keywords = dict(where.keywords)
    timeout = int(keywords.pop("LoginTimeout", _LOGIN_TIMEOUT_SECONDS))
    attributes = {}
    if where.token:
        from backup.stores.identity import SQL_SERVER_SCOPE, credential

        token = credential(keywords.pop("UID", None)).get_token(SQL_SERVER_SCOPE).token.encode("utf-16-le")
        attributes[_ACCESS_TOKEN_ATTRIBUTE] = struct.pack(f"<I{len(token)}s", len(token), token)
    keywords["Driver"] = _driver(pyodbc, keywords.get("Driver"))
    # Else the driver connects a lost session again by itself, and nobody hears that locks and tables of it are gone.
    keywords["ConnectRetryCount"] = "0"
    connection = pyodbc.connect(
        ";".join(f"{name}={_quoted(name, value)}" for name, value in keywords.items()),
        timeout=timeout,
        attrs_before=attributes,
        autocommit=True,
    )
    _answered.add(where.address)
    # A server's `user options` may switch these on. With NOCOUNT no row would be counted. With NUMERIC_ROUNDABORT no
    # row could be written where a computed column has an index, or where an indexed view shows the row.
    connection.execute(f"SET NOCOUNT, NUMERIC_ROUNDABORT OFF; SET LOCK_TIMEOUT {opening.LOCK_SECONDS * 1000}").close()
    connection.autocommit = False
    connection.timeout = call_seconds
    # Texts arrive as UTF-16, whatever the client's locale and the column's code page.
    connection.setdecoding(pyodbc.SQL_CHAR, encoding="utf-16le", ctype=pyodbc.SQL_WCHAR)
    connection.setdecoding(pyodbc.SQL_WCHAR, encoding="utf-16le", ctype=pyodbc.SQL_WCHAR)
    if halves:
        read_halves(connection)
    return connection


def read_halves(connection: Any) -> None:
    """From now on the connection reads texts with half a surrogate pair, as `connect` says."""
    for wide in _WIDE:
        connection.add_output_converter(wide, text_from)


_answered: set[str] = set()
"""Addresses that have answered this process."""


def refuse_unanswered(where: SqlServer) -> None:
    """Raises OSError if the host does not exist or nothing listens: the driver would say so only after its whole login
    timeout. Looks only until the server has answered once."""
    plain = re.fullmatch(r"(?:tcp:)?([^:,\\()]+)(?:,\s*(\d+))?", where.address.strip(), re.I)
    if where.address in _answered or plain is None or "Failover_Partner" in where.keywords:
        return  # only the driver can find a named instance or a pipe
    host = "localhost" if plain[1] in (".", "local") else plain[1].strip()
    try:
        socket.create_connection((host, int(plain[2] or 1433)), _LOOK_SECONDS).close()
    except TimeoutError:
        return  # a slow server may still answer
    except (ConnectionRefusedError, socket.gaierror) as error:
        raise OSError(error.errno, error.strerror) from None
    except OSError:
        return


def text_from(utf_16: bytes) -> str:
    """The text of nvarchar's bytes. It may have half a surrogate pair, as LEFT and SUBSTRING make it. Python's decoder
    refuses that."""
    return utf_16.decode("utf-16-le", "surrogatepass")


def _quoted(name: str, value: str) -> str:
    special = r"\W" if name in ("UID", "PWD") else r"[;{}\s]"
    return "{" + value.replace("}", "}}") + "}" if re.search(special, value) else value


def _driver(pyodbc: Any, wanted: str | None) -> str:
    installed = pyodbc.drivers()
    if wanted and (
        wanted in installed or Path(wanted).is_absolute() or not re.match(r"ODBC Driver \d+ for SQL Server", wanted)
    ):
        return wanted
    for name in ("ODBC Driver 18 for SQL Server", "ODBC Driver 17 for SQL Server"):
        if name in installed:
            return name
    try:
        import mssql_python_odbc
    except ImportError:
        raise ConfigError(
            "No ODBC driver for SQL Server is installed.",
            hint="pip install mssql-python-odbc, or Microsoft's msodbcsql18 package.",
        ) from None
    libraries = Path(mssql_python_odbc.get_libs_dir())
    system = {"linux": "linux/*/*/lib/libmsodbcsql*.so.*", "darwin": "macos/*/lib/libmsodbcsql*.dylib"}.get(
        sys.platform, "**/msodbcsql*.dll"
    )
    drivers = sorted(libraries.glob(system), key=lambda path: ("debian" not in str(path), str(path)))
    if not drivers:
        raise ConfigError(
            "The package mssql-python-odbc has no driver for this system.",
            hint="Install Microsoft's msodbcsql18 package.",
        )
    return str(drivers[0])
