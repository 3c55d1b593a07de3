"""Reads a transform of backup.toml: its steps, and the function that a step names. Imports the function's module."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from math import isfinite
from typing import Any

from backup.core.suggestions import did_you_mean
from backup.core.transforms import Constant, Drop, FromJson, JsonValue, OwnFunction, Rename, Step, path_of_json

_FUNCTION = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<function>[A-Za-z_]\w*)", re.ASCII)
_WANTED = 'write "module:function", or a list of steps such as [{ rename = { Old = "New" } }]'


def steps_of(value: Any) -> tuple[Step, ...]:
    """Returns the steps that the file names. Raises ValueError for what is not a step, and a function that cannot be
    imported."""
    if isinstance(value, str):
        return (_call(value),)
    if not isinstance(value, list) or not value:
        raise ValueError(_WANTED)
    return tuple(map(_step, value))


def _step(value: Any) -> Step:
    if isinstance(value, str):
        return _call(value)
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError(f"a step has one name: {', '.join(_KINDS)}")
    [(kind, content)] = value.items()
    if kind not in _KINDS:
        meant = did_you_mean(kind, _KINDS) or f" There are {', '.join(_KINDS)}"
        raise ValueError(f"there is no step {kind}.{meant}")
    return _KINDS[kind](content)


def _rename(content: Any) -> Step:
    names = _table(content, "rename has pairs of an old and a new name")
    if not all(isinstance(name, str) and name for name in names.values()):
        raise ValueError("rename has pairs of an old and a new name")
    if len({name.lower() for name in names.values()}) < len(names):
        raise ValueError("rename gives two columns one name")
    return Rename(names)


def _constant(content: Any) -> Step:
    values = _table(content, "constant has pairs of a name and its value")
    for value in values.values():
        if not isinstance(value, str | int | float) or (isinstance(value, float) and not isfinite(value)):
            raise ValueError("a constant is a text, a number, true or false")
    return Constant(values)


def _drop(content: Any) -> Step:
    if not isinstance(content, list) or not content or not all(isinstance(name, str) for name in content):
        raise ValueError('drop has a list of names, such as ["Payload"]')
    return Drop(tuple(content))


def _json(content: Any) -> Step:
    values = {}
    wanted = 'json has pairs such as City = { column = "Payload", path = "$.address.city" }'
    for name, part in _table(content, wanted).items():
        if not isinstance(part, dict) or part.keys() != {"column", "path"}:
            raise ValueError(wanted)
        if not isinstance(part["column"], str) or not isinstance(part["path"], str):
            raise ValueError(wanted)
        values[name] = JsonValue(part["column"], path_of_json(part["path"]))
    return FromJson(values)


def _call(text: Any) -> Step:
    match = _FUNCTION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(_WANTED)
    module, name = match["module"], match["function"]
    try:
        imported = import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"the module {module} cannot be imported: there is no module {error.name}") from None
    except Exception as error:
        raise ValueError(f"the module {module} cannot be imported: it raises {type(error).__name__}") from None
    function = getattr(imported, name, None)
    if not callable(function):
        raise ValueError(f"the module {module} has no function {name}")
    return OwnFunction(text, function)


def _table(content: Any, wanted: str) -> Mapping[str, Any]:
    if not isinstance(content, dict) or not content:
        raise ValueError(wanted)
    return content


_KINDS: Mapping[str, Callable[[Any], Step]] = {
    "rename": _rename,
    "constant": _constant,
    "drop": _drop,
    "json": _json,
    "call": _call,
}
