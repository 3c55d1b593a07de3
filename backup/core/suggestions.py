"""Names that somebody wrote: which known one was meant, and how messages repeat them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_SHORTEST = 3
_QUOTED_CHARACTERS = 100


def meant_by(name: str, known: Iterable[str]) -> str | None:
    """The known name, in any case, that is most like this one, or that this one begins; None where there is none."""
    names = {one.lower(): one for one in known}
    asked = name.lower()
    close = get_close_matches(asked, names, 1) or [
        one for one in names if len(asked) >= _SHORTEST and one.startswith(asked)
    ]
    return names[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question after that name, to stand behind a message; empty where there is none."""
    meant = meant_by(name, known)
    return f" Did you mean {meant}?" if meant else ""


def quoted(text: str) -> str:
    """What somebody wrote, as a message may repeat it: its beginning, in quotes, on one line."""
    return repr(text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}…")
