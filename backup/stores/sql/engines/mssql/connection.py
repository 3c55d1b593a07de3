"""Connections to SQL Server: which ODBC driver, which login, and the session's settings."""

from __future__ import annotations

import re
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from backup.core.errors import ConfigError
from backup.stores.connection import SqlServer
from backup.stores.sql.engines import base

_LOGIN_TIMEOUT_SECONDS = 15  # as in ADO.NET; the driver spends it whole even when the connection is refused at once
_ACCESS_TOKEN_ATTRIBUTE = 1256  # SQL_COPT_SS_ACCESS_TOKEN in msodbcsql.h
_LOOK_SECONDS = 5
_TOKEN_SCOPE = "https://database.windows.net/.default"  # noqa: S105 - a scope, not a token


def connect(pyodbc: Any, where: SqlServer, call_seconds: int, *, halves: bool = False) -> Any:
    """A new connection of the driver's, which has a statement end after `call_seconds`.

    Only with `halves`, which takes a third more of the processor, does it read texts with half a surrogate pair; else
    these are a UnicodeDecodeError. Raises OSError where nothing listens.
    """
    refuse_unanswered(where)
    keywords = dict(where.keywords)
    timeout = int(keywords.pop("LoginTimeout", _LOGIN_TIMEOUT_SECONDS))
    attributes = {}
    if where.token:
        from backup.stores.identity import credential

        token = credential(keywords.pop("UID", None)).get_token(_TOKEN_SCOPE).token.encode("utf-16-le")
        attributes[_ACCESS_TOKEN_ATTRIBUTE] = struct.pack(f"<I{len(token)}s", len(token), token)
    keywords["Driver"] = _driver(pyodbc, keywords.get("Driver"))
    connection = pyodbc.connect(
        ";".join(f"{name}={_quoted(name, value)}" for name, value in keywords.items()),
        timeout=timeout,
        attrs_before=attributes,
        autocommit=True,
    )
    _answered.add(where.address)
    # A server's `user options` may have NOCOUNT on: no row would be counted.
    connection.execute(f"SET NOCOUNT OFF; SET LOCK_TIMEOUT {base.LOCK_SECONDS * 1000}").close()
    connection.autocommit = False
    connection.timeout = call_seconds
    # Characters arrive as UTF-16 whatever the client's locale and the column's code page are.
    connection.setdecoding(pyodbc.SQL_CHAR, encoding="utf-16le", ctype=pyodbc.SQL_WCHAR)
    connection.setdecoding(pyodbc.SQL_WCHAR, encoding="utf-16le", ctype=pyodbc.SQL_WCHAR)
    for wide in (pyodbc.SQL_WCHAR, pyodbc.SQL_WVARCHAR, pyodbc.SQL_WLONGVARCHAR) if halves else ():
        connection.add_output_converter(wide, text_from)
    return connection


_answered: set[str] = set()
"""Addresses that have answered this process."""


def refuse_unanswered(where: SqlServer) -> None:
    """Raises OSError where there is no such host or nothing listens: the driver would only say so after the whole of
    its login timeout. Asks only until the server has answered once."""
    plain = re.fullmatch(r"(?:tcp:)?([^:,\\()]+)(?:,\s*(\d+))?", where.address.strip(), re.I)
    if where.address in _answered or plain is None or "Failover_Partner" in where.keywords:
        return  # a named instance, a pipe: only the driver knows where that is
    host = "localhost" if plain[1] in (".", "local") else plain[1].strip()
    try:
        socket.create_connection((host, int(plain[2] or 1433)), _LOOK_SECONDS).close()
    except TimeoutError:
        return  # slow is not silent
    except (ConnectionRefusedError, socket.gaierror) as error:
        raise OSError(error.errno, error.strerror) from None
    except OSError:
        return


def text_from(utf_16: bytes) -> str:
    """The text of nvarchar's bytes. It may begin or end within a surrogate pair, as LEFT and SUBSTRING leave it, which
    Python's decoder refuses."""
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
    found = sorted(libraries.glob(system), key=lambda path: ("debian" not in str(path), str(path)))
    if not found:
        raise ConfigError("The package mssql-python-odbc carries no driver for this system.")
    return str(found[0])
