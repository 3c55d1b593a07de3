"""Looks whether the managed identity gets a token for each place that has no secret of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial

from backup.config.settings import Settings
from backup.core.model import Now
from backup.core.suggestions import quantity
from backup.doctor.findings import Check, Finding, Grade, fine
from backup.stores.sides import Side
from backup.stores.tokens import TokenWanted, ask_token, storage_token, token_of

_HINT = (
    "Give the app an identity, and name a user-assigned one by its client id (AZURE_CLIENT_ID, User Id, ClientId). On "
    "a laptop run az login. Or put a secret into the connection string."
)
_ENDED = (
    "Set this machine's clock by NTP. If it is right, an old token was kept: restart the app, or run az login again."
)


def identity_checks(settings: Settings, sides: Sequence[Side], now: Now) -> list[Check]:
    """The checks of the identity, one for each kind of token that a side or the storage account asks for."""
    wanted: dict[TokenWanted, None] = dict.fromkeys(token for side in sides if (token := token_of(side)) is not None)
    if settings.has_storage_account and not settings.storage_connection:
        wanted[storage_token(settings.storage_client_id)] = None
    return [Check("identity", token.scope, partial(_look, token, now)) for token in wanted]


def _look(token: TokenWanted, now: Now) -> Iterator[Finding]:
    who = f"the identity {token.client_id}" if token.client_id else "the default identity"
    try:
        ends_at = ask_token(token)
    except Exception as error:  # whatever the SDK raises; its text may quote a token
        yield Finding(
            Grade.FAILED, "identity", "token", f"{who} got no token for {token.scope} ({type(error).__name__})", _HINT
        )
        return
    seconds = (datetime.fromtimestamp(ends_at, UTC) - now()).total_seconds()
    if seconds <= 0:
        past = quantity(round(-seconds / 60), "minute")
        text = f"by this machine's clock the token of {who} for {token.scope} ended {past} ago"
        yield Finding(Grade.FAILED, "identity", "token", text, _ENDED)
        return
    yield fine(
        "identity", "token", f"{who} has a token for {token.scope}, for {quantity(round(seconds / 60), 'minute')}"
    )
