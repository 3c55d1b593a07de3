"""The app's storage account, which AzureWebJobsStorage or AzureWebJobsStorage__… names: clients of its services."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError, ServiceResponseError

from backup.config.settings import Settings
from backup.core.addresses import is_loopback
from backup.core.errors import ConfigError, StoreUnavailable, TransientStoreError
from backup.core.log import redact
from backup.stores import pools
from backup.stores.logins import Login
from backup.stores.pools import PoolKey
from backup.stores.secure import check_storage

Client = TypeVar("Client")
Kind = Literal["blob", "queue", "table"]

_SETTING = "AzureWebJobsStorage"
# The retries and waits of the SDK would outlast a lease. The app's own retries are enough.
_OPTIONS: dict[str, Any] = {"retry_total": 0, "connection_timeout": 10, "read_timeout": 10}
_CONNECTIONS = 10
_PORTS: dict[Kind, int] = {"blob": 10000, "queue": 10001, "table": 10002}
_ROLES: dict[Kind, str] = {
    "blob": "Storage Blob Data Contributor",
    "queue": "Storage Queue Data Contributor",
    "table": "Storage Table Data Contributor",
}
_AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key of every Azurite. Azurite's documentation names it; it is not a secret."""


def service_client(settings: Settings, kind: Kind, client: type[Client]) -> Client:
    """A client of the account's blob, queue or table service. Does not connect.

    `client` is the SDK's class for the service. Raises ConfigError for settings that name no account, and for settings
    that would send a token or a signature without encryption.
    """
    from_address: Callable[..., Client] = client
    from_string: Callable[..., Client] = client.from_connection_string  # type: ignore[attr-defined]
    connection = settings.storage_connection or ""
    if connection.strip().lower().startswith("usedevelopmentstorage=true"):
        connection = development_storage()
    parts = dict(part.partition("=")[::2] for part in connection.split(";") if "=" in part)
    account = settings.storage_account or parts.get("AccountName")
    addresses = {
        "blob": settings.storage_blob_uri,
        "queue": settings.storage_queue_uri,
        "table": settings.storage_table_uri,
    }
    address = addresses[kind] or parts.get(f"{kind.title()}Endpoint")
    server = account or urlsplit(address or "").hostname or ""

    if re.search(r"(AccountKey|SharedAccessSignature)\s*=", connection, re.I):
        try:
            b64decode(next((parts[name] for name in parts if name.lower() == "accountkey"), ""), validate=True)
            signed = from_string(connection, **_options(kind, server, connection))
        except ValueError:  # a key that is not Base64 would be told as a login that is missing
            raise _not_a_connection_string() from None
        # A key signs the requests and stays here. A shared access signature is sent as it is.
        url = str(getattr(signed, "url", ""))
        if not re.search(r"AccountKey\s*=", connection, re.I) and not is_loopback(urlsplit(url).hostname or ""):
            check_storage(url, _SETTING)
        return signed
    if not address and not account:
        raise _not_a_connection_string()
    from backup.stores.identity import STORAGE_SCOPE, IdentityLogin, credential

    address = address or f"https://{account}.{kind}.{parts.get('EndpointSuffix', 'core.windows.net')}"
    check_storage(address, f"{_SETTING}__{kind}ServiceUri" if addresses[kind] else _SETTING)
    client_id = settings.storage_client_id
    options = _options(kind, server, address, client_id, login=IdentityLogin(client_id, STORAGE_SCOPE))
    return from_address(address, credential=credential(client_id), **options)


def _options(kind: Kind, server: str, *ways: str | None, login: Login | None = None) -> dict[str, Any]:
    """The options of a client. All that lead to the same service in the same `ways` share their connections."""
    from backup.stores.http_pool import HttpPool

    pool, lease = pools.lease(PoolKey.of(kind, server, *ways), 1, lambda: HttpPool(_CONNECTIONS, login))
    lease.release()  # nobody closes these clients; the pool closes what is idle
    return {**_OPTIONS, "transport": pool.transport(**_OPTIONS)}


def storage_error(error: Exception, content: str, kind: Kind = "blob") -> StoreUnavailable:
    """The app's error for an error of the SDK. `content` says what the app keeps in the account."""
    status = getattr(error, "status_code", None)
    reason = redact(str(getattr(error, "message", None) or error).strip().split("\n")[0].strip(" ."))
    if reason.startswith("<"):  # the page of a proxy
        reason = str(getattr(error, "reason", None) or "an answer that is not the account's")
    unanswered = status is None and "Failed to establish a new connection" in reason
    message = (
        f"The storage account of {_SETTING}, which holds {content}, cannot be used "
        f"({f'HTTP {status}: {reason}' if status else 'nothing answers there' if unanswered else reason}). "
        "Nothing was changed."
    )
    if isinstance(error, ConfigError):
        hint = error.hint
    elif status in (401, 403):
        hint = f"Check the account's key, or the identity's role {_ROLES[kind]}, and the account's firewall."
    elif status:
        hint = "The account answers; the message has its reason."
    elif isinstance(error, ClientAuthenticationError):
        hint = (
            f"Give the app an identity, and name a user-assigned one in {_SETTING}__clientId. On a laptop run az login."
        )
    else:
        hint = "Check the setting; on a laptop start Azurite, or remove the setting to use a local file."
    if isinstance(error, ServiceRequestError | ServiceResponseError) or (status or 0) >= 500 or status == 429:
        return TransientStoreError(message, hint=hint, unanswered=unanswered)
    return StoreUnavailable(message, hint=hint)


def development_storage() -> str:
    """The connection string that `UseDevelopmentStorage=true` stands for: Azurite at its usual ports."""
    account = "devstoreaccount1"
    endpoints = (f"{kind.title()}Endpoint=http://127.0.0.1:{port}/{account};" for kind, port in _PORTS.items())
    return f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={_AZURITE_KEY};{''.join(endpoints)}"


def _not_a_connection_string() -> ConfigError:
    return ConfigError(
        f"Setting {_SETTING} is not a storage connection string.",
        hint="Take it from the account's access keys in the portal, or write UseDevelopmentStorage=true for Azurite; "
        f"for a managed identity set {_SETTING}__accountName instead.",
    )
