"""Tokens that are renewed before they end, and what is told of logins."""

import json
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from backup.core.errors import BadRequest
from backup.entry.session_api import get_session_stats, shape_session_stats
from backup.stores import identity
from backup.stores.identity import Identity, IdentityLogin
from backup.stores.logins import ConnectionLogin, LoginState, TokenLogin
from backup.stores.pools import PoolState

START = datetime(2026, 11, 29, 12, tzinfo=UTC)


class Authority:
    """Gives tokens of these lifetimes, one after the other; None: it does not answer."""

    def __init__(self, *lifetimes: int | None) -> None:
        self.now = START
        self.asked = 0
        self._lifetimes = iter(lifetimes)

    def get_token(self, *scopes: str, **options: Any) -> Any:
        self.asked += 1
        if (seconds := next(self._lifetimes)) is None:
            raise ConnectionError("no answer")
        expires_on = int((self.now + timedelta(seconds=seconds)).timestamp())
        return SimpleNamespace(token=f"secret-{self.asked}-{scopes}-{options}", expires_on=expires_on)

    def login(self) -> TokenLogin:
        return TokenLogin(lambda: self.get_token("scope"), lambda: self.now)


def test_a_token_is_renewed_two_minutes_before_it_ends() -> None:
    authority = Authority(3600, 3600)
    login = authority.login()
    first = login.token()
    authority.now += timedelta(seconds=3600 - 121)
    assert login.token() is first
    assert login.state().refresh_count == 0
    authority.now += timedelta(seconds=1)
    assert login.token() is not first
    state = login.state()
    assert (state.created_at, state.refreshed_at, state.refresh_count) == (START, authority.now, 1)
    assert state.expires_at == authority.now + timedelta(seconds=3600)
    assert state.is_valid


def test_a_token_that_cannot_be_renewed_is_used_until_it_ends() -> None:
    authority = Authority(600, None, None, 600)
    login = authority.login()
    first = login.token()
    authority.now += timedelta(seconds=540)
    assert login.token() is first
    assert login.state().is_valid
    authority.now += timedelta(seconds=60)
    assert not login.state().is_valid
    with pytest.raises(ConnectionError):
        login.token()
    assert login.token() is not first
    assert login.state().is_valid


def test_a_token_that_is_shorter_than_two_minutes_is_asked_for_anew_each_time_and_is_no_error() -> None:
    authority = Authority(60, 60)
    login = authority.login()
    assert login.token() is not login.token()
    assert authority.asked == 2


def test_threads_that_ask_at_once_get_one_token_and_none_waits_for_its_renewal() -> None:
    authority, renewing, tokens = Authority(600, 600), threading.Event(), list[Any]()
    asked, may_answer = authority.get_token, threading.Event()
    login = TokenLogin(lambda: ask(), lambda: authority.now)

    def ask() -> Any:
        renewing.set()
        assert may_answer.wait(10)
        return asked("scope")

    threads = [threading.Thread(target=lambda: tokens.append(login.token())) for _ in range(4)]
    for thread in threads:
        thread.start()
    may_answer.set()
    for thread in threads:
        thread.join()
    assert (authority.asked, len({token.token for token in tokens})) == (1, 1)
    authority.now += timedelta(seconds=500)
    renewing.clear()
    may_answer.clear()
    renewal = threading.Thread(target=login.token)
    renewal.start()
    assert renewing.wait(10)
    assert login.token() is tokens[0]
    may_answer.set()
    renewal.join()
    assert login.token() is not tokens[0]


@pytest.fixture
def no_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_logins", {})


def test_an_identity_shares_tokens_by_scope_and_makes_one_with_claims_for_its_request_alone(no_logins: None) -> None:
    authority = Authority(10**9, 10**9, 10**9)
    shared = Identity("a-client", authority)
    assert shared.get_token("first") is shared.get_token("first", claims=None)
    assert shared.get_token("second") is not shared.get_token("first")
    assert "claims" in shared.get_token("first", claims="{}").token
    assert IdentityLogin("a-client", "first").state().is_valid
    assert IdentityLogin(None, "first").state() == LoginState()


def test_a_password_is_a_login_anew_with_each_connection() -> None:
    now = [START]
    login = ConnectionLogin(lambda: now[0])
    assert login.state() == LoginState()
    login.succeeded()
    now[0] += timedelta(seconds=5)
    login.succeeded()
    state = login.state()
    assert (state.created_at, state.expires_at, state.refresh_count, state.refreshed_at) == (START, None, 1, now[0])
    assert state.is_valid
    login.failed()
    assert not login.state().is_valid


def test_the_answer_tells_the_login_used_last_and_hides_what_is_secret() -> None:
    authority = Authority(3600)
    token = authority.login()
    token.token()
    password = ConnectionLogin(lambda: START)
    password.succeeded()
    states = [
        PoolState("mssql", "here/db", 3, 2, 1, START + timedelta(seconds=9), token.state()),
        PoolState("postgresql", "there/db", 1, 0, 0, START, password.state()),
        PoolState("sqlite", "/a.db", 0, 0, 0, None, LoginState()),
    ]
    body = shape_session_stats(states[::-1], START + timedelta(seconds=600)).body
    first, second, third = body["connections"]
    login = {name: value for name, value in body.items() if name != "connections"}
    assert {name: first[name] for name in login} == login
    assert login["currentSessionId"] == f"…{(token.state().session_id or '')[-6:]}"
    assert (login["createdAt"], login["expiresAt"]) == ("2026-11-29T12:00:00.000Z", "2026-11-29T13:00:00.000Z")
    assert (login["remainingTime"], login["refreshCount"], login["lastRefreshAt"]) == (3000, 0, None)
    assert login["isValid"] is True
    assert (first["kind"], first["open"], first["idle"], first["reconnects"]) == ("mssql", 3, 2, 1)
    assert first["lastUsedAt"] == "2026-11-29T12:00:09.000Z"
    assert (second["expiresAt"], second["remainingTime"], second["isValid"]) == (None, None, True)
    assert (third["currentSessionId"], third["lastUsedAt"], third["isValid"]) == (None, None, False)
    assert "secret" not in json.dumps(body)


def test_without_a_connection_there_is_an_answer_all_the_same() -> None:
    assert shape_session_stats([], START).body == {
        "currentSessionId": None,
        "createdAt": None,
        "expiresAt": None,
        "remainingTime": None,
        "refreshCount": 0,
        "lastRefreshAt": None,
        "isValid": False,
        "connections": [],
    }
    with pytest.raises(BadRequest):
        get_session_stats({"limit": "1"})
