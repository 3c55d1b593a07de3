"""Connection strings → where and how to connect. Takes ADO.NET, ODBC, URLs and Cosmos strings; connects nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_plus

from backup.config.references import refuse_reference
from backup.core.errors import ConfigError
from backup.core.log import register_secret
from backup.core.suggestions import subject
from backup.stores.secure import sql_server_keywords

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_PAIR = re.compile(r"""\s*([^=;]+?)\s*=\s*(\{(?:[^}]|\}\})*\}|"(?:[^"]|"")*"|'(?:[^']|'')*'|[^;]*?)\s*(?:;|$)""")

# ADO.NET keyword → ODBC keyword; both spellings are understood. None: the keyword means nothing to ODBC and does not
# change what is copied, so it is dropped.
_SQL_SERVER_KEYWORDS: dict[str, str | None] = {
    **dict.fromkeys(["server", "data source", "address", "addr", "network address"], "Server"),
    **dict.fromkeys(["database", "initial catalog"], "Database"),
    **dict.fromkeys(["user id", "uid", "user", "username"], "UID"),
    **dict.fromkeys(["password", "pwd"], "PWD"),
    **dict.fromkeys(["trustservercertificate", "trust server certificate"], "TrustServerCertificate"),
    **dict.fromkeys(["hostnameincertificate", "host name in certificate"], "HostNameInCertificate"),
    **dict.fromkeys(["servercertificate", "server certificate"], "ServerCertificate"),
    **dict.fromkeys(["applicationintent", "application intent"], "ApplicationIntent"),
    **dict.fromkeys(["multisubnetfailover", "multi subnet failover"], "MultiSubnetFailover"),
    **dict.fromkeys(["application name", "app"], "APP"),
    **dict.fromkeys(["workstation id", "wsid"], "WSID"),
    **dict.fromkeys(["integrated security", "trusted_connection"], "Trusted_Connection"),
    **dict.fromkeys(["connection timeout", "connect timeout", "timeout"], "LoginTimeout"),
    "encrypt": "Encrypt",
    "driver": "Driver",
    "authentication": "Authentication",
    "packet size": "PacketSize",
    "language": "Language",
    "failover partner": "Failover_Partner",
    **dict.fromkeys(
        [
            "persist security info",
            "persistsecurityinfo",
            "multipleactiveresultsets",
            "multiple active result sets",
            "mars_connection",
        ]
    ),
    **dict.fromkeys(["connectretrycount", "connectretryinterval"]),  # the app connects again by itself
    **dict.fromkeys(["pooling", "min pool size", "max pool size", "connection lifetime", "load balance timeout"]),
    **dict.fromkeys(["command timeout", "enlist", "replication", "type system version", "column encryption setting"]),
}
_SPELLED = {name.replace(" ", ""): name for name in ("Server", "Database", "User Id", "Password", "Encrypt")}
_SPELLED |= {name: name for name in ("Initial Catalog", "Data Source", "TrustServerCertificate", "Authentication")}
_SPELLED |= {name: name for name in ("AccountEndpoint", "AccountKey")}
_QUOTES = (
    "A value with a ; or = in it, or with a quote or brace at its start, has to be quoted: "
    'write {…} around it and double each } within, or "…" and double each ".'
)
_ENCODED = "Within a user or a password write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23 and % as %25."
_COSMOS_KEYWORDS = ("accountendpoint", "accountkey", "clientid", "database")
_YES_NO = {"true": "yes", "false": "no", "sspi": "yes"}


ENGINES = {
    "mssql": "backup.stores.sql.engines.mssql",
    "postgresql": "backup.stores.sql.engines.postgresql",
    "sqlite": "backup.stores.sql.engines.sqlite",
}
"""The package of each SQL engine, by the scheme of its URLs. The package has two modules: `urls` with `checked_url`,
which checks and completes a URL, and `dialect` with `opened`, which makes the dialect."""


@dataclass(frozen=True)
class SqlServer:
    """Where a SQL Server is and how to log in, as ODBC keywords. `token`: the managed identity logs in."""

    keywords: dict[str, str] = field(repr=False)
    token: bool

    @property
    def database(self) -> str:
        """The database that the string names."""
        return self.keywords["Database"]

    @property
    def address(self) -> str:
        """Server and port, as the string spells them."""
        return self.keywords["Server"]

    def with_database(self, name: str) -> SqlServer:
        """The same login on another database."""
        return SqlServer({**self.keywords, "Database": name}, self.token)


@dataclass(frozen=True)
class Cosmos:
    """A Cosmos DB account. Without a key, the managed identity logs in; `client_id` names a user-assigned one."""

    endpoint: str
    key: str | None = field(repr=False)
    client_id: str | None = None


def parse_connection(text: str, setting: str) -> SqlServer | Cosmos | URL:
    """Where the connection string in `setting` leads: a URL for SQLite and PostgreSQL.

    Registers its secrets for redaction. Raises ConfigError that names the setting, but never the value or a part of it:
    what looks like a keyword or a host may be the end of a password.
    """
    text = text.strip()
    if not text:
        raise ConfigError(f"{subject(setting)} is empty.")
    refuse_reference(text, setting)
    if "\x00" in unquote(text):  # libpq would stop there, and use its defaults for all that follows
        raise ConfigError(f"{subject(setting)} contains a NUL character. No connection string may have one.")
    if re.match(r"[a-z][\w+]*:/", text, re.I) and "=" not in text.split(":", 1)[0]:
        return _url(text, setting)
    pairs = _pairs(text, setting)
    if "accountendpoint" in pairs:
        return _cosmos(pairs, setting)
    return _sql_server(pairs, setting)


def _pairs(text: str, setting: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    position = 0
    while position < len(text):
        if text[position] in "; \t\r\n":
            position += 1
            continue
        match = _PAIR.match(text, position)
        if match is None:
            raise ConfigError(
                f"{subject(setting)} is not a connection string that the app can read{_behind(pairs)}.",
                hint="Write ADO.NET (Server=…;Database=…), ODBC, a URL (sqlite:///…) or AccountEndpoint=…. "
                + (_QUOTES if pairs else ""),
            )
        name, value = match[1].lower(), match[2]
        if re.fullmatch(r"""\{(?:[^}]|\}\})*\}|"(?:[^"]|"")*"|'(?:[^']|'')*'""", value):
            quote = "}" if value[0] == "{" else value[0]
            value = value[1:-1].replace(quote * 2, quote)
        if pairs.setdefault(name, value) != value:
            raise ConfigError(f"{subject(setting)} has a keyword twice{_behind(pairs)}.", hint=_QUOTES)
        position = match.end()
    return pairs


def _behind(names: Iterable[str]) -> str:
    """Where the fault is in a connection string: behind its last valid keyword."""
    valid_names = [name for name in names if name in _SQL_SERVER_KEYWORDS or name in _COSMOS_KEYWORDS]
    return f", behind the value of {valid_names[-1]}" if valid_names else ""


def _refuse_unknown(pairs: dict[str, str], keywords: Iterable[str], setting: str) -> None:
    """Raises ConfigError for a keyword that is not one of these. Does not quote it: it may be the end of a password."""
    valid_names = set(keywords)
    earlier_names: list[str] = []
    for name in pairs:
        if name not in valid_names:
            near = get_close_matches(name, [keyword.lower() for keyword in _SPELLED], 1, 0.75)
            suggestion = next((_SPELLED[keyword] for keyword in _SPELLED if keyword.lower() in near), None)
            raise ConfigError(
                f"{subject(setting)} has a keyword that is not known{_behind(earlier_names)}"
                + (f"; did you mean {suggestion}?" if suggestion else "."),
                hint=_QUOTES
                if earlier_names
                else "PostgreSQL takes a URL: postgresql://…; docs/configuration.md has an example.",
            )
        earlier_names.append(name)


def _cosmos(pairs: dict[str, str], setting: str) -> Cosmos:
    register_secret(pairs.get("accountkey"))
    _refuse_unknown(pairs, _COSMOS_KEYWORDS, setting)
    if not pairs.get("accountkey", "").isascii():  # the SDK itself checks that an ASCII key is base64
        raise ConfigError(f"{subject(setting)} has an AccountKey that is not a key: it is not base64.")
    endpoint = pairs["accountendpoint"]
    if not re.match(r"https?://[^/]", endpoint, re.I):
        raise ConfigError(f"{subject(setting)} has an AccountEndpoint that is not an https:// address.")
    if pairs.get("accountkey") and pairs.get("clientid"):
        raise ConfigError(
            f"{subject(setting)} has both an AccountKey and a ClientId.",
            hint="ClientId names the user-assigned identity that logs in without a key. Remove one of the two.",
        )
    return Cosmos(endpoint, pairs.get("accountkey") or None, pairs.get("clientid") or None)


def _sql_server(pairs: dict[str, str], setting: str) -> SqlServer:
    for name, value in pairs.items():
        if _SQL_SERVER_KEYWORDS.get(name) == "PWD":
            register_secret(value)
    _refuse_unknown(pairs, _SQL_SERVER_KEYWORDS, setting)
    keywords: dict[str, str] = {}
    for name, value in pairs.items():
        keyword = _SQL_SERVER_KEYWORDS[name]
        if keyword:
            plain = _YES_NO.get(value.lower(), value) if keyword not in ("UID", "PWD", "Database") else value
            if keywords.setdefault(keyword, plain) != plain:
                raise ConfigError(f"{subject(setting)} has two keywords that both mean {keyword}.", hint=_QUOTES)
    for needed in ("Server", "Database"):
        if not keywords.get(needed):
            raise ConfigError(
                f"{subject(setting)} names no {needed}.", hint=f"Add {needed}=… to the connection string."
            )
    trusted = keywords.get("Trusted_Connection") == "yes"
    authentication = keywords.get("Authentication", "")
    token = not keywords.get("PWD") and not trusted and authentication.lower() in _TOKEN_AUTHENTICATIONS
    if token:
        keywords.pop("Authentication", None)
        keywords.pop("PWD", None)
    return SqlServer(sql_server_keywords(keywords, token, setting), token)


_TOKEN_AUTHENTICATIONS = {
    "",
    "active directory default",
    "activedirectorydefault",
    "active directory managed identity",
    "active directory msi",
    "activedirectorymsi",
}


def _url(text: str, setting: str) -> SqlServer | URL:
    text = re.sub(r"^postgres(?=[+:])", "postgresql", text, flags=re.I)
    url = _parsed(text)
    if url is None:
        raise ConfigError(f"{subject(setting)} looks like a URL but cannot be read as one.", hint=_ENCODED)
    backend = url.drivername.lower().partition("+")[0]
    register_secret(url.password)
    if backend not in ENGINES:
        raise ConfigError(
            f"{subject(setting)} is a URL of something that this app cannot back up.",
            hint="It backs up SQL Server (mssql://…), PostgreSQL (postgresql://…), SQLite (sqlite:///…) and Cosmos DB "
            "(AccountEndpoint=…).",
        )
    if backend != "sqlite":  # a path may have an @
        _refuse_split(text, setting)
    if backend == "mssql":
        return _sql_server(_mssql_pairs(url, setting), setting)
    if not url.database:
        raise ConfigError(f"{subject(setting)} names no database.", hint="A database in memory cannot be backed up.")
    checked: URL = import_module(f"{ENGINES[backend]}.urls").checked_url(url, setting)
    return checked


@lru_cache(maxsize=256)  # each run opens its stores again
def _parsed(text: str) -> URL | None:
    from sqlalchemy.engine import make_url  # which takes longer to import than a sync of Cosmos DB needs in all
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(text)
    except (ArgumentError, ValueError):  # ValueError: the port is not a number
        return None


def _refuse_split(text: str, setting: str) -> None:
    """Raises ConfigError for a URL that an @ in the password has split. Its host, or another part, may be the end of
    the password."""
    login, rest = re.findall(r"^[\w+]+://((?:[^:/]*(?::[^@]*)?@)?)(.*)$", text, re.S)[0]  # as SQLAlchemy reads it
    if "@" in (rest if login else rest.partition("?")[0]):
        raise ConfigError(f"{subject(setting)} is a URL with too many @: its host is not clear.", hint=_ENCODED)


def _mssql_pairs(url: URL, setting: str) -> dict[str, str]:
    query = {name.lower(): value if isinstance(value, str) else value[-1] for name, value in url.query.items()}
    if "odbc_connect" in query:
        return _pairs(unquote_plus(query["odbc_connect"]), setting)
    server = f"{url.host or ''},{url.port}" if url.port else url.host or ""
    pairs = {
        "server": server,
        "database": url.database or "",
        "uid": url.username or "",
        "pwd": url.password or "",
    }
    return {**query, **{name: value for name, value in pairs.items() if value}}
