"""The keys of the state machine's tables, and which spellings the server takes for the same key."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Keys:
    """Key columns with their types, the keys that may occur, and `fold`: equal for all spellings of the same key."""

    columns: dict[str, str]
    pool: Sequence[Key]
    fold: Callable[[Key], Key] = tuple

    def text(self, key: Key) -> str:
        """The key as a person writes it."""
        return json.dumps(key) if len(key) > 1 else str(key[0])


NUMBERS = Keys({"Id": "INTEGER"}, [(n,) for n in (-1, *range(9))])
PAIRS = Keys({"Region": "VARCHAR(5)", "No": "INTEGER"}, [(r, n) for r in ("", "n", "N", "ñ", "n ") for n in (1, 2)])


def _ascii_lower(key: Key) -> Key:
    return ("".join(c.lower() if c.isascii() else c for c in key[0]),)


LETTERS = Keys({"Id": "VARCHAR(5) COLLATE NOCASE"}, [(c,) for c in "aAbBcCeEéÉ"], _ascii_lower)
