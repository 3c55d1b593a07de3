"""Parts of messages: which name the user meant, what the user wrote, where it stands, and numbers of things."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_SHORTEST = 3
_TIMES_AS_LONG = 3
_QUOTED_CHARACTERS = 100


def meant_by(name: str, names: Iterable[str]) -> str | None:
    """Returns the most similar of the `names`, else one that begins with `name`; None if there is none.

    Ignores case.
    """
    by_lower_case = {candidate.lower(): candidate for candidate in names}
    lowered = name.lower()
    if len(lowered) > _TIMES_AS_LONG * max(map(len, by_lower_case), default=0):
        return None  # it cannot be similar to any; the search for that takes ten seconds for a million characters
    close = get_close_matches(lowered, by_lower_case, 1) or [
        candidate for candidate in by_lower_case if len(lowered) >= _SHORTEST and candidate.startswith(lowered)
    ]
    return by_lower_case[close[0]] if close else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Returns the question " Did you mean …?", for the end of a message. Empty if none of the `names` is similar."""
    meant = meant_by(name, names)
    return f" Did you mean {meant}?" if meant else ""


def quoted(text: str) -> str:
    """Returns what the user wrote, for a message: in quotes, on one line, at most 100 characters."""
    return repr(text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}…")


def quantity(number: float, thing: str, things: str | None = None) -> str:
    """Returns `1 record`, `2 records`: the number, and the thing in the singular or the plural.

    `things` is the plural, if it does not just add an s: `quantity(2, "table is", "tables are")`.
    """
    spelled = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{spelled} {thing}" if number == 1 else f"{spelled} {things or f'{thing}s'}"


def subject(setting: str) -> str:
    """What begins a sentence about a value: the setting that has it; or the option of the command line, such as --to,
    or its argument, such as <SOURCE>."""
    if setting.startswith("<"):
        return f"The argument {setting[1:-1]}"
    return f"The option {setting}" if setting.startswith("--") else f"Setting {setting}"
