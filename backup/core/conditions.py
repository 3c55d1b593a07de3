"""The conditions of a filter as values: what a field must be so that a record belongs to a service. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Value = str | int | float | bool
"""The value that a property or column must have so that a record belongs to the service."""


@dataclass(frozen=True)
class Range:
    """Limits of a value. At least one of them is set. `lowest` and `highest` belong to the range; `above` and `below`
    do not."""

    lowest: Value | None = None
    highest: Value | None = None
    above: Value | None = None
    below: Value | None = None

    @property
    def limits(self) -> list[tuple[str, Value]]:
        """The limits that are set, each with the operator of SQL that a value has to fulfil."""
        pairs = ((">=", self.lowest), ("<=", self.highest), (">", self.above), ("<", self.below))
        return [(operator, value) for operator, value in pairs if value is not None]

    def with_values(self, convert: Callable[[Value], Value]) -> Range:
        """The range whose limits went through `convert`."""
        limits = (self.lowest, self.highest, self.above, self.below)
        return Range(*(None if value is None else convert(value) for value in limits))


Condition = Value | tuple[Value, ...] | Range
"""One value, any of several values, or a range of values."""


def converted(condition: Condition, convert: Callable[[Value], Value]) -> Condition:
    """Returns the condition whose values went through `convert`."""
    if isinstance(condition, Range):
        return condition.with_values(convert)
    return tuple(map(convert, condition)) if isinstance(condition, tuple) else convert(condition)


def condition_text(name: str, condition: Condition) -> str:
    """Returns the condition in words for people, such as `Total>=10 and Total<20`."""
    if isinstance(condition, Range):
        return " and ".join(f"{name}{operator}{value!r}" for operator, value in condition.limits)
    if isinstance(condition, tuple):
        return f"{name} in ({', '.join(map(repr, condition))})"
    return f"{name}={condition!r}"
