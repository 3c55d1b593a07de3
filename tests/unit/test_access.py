"""Who may do what over HTTP: roles count only behind Easy Auth, and a doubt is a refusal."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from backup.core.errors import BadRequest, Forbidden
from backup.entry.access import permitted
from backup.entry.answers import error_answer
from backup.entry.dashboard_api import get_caller

MICROSOFT = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"


@pytest.fixture
def _easy_auth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBSITE_AUTH_ENABLED", "True")


def encoded(document: Any) -> dict[str, str]:
    return {"X-MS-CLIENT-PRINCIPAL": base64.b64encode(json.dumps(document).encode()).decode()}


def signed_in(*roles: str, name: str = "ada@example.com", kind: str = "roles", **fields: str) -> dict[str, str]:
    claims = [{"typ": "preferred_username", "val": name}, *({"typ": kind, "val": role} for role in roles)]
    return encoded({"auth_typ": "aad", "claims": claims, **fields})


@pytest.mark.parametrize("value", ["", "False", "0", "no", None])
def test_without_easy_auth_headers_can_be_forged_so_they_do_not_count(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("WEBSITE_AUTH_ENABLED", raising=False)
    if value is not None:
        monkeypatch.setenv("WEBSITE_AUTH_ENABLED", value)
    headers = {**signed_in("backup.reader"), "WEBSITE_AUTH_ENABLED": "True", "X-MS-CLIENT-PRINCIPAL-NAME": "Eve"}
    assert permitted("POST", headers) is None
    assert permitted("POST", {}) is None


@pytest.mark.usefixtures("_easy_auth")
@pytest.mark.parametrize(
    ("roles", "looks", "writes"),
    [
        ((), False, False),
        (("backup.reader",), True, False),
        (("backup.operator",), True, True),
        (("something", "backup.reader", "backup.operator"), True, True),
        (("Backup.Operator",), False, False),
        (("backup.operator ",), False, False),
        (("backup.reader,backup.operator",), False, False),
    ],
)
def test_a_role_says_who_may_look_and_who_may_write(roles: tuple[str, ...], looks: bool, writes: bool) -> None:
    for methods, may in ((("GET", "HEAD", "get"), looks), (("POST", "DELETE", "PUT", "PATCH", ""), writes)):
        for method in methods:
            if may:
                assert permitted(method, signed_in(*roles)) == "ada@example.com"
            else:
                with pytest.raises(Forbidden, match="Nothing was changed"):
                    permitted(method, signed_in(*roles))


@pytest.mark.usefixtures("_easy_auth")
def test_a_role_counts_under_every_name_that_sign_ins_give_it() -> None:
    assert permitted("POST", signed_in("backup.operator", kind=MICROSOFT))
    assert permitted("POST", signed_in("backup.operator", kind="groups", role_typ="groups"))
    with pytest.raises(Forbidden):
        permitted("POST", signed_in("backup.operator", kind="groups"))


@pytest.mark.usefixtures("_easy_auth")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-MS-CLIENT-PRINCIPAL": ""},
        {"X-MS-CLIENT-PRINCIPAL": "%%%"},
        {"X-MS-CLIENT-PRINCIPAL": "é"},
        {"X-MS-CLIENT-PRINCIPAL": base64.b64encode(b"\xff\xfe").decode()},
        {"X-MS-CLIENT-PRINCIPAL": base64.b64encode(b"[" * 100_000).decode()},
        {"X-MS-CLIENT-PRINCIPAL": signed_in("backup.operator")["X-MS-CLIENT-PRINCIPAL"] + "!"},
        {"X-MS-CLIENT-PRINCIPAL-NAME": "ada@example.com", "X-MS-CLIENT-PRINCIPAL-ROLES": "backup.operator"},
        *map(encoded, (None, 1, "backup.operator", [], {}, {"claims": None}, {"claims": {"typ": "roles"}})),
        *map(encoded, ({"claims": [1]}, {"claims": [{"typ": "roles"}]}, {"claims": [["roles", "backup.operator"]]})),
        encoded({"claims": [{"typ": "roles", "val": ["backup.operator"]}]}),
        encoded({"claims": [{"typ": ["roles"], "val": "backup.operator"}], "role_typ": ["roles"]}),
    ],
)
def test_claims_that_cannot_be_read_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Forbidden) as raised:
        permitted("GET", headers)
    answer = error_answer(raised.value)
    assert (answer.status, answer.body["Error"]) == (403, "Forbidden")


@pytest.mark.usefixtures("_easy_auth")
def test_a_name_is_a_short_text_on_one_line() -> None:
    assert permitted("GET", signed_in("backup.reader", name=" Ada\r\n\x1b[31m\u202eLovelace ")) == "Ada[31mLovelace"
    assert permitted("GET", signed_in("backup.reader", name="a" * 10_000)) == "a" * 200
    assert permitted("GET", signed_in("backup.reader", name="")) == "somebody without a name"
    own = encoded(
        {"claims": [{"typ": "who", "val": "Ada"}, {"typ": "roles", "val": "backup.reader"}], "name_typ": "who"}
    )
    assert permitted("GET", own) == "Ada"


def test_whoever_asks_is_told_what_the_roles_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, both = signed_in("backup.reader", "other"), signed_in("backup.operator", "backup.reader")
    monkeypatch.delenv("WEBSITE_AUTH_ENABLED", raising=False)
    assert get_caller(reader, {}).body == {"name": None, "roles": [], "mayWrite": True}
    monkeypatch.setenv("WEBSITE_AUTH_ENABLED", "True")
    assert get_caller(reader, {}).body == {"name": "ada@example.com", "roles": ["backup.reader"], "mayWrite": False}
    assert get_caller(both, {}).body["roles"] == ["backup.reader", "backup.operator"]
    assert get_caller(both, {}).body["mayWrite"] is True
    with pytest.raises(BadRequest):
        get_caller(both, {"name": "Eve"})
