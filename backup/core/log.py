"""Log lines of constant names and snake_case fields. Never a record's content, a connection string or a secret."""

from __future__ import annotations

import logging
import re
import unicodedata
from typing import Any

logger = logging.getLogger("backup")

_secrets: set[str] = set()
_SECRET_PAIR = re.compile(
    r"\b(password|pwd|accountkey|sharedaccesskey|sharedaccesssignature|accesstoken|sig)\s*=\s*"
    r"""(\{(?:[^}]|\}\})*\}|"(?:[^"]|"")*"|'(?:[^']|'')*'|[^;&\s]+)""",
    re.I,
)
_SECRET_IN_URL = re.compile(r"(://[^:/@\s]*:)\S+@")


def register_secret(value: str | None) -> None:
    """From now on `redact` removes this value wherever it stands. Short or empty values are ignored."""
    if value and len(value) >= 4:
        _secrets.add(value)


def redact(text: str) -> str:
    """The text without secrets: registered ones, values of pairs such as `Password=…`, passwords in URLs.

    Characters that no output can encode (half a surrogate pair, a byte that is no text) become escapes.
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _SECRET_IN_URL.sub(r"\1***@", _SECRET_PAIR.sub(lambda match: f"{match[1]}=***", text))


def visible(text: str) -> str:
    """The text with invisible characters as Python's escapes: control characters, direction marks, half characters.

    A terminal may obey such characters. Spaces of all kinds stay; line ends become escapes too.
    """
    return text if text.isprintable() else "".join(_shown_character(character) for character in text)


def _shown_character(character: str) -> str:
    is_visible = character.isprintable() or unicodedata.category(character) == "Zs"
    return character if is_visible else character.encode("unicode_escape").decode()


def event(name: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Writes one line `name field=value …`. The worker forwards only this text, so the fields stand in it."""
    if logger.isEnabledFor(level):
        logger.log(level, "%s", " ".join([name, *(f"{key}={_shown(value)}" for key, value in fields.items())]))


def _shown(value: Any) -> str:
    text = visible(redact(" ".join(str(value).split())))
    return f'"{text}"' if " " in text else text


def quiet_libraries() -> None:
    """Keeps the request logs of Azure's SDKs, which hold headers and URLs, out of the app's log; and those of pools of
    connections, which quote drivers' messages with their values."""
    for name in ("azure", "urllib3", "msal", "kombu", "amqp", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # SQLAlchemy names a pool's logger after its class, and logs each lost connection with a traceback.
    logging.getLogger("backup.stores.sql.pool").setLevel(logging.CRITICAL)
