"""Refuses names of settings that look like this app's but are misspelt, and says which setting was meant."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache

from backup.config.service_settings import PARTS, setting_of
from backup.core.errors import ConfigError
from backup.core.model import SideName
from backup.core.suggestions import meant_by

_BETWEEN = r"(__|[:._-])"
_SIDE = re.compile(rf"(source|backup)([a-z0-9]+)db{_BETWEEN}(.*)", re.I)
_NO_NAME = re.compile(r"(source|backup)(.*[a-z0-9].*)db(?:__|:)_*([a-z]+)", re.I)
_CERTAIN = ("__", ":")
"""What separates the parts of a setting's name, and of few other names. Other separators need a name that is right."""
_EVERY_PART = {part.lower() for parts in PARTS.values() for part in parts}
_OF_THE_HOST = "AzureWebJobsStorage__"
_COMMON_WORD = "Notify__"
"""A prefix that is a word of others too: systemd sets NOTIFY_SOCKET. A name must have its separator to be ours."""
_ALIKE = 0.85
_HINT = "docs/configuration.md lists every setting; check the spelling."


def refuse_if_ours(name: str, settings: tuple[str, ...]) -> None:
    """Raises ConfigError for a name that looks like a setting of this app, and says which setting was meant.

    Such a name is one of `settings` with other separators, or has the prefix of one of them or nearly so, or is like a
    setting of a service's side. All other names belong to other programs and pass.
    """
    prefixes = _prefixes(settings)
    # .NET writes `:` between the parts; a shell takes neither `:` nor a dash.
    meant = _by_letters(settings).get(_letters(name))
    prefix = next((text for text in prefixes if re.match(_beginning(text), name, re.I)), None)
    if meant is None and prefix is not None:
        meant = _own_part(prefix, name[len(prefix.rstrip("_")) :].lstrip("_:.-"), settings)
    if meant is None and prefix is None:
        meant = _nearly(name, settings)
    if meant is None and prefix is None:
        _refuse_side(name)
    if meant is not None or prefix is not None:
        question = f" Did you mean {meant}?" if meant else ""
        raise ConfigError(f"There is no setting {name}.{question}", hint=_HINT)


@lru_cache(maxsize=8)  # asked for each name of the environment
def _prefixes(settings: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the prefixes of the app's settings, without the prefix that the Functions host uses too."""
    prefixes = dict.fromkeys(f"{setting.partition('__')[0]}__" for setting in settings if "__" in setting)
    return tuple(prefix for prefix in prefixes if prefix != _OF_THE_HOST)


@lru_cache(maxsize=8)
def _by_letters(settings: tuple[str, ...]) -> dict[str, str]:
    """Returns the settings with two parts by their letters; of several with the same letters the first."""
    return {_letters(setting): setting for setting in reversed(settings) if "__" in setting}


def _beginning(prefix: str) -> str:
    """A pattern of the names that begin with this prefix, however its separator is written."""
    return f"{prefix.rstrip('_')}{'(__|:)' if prefix == _COMMON_WORD else '(?![a-z0-9])'}"


def _own_part(prefix: str, own: str, settings: tuple[str, ...]) -> str | None:
    """Returns the setting with this prefix and nearly this part, else one of another prefix with exactly this part."""
    parts = {setting[len(prefix) :]: setting for setting in settings if setting.startswith(prefix)}
    if side := _SIDE.fullmatch(f"{prefix}x"):  # both sides have some parts; those belong to this side
        other_role: SideName = "backup" if side[1].lower() == "source" else "source"
        only_other = {part for part in PARTS[other_role] if part not in parts}
        if part := meant_by(own, [*parts, *only_other]):
            return parts.get(part) or setting_of(other_role, side[2], part)
        return None
    if part := meant_by(own, parts):
        return parts[part]
    ending = f"__{own.lower()}"
    return next((name for name in settings if name.lower().endswith(ending) and not _SIDE.fullmatch(name)), None)


def _nearly(name: str, settings: tuple[str, ...]) -> str | None:
    """Returns the setting whose prefix and own part are both nearly those of the name."""
    separator = next((text for text in (*_CERTAIN, "_", ".", "-") if text in name), "")
    head, _, own = name.partition(separator) if separator else (name, "", "")
    prefixes = {_letters(prefix): prefix for prefix in _prefixes(settings)}
    # Most settings begin with Backup, so people write it before the others, too.
    prefixes |= {f"backup{letters}": prefix for letters, prefix in prefixes.items() if not letters.startswith("backup")}
    for alike in get_close_matches(_letters(head), prefixes, 3, _ALIKE) if separator else ():
        prefix = prefixes[alike]
        parts = {setting[len(prefix) :]: setting for setting in settings if setting.startswith(prefix)}
        if (part := meant_by(own.lstrip("_"), parts)) and (separator in _CERTAIN or part.lower() == own.lower()):
            return parts[part]
    return None


def _refuse_side(name: str) -> None:
    """Raises ConfigError for a name that looks like a setting of a side of an unknown service."""
    if side := _SIDE.fullmatch(name):
        role: SideName = "source" if side[1].lower() == "source" else "backup"
        title = side[2] if side[2] not in (side[2].lower(), side[2].upper()) else side[2].capitalize()
        part = meant_by(side[4].lstrip("_"), PARTS[role])
        if side[3] in _CERTAIN or (part is not None and part.lower() == side[4].lower()):
            question = f" Did you mean {setting_of(role, title, part)}?" if part else ""
            hint = f"The settings of a {role} are {', '.join(PARTS[role])}; docs/configuration.md explains each."
            raise ConfigError(f"There is no setting {name}.{question}", hint=hint)
    elif (match := _NO_NAME.fullmatch(name)) and match[3].lower() in _EVERY_PART:
        raise ConfigError(
            f"There is no setting {name}: a service's name has only letters and digits there.",
            hint="Write it as in SourceInvoiceLineDb__Table.",
        )


@lru_cache(maxsize=1024)  # of each setting, asked for each name of the environment
def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
