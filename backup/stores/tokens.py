"""Which token of the managed identity a side needs. Asks for it only when told to."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from backup.stores.connection import Cosmos, SqlServer, parse_connection
from backup.stores.identity import POSTGRESQL_SCOPE, SQL_SERVER_SCOPE, STORAGE_SCOPE, credential
from backup.stores.secure import logs_in_with_token
from backup.stores.sides import Side


class TokenWanted(NamedTuple):
    """A token: of which user-assigned identity, None for the default, and for what."""

    client_id: str | None
    scope: str


def token_of(side: Side) -> TokenWanted | None:
    """Returns the token with which the side logs in; None where it has a secret or needs none."""
    where = parse_connection(side.connection_string, side.named("ConnectionString"))
    if isinstance(where, SqlServer):
        return TokenWanted(where.keywords.get("UID"), SQL_SERVER_SCOPE) if where.token else None
    if isinstance(where, Cosmos):
        host = urlsplit(where.endpoint).hostname or ""
        return TokenWanted(where.client_id, f"https://{host}/.default") if where.key is None else None
    is_postgresql = where.get_backend_name() == "postgresql"
    return TokenWanted(None, POSTGRESQL_SCOPE) if is_postgresql and logs_in_with_token(where) else None


def storage_token(client_id: str | None) -> TokenWanted:
    """Returns the token for the app's storage account."""
    return TokenWanted(client_id, STORAGE_SCOPE)


def ask_token(wanted: TokenWanted) -> int:
    """Asks for the token, or takes the one that this process has; returns when it ends, in seconds since 1970. Raises
    what azure-identity raises."""
    return int(credential(wanted.client_id).get_token(wanted.scope).expires_on)
