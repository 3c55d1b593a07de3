"""How one value becomes another: one that is not the same, but as like it as can be."""

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
    """The like of it in another type, which SQLite allows in a column that has none."""
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
    """The document with one property changed, and which."""
    other = json.loads(json.dumps(document))
    match chance.randrange(5):
        case 0:
            items = other["items"]
            items[chance.randrange(len(items))]["damaged"] = None
            return other, "items"
        case 1:
            other["total"] += chance.choice([1e-9, 1, -1])
            return other, "total"
        case 2:
            other["items"].append({})
            return other, "items"
        case 3:
            del other["total"]
            return other, "total"
    other["more"] = chance.choice([None, "", 0, False, [], {}])
    return other, "more"
