"""The configuration in effect without its secrets, as a file of settings or as backup.toml. Reads no environment."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from typing import Any, NamedTuple

from backup.config.given_services import side_name
from backup.config.settings import Settings

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_CONNECTIONS = ("source", "backup")


class Exported(NamedTuple):
    """A text without secrets, and the variables that it takes from the environment of another machine."""

    text: str
    variables: tuple[str, ...]


def exported_settings(given: Mapping[str, str], secrets: frozenset[str], toml: str | None) -> Exported:
    """Returns a file like local.settings.json. A connection string, or another value that may hold a secret, is the
    reference `${NAME}` to the variable of its own name. `toml` is the text of the sets, which becomes BACKUP_TOML."""
    values, variables = {}, []
    for name, value in given.items():
        side = side_name(name)
        if name in secrets or (side is not None and side.part == "ConnectionString"):
            values[name] = f"${{{name}}}"
            variables.append(name)
        else:
            values[name] = value
    if toml is not None:
        sets = exported_toml(toml)
        values["BACKUP_TOML"] = sets.text
        variables += [name for name in sets.variables if name not in variables]
    text = json.dumps({"IsEncrypted": False, "Values": values}, indent=2, ensure_ascii=False)
    return Exported(f"{text}\n", tuple(variables))


def exported_toml(text: str) -> Exported:
    """Returns backup.toml. A connection string that is not the reference to one variable becomes `${SET_SOURCE}` or
    `${SET_BACKUP}`; then the file is written again, without its comments. Else the text stays as it is."""
    document = tomllib.loads(text)
    changed = False
    for name, section in document.get("set", {}).items():
        for role in _CONNECTIONS:
            if not _VARIABLE.fullmatch(section[role]):
                section[role] = f"${{{re.sub(r'[^A-Z0-9]', '_', name.upper())}_{role.upper()}}}"
                changed = True
    if changed:
        text = "\n".join(_lines(document, ())).strip() + "\n"
    return Exported(text, tuple(dict.fromkeys(_VARIABLE.findall(_without_escapes(text)))))


def default_texts() -> dict[str, str]:
    """Returns the default of each setting of the app that has one, as the text that the environment would have."""
    fields = (field for field in Settings.model_fields.values() if isinstance(field.default, str | int | float))
    defaults = {field.alias: field.default for field in fields if field.alias}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in defaults.items()}


def secret_settings() -> frozenset[str]:
    """Returns the names of the app's settings whose values may hold a secret."""
    return frozenset(str(field.alias) for field in Settings.model_fields.values() if field.alias and not field.repr)


def _without_escapes(text: str) -> str:
    return text.replace("$${", "")


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """The lines of a table: first its values, then its tables. Tables of a table stand in one line."""
    tables = {name: value for name, value in table.items() if isinstance(value, dict) and len(path) < _DEPTHS}
    for name, value in table.items():
        if name not in tables:
            yield f"{_key(name)} = {_value(value)}"
    for name, value in tables.items():
        inner = (*path, name)
        if any(not isinstance(part, dict) for part in value.values()) or len(inner) == _DEPTHS:
            yield ""
            yield f"[{'.'.join(map(_key, inner))}]"
        yield from _lines(value, inner)


_DEPTHS = 4  # set.NAME.table.TABLE


def _key(name: str) -> str:
    return name if _PLAIN_KEY.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_value(part)}" for name, part in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else repr(value)
