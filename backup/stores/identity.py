"""The managed identity, through azure-identity: on a developer's machine it is the login of `az` or the IDE."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from backup.stores.logins import LoginState, TokenLogin

SQL_SERVER_SCOPE = "https://database.windows.net/.default"
POSTGRESQL_SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
STORAGE_SCOPE = "https://storage.azure.com/.default"

_logins: dict[tuple[str | None, tuple[str, ...]], TokenLogin] = {}


class Identity:
    """A credential for the SDKs and drivers. Its tokens are shared, and renewed two minutes before they end."""

    def __init__(self, client_id: str | None, source: Any) -> None:
        """`source` is azure-identity's own credential."""
        self._client_id, self._source = client_id, source

    def get_token(self, *scopes: str, **options: Any) -> Any:
        """A token for these scopes. One that a server asks for by `claims` is made for that request alone."""
        if any(options.values()):
            return self._source.get_token(*scopes, **options)
        login = _logins.setdefault((self._client_id, scopes), TokenLogin(lambda: self._source.get_token(*scopes)))
        return login.token()


class IdentityLogin:
    """The managed identity as a pool's login."""

    def __init__(self, client_id: str | None, scope: str) -> None:
        self._key = client_id, (scope,)

    def state(self) -> LoginState:
        """As `Login` says."""
        login = _logins.get(self._key)
        return LoginState() if login is None else login.state()


@lru_cache(maxsize=8)
def credential(client_id: str | None = None) -> Identity:
    """The credential. `client_id` names a user-assigned identity."""
    from azure.identity import DefaultAzureCredential

    if client_id:
        return Identity(client_id, DefaultAzureCredential(managed_identity_client_id=client_id))
    return Identity(client_id, DefaultAzureCredential())
