"""Values of documents as Cosmos DB's SQL takes them: compared, computed with, sorted and aggregated. No I/O.

As the npm server's engine has it. A value may be undefined; so may be what is made of it. Texts are ordered by their
UTF-16 code units, and numbers are doubles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

UNDEFINED: Any = type("Undefined", (), {"__repr__": lambda _: "undefined"})()

_RANKS = {type(UNDEFINED): 0, type(None): 1, bool: 2, int: 3, float: 3, str: 4, list: 5, dict: 6}
_WITH_ALL_DIGITS = 1e21  # from here on JavaScript writes numbers with an exponent


class UnknownValue(Exception):
    """A value that this module has not been taught."""


def order_of(value: Any) -> tuple[int, Any]:
    """Sorts values as ORDER BY does: by type, then by value. All objects are alike, and all lists."""
    rank = _RANKS[type(value)]
    if rank == _RANKS[str]:
        return rank, units_of(value)
    return rank, value if rank in (_RANKS[bool], _RANKS[int]) else 0


def units_of(text: str) -> bytes:
    """Sorts texts by their UTF-16 code units, as JavaScript does."""
    return text.encode("utf-16-be", "surrogatepass")


def as_number(number: float | str) -> float:
    """The double nearest to it; a whole one without a fraction, with the digits that JavaScript writes."""
    double = float(number)
    return int(Decimal(repr(double))) if double.is_integer() and abs(double) < _WITH_ALL_DIGITS else double


_OF_NUMBERS: Mapping[str, Callable[[Sequence[int]], int]] = {"Count": len, "Sum": sum, "Min": min, "Max": max}


def aggregated(name: str, values: Sequence[Any]) -> Any:
    """What `Count`, `Sum`, `Min` or `Max` makes of the values; what is undefined does not count."""
    if set(map(type, values)) == {int}:  # the usual case, as fast as an index has it
        return as_number(_OF_NUMBERS[name](values))
    defined = [value for value in values if value is not UNDEFINED]
    ranks = {_RANKS[type(value)] for value in defined}
    match name:
        case "Count":
            return len(defined)
        case "Sum":
            return as_number(sum(defined)) if ranks <= {_RANKS[int]} else UNDEFINED
        case _ if not ranks or ranks & {_RANKS[list], _RANKS[dict]}:
            return UNDEFINED
        case "Min":
            return min(defined, key=order_of)
        case _:
            return max(defined, key=order_of)


def equal(a: Any, b: Any) -> Any:
    """Whether both are the same value; undefined if one is."""
    if a is UNDEFINED or b is UNDEFINED:
        return UNDEFINED
    return _same(a, b)


def _same(a: Any, b: Any) -> bool:
    if _RANKS[type(a)] != _RANKS[type(b)]:
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(name in b and _same(value, b[name]) for name, value in a.items())
    return bool(a == b)


def _compare(is_so: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def compare(a: Any, b: Any) -> Any:
        rank = _RANKS[type(a)]
        if rank != _RANKS[type(b)] or rank in (_RANKS[type(UNDEFINED)], _RANKS[list], _RANKS[dict]):
            return UNDEFINED
        if isinstance(a, str) and not (a.isascii() or b.isascii()):
            return is_so(units_of(a), units_of(b))
        return is_so(0, 0) if a is None else is_so(a, b)

    return compare


def _calculate(compute: Callable[[Any, Any], float]) -> Callable[[Any, Any], Any]:
    def calculate(a: Any, b: Any) -> Any:
        if _RANKS[type(a)] != _RANKS[int] or _RANKS[type(b)] != _RANKS[int]:
            return UNDEFINED
        try:
            result = compute(a, b)
            if math.isfinite(result):
                return as_number(result)
            raise OverflowError
        except (ZeroDivisionError, ValueError, OverflowError):  # what is no number
            raise UnknownValue(f"{a} with {b}") from None

    return calculate


def _and(a: Any, b: Any) -> Any:
    if isinstance(a, bool) and isinstance(b, bool):
        return a and b
    return False if a is False or b is False else UNDEFINED


def _or(a: Any, b: Any) -> Any:
    if isinstance(a, bool) and isinstance(b, bool):
        return a or b
    return True if a is True or b is True else UNDEFINED


def _not_equal(a: Any, b: Any) -> Any:
    same = equal(a, b)
    return same if same is UNDEFINED else not same


OPERATIONS: Mapping[tuple[str, int], Callable[..., Any]] = {
    ("AND", 2): _and,
    ("OR", 2): _or,
    ("NOT", 1): lambda value: not value if isinstance(value, bool) else UNDEFINED,
    ("=", 2): equal,
    ("!=", 2): _not_equal,
    ("<", 2): _compare(lambda a, b: a < b),
    ("<=", 2): _compare(lambda a, b: a <= b),
    (">", 2): _compare(lambda a, b: a > b),
    (">=", 2): _compare(lambda a, b: a >= b),
    ("+", 2): _calculate(lambda a, b: a + b),
    ("-", 2): _calculate(lambda a, b: a - b),
    ("*", 2): _calculate(lambda a, b: a * b),
    ("/", 2): _calculate(lambda a, b: a / b),
    ("%", 2): _calculate(math.fmod),
    ("IS_DEFINED", 1): lambda value: value is not UNDEFINED,
    ("FLOOR", 1): lambda value: as_number(math.floor(value)) if _RANKS[type(value)] == _RANKS[int] else UNDEFINED,
}
