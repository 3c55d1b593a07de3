"""What a secret may travel over: connections that are encrypted and verified, unless the configuration names another.

The managed identity's token never goes over any other. A password or a key does where the configuration says so by
name, and on loopback. Connects nowhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from sqlalchemy.engine import URL

from backup.core.errors import ConfigError

_AZURE_POSTGRESQL = ".database.azure.com"
_VERIFIED = "verify-full"
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", _VERIFIED)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine whatever a name server says."""
    plain = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(plain).is_loopback
    except ValueError:
        return plain == "localhost"


def sql_server_keywords(keywords: Mapping[str, str], token: bool, setting: str) -> dict[str, str]:
    """The ODBC keywords with `Encrypt` said, which driver 17 leaves out by default. Raises ConfigError for a token that
    would leave over a connection which is not encrypted and verified."""
    encrypt = {"mandatory": "yes", "optional": "no"}.get(found := keywords.get("Encrypt", "yes").lower(), found)
    trusts = keywords.get("TrustServerCertificate", "no").lower() != "no"
    microsoft = re.search("sql server|msodbcsql|sqlncli", keywords.get("Driver", "msodbcsql"), re.I) is not None
    if token or keywords.get("Authentication", "").lower().startswith("active"):
        if encrypt not in ("yes", "strict") or trusts or not microsoft:
            what = "TrustServerCertificate" if trusts else f"Encrypt={encrypt}" if microsoft else "its Driver"
            raise ConfigError(
                f"Setting {setting} would send a Microsoft Entra token to a server that is not verified ({what}).",
                hint="Remove Encrypt=False and TrustServerCertificate=True and use Microsoft's driver; or give a user "
                "and a password of the server's own.",
            )
    elif not microsoft and encrypt != "no" and not trusts and not is_loopback(_host(keywords["Server"])):
        raise ConfigError(
            f"Setting {setting} names a driver of which nobody here knows whether it encrypts.",
            hint="Use Microsoft's: leave out Driver. Or say Encrypt=False, and the password may go in clear.",
        )
    return {**keywords, "Encrypt": encrypt}


def postgresql_url(url: URL, setting: str) -> URL:
    """The URL with an `sslmode`, unless it has one or is about this machine. Raises ConfigError for a mode that nobody
    knows, and for one that does not protect the managed identity's token."""
    given = url.query.get("sslmode")
    if given is not None and given not in _SSL_MODES:
        raise ConfigError(f"Setting {setting} has an sslmode that is none of {', '.join(_SSL_MODES)}.")
    if logs_in_with_token(url):
        if given not in (None, _VERIFIED):
            raise ConfigError(
                f"Setting {setting} would send the managed identity's token with sslmode={given}, which does not "
                "verify the server.",
                hint="Remove sslmode: without it the server is verified.",
            )
    elif given is not None or ("service" not in url.query and (hosts := _hosts(url)) and all(map(_is_here, hosts))):
        return url
    # Also without a host: libpq then finds one in its environment; a local socket needs no sslmode.
    return url.update_query_dict({"sslmode": _VERIFIED})


def logs_in_with_token(url: URL) -> bool:
    """Whether the managed identity logs in: no password is given, and every host is an Azure Database."""
    hosts = _hosts(url, but="hostaddr")
    given = url.password or not url.query.keys().isdisjoint(("password", "passfile", "service"))
    return not given and bool(hosts) and all(host.lower().rstrip(".").endswith(_AZURE_POSTGRESQL) for host in hosts)


def check_cosmos(endpoint: str, *, token: bool, emulator_hosts: Collection[str], setting: str) -> None:
    """Raises ConfigError for an account that a token or a key would reach in clear or unverified."""
    host = urlsplit(endpoint).hostname or ""
    here = is_loopback(host)
    https = endpoint.lower().startswith("https:")
    if token and (here or host in emulator_hosts or not https):
        raise ConfigError(
            f"Setting {setting} would send the managed identity's token to "
            f"{'a server that is not verified' if https else 'an http:// address, in clear'}.",
            hint="Write https:// and no emulator's host, or add the account's AccountKey.",
        )
    if not https and not here and host not in emulator_hosts:
        raise ConfigError(
            f"AccountEndpoint in setting {setting} is an http:// address: the key would go unprotected.",
            hint="Write https://. An emulator's host may be named in CosmosDb__EmulatorHosts.",
        )


def check_storage(address: str, setting: str) -> None:
    """Raises ConfigError for an address of the storage account that a token or a signature would reach in clear."""
    if not address.lower().startswith("https://"):
        raise ConfigError(
            f"Setting {setting} would send a token of the storage account to an address that is not https://.",
            hint="Write https://. For Azurite give its account key, or UseDevelopmentStorage=true.",
        )


def _host(server: str) -> str:
    return re.split(r"[,\\]", server.split(":", 1)[1] if server.lower().startswith("tcp:") else server)[0].strip()


def _hosts(url: URL, but: str = "") -> list[str]:
    """Every host, address and folder of sockets that the URL names."""
    named = [url.host or ""]
    for name in {"host", "hostaddr"} - {but}:
        values = url.query.get(name, ())
        named += [values] if isinstance(values, str) else values
    parts = [part.strip() for value in named for part in value.split(",")]
    return [re.sub(r"^([^:/]*):\d*$", r"\1", part) for part in parts if part]


def _is_here(host: str) -> bool:
    return host.startswith(("/", "@")) or is_loopback(host)
