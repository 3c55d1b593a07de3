"""The managed identity, through azure-identity: on a developer's machine it is the login of `az` or the IDE."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azure.identity import DefaultAzureCredential


@lru_cache(maxsize=8)
def credential(client_id: str | None = None) -> DefaultAzureCredential:
    """The credential, which caches its tokens. `client_id` names a user-assigned identity."""
    from azure.identity import DefaultAzureCredential

    if client_id:
        return DefaultAzureCredential(managed_identity_client_id=client_id)
    return DefaultAzureCredential()
