"""The HTTP API of the logins and connections of this process. Asks no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from backup.core.log import time_text
from backup.core.model import Now, utc_now
from backup.entry.answers import Answer
from backup.entry.requests import check_query
from backup.stores import pools
from backup.stores.logins import LoginState
from backup.stores.pools import PoolState

_SHOWN_CHARACTERS = 6
_NEVER = datetime.min.replace(tzinfo=UTC)


def get_session_stats(query: Mapping[str, str], now: Now = utc_now) -> Answer:
    """Answers with the login that was used last, and with each pool of this process, the one used last first."""
    check_query(query)
    return shape_session_stats(pools.states(), now())


def shape_session_stats(states: Sequence[PoolState], now: datetime) -> Answer:
    """The answer of `get_session_stats`. No name of a login, no token and no password is in it."""
    used_last_first = sorted(states, key=lambda state: state.last_used_at or _NEVER, reverse=True)
    last = used_last_first[0].login if used_last_first else LoginState()
    connections = [{**_pool(state), **_login(state.login, now)} for state in used_last_first]
    return Answer(200, {**_login(last, now), "connections": connections})


def _pool(state: PoolState) -> dict[str, Any]:
    return {
        "kind": state.kind,
        "server": state.server,
        "open": state.open,
        "idle": state.idle,
        "reconnects": state.reconnects,
        "lastUsedAt": _time(state.last_used_at),
    }


def _login(login: LoginState, now: datetime) -> dict[str, Any]:
    seconds_left = None if login.expires_at is None else max(0, int((login.expires_at - now).total_seconds()))
    return {
        "currentSessionId": login.session_id and f"…{login.session_id[-_SHOWN_CHARACTERS:]}",
        "createdAt": _time(login.created_at),
        "expiresAt": _time(login.expires_at),
        "remainingTime": seconds_left,
        "refreshCount": login.refresh_count,
        "lastRefreshAt": _time(login.refreshed_at),
        "isValid": login.is_valid,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else time_text(moment)
