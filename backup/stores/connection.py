"""Connection strings → where and how to connect. Takes ADO.NET, ODBC, URLs and Cosmos strings; connects nowhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from backup.errors import ConfigError
from backup.log import register_secret

_PAIR = re.compile(r"""\s*([^=;]+?)\s*=\s*(\{(?:[^}]|\}\})*\}|"(?:[^"]|"")*"|'(?:[^']|'')*'|[^;]*?)\s*(?:;|$)""")

# ADO.NET keyword → ODBC keyword; both spellings are read. None: has no meaning for ODBC and changes nothing about what
# is copied, so it is dropped.
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
    "connectretrycount": "ConnectRetryCount",
    "connectretryinterval": "ConnectRetryInterval",
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
    **dict.fromkeys(["pooling", "min pool size", "max pool size", "connection lifetime", "load balance timeout"]),
    **dict.fromkeys(["command timeout", "enlist", "replication", "type system version", "column encryption setting"]),
}
_YES_NO = {"true": "yes", "false": "no", "sspi": "yes"}


@dataclass(frozen=True)
class SqlServer:
    """Where a SQL Server is and how to log in, as ODBC keywords; `token` means the managed identity logs in."""

    keywords: dict[str, str] = field(repr=False)
    token: bool

    @property
    def database(self) -> str:
        """The database the string names."""
        return self.keywords["Database"]

    @property
    def address(self) -> str:
        """Server and port as given."""
        return self.keywords["Server"]

    def with_database(self, name: str) -> SqlServer:
        """The same login on another database."""
        return SqlServer({**self.keywords, "Database": name}, self.token)


@dataclass(frozen=True)
class Cosmos:
    """A Cosmos account; without a key the managed identity is used, which `client_id` names if it is user-assigned."""

    endpoint: str
    key: str | None = field(repr=False)
    client_id: str | None = None


def parse_connection(text: str, setting: str) -> SqlServer | Cosmos | URL:
    """What the connection string in `setting` stands for; a URL for SQLite and PostgreSQL.

    Raises ConfigError that names the setting, never the value. Secrets in it are registered for redaction.
    """
    text = text.strip()
    if not text:
        raise ConfigError(f"Setting {setting} is empty.")
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
                f"Setting {setting} is not a connection string that can be read.",
                hint="Write ADO.NET (Server=…;Database=…), ODBC, a URL (sqlite:///…) or AccountEndpoint=….",
            )
        value = match[2]
        if value[:1] in "{\"'" and len(value) > 1:
            quote = "}" if value[0] == "{" else value[0]
            value = value[1:-1].replace(quote * 2, quote)
        pairs[match[1].lower()] = value
        position = match.end()
    return pairs


def _cosmos(pairs: dict[str, str], setting: str) -> Cosmos:
    unknown = pairs.keys() - {"accountendpoint", "accountkey", "clientid", "database"}
    if unknown:
        raise ConfigError(f"Setting {setting} has keywords that Cosmos DB does not know: {', '.join(sorted(unknown))}.")
    endpoint = pairs["accountendpoint"]
    if not re.match(r"https?://[^/]", endpoint):
        raise ConfigError(f"AccountEndpoint in setting {setting} is not an https:// address.")
    register_secret(pairs.get("accountkey"))
    if pairs.get("accountkey") and pairs.get("clientid"):
        raise ConfigError(
            f"Setting {setting} has both an AccountKey and a ClientId.",
            hint="ClientId names the user-assigned identity that logs in where there is no key: leave one of them out.",
        )
    return Cosmos(endpoint, pairs.get("accountkey") or None, pairs.get("clientid") or None)


def _sql_server(pairs: dict[str, str], setting: str) -> SqlServer:
    keywords: dict[str, str] = {}
    for name, value in pairs.items():
        if name not in _SQL_SERVER_KEYWORDS:
            raise ConfigError(f"Setting {setting} has a keyword that is not known: {name!r}.")
        keyword = _SQL_SERVER_KEYWORDS[name]
        if keyword:
            keywords[keyword] = (
                _YES_NO.get(value.lower(), value) if keyword not in ("UID", "PWD", "Database") else value
            )
    for needed in ("Server", "Database"):
        if not keywords.get(needed):
            raise ConfigError(f"Setting {setting} names no {needed}.", hint=f"Add {needed}=… to the connection string.")
    register_secret(keywords.get("PWD"))
    trusted = keywords.get("Trusted_Connection") == "yes"
    authentication = keywords.get("Authentication", "")
    token = not keywords.get("PWD") and not trusted and authentication.lower() in _TOKEN_AUTHENTICATIONS
    if token:
        keywords.pop("Authentication", None)
        keywords.pop("PWD", None)
    return SqlServer(keywords, token)


_TOKEN_AUTHENTICATIONS = {
    "",
    "active directory default",
    "activedirectorydefault",
    "active directory managed identity",
    "active directory msi",
    "activedirectorymsi",
}


def _url(text: str, setting: str) -> SqlServer | URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise ConfigError(f"Setting {setting} looks like a URL but cannot be read as one.") from None
    backend = url.get_backend_name()
    register_secret(url.password)
    if backend == "mssql":
        return _sql_server(_mssql_pairs(url, setting), setting)
    if backend not in ("sqlite", "postgresql"):
        raise ConfigError(f"Setting {setting} names {backend!r}, which this app cannot back up.")
    if not url.database or (backend == "sqlite" and url.database == ":memory:"):
        raise ConfigError(f"Setting {setting} names no database.", hint="A database in memory cannot be backed up.")
    if backend == "postgresql" and url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return url


def _mssql_pairs(url: URL, setting: str) -> dict[str, str]:
    query = {name.lower(): value if isinstance(value, str) else value[-1] for name, value in url.query.items()}
    if "odbc_connect" in query:
        return _pairs(unquote_plus(query["odbc_connect"]), setting)
    server = f"{url.host or ''},{url.port}" if url.port else url.host or ""
    given = {
        "server": server,
        "database": url.database or "",
        "uid": url.username or "",
        "pwd": url.password or "",
    }
    return {**query, **{name: value for name, value in given.items() if value}}
