"""Reads single values of backup.toml: filters, masks, names, types, throughput. A ValueError says what to write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, time
from math import isfinite
from typing import Annotated, Any

from pydantic import PlainValidator

from backup.config.given_services import ALL
from backup.config.service_settings import mask_of
from backup.config.transform_steps import steps_of
from backup.core.conditions import Condition, Range, Value
from backup.core.masks import Mask
from backup.core.model import PartitionPaths, Throughput
from backup.core.suggestions import did_you_mean
from backup.core.transforms import Step

_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_ ]*(\((\d+|max)( ?, ?\d+)?\))?[A-Za-z0-9_ ]*")
_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_PATH = re.compile(r"(/[^/\"\\]+)+")
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`""")
_BRACKETS = {")": "(", "]": "["}
_SIDES, _LEVELS = ("source", "copy"), 3
_LIMITS = {"from": "lowest", "to": "highest", "above": "above", "below": "below"}
_FOR_A_CONDITION = "write a value, a list of values, or a range such as { from = 1, below = 10 }"


def _value(value: Any) -> Value:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not isfinite(value)):
        raise ValueError(_FOR_A_CONDITION)
    return value


def _condition(value: Any) -> Condition:
    if isinstance(value, list):
        if not value:
            raise ValueError("the list is empty, so no record would fit; name a value, or leave the condition out")
        return tuple(map(_value, value))
    if not isinstance(value, dict):
        return _value(value)
    for name in value:
        if name not in _LIMITS:
            raise ValueError(f"a range has no {name}.{did_you_mean(name, _LIMITS) or ' It has from, to, above, below'}")
    if not value:
        raise ValueError(_FOR_A_CONDITION)
    return Range(**{_LIMITS[name]: _value(limit) for name, limit in value.items()})


def _whole_condition(value: Any) -> str:
    # It stands in brackets among other conditions, those of a chunk of keys among them. One that closes the bracket
    # would be true of rows outside the chunk, and the rest of a line behind a comment would be lost.
    if not isinstance(value, str) or not value.strip():
        raise ValueError("write a condition in SQL, as it would stand behind WHERE")
    plain, opened = _QUOTED.sub("", value), []
    for character in plain:
        if character in "([":
            opened.append(character)
        elif character in _BRACKETS and (not opened or opened.pop() != _BRACKETS[character]):
            raise ValueError(f"its bracket {character} has no opening one before it")
    if opened:
        raise ValueError(f"its bracket {opened[-1]} is not closed")
    for mark, name in (("'", "text"), ('"', "name"), ("`", "name")):
        if mark in plain:
            raise ValueError(f"its {name} in {mark} is not closed")
    for mark in (";", "--", "/*"):
        if mark in plain:
            raise ValueError(f"write one condition, without {mark}")
    return value


def _names(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError('write a list of names, such as ["Id"]')
    return tuple(names)


def _type(value: Any) -> str:
    if not isinstance(value, str) or not _TYPE.fullmatch(value):
        raise ValueError("write a column's type as the backup's server spells it, such as nvarchar(40)")
    return value


def _mask(value: Any) -> Mask:
    if isinstance(value, str) and not value.startswith("text"):
        return mask_of(value)
    if isinstance(value, dict) and value.keys() == {"text"} and isinstance(value["text"], str):
        return Mask("text", value["text"])
    raise ValueError('a mask is "null", "hmac", "email", "year", or { text = "…" }')


def _throughput(value: Any) -> Throughput:
    if isinstance(value, Throughput):
        return value
    shared = isinstance(value, dict) and value.keys() == {"shared"}
    units = value["shared"] if shared else value
    autoscale = isinstance(units, dict) and units.keys() == {"autoscale"}
    units = units["autoscale"] if autoscale else units
    step, least = (1_000, 1_000) if autoscale else (100, 400)
    if not isinstance(units, int) or isinstance(units, bool) or units < least or units % step:
        raise ValueError(
            "throughput is a number of request units a second, 400 or more in steps of 100; or { autoscale = 4000 }, "
            "1000 or more in steps of 1000; or { shared = … } with one of these"
        )
    return Throughput(units, autoscale, shared)


def set_name(name: Any) -> str:
    """Returns the name of a set. Raises ValueError, which says what a name has, for what cannot be one."""
    if not isinstance(name, str) or not _SET_NAME.fullmatch(name) or name.lower() == ALL:
        raise ValueError("a set's name has letters, digits, _ and -, and is not all")
    return name


def _partition_key(value: Any) -> PartitionPaths:
    if isinstance(value, PartitionPaths):
        return value
    sides = value if isinstance(value, dict) and value.keys() == {"source", "copy"} else {}
    source, copy = (tuple(paths) if isinstance(paths, list) else (paths,) for paths in map(sides.get, _SIDES))
    if not all(
        0 < len(paths) <= _LEVELS and all(isinstance(path, str) and _PATH.fullmatch(path) for path in paths)
        for paths in (source, copy)
    ):
        raise ValueError(
            'partition_key is { source = "/customerId", copy = "/tenantId" }: the path of the partition key of the '
            "source, by which its documents are known, and that of the copy; or lists of up to three"
        )
    if source == copy:
        raise ValueError("partition_key has the same path for both: leave it out: without it that is so, too")
    return PartitionPaths(source, copy)


Conditions = Mapping[str, Annotated[Condition, PlainValidator(_condition)]]
"""A filter as data: what each named field must be."""

SqlCondition = Annotated[str, PlainValidator(_whole_condition)]
"""One condition in the language of a server: it stays true or false of the same rows within brackets."""

Masks = Mapping[str, Annotated[Mask, PlainValidator(_mask)]]
"""The mask of each column or property that has one."""

TransformSteps = Annotated[tuple[Step, ...], PlainValidator(steps_of)]
"""A transform: a function of one's own, or a list of steps."""

Names = Annotated[tuple[str, ...], PlainValidator(_names)]
"""Names of columns or patterns of tables. A single one may stand without a list."""

Units = Annotated[Throughput, PlainValidator(_throughput)]
"""The throughput of containers that the app makes."""

ServerTypeText = Annotated[str, PlainValidator(_type)]
"""A column's type, as the backup's server spells it."""

SetName = Annotated[str, PlainValidator(set_name)]
"""The name of a set."""

PartitionKey = Annotated[PartitionPaths, PlainValidator(_partition_key)]
"""The paths of the partition key of source and copy."""
