"""Damages values: returns a value that differs from the original as little as possible."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

Damage = Callable[[Any, random.Random], Any]


def another_integer(value: Any, chance: random.Random) -> Any:
    return chance.choice([value + 1, value ^ (1 << chance.randrange(40)), None])


def another_float(value: Any, chance: random.Random) -> Any:
    return chance.choice([math.nextafter(value, math.inf), math.nextafter(value, -math.inf), None])


def another_text(value: Any, chance: random.Random) -> Any:
    if value is None:
        return ""
    if value == "":
        return chance.choice([None, " "])
    return chance.choice([f"{value} ", value[:-1], value.swapcase() + "\u0301", f"{value}\u200b"])


def another_blob(value: Any, chance: random.Random) -> Any:
    if value is None:
        return b""
    if value == b"":
        return chance.choice([None, b"\0"])
    at, bit = chance.randrange(len(value)), 1 << chance.randrange(8)
    return bytes(byte ^ bit if i == at else byte for i, byte in enumerate(value))


def another_type(value: Any, chance: random.Random) -> Any:
    """A similar value of another type, which SQLite allows in a column without a type."""
    match value:
        case int():
            return chance.choice([float(value), str(value)])
        case float():
            return -value if value == 0 else chance.choice([str(value), math.nextafter(value, 0)])
        case str():
            return chance.choice([value.encode(), f"{value} "])
    return value.decode()


def another_decimal(value: Any, chance: random.Random) -> Any:
    return chance.choice([value + Decimal("0.000001"), -value - 1, None])


def another_flag(value: Any, chance: random.Random) -> Any:
    return chance.choice([not value, None])


def another_document(document: dict[str, Any], chance: random.Random) -> tuple[dict[str, Any], str]:
    """The document with one property changed, and the name of that property."""
    damaged = json.loads(json.dumps(document))
    match chance.randrange(5):
        case 0:
            items = damaged["items"]
            items[chance.randrange(len(items))]["damaged"] = None
            return damaged, "items"
        case 1:
            damaged["total"] += chance.choice([1e-9, 1, -1])
            return damaged, "total"
        case 2:
            damaged["items"].append({})
            return damaged, "items"
        case 3:
            del damaged["total"]
            return damaged, "total"
    damaged["more"] = chance.choice([None, "", 0, False, [], {}])
    return damaged, "more"
