"""Logins as an operator sees them: since when, until when, how often renewed. Never a name, a token or a password."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Protocol

from backup.core.model import Now, utc_now


@dataclass(frozen=True)
class LoginState:
    """A login now.

    `session_id` is of this process's own making, and shown in part only. `created_at` is when the login was first used;
    `expires_at` when its token ends, None for a login that has no end; `refreshed_at` when it was last renewed. All
    None before the first use. `is_valid`: the last login succeeded, and its token has not ended.
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
    """A login that is made anew with each connection: a password, Windows, or the right to read a file. For any number
    of threads. It is renewed with each connection after the first."""

    def __init__(self, now: Now = utc_now) -> None:
        self._now, self._lock = now, Lock()
        self._session_id: str | None = None
        self._created_at: datetime | None = None
        self._refreshed_at: datetime | None = None
        self._logins, self._is_valid = 0, False

    def succeeded(self) -> None:
        """Notes that a connection was made."""
        with self._lock:
            self._logins, self._is_valid = self._logins + 1, True
            if self._created_at is None:
                self._session_id, self._created_at = secrets.token_hex(16), self._now()
            else:
                self._refreshed_at = self._now()

    def failed(self) -> None:
        """Notes that none could be made."""
        with self._lock:
            self._is_valid = False

    def state(self) -> LoginState:
        """As `Login` says."""
        with self._lock:
            return LoginState(
                self._session_id,
                self._created_at,
                None,
                max(0, self._logins - 1),
                self._refreshed_at,
                self._is_valid,
            )
