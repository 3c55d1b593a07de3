"""Names of settings that this app does not have: which were meant to be its own, and which setting was meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from backup.config.service_settings import PARTS, setting_of
from backup.core.errors import ConfigError
from backup.core.model import SideName
from backup.core.suggestions import meant_by

_BETWEEN = r"(__|[:._-])"
_SIDE = re.compile(rf"(source|backup)([a-z0-9]+)db{_BETWEEN}(.*)", re.I)
_NO_NAME = re.compile(r"(source|backup)(.*[a-z0-9].*)db(?:__|:)_*([a-z]+)", re.I)
_CERTAIN = ("__", ":")
"""What stands between the parts of a setting's name, and of few other names; others count where all else is right."""
_EVERY_PART = {part.lower() for parts in PARTS.values() for part in parts}
_OF_THE_HOST = "AzureWebJobsStorage__"
_ALIKE = 0.85
_HINT = "docs/configuration.md lists every setting; check the spelling."


def refuse_if_ours(name: str, known: Sequence[str]) -> None:
    """Raises ConfigError for a name that was meant to be one of this app, and says which setting was meant.

    That is one of the `known` ones written with other separators, one with a prefix of theirs, or nearly so, or one
    like that of a service's side. Others' settings are none of its business.
    """
    prefixes = _prefixes(known)
    # `:` between the parts is how .NET writes it; a shell takes neither that nor a dash.
    meant = next((one for one in known if "__" in one and _letters(one) == _letters(name)), None)
    prefix = next((one for one in prefixes if re.match(rf"{one.rstrip('_')}(?![a-z0-9])", name, re.I)), None)
    if meant is None and prefix is not None:
        meant = _own_part(prefix, name[len(prefix.rstrip("_")) :].lstrip("_:.-"), known)
    if meant is None and prefix is None:
        meant = _nearly(name, known)
    if meant is None and prefix is None:
        _refuse_side(name)
    if meant is not None or prefix is not None:
        question = f" Did you mean {meant}?" if meant else ""
        raise ConfigError(f"There is no setting {name}.{question}", hint=_HINT)


def _prefixes(known: Sequence[str]) -> list[str]:
    """What the app's own settings begin with; the Functions host has others of its own."""
    found = dict.fromkeys(f"{one.partition('__')[0]}__" for one in known if "__" in one)
    return [prefix for prefix in found if prefix != _OF_THE_HOST]


def _own_part(prefix: str, own: str, known: Sequence[str]) -> str | None:
    """The setting of the prefix that is called nearly so, else one of another prefix that is called just so."""
    parts = {one[len(prefix) :]: one for one in known if one.startswith(prefix)}
    if side := _SIDE.fullmatch(f"{prefix}x"):  # a part that both sides have would be taken for this one's
        other: SideName = "backup" if side[1].lower() == "source" else "source"
        alone = {part for part in PARTS[other] if part not in parts}
        if part := meant_by(own, [*parts, *alone]):
            return parts.get(part) or setting_of(other, side[2], part)
        return None
    if part := meant_by(own, parts):
        return parts[part]
    return next((one for one in known if one.lower().endswith(f"__{own.lower()}") and not _SIDE.fullmatch(one)), None)


def _nearly(name: str, known: Sequence[str]) -> str | None:
    """The setting whose prefix and own part are both nearly the name's."""
    separator = next((one for one in (*_CERTAIN, "_", ".", "-") if one in name), "")
    head, _, own = name.partition(separator) if separator else (name, "", "")
    prefixes = {_letters(prefix): prefix for prefix in _prefixes(known)}
    for alike in get_close_matches(_letters(head), prefixes, 3, _ALIKE) if separator else ():
        prefix = prefixes[alike]
        parts = {one[len(prefix) :]: one for one in known if one.startswith(prefix)}
        if (part := meant_by(own.lstrip("_"), parts)) and (separator in _CERTAIN or part.lower() == own.lower()):
            return parts[part]
    return None


def _refuse_side(name: str) -> None:
    """Raises ConfigError for a name like that of a service's side, of a service that is not known."""
    if side := _SIDE.fullmatch(name):
        role: SideName = "source" if side[1].lower() == "source" else "backup"
        title = side[2] if side[2] not in (side[2].lower(), side[2].upper()) else side[2].capitalize()
        part = meant_by(side[4].lstrip("_"), PARTS[role])
        if side[3] in _CERTAIN or (part is not None and part.lower() == side[4].lower()):
            question = f" Did you mean {setting_of(role, title, part)}?" if part else ""
            hint = f"The settings of a {role} are {', '.join(PARTS[role])}; docs/configuration.md explains each."
            raise ConfigError(f"There is no setting {name}.{question}", hint=hint)
    elif (odd := _NO_NAME.fullmatch(name)) and odd[3].lower() in {
        part.lower() for some in PARTS.values() for part in some
    }:
        raise ConfigError(
            f"There is no setting {name}: a service's name there has letters and digits alone.",
            hint="Write it as in SourceInvoiceLineDb__Table.",
        )


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
