"""Transforms: how a source's record becomes the record of a copy. Opens nothing; only a function of one's own may.

A transform has steps, and each gets what the step before gave. It changes no key. The names that it reads and gives are
those of columns or properties.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from hashlib import sha256
from hmac import digest
from typing import Any

from backup.core.errors import StoreError
from backup.core.masks import Masking

MARK_DIGITS = 8
"""How many digits of a copy's mark tell the masks, and as many the transform."""

_NUMBER_DIGITS = 7  # 28 bits: added to a time of 31 bits, sums stay exact
_PART = re.compile(r"\.(?P<name>[^.\[\]\"]+)|\[\"(?P<quoted>[^\"]+)\"\]|\[(?P<place>\d+)\]")


class TransformFailed(StoreError):
    """The transform could not be applied to a record."""

    hint = "Mend the transform in backup.toml, or the record; the next run tries it again."


@dataclass(frozen=True)
class Rename:
    """The value of each old name gets the new one."""

    names: Mapping[str, str]


@dataclass(frozen=True)
class Constant:
    """Each name has always this value."""

    values: Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class Drop:
    """The copy does not have these names."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class JsonValue:
    """What stands at a path in the JSON that a column holds."""

    column: str
    parts: tuple[str | int, ...]


@dataclass(frozen=True)
class FromJson:
    """Each name has what stands at a path in the JSON of a column, or nothing where the path leads nowhere."""

    values: Mapping[str, JsonValue]


@dataclass(frozen=True)
class OwnFunction:
    """A function of one's own: a record in, a record or None out. None: the record does not belong to the copy."""

    name: str
    function: Callable[[dict[str, Any]], Mapping[str, Any] | None] = field(compare=False)


Step = Rename | Constant | Drop | FromJson | OwnFunction


@dataclass(frozen=True)
class Transform:
    """The steps of one service's transform, and the version that a person gives it.

    `types` declares columns that the source does not have, in the words of the backup's server; case counts in names.
    `key` makes the stamps of copies so that nobody can guess records by them; empty: they are not keyed.
    """

    steps: tuple[Step, ...]
    version: str = ""
    types: Mapping[str, str] = field(default_factory=dict)
    key: str = field(default="", repr=False)

    @property
    def may_leave_out(self) -> bool:
        """Whether a record may turn out not to belong to the copy."""
        return any(isinstance(step, OwnFunction) for step in self.steps)

    @property
    def names(self) -> tuple[str, ...]:
        """What its steps name and may change, for people."""
        names: dict[str, None] = {}
        for step in self.steps:
            match step:
                case Rename():
                    names |= dict.fromkeys(step.names)
                case Constant() | FromJson():
                    names |= dict.fromkeys(step.values)
                case Drop():
                    names |= dict.fromkeys(step.names)
                case OwnFunction():
                    names[f"all columns ({step.name})"] = None
        return tuple(names)

    @property
    def summary(self) -> tuple[str, ...]:
        """The kinds of its steps, or the name of the function, and its version, for people."""
        kinds = {Rename: "rename", Constant: "constant", Drop: "drop", FromJson: "json"}
        steps = (step.name if isinstance(step, OwnFunction) else kinds[type(step)] for step in self.steps)
        return (*steps, *([f"version {self.version}"] if self.version else []))

    @property
    def text(self) -> str:
        """The rules, in a form that is the same in every process, for all spellings that mean the same."""
        return repr((tuple(map(_text, self.steps)), self.version, sorted(self.types.items())))

    @cached_property
    def mark(self) -> str:
        """8 hexadecimal digits, other ones for another transform or another version of it."""
        return sha256(self.text.encode()).hexdigest()[:MARK_DIGITS]

    def named(self, name: str) -> str:
        """What the copy calls the value that the source calls `name`, as far as the renames say. Case does not count
        in `name`."""
        for step in self.steps:
            if isinstance(step, Rename):
                name = next((new for old, new in step.names.items() if old.lower() == name.lower()), name)
        return name

    def applied(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record of the copy; None for a record that does not belong to it. Names are exact.

        Raises TransformFailed, which quotes no value.
        """
        values = dict(record)
        for step in self.steps:
            match step:
                case Rename():
                    moved = {new: values.pop(old) for old, new in step.names.items() if old in values}
                    if twice := sorted(moved.keys() & values.keys()):
                        raise TransformFailed(f"The transform gives {twice[0]} twice.")
                    values |= moved
                case Constant():
                    values |= step.values
                case Drop():
                    values = {name: value for name, value in values.items() if name not in step.names}
                case FromJson():
                    values |= {name: _at(values.get(part.column), part) for name, part in step.values.items()}
                case OwnFunction():
                    given = _called(step, values)
                    if given is None:
                        return None
                    values = given
        return values


@dataclass(frozen=True)
class Stamping:
    """How the stamp of a copy tells of which record, and by which rules, it was made.

    `stamp_secret`: what the hash of a record begins with. `mark`: 16 hexadecimal digits behind the hash; the first
    8 tell the masks. `number`: 28 bits. Other masks, another transform or another key have others. False without rules.
    """

    stamp_secret: str = ""
    mark: str = "0" * 16
    number: int = 0

    def __bool__(self) -> bool:
        return bool(self.stamp_secret)


def stamping_of(masking: Masking | None, transform: Transform | None) -> Stamping:
    """How copies that these rules make are stamped."""
    secret, mark = (masking.stamp_secret, masking.mark) if masking else ("", "0" * 16)
    if transform is None:
        return Stamping(secret, mark, int(mark[:_NUMBER_DIGITS], 16))
    hashed = digest(f"{transform.key}{secret}".encode(), f"transform {transform.text}".encode(), "sha256")
    mark = mark[:MARK_DIGITS] + transform.mark
    return Stamping(hashed.hex(), mark, int(sha256(mark.encode()).hexdigest()[:_NUMBER_DIGITS], 16))


def path_of_json(text: str) -> tuple[str | int, ...]:
    """The parts of a path like `$.address.lines[0]["a.b"]`. Raises ValueError for another text."""
    parts, at = list[str | int](), 1
    while text[:1] == "$" and at < len(text):
        match = _PART.match(text, at)
        if match is None:
            break
        place = match["place"]
        parts.append(match["name"] or match["quoted"] if place is None else int(place))
        at = match.end()
    if at < len(text) or not parts:
        raise ValueError('a path begins with $, such as $.address.city or $.lines[0]["a.b"]')
    return tuple(parts)


def number_of(value: Any) -> int | float:
    """A decimal as JSON can hold it. Raises TypeError for another value."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError


def _text(step: Step) -> tuple[Any, ...]:
    match step:
        case Rename():
            return "rename", *sorted(step.names.items())
        case Constant():
            return "constant", *sorted((name, repr(value)) for name, value in step.values.items())
        case Drop():
            return "drop", *sorted(step.names)
        case FromJson():
            return "json", *sorted((name, part.column, repr(part.parts)) for name, part in step.values.items())
        case OwnFunction():
            return "call", step.name


def _called(step: OwnFunction, record: dict[str, Any]) -> dict[str, Any] | None:
    try:
        given = step.function(record)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise TransformFailed(
            f"The function {step.name} raised {type(error).__name__} (line {where.lineno} of {where.name})."
        ) from None
    if given is None:
        return None
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise TransformFailed(f"The function {step.name} gave no record but {type(given).__name__}.")
    return dict(given)


def _at(value: Any, part: JsonValue) -> Any:
    if isinstance(value, bytes | bytearray | str):
        try:
            value = json.loads(value, parse_float=Decimal)
        except ValueError:
            raise TransformFailed(f"{part.column} holds no JSON.") from None
    for name in part.parts:
        if isinstance(name, str) and isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(name, int) and isinstance(value, list):
            value = value[name] if name < len(value) else None
        else:
            return None
    return value
