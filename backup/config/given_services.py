"""Makes the settings of each service from names and values. Does not read the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import ValidationError

from backup.config.service_settings import (
    BY_DEFAULT,
    PARTS,
    SETTINGS_OF_SIDE,
    ServiceSettings,
    setting_of,
    settings_of,
)
from backup.core.errors import ConfigError
from backup.core.model import SIDES, SideName

ALL = "all"
"""The name that stands for every service; no service may have it."""

_SIDE = re.compile(r"(source|backup)([a-z0-9]+)db__([a-z]+)", re.I)
_PARTS = {(role, part.lower()): part for role in SIDES for part in PARTS[role]}
_ALIKE = 0.75


class SettingName(NamedTuple):
    """The parts of a setting's name, such as `SourceInvoiceDb__Table`."""

    role: SideName
    title: str
    part: str


def side_name(name: str) -> SettingName | None:
    """Returns the parts of the name; None if no side has such a setting. Case does not count; the title keeps it."""
    match = _SIDE.fullmatch(name)
    if match is None:
        return None
    role: SideName = "source" if match[1].lower() == "source" else "backup"
    part = _PARTS.get((role, match[3].lower()))
    return None if part is None else SettingName(role, match[2], part)


def titles_in(names: Sequence[str]) -> dict[str, str]:
    """Returns how the names of settings spell each service, by its name in small letters; presets first."""
    defaults = {title.lower(): title for title in BY_DEFAULT}
    titles = dict(defaults)
    for name in sorted(names):
        side = side_name(name)
        if side is None or (lowered := side.title.lower()) in defaults:
            continue
        if side.title not in (lowered, side.title.upper()):
            titles[lowered] = side.title
        else:  # a shell or Azure may write the whole name in one case
            titles.setdefault(lowered, lowered.capitalize())
    return titles


def services_of(environment: Mapping[str, str]) -> dict[str, ServiceSettings]:
    """Returns the services that have a setting with a value: first the presets, then the others by name.

    Raises ConfigError, which names the setting, for a value that cannot be used, and for a service with one side.
    """
    titles = titles_in(list(environment))
    values: dict[str, dict[str, str]] = {name: {} for name in titles}
    for name, value in environment.items():
        if (side := side_name(name)) is not None and value.strip():
            lowered = side.title.lower()
            values[lowered][setting_of(side.role, titles[lowered], side.part)] = value
    presets = known_names()
    order = [*presets, *sorted(titles.keys() - presets)]
    services = {name: read_service(name, values[name], titles[name]) for name in order if values[name]}
    for service in services.values():
        if not service.is_known_by_itself:
            _refuse_reserved(service)
            _refuse_half(service, services)
    return services


def read_service(name: str, given: Mapping[str, str], title: str | None = None) -> ServiceSettings:
    """Returns the service's settings: the values in `given`, by their full names, and the defaults for the rest."""
    title = title or titles_in([])[name]
    values = {**BY_DEFAULT.get(title, {}), **given}
    sides: dict[SideName, Any] = {}
    for role in SIDES:
        parts = {part: setting_of(role, title, part) for part in PARTS[role]}
        try:
            sides[role] = SETTINGS_OF_SIDE[role](
                **{part: values[full] for part, full in parts.items() if full in values}
            )
        except ValidationError as error:
            raise unusable(error, parts) from None
    return ServiceSettings(name=name, title=title, given=frozenset(given), **sides)


def unusable(error: ValidationError, names: Mapping[str, str] | None = None) -> ConfigError:
    """Returns the error for the first value that cannot be used. Names the setting and does not quote the value."""
    first = error.errors(include_input=False, include_url=False)[0]
    setting = str(first["loc"][0])
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    end = "" if reason.endswith("?") else "."
    name = setting if names is None else names[setting]
    return ConfigError(f"Setting {name} has a value that cannot be used: {reason}{end}")


def missing_side(service: str, role: str, setting: str) -> ConfigError:
    """Returns the error for a side whose place no setting names."""
    return ConfigError(
        f"Setting {setting} is missing: service {service} has no {role}.",
        hint="Set it, or remove the service's other settings.",
    )


def known_names() -> list[str]:
    """Returns the names of the presets: the services that the app knows without any setting."""
    return [title.lower() for title in BY_DEFAULT]


def names_of(titles: Mapping[str, str]) -> list[str]:
    """Returns the names of all settings of these services."""
    return [name for title in titles.values() for name in settings_of(title)]


def _refuse_reserved(service: ServiceSettings) -> None:
    if service.name == ALL:
        raise ConfigError(
            f"{min(service.given)} belongs to a service called {ALL!r}, a name that stands for all services.",
            hint="Give the service another name.",
        )


def _refuse_half(service: ServiceSettings, services: Mapping[str, ServiceSettings]) -> None:
    """Raises ConfigError for a service with one side: its name may be misspelt, and nobody would back it up."""
    missing = [role for role in SIDES if not getattr(service, role).connection]
    if not missing:
        return
    other_titles = {name: title for title in BY_DEFAULT if (name := title.lower()) != service.name}
    other_titles |= {other.name: other.title for other in services.values() if other is not service}
    near = get_close_matches(service.name, other_titles, 1, _ALIKE)
    setting = service.setting(missing[0], "ConnectionString")
    error = missing_side(service.name, missing[0], setting)
    if not near:
        error.hint += f" The names that the app knows are {' and '.join(known_names())}."
        raise error
    setting_name = min(service.given, key=lambda name: (not name.endswith("__ConnectionString"), name))
    side = side_name(setting_name)
    meant = setting_of(side.role, other_titles[near[0]], side.part) if side is not None else ""
    raise ConfigError(
        f"There is no setting {setting_name}. Did you mean {meant}?",
        hint=f"A service {service.name!r} needs two sides, and {setting} is missing.",
    )
