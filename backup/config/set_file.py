"""Reads backup.toml: finds it, puts in values of the environment, checks it. Every mistake is told with its line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from backup.config.set_settings import BackupFile, SetSection, names_at
from backup.config.toml_lines import TomlLines
from backup.core.errors import ConfigError
from backup.core.suggestions import did_you_mean

FILE_NAME = "backup.toml"
_VARIABLE = re.compile(r"\$(\$?)\{([^}]*)\}")
_HINT = "docs/whole-databases.md lists what the file may say. Nothing was changed."
_NO_PATH = "BACKUP_TOML is the text itself. Name a file with BACKUP_CONFIG. Nothing was changed."
_MISTAKES_AT_MOST = 10


class SetText(NamedTuple):
    """The text of backup.toml, and what messages call it."""

    name: str
    text: str


def find_text(config: str | None, toml: str | None, folders: list[Path]) -> SetText | None:
    """Returns the text of the setting BACKUP_TOML, of the file that BACKUP_CONFIG names, or of the first backup.toml in
    these folders; None if there is none.

    Raises ConfigError when both settings have a value, and for a file that cannot be read.
    """
    if config and toml:
        raise ConfigError("Both BACKUP_CONFIG and BACKUP_TOML have a value.", hint="Leave one of them empty.")
    if toml:
        return SetText("BACKUP_TOML", toml)
    path = Path(config) if config else next((f / FILE_NAME for f in folders if (f / FILE_NAME).is_file()), None)
    if path is None:
        return None
    try:
        return SetText(path.name, path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"The file {path} cannot be read: {reason}.", hint="BACKUP_CONFIG names it.") from None


def read_sets(source: SetText, environment: Mapping[str, str]) -> Mapping[str, SetSection]:
    """Returns the sets of the text by name, each with the values of [defaults] where it has no value of its own.

    `${NAME}` in a text becomes the value of NAME in the environment; `$${` stays `${`. Raises ConfigError, which lists
    the mistakes with their lines, and quotes no value.
    """
    text = source.text.removeprefix("\ufeff")
    mistakes: dict[tuple[tuple[str | int, ...], str], None] = {}
    values_by_name = {name.upper(): value for name, value in environment.items()}
    with_variables: set[tuple[str | int, ...]] = set()

    def value_of_variable(name: str, path: tuple[str | int, ...]) -> str:
        with_variables.add(path)
        value = values_by_name.get(name.upper(), "")
        if not value.strip():
            mistakes[path, f"The environment has no value of {name}.{did_you_mean(name, environment)}"] = None
        return value

    try:
        document = _replaced(tomllib.loads(text), (), value_of_variable)
        sets = {} if mistakes else BackupFile.model_validate(document).sets
    except tomllib.TOMLDecodeError as error:
        # In one line, and without a value, it is a path.
        is_path = source.name == "BACKUP_TOML" and not {"\n", "="} & {*text.strip()}
        raise ConfigError(f"{source.name} is not TOML: {error}.", hint=_NO_PATH if is_path else _HINT) from None
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            place = tuple(part for part in fault["loc"] if part != "[key]")
            is_secret = fault["type"] == "value_error" and place in with_variables  # such a message may quote the value
            reason = "the value of its variable cannot stand here" if is_secret else fault["msg"]
            mistakes[place, _sentence(fault["type"], reason, place)] = None
    except RecursionError:
        raise ConfigError(f"{source.name} nests lists or tables too deep.", hint=_HINT) from None
    except ValueError:
        raise ConfigError(f"{source.name} has a number with too many digits.", hint=_HINT) from None
    if not mistakes:
        return sets
    lines = TomlLines(text)  # which looks a line up slowly
    placed = [(lines.line_of(path), sentence) for path, sentence in [*mistakes][:_MISTAKES_AT_MOST]]
    listed = [f"Line {line}: {sentence}" for line, sentence in sorted(dict.fromkeys(placed))]
    rest = f" … and {len(mistakes) - len(placed)} more." if len(mistakes) > len(placed) else ""
    raise ConfigError(f"{source.name} has mistakes. {' '.join(listed)}{rest}", hint=_HINT)


def _replaced(value: Any, path: tuple[str | int, ...], value_of: Callable[[str, tuple[str | int, ...]], str]) -> Any:
    """The value with the variables in its texts replaced."""
    if isinstance(value, dict):
        return {name: _replaced(part, (*path, name), value_of) for name, part in value.items()}
    if isinstance(value, list):
        return [_replaced(part, (*path, place), value_of) for place, part in enumerate(value)]
    if not isinstance(value, str):
        return value
    return _VARIABLE.sub(lambda match: f"${{{match[2]}}}" if match[1] else value_of(match[2], path), value)


def _sentence(kind: str, text: str, path: tuple[str | int, ...]) -> str:
    """What is wrong at this place, in words that do not quote the value."""
    name = str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        names = names_at(path[:-1])
        meant = did_you_mean(name, names) or f" There are {', '.join(names)}."
        return f"There is no {name}{_within(path)}.{meant}"
    reason = text.removeprefix("Value error, ").rstrip(".")
    if kind == "missing":
        return f"{name} is missing{_within(path)}."
    subject = f"{_spelled(path)}: " if path else ""
    return f"{subject}{reason[:1].lower()}{reason[1:]}{'' if reason.endswith('?') else '.'}"


def _within(path: tuple[str | int, ...]) -> str:
    return f" in [{_spelled(path[:-1])}]" if len(path) > 1 else ""


def _spelled(path: tuple[str | int, ...]) -> str:
    parts = [str(part) for part in path if isinstance(part, str)]
    return ".".join(part if re.fullmatch(r"[\w-]+", part) else f'"{part}"' for part in parts)
