"""Finds the line of a key in a TOML text, for messages. The parser itself does not say where a key is."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class TomlLines:
    """The lines of a TOML text that `tomllib` can read. Looking a key up parses parts of the text a few times."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines(keepends=True)

    def line_of(self, path: Sequence[str | int]) -> int:
        """Returns the line, counted from 1, where the key of this path begins. Parts of the path that the text does not
        have do not count. Keys that stand in one value have the line of that value."""
        names = self._existing(path)
        low, high = 0, len(self._lines)  # the first `low` lines are a whole document that lacks the key
        while names and high - low > 1:
            middle = (low + high) // 2
            whole = self._whole(range(middle, low, -1)) or self._whole(range(middle + 1, high + 1))
            if whole is None or (_has(whole[1], names) and whole[0] > middle):
                break  # the value of the key begins in the next line
            if _has(whole[1], names):
                high = whole[0]
            else:
                low = whole[0]
        return low + 1

    def _existing(self, path: Sequence[str | int]) -> list[str]:
        """The part of the path that names keys of the text, without places in lists."""
        document = self._parsed(len(self._lines)) or {}
        names: list[str] = []
        for part in path:
            if not isinstance(part, str) or not _has(document, [*names, part]):
                break
            names.append(part)
        return names

    def _whole(self, numbers: Iterable[int]) -> tuple[int, Mapping[str, Any]] | None:
        """The first of these numbers of lines that are a whole document, with that document; None if none are."""
        return next(((n, document) for n in numbers if (document := self._parsed(n)) is not None), None)

    def _parsed(self, lines: int) -> Mapping[str, Any] | None:
        try:
            return tomllib.loads("".join(self._lines[:lines]))
        except tomllib.TOMLDecodeError:
            return None


def _has(document: Mapping[str, Any], path: Sequence[str]) -> bool:
    value: Any = document
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True
