"""Decides over which connections a secret may travel: encrypted and verified ones, unless the configuration says else.

The managed identity's token never goes over any other connection. A password or a key may: where the configuration
allows it by name, and on loopback. Connects nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from backup.core.addresses import is_loopback
from backup.core.errors import ConfigError
from backup.core.suggestions import subject

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_AZURE_POSTGRESQL = ".database.azure.com"
_VERIFIED = "verify-full"
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", _VERIFIED)


def sql_server_keywords(keywords: Mapping[str, str], token: bool, setting: str) -> dict[str, str]:
    """The ODBC keywords, with `Encrypt` among them: driver 17 does not encrypt without it.

    Raises ConfigError if a token would go over a connection that is not encrypted and verified.
    """
    encrypt = keywords.get("Encrypt", "yes").lower()
    encrypt = {"mandatory": "yes", "optional": "no"}.get(encrypt, encrypt)
    trusts = keywords.get("TrustServerCertificate", "no").lower() != "no"
    microsoft = re.search("sql server|msodbcsql|sqlncli", keywords.get("Driver", "msodbcsql"), re.I) is not None
    if token or keywords.get("Authentication", "").lower().startswith("active"):
        if encrypt not in ("yes", "strict") or trusts or not microsoft:
            cause = "TrustServerCertificate" if trusts else f"Encrypt={encrypt}" if microsoft else "its Driver"
            raise ConfigError(
                f"{subject(setting)} would send a Microsoft Entra token to a server that is not verified ({cause}).",
                hint="Remove Encrypt=False and TrustServerCertificate=True, and use Microsoft's driver. Or give a user "
                "and a password of the server's own.",
            )
    elif not microsoft and encrypt != "no" and not trusts and not is_loopback(_host(keywords["Server"])):
        raise ConfigError(
            f"{subject(setting)} names a driver that the app does not know. It may not encrypt.",
            hint="Remove Driver, to use Microsoft's. Or write Encrypt=False, and the password may travel unencrypted.",
        )
    return {**keywords, "Encrypt": encrypt}


def postgresql_url(url: URL, setting: str) -> URL:
    """The URL with an `sslmode`; unchanged if it has one already or leads to this machine.

    Raises ConfigError for a mode that does not exist, and for one that does not protect the managed identity's token.
    """
    sslmode = url.query.get("sslmode")
    if sslmode is not None and sslmode not in _SSL_MODES:
        raise ConfigError(f"{subject(setting)} has an sslmode that is none of {', '.join(_SSL_MODES)}.")
    if logs_in_with_token(url):
        if sslmode not in (None, _VERIFIED):
            raise ConfigError(
                f"{subject(setting)} would send the managed identity's token with sslmode={sslmode}, which does not "
                "verify the server.",
                hint="Remove sslmode: without it the server is verified.",
            )
    elif sslmode is not None or ("service" not in url.query and (hosts := _hosts(url)) and all(map(_is_here, hosts))):
        return url
    # Also without a host: libpq then takes one from its environment, and a local socket ignores sslmode.
    return url.update_query_dict({"sslmode": _VERIFIED})


def logs_in_with_token(url: URL) -> bool:
    """Whether the managed identity logs in: the URL has no password, and every host is an Azure Database."""
    hosts = _hosts(url, without="hostaddr")
    has_password = url.password or not url.query.keys().isdisjoint(("password", "passfile", "service"))
    is_azure = bool(hosts) and all(host.lower().rstrip(".").endswith(_AZURE_POSTGRESQL) for host in hosts)
    return not has_password and is_azure


def check_cosmos(endpoint: str, *, token: bool, emulator_hosts: Collection[str], setting: str) -> None:
    """Raises ConfigError if a token or a key would travel to the account unencrypted or unverified."""
    host = urlsplit(endpoint).hostname or ""
    on_loopback = is_loopback(host)
    https = endpoint.lower().startswith("https:")
    if token and (on_loopback or host in emulator_hosts or not https):
        raise ConfigError(
            f"{subject(setting)} would send the managed identity's token to "
            f"{'a server that is not verified' if https else 'an http:// address, unencrypted'}.",
            hint="Write https:// and no emulator's host, or add the account's AccountKey.",
        )
    if not https and not on_loopback and host not in emulator_hosts:
        raise ConfigError(
            f"{subject(setting)} has an AccountEndpoint with http://: the key would go unprotected.",
            hint="Write https://. To use an emulator, name its host in CosmosDb__EmulatorHosts.",
        )


def check_storage(address: str, setting: str) -> None:
    """Raises ConfigError if a token or a signature would travel to this address of the storage account unencrypted."""
    if not address.lower().startswith("https://"):
        raise ConfigError(
            f"{subject(setting)} would send a token of the storage account to an address that is not https://.",
            hint="Write https://. For Azurite give its account key, or UseDevelopmentStorage=true.",
        )


def _host(server: str) -> str:
    return re.split(r"[,\\]", server.split(":", 1)[1] if server.lower().startswith("tcp:") else server)[0].strip()


def _hosts(url: URL, without: str = "") -> list[str]:
    """Every host, address and folder of sockets that the URL names, less those of the parameter `without`."""
    lists = [url.host or ""]
    for name in {"host", "hostaddr"} - {without}:
        values = url.query.get(name, ())
        lists += [values] if isinstance(values, str) else values
    parts = [part.strip() for hosts in lists for part in hosts.split(",")]
    return [re.sub(r"^([^:/]*):\d*$", r"\1", part) for part in parts if part]


def _is_here(host: str) -> bool:
    return host.startswith(("/", "@")) or is_loopback(host)
