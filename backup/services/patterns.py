"""Patterns of names: which tables, containers or services they stand for. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def is_pattern(text: str) -> bool:
    """Whether the text stands for any number of names, and not for the one that it spells."""
    return "*" in text or "?" in text


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Returns the names for which the pattern stands, in their order.

    `*` stands for any characters, `?` for one. A pattern without a dot is also compared with the last part of a name. A
    name with the pattern's own case comes before others: case counts only where a name fits with it.
    """
    candidates = list(names)
    expression = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern)
    for flags in (re.S, re.S | re.I):
        compiled = re.compile(expression, flags)
        if matched := [name for name in candidates if any(map(compiled.fullmatch, _texts(name, pattern)))]:
            return matched
    return []


def _texts(name: str, pattern: str) -> Sequence[str]:
    """The texts of a name that a pattern may mean: as settings spell it, without brackets, and its last part."""
    parts = [
        bracketed.replace("]]", "]") if bracketed else plain
        for bracketed, plain in re.findall(r"\[((?:[^]]|\]\])+)\]|([^.\[\]]+)", name)
    ]
    plain_texts = [name, ".".join(parts)]
    return plain_texts if "." in pattern or not parts else [*plain_texts, parts[-1]]
