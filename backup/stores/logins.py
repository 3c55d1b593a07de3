"""Logins as an operator sees them: since when, until when, how often renewed. Never a name, a token or a password."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Protocol

from backup.core.log import event
from backup.core.model import Now, utc_now

RENEWED_SECONDS = 120.0
"""A token is renewed so long before it ends."""


@dataclass(frozen=True)
class LoginState:
    """A login now.

    `session_id` is of this process's own making, and shown in part only. `created_at` is when the login was first used;
    `expires_at` when its token ends, None for a login that has no end; `refreshed_at` when it was last renewed. All
    None before the first use. `is_valid`: the last login succeeded. A token that has ended is not valid either.
    """

    session_id: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    refresh_count: int = 0
    refreshed_at: datetime | None = None
    is_valid: bool = False


class Login(Protocol):
    """How a pool logs in."""

    def state(self) -> LoginState:
        """The login now."""


class ConnectionLogin:
    """A login that is made again with each connection: a password, Windows, or the right to read a file. For any number
    of threads. It is renewed with each connection after the first."""

    def __init__(self, now: Now = utc_now) -> None:
        self._now, self._lock = now, Lock()
        self._session_id: str | None = None
        self._created_at: datetime | None = None
        self._refreshed_at: datetime | None = None
        self._refresh_count, self._is_valid = 0, False

    def succeeded(self) -> None:
        """Notes that a connection was made."""
        with self._lock:
            self._is_valid = True
            if self._created_at is None:
                self._session_id, self._created_at = secrets.token_hex(16), self._now()
            else:
                self._refresh_count, self._refreshed_at = self._refresh_count + 1, self._now()

    def failed(self) -> None:
        """Notes that none could be made."""
        with self._lock:
            self._is_valid = False

    def state(self) -> LoginState:
        """As `Login` says."""
        with self._lock:
            return LoginState(
                self._session_id, self._created_at, None, self._refresh_count, self._refreshed_at, self._is_valid
            )


class Token(Protocol):
    """A token of Microsoft Entra, as azure-identity gives it."""

    @property
    def token(self) -> str:
        """The secret itself."""

    @property
    def expires_on(self) -> int:
        """When it ends, in seconds since 1970."""


class TokenLogin:
    """A login by a token, which all that ask share until two minutes before it ends. For any number of threads."""

    def __init__(self, ask: Callable[[], Any], now: Now = utc_now) -> None:
        """`ask` asks for a new token."""
        self._ask, self._now, self._asking = ask, now, Lock()
        self._token: Token | None = None
        self._state = LoginState()

    def token(self) -> Token:
        """A token that does not end within two minutes; one that ends earlier if no other is to be had.

        One thread renews it. Others meanwhile get the present one, as long as it has not ended. Raises what `ask`
        raises, unless the present token has not ended.
        """
        token, seconds = self._token, self._seconds_left()
        if token is not None and seconds > RENEWED_SECONDS:
            return token
        if not self._asking.acquire(blocking=token is None or seconds <= 0):
            assert token is not None  # noqa: S101 - for mypy; else it would have waited
            return token
        try:
            return self._renewed()
        finally:
            self._asking.release()

    def _renewed(self) -> Token:
        token, seconds = self._token, self._seconds_left()
        if token is not None and seconds > RENEWED_SECONDS:
            return token  # another thread was faster
        try:
            new: Token = self._ask()
        except Exception as error:
            if token is not None and seconds > 0:
                event("identity.not_renewed", level=logging.WARNING, error=type(error).__name__)
                return token
            self._state = LoginState(**{**vars(self._state), "is_valid": False})
            raise
        before, now = self._state, self._now()
        expires_at = datetime.fromtimestamp(new.expires_on, UTC)
        if before.created_at is None:
            self._state = LoginState(secrets.token_hex(16), now, expires_at, is_valid=True)
        elif token is None or new.token != token.token:
            self._state = LoginState(
                before.session_id, before.created_at, expires_at, before.refresh_count + 1, now, True
            )
        self._token = new
        return new

    def _seconds_left(self) -> float:
        return float("-inf") if self._token is None else self._token.expires_on - self._now().timestamp()

    def state(self) -> LoginState:
        """As `Login` says."""
        state = self._state
        has_ended = state.expires_at is None or state.expires_at <= self._now()
        return LoginState(**{**vars(state), "is_valid": state.is_valid and not has_ended})
