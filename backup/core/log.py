"""Log lines of constant names and snake_case fields. Never a record's content, a connection string or a secret."""

from __future__ import annotations

import json
import logging
import math
import re
import unicodedata
from datetime import UTC, datetime
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

    Characters that no output can encode (half a surrogate pair, a byte that is not a text) become escapes.
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


def time_text(moment: datetime) -> str:
    """The time as all answers, events and lines have it: in UTC with milliseconds, `2026-11-20T00:00:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event(name: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Writes one line `name field=value …`, or a JSON object after `write_json`. The worker forwards only this text, so
    the fields stand in it. People who read a job's log get the first form either way, as the record's `plain_line`."""
    if not logger.isEnabledFor(level):
        return
    line = " ".join([name, *(f"{key}={_shown(value)}" for key, value in fields.items())])
    if not _writes_json:
        logger.log(level, "%s", line)
        return
    text = _json_line(datetime.now(UTC), logging.getLevelName(level), name, fields)
    logger.log(level, "%s", text, extra={_PLAIN: line})


def plain_line_of(record: logging.LogRecord) -> str:
    """The line of an event as people read it, whichever form was written."""
    return str(getattr(record, _PLAIN, None) or record.getMessage())


def write_json(wanted: bool) -> None:
    """From now on `event` writes JSON objects, or lines for people. Of this process, for all its threads."""
    global _writes_json
    _writes_json = wanted


class EventFormatter(logging.Formatter):
    """A formatter of a whole stream. While events are JSON, each of its lines is an object. A line of a library has the
    event `log`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        if not _writes_json:
            return super().format(record)
        if hasattr(record, _PLAIN):
            return record.getMessage()
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        fields = {"logger": record.name, "message": text}
        return _json_line(datetime.fromtimestamp(record.created, UTC), record.levelname, "log", fields)


_PLAIN = "plain_line"
_writes_json = False


def _json_line(at: datetime, level: str, name: str, fields: dict[str, Any]) -> str:
    values = {key: _plain_value(value) for key, value in fields.items()}
    return json.dumps({"time": time_text(at), "level": level, "event": name, "fields": values})


def _plain_value(value: Any) -> bool | int | float | str | None:
    """The value as JSON has it: no number that JSON lacks, and no secret in a text."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return redact(value.isoformat() if isinstance(value, datetime) else str(value))


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool | int):
        return str(value)  # has no secret, and most fields are numbers
    text = visible(redact(" ".join(str(value).split())))
    return f'"{text}"' if " " in text else text


def quiet_libraries() -> None:
    """Keeps what libraries log of requests and connections out of the app's log.

    Azure's SDKs log headers and URLs. Pools of connections quote the messages of drivers, which have values in them.
    """
    for name in ("azure", "urllib3", "msal", "kombu", "amqp", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    hide_addresses()
    # SQLAlchemy names a pool's logger after its class, and logs each lost connection with a traceback.
    logging.getLogger("backup.stores.sql.pool").setLevel(logging.CRITICAL)


def hide_addresses() -> None:
    """Keeps urllib3 from logging the whole address of a server whose headers it cannot read: a token may be in it."""
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)
