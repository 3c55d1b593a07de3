"""Keys that people write: on the command line, in a request, in a setting. Refuses texts that cannot be a key."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

from backup.core.errors import BadRequest
from backup.core.log import visible
from backup.stores.exact_json import decimal_of

_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
_NO_BYTES = re.compile("[\x00\ud800-\udc7f\udd00-\udfff]")  # beside those that stand for bytes that are not text
_INTEGER = re.compile("(tiny|small|medium|big)?int(eger|[248])?|(small|big)?serial[248]?|oid")
_FLAGS = ("boolean", "bool")
_FLAGS_AS_TEXTS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_INTEGERS = range(-(2**63), 2**63)
_DIGITS = 150_000  # PostgreSQL's numeric has no more; others have fewer
_SHOWN_CHARACTERS = 80


def unusable_key(text: str, label: str, hint: str) -> BadRequest:
    """The error for a text that is not a key of this side."""
    short = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    return BadRequest(f"'{visible(short)}' is not a key of the {label}.", hint=hint)


def parts_of(text: str, label: str, *, any_bytes: bool = False) -> list[Any] | None:
    """The parts of a key that was written as a JSON list; None for any other text.

    A part is a text, a number, true, false, null, or {} for Cosmos DB's undefined. Raises BadRequest for a list with
    other values, and for characters that no database takes in a key. With `any_bytes`, bytes that are not text are
    allowed.
    """
    parts: Any = None
    try:
        if text.lstrip().startswith("["):
            parts = json.loads(text, parse_constant=float)
    except RecursionError:
        raise unusable_key(text, label, "A key's values are texts and numbers, not lists.") from None
    except ValueError:  # a plain text that begins with a bracket
        parts = None
    texts = [text] if parts is None else [part for part in parts if isinstance(part, str)]
    if any(map((_NO_BYTES if any_bytes else _NO_TEXT).search, texts)):
        raise unusable_key(text, label, "It holds a NUL, or half of a character: no database takes these in a key.")
    if parts is not None and not all(map(_is_a_value, parts)):
        raise unusable_key(
            text, label, "A key's values are texts and numbers. Write a text that looks like a list in one."
        )
    return None if parts is None else list(parts)


def value_of(declared: str, part: Any, *, plain: bool = False) -> Any:
    """The part as the value of a SQL column of this declared type; bytes are written 0x…

    `plain` is for a driver that has only texts, bytes, integers and floats. Raises ValueError or ArithmeticError for a
    part that the column cannot hold.
    """
    text = json.dumps(part) if isinstance(part, bool) else str(part)
    kind = re.split(r"[(\s]", declared.lower(), maxsplit=1)[0]
    if kind in _FLAGS and not plain:
        if text.lower() not in _FLAGS_AS_TEXTS:
            raise ValueError("neither true nor false")
        return _FLAGS_AS_TEXTS[text.lower()]
    # A column of SQLite is one of integers if its type has "int" anywhere. Elsewhere that is also an interval.
    if "int" in kind if plain else _INTEGER.fullmatch(kind):
        if (whole := int(text)) not in _INTEGERS:
            raise OverflowError("no column of integers holds it")
        return whole
    if kind == "money" and not text.lstrip("+-")[:1].isdigit():
        return text  # PostgreSQL shows and takes it with its currency
    if kind in ("decimal", "numeric", "money", "smallmoney"):
        number = _bounded(decimal_of(text))
        return number if not plain else int(number) if number == number.to_integral_value() else float(number)
    if kind in ("float", "real", "double"):
        return float(text)
    if kind in ("uuid", "uniqueidentifier"):
        return UUID(text) if kind == "uuid" and not plain else str(UUID(text))
    if kind in ("binary", "varbinary", "bytea", "blob"):
        return bytes.fromhex(text.removeprefix("0x"))
    return text


def _is_a_value(part: Any) -> bool:
    return part == {} or not isinstance(part, list | dict | float) or (isinstance(part, float) and isfinite(part))


def _bounded(number: Decimal) -> Decimal:
    # A server may be sent all digits of a number that was written with an exponent.
    if number.is_finite() and abs(number.adjusted()) > _DIGITS:
        raise OverflowError("no column of decimals holds it")
    return number
