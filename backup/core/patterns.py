"""Names of tables, and patterns of them: which tables, containers or services they stand for. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache

_BRACKETED = re.compile(r"(?<![^./])\[((?:[^]]|\]\])+)\](?![^./])")
"""A part of a name that stands in brackets: nothing in it stands for anything else."""


def bracketed(part: str) -> str:
    """The part of a table's name as settings spell it: in brackets if it has a dot, a bracket, a quote, `*` or `?`, or
    a space at an end."""
    is_plain = part.strip() == part != "" and not set(part) & set('.[]"*?')
    return part if is_plain else f"[{part.replace(']', ']]')}]"


def is_pattern(text: str) -> bool:
    """Whether the text stands for any number of names, and not for the one that it spells."""
    return bool({"*", "?"} & set(_BRACKETED.sub("", text)))


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Returns the names for which the pattern stands, in their order.

    `*` stands for any characters, `?` for one; in a part in brackets they stand for themselves. A pattern without a dot
    is also compared with the last part of a name. A name with the pattern's own case comes before others: case counts
    only where a name fits with it.
    """
    return NameIndex(names).matching(pattern)


def same_name(name: str, names: Collection[str]) -> str:
    """The one of the names that is meant: with the same case, else without regard to case; empty if there is none."""
    if name in names:
        return name
    alike = [candidate for candidate in names if candidate.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else ""


class NameIndex:
    """Names that many patterns are compared with. A pattern that spells a name costs no look at the others."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self._alike: dict[str, list[int]] | None = None

    def matching(self, pattern: str) -> list[str]:
        """As the function `matching`."""
        names = self._names
        if len(names) > 1 and _spells_one(pattern):
            names = self._spelled(pattern)
        has_dot = "." in _BRACKETED.sub("", pattern)
        for is_exact in (True, False):
            fits = _compiled(pattern, is_exact)
            if matched := [name for name in names if any(map(fits, _texts(name, has_dot)))]:
                return matched
        return []

    def _spelled(self, text: str) -> list[str]:
        """The names that may be this text, in their order. Letters beyond ASCII have cases that only `re` knows."""
        if self._alike is None:
            self._alike = {}
            for place, name in enumerate(self._names):
                for spelled in {spelled.lower() for spelled in _texts(name, False)} if name.isascii() else {""}:
                    self._alike.setdefault(spelled, []).append(place)
        places = {*self._alike.get(text.lower(), ()), *self._alike.get("", ())}
        return [self._names[place] for place in sorted(places)]


class PatternIndex:
    """Patterns that many names are compared with. Those that spell other names cost nothing."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = list(patterns)
        self._alike: dict[str, list[int]] = {}
        for place, pattern in enumerate(self._patterns):
            self._alike.setdefault(pattern.lower() if _spells_one(pattern) else "", []).append(place)

    def first(self, name: str) -> str | None:
        """The first of the patterns that stands for the name; None without one."""
        return next(self.standing_for(name), None)

    def standing_for(self, name: str) -> Iterator[str]:
        """The patterns that stand for the name, in their order."""
        places: Iterable[int] = range(len(self._patterns))
        if name.isascii():
            texts = ("", *(text.lower() for text in _texts(name, False)))
            places = sorted({place for text in texts for place in self._alike.get(text, ())})
        return (self._patterns[place] for place in places if matching(self._patterns[place], [name]))


def _spells_one(pattern: str) -> bool:
    """Whether the pattern is, letter by letter, a text of each name that it stands for."""
    return pattern.isascii() and not {"*", "?", "["} & set(pattern)


@lru_cache(maxsize=4_096)
def _compiled(pattern: str, is_exact: bool) -> Callable[[str], object]:
    pieces = [""]  # what stands between one `*` and the next
    for place, text in enumerate(_BRACKETED.split(pattern)):
        if place % 2:  # what stood in brackets
            pieces[-1] += re.escape(bracketed(text.replace("]]", "]")))
        else:
            plain = [
                "".join("." if letter == "?" else re.escape(letter) for letter in part) for part in text.split("*")
            ]
            pieces[-1] += plain[0]
            pieces += plain[1:]
    # What stands between two `*` counts at its first place alone: any later one leaves less for the rest. Else a name
    # that does not fit would be tried in billions of ways.
    expression = pieces[0] + "".join(f"(?>.*?{piece})" for piece in pieces[1:-1])
    if len(pieces) > 1:
        expression += f".*{pieces[-1]}"
    return re.compile(expression, re.S if is_exact else re.S | re.I).fullmatch


@lru_cache(maxsize=4_096)
def _texts(name: str, has_dot: bool) -> Sequence[str]:
    """The texts of a name that a pattern may mean: as settings spell it, without brackets, and its last part in both
    ways, unless the pattern has a dot."""
    parts = [
        in_brackets.replace("]]", "]") if in_brackets else plain
        for in_brackets, plain in re.findall(r"\[((?:[^]]|\]\])+)\]|([^.\[\]]+)", name)
    ]
    texts = [name, ".".join(parts)]
    return texts if has_dot or not parts else [*texts, parts[-1], bracketed(parts[-1])]
