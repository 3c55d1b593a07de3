"""Names of settings that this app does not have: which were meant to be its own, and which setting was meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from backup.core.errors import ConfigError
from backup.core.suggestions import meant_by

_PREFIXES = (
    "SourceCustomerDb__",
    "BackupCustomerDb__",
    "SourceOrderDb__",
    "BackupOrderDb__",
    "BackupSchedule__",
    "BackupSync__",
    "BackupVerify__",
    "BackupRetry__",
    "CosmosDb__",
)
_BETWEEN = r"(__|[:._-])"
_SIDE = re.compile(rf"(source|backup)([a-z0-9]+)db{_BETWEEN}(.*)", re.I)
_CERTAIN = ("__", ":")
"""What stands between the parts of a setting's name, and of few other names; others count where all else is right."""
_ALIKE = 0.85
_HINT = "docs/configuration.md lists every setting; check the spelling."


def refuse_if_ours(name: str, known: Sequence[str]) -> None:
    """Raises ConfigError for a name that was meant to be one of this app, and says which setting was meant.

    That is one of the `known` ones written with other separators, one with a prefix of the app's, or nearly so, or one
    like that of a service's side. Others' settings are none of its business.
    """
    # `:` between the parts is how .NET writes it; a shell takes neither that nor a dash.
    meant = next((one for one in known if "__" in one and _letters(one) == _letters(name)), None)
    prefix = next((one for one in _PREFIXES if re.match(rf"{one.rstrip('_')}(?![a-z0-9])", name, re.I)), None)
    if meant is None and prefix is not None:
        meant = _own_part(prefix, name[len(prefix.rstrip("_")) :].lstrip("_:.-"), known)
    if meant is None and prefix is None:
        meant = _nearly(name, known)
    if meant is None and (side := _SIDE.fullmatch(name)) and prefix is None:
        _refuse_service(name, side, known)
    if meant is not None or prefix is not None:
        question = f" Did you mean {meant}?" if meant else ""
        raise ConfigError(f"There is no setting {name}.{question}", hint=_HINT)


def _own_part(prefix: str, own: str, known: Sequence[str]) -> str | None:
    """The setting of the prefix that is called nearly so, else one of another prefix that is called just so."""
    parts = {one[len(prefix) :]: one for one in known if one.startswith(prefix)}
    if part := meant_by(own, parts):
        return parts[part]
    if _SIDE.fullmatch(f"{prefix}x"):  # another side's would be taken for this one's
        return None
    return next((one for one in known if one.lower().endswith(f"__{own.lower()}") and not _SIDE.fullmatch(one)), None)


def _nearly(name: str, known: Sequence[str]) -> str | None:
    """The setting whose prefix and own part are both nearly the name's."""
    separator = next((one for one in (*_CERTAIN, "_", ".", "-") if one in name), "")
    head, _, own = name.partition(separator) if separator else (name, "", "")
    prefixes = {_letters(prefix): prefix for prefix in _PREFIXES}
    for alike in get_close_matches(_letters(head), prefixes, 3, _ALIKE) if separator else ():
        prefix = prefixes[alike]
        parts = {one[len(prefix) :]: one for one in known if one.startswith(prefix)}
        if (part := meant_by(own.lstrip("_"), parts)) and (separator in _CERTAIN or part.lower() == own.lower()):
            return parts[part]
    return None


def _refuse_service(name: str, side: re.Match[str], known: Sequence[str]) -> None:
    role, service, separator, own = side.groups()
    sides = [one for one in known if _SIDE.fullmatch(one) and one.lower().startswith(role.lower())]
    services = sorted({found[2].lower() for one in sides if (found := _SIDE.fullmatch(one))})
    parts = {one.partition("__")[2] for one in sides}
    part = meant_by(own.lstrip("_"), parts)
    if separator not in _CERTAIN and (part is None or part.lower() != own.lower()):
        return
    choices = [one for one in sides if one.endswith(f"__{part}")] if part else []
    question = f" Did you mean {' or '.join(choices)}?" if choices else ""
    message = f"There is no setting {name}: no service is called {service.lower()!r}.{question}"
    raise ConfigError(
        message, hint=f"The services are {' and '.join(services)}; docs/configuration.md lists the settings of each."
    )


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
