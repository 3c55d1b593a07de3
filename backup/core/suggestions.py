"""Misspelt names: which known name was meant, and how a message repeats what somebody wrote."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_SHORTEST = 3
_QUOTED_CHARACTERS = 100


def meant_by(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, or begins with it, whatever the case; None where none is."""
    names = {known_name.lower(): known_name for known_name in known}
    asked = name.lower()
    close = get_close_matches(asked, names, 1) or [
        lowered for lowered in names if len(asked) >= _SHORTEST and lowered.startswith(asked)
    ]
    return names[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The question " Did you mean …?", to put behind a message; empty where no name is near."""
    meant = meant_by(name, known)
    return f" Did you mean {meant}?" if meant else ""


def quoted(text: str) -> str:
    """What somebody wrote, for a message: in quotes, on one line, shortened."""
    return repr(text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}…")
