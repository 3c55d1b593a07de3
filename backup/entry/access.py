"""Who may do what over HTTP: the one place that decides. Without Easy Auth the function key decides, before the app.

Easy Auth is what Azure puts in front of an app so that people sign in. It alone may set the header with the signed-in
person's claims. Without Easy Auth anybody can send that header, so then it does not count.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backup.config.environment import has_easy_auth
from backup.core.errors import Forbidden

READER = "backup.reader"
"""The role of who may look only."""

OPERATOR = "backup.operator"
"""The role of who may look, and may do everything else too."""

_HEADER = "x-ms-client-principal"
_ROLE_TYPES = ("roles", "http://schemas.microsoft.com/ws/2008/06/identity/claims/role")
_NAME_TYPES = ("preferred_username", "name", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name")
_NAME_AT_MOST = 200
_LOOKS = ("GET", "HEAD")


@dataclass(frozen=True)
class Principal:
    """A signed-in person, or a program: the name, and the roles."""

    name: str
    roles: frozenset[str]

    @property
    def may_write(self) -> bool:
        """Whether the roles allow more than to look."""
        return OPERATOR in self.roles


def signed_in(headers: Mapping[str, str]) -> Principal | None:
    """Returns who asks; None where Easy Auth is not in front of the app, so nobody is known. Raises Forbidden for
    claims that are missing or cannot be read."""
    if not has_easy_auth():
        return None
    return principal_of({name.lower(): value for name, value in headers.items()}.get(_HEADER))


def permitted(method: str, headers: Mapping[str, str]) -> str | None:
    """Returns the name of the person who asks; None where Easy Auth is not in front of the app, so nobody is known.

    Raises Forbidden for a person without a role, and for claims that are missing or cannot be read. A reader may only
    look: any method but GET and HEAD raises it, too.
    """
    principal = signed_in(headers)
    if principal is None:
        return None
    if principal.may_write:
        return principal.name
    if READER not in principal.roles:
        raise Forbidden(
            f"{principal.name} has no role for this app. Nothing was changed.",
            hint=f"Give the person the app role {READER} (may look) or {OPERATOR} (may do everything).",
        )
    if method.upper() not in _LOOKS:
        raise Forbidden(
            f"{principal.name} has the role {READER}, which may look only. Nothing was changed.",
            hint=f"The app role {OPERATOR} may do this.",
        )
    return principal.name


def principal_of(header: str | None) -> Principal:
    """Returns the person whom the header of Easy Auth names. Raises Forbidden for a header that names nobody."""
    if not header:
        raise Forbidden("Nobody is signed in. Nothing was changed.", hint="Sign in, or send a token of the app.")
    try:
        document = json.loads(base64.b64decode(header, validate=True))
        claims = [(claim["typ"], claim["val"]) for claim in document["claims"]]
    except (binascii.Error, ValueError, TypeError, KeyError, RecursionError):
        raise Forbidden(
            "The claims of the signed-in person cannot be read. Nothing was changed.",
            hint="X-MS-CLIENT-PRINCIPAL holds Base64 of JSON with a list of claims; Easy Auth sets it.",
        ) from None
    texts = [(kind, value) for kind, value in claims if isinstance(kind, str) and isinstance(value, str)]
    role_types, name_types = (
        _with_own(document, "role_typ", _ROLE_TYPES),
        _with_own(document, "name_typ", _NAME_TYPES),
    )
    names = (value for wanted in name_types for kind, value in texts if kind == wanted)
    name = next(filter(None, map(_printable, names)), "somebody without a name")
    return Principal(name, frozenset(value for kind, value in texts if kind in role_types))


def _with_own(document: Mapping[str, Any], field: str, usual: tuple[str, ...]) -> tuple[str, ...]:
    """The types of claims that count: the one that the header itself names first, if any."""
    own = document.get(field)
    return (own, *usual) if isinstance(own, str) else usual


def _printable(name: str) -> str:
    return "".join(character for character in name if character.isprintable()).strip()[:_NAME_AT_MOST]
