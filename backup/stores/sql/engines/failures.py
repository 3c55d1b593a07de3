"""What a driver's error means, and its message without the values that it quotes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from backup.core.errors import BackupError, ConfigError


@dataclass(frozen=True)
class Failure:
    """What a driver's error means, in a text without values, safe to show."""

    kind: str = field(
        metadata={
            "one of": "transient, unanswered, database_missing, missing, column_missing, unavailable, undecoded, "
            "denied, constraint, unique, refused"
        }
    )
    text: str
    hint: str | None = None
    name: str | None = None
    """The name of the missing table, with or without its schema, if the server says it."""


FULL_HINT = "Make room for the database. No record is at fault, and what was written before stays. Then run it again."
"""For a disk, a file group, a log or a quota that is full. That is not a refusal of single records."""

_NAME = re.compile(r"""no such table: (.+?)\.?$|["']([^"']+)["']""")


def name_in(text: str) -> str | None:
    """The first name in a server's message: of `relation "public.Things" does not exist`, `no such table: Things`."""
    match = _NAME.search(text)
    return match and (match[1] or match[2])


_QUOTED_DATA = re.compile(
    r"Truncated value:|The duplicate key value is|DETAIL:|\bwith text '|(?<=\bvalue) [N]?'|(?<=\bvalue) \"|(?<=: )\"",
    re.I,
)


def driver_text(error: BaseException) -> str:
    """The first line of the driver's message, cut before the values that it may quote."""
    text = str(error.args[-1] if error.args else error).strip()
    text = text.splitlines()[0] if text else type(error).__name__
    return _QUOTED_DATA.split(text)[0].strip().rstrip(".,(:") + "."


def missing_driver(name: str, hint: str) -> BackupError:
    """The error for a driver that is not installed."""
    return ConfigError(f"The driver {name} cannot be loaded.", hint=hint)
