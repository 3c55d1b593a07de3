"""The services that an environment's settings make: names in, settings of each service out. Reads no environment."""

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
"""What stands for every service, and is the name of none."""

_SIDE = re.compile(r"(source|backup)([a-z0-9]+)db__([a-z]+)", re.I)
_PARTS = {(role, part.lower()): part for role in SIDES for part in PARTS[role]}
_ALIKE = 0.75


class SettingName(NamedTuple):
    """A setting's name taken apart: `SourceInvoiceDb__Table`."""

    role: SideName
    title: str
    part: str


def side_name(name: str) -> SettingName | None:
    """The parts of the name, whatever its case; None for one that no side has. The title is as it was written."""
    match = _SIDE.fullmatch(name)
    if match is None:
        return None
    role: SideName = "source" if match[1].lower() == "source" else "backup"
    part = _PARTS.get((role, match[3].lower()))
    return None if part is None else SettingName(role, match[2], part)


def titles_in(names: Sequence[str]) -> dict[str, str]:
    """By its name in small letters, how each service is spelt in names of settings: those of the defaults first."""
    defaults = {title.lower(): title for title in BY_DEFAULT}
    found = dict(defaults)
    for name in sorted(names):
        side = side_name(name)
        if side is None or (lowered := side.title.lower()) in defaults:
            continue
        if side.title not in (lowered, side.title.upper()):
            found[lowered] = side.title
        else:  # a shell or Azure may have written all of it in one case
            found.setdefault(lowered, lowered.capitalize())
    return found


def services_of(environment: Mapping[str, str]) -> dict[str, ServiceSettings]:
    """The services that have any setting with a value: those of the defaults first, the others by their names.

    Raises ConfigError that names the setting for a value that cannot be used, and for a side without its other.
    """
    titles = titles_in(list(environment))
    given: dict[str, dict[str, str]] = {name: {} for name in titles}
    for name, value in environment.items():
        if (side := side_name(name)) is not None and value.strip():
            lowered = side.title.lower()
            given[lowered][setting_of(side.role, titles[lowered], side.part)] = value
    known = [title.lower() for title in BY_DEFAULT]
    order = [*known, *sorted(titles.keys() - known)]
    services = {name: read_service(name, given[name], titles[name]) for name in order if given[name]}
    for service in services.values():
        if not service.is_known_by_itself:
            _refuse_reserved(service)
            _refuse_half(service, services)
    return services


def read_service(name: str, given: Mapping[str, str], title: str | None = None) -> ServiceSettings:
    """The service's settings: what was given, by the full names, and the defaults for the rest."""
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
    """The error for the first value that cannot be used, by the setting's name. Does not quote the value."""
    first = error.errors(include_input=False, include_url=False)[0]
    setting = str(first["loc"][0])
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    end = "" if reason.endswith("?") else "."
    name = setting if names is None else names[setting]
    return ConfigError(f"Setting {name} has a value that cannot be used: {reason}{end}")


def missing_side(service: str, role: str, setting: str) -> ConfigError:
    """The error for a side of which the settings do not say where it is."""
    return ConfigError(
        f"Setting {setting} is missing: service {service} has no {role}.",
        hint="Set it, or remove the service's other settings.",
    )


def known_names() -> list[str]:
    """The names of the services that the app knows by itself."""
    return [title.lower() for title in BY_DEFAULT]


def names_of(titles: Mapping[str, str]) -> list[str]:
    """The names of all settings of these services."""
    return [name for title in titles.values() for name in settings_of(title)]


def _refuse_reserved(service: ServiceSettings) -> None:
    if service.name == ALL:
        raise ConfigError(
            f"{min(service.given)} would be of a service called {ALL!r}, which stands for all of them.",
            hint="Give the service another name.",
        )


def _refuse_half(service: ServiceSettings, services: Mapping[str, ServiceSettings]) -> None:
    """Raises ConfigError for a service of one side: it may be a misspelt one, and would never be backed up."""
    missing = [role for role in SIDES if not getattr(service, role).connection]
    if not missing:
        return
    others = {name: title for title in BY_DEFAULT if (name := title.lower()) != service.name}
    others |= {one.name: one.title for one in services.values() if one is not service}
    near = get_close_matches(service.name, others, 1, _ALIKE)
    setting = service.setting(missing[0], "ConnectionString")
    error = missing_side(service.name, missing[0], setting)
    if not near:
        error.hint += f" The app knows {' and '.join(known_names())} by themselves."
        raise error
    given = min(service.given, key=lambda name: (not name.endswith("__ConnectionString"), name))
    side = side_name(given)
    meant = setting_of(side.role, others[near[0]], side.part) if side is not None else ""
    raise ConfigError(
        f"There is no setting {given}. Did you mean {meant}?",
        hint=f"A service {service.name!r} needs two sides, and {setting} is missing.",
    )
