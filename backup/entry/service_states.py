"""Tells how safe each service and each set is, by glances at their last runs. Reads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from backup.config.settings import Settings
from backup.jobs.glances import NOT_SEEN, Glance

_LEFT_AFTER_SECONDS = 30 * 86_400
"""A service of a set that has had no run for so long, while the set had successes, has left it."""


class ServiceState(StrEnum):
    """How safe a service is, the worst first."""

    OVERDUE = "Overdue"
    FAILED = "Failed"
    DIFFERS = "Differs"
    SAFE = "Safe"


WORST_FIRST = tuple(ServiceState)
_OVERDUE, _FAILED, _DIFFERS, _SAFE = range(len(WORST_FIRST))


class ServiceView(NamedTuple):
    """A service or a set, and the place of its state in WORST_FIRST.

    `success_of` names whose last success counts, and `trouble_of` whose last runs say what is wrong: its own, or of a
    set also those of a service of it.
    """

    name: str
    rank: int
    success_of: str
    trouble_of: str


def views_of(
    settings: Settings, names: Sequence[str], glances: Mapping[str, Glance], now: datetime
) -> list[ServiceView]:
    """Returns how safe each of the services and sets is, in the same order.

    The last success of a set is its own, or the oldest of its services' where that is later: they were synced one by
    one meanwhile. Before its own first success it has none: nobody knows yet which services it has. It is as bad as the
    worst of its services.
    """
    sets = {name.lower() for name in settings.sets}
    members: dict[str, dict[str, Glance]] = {name: {} for name in sets}
    for service, glance in glances.items() if sets else ():
        set_name, slash, _ = service.partition("/")
        if slash and set_name in sets:
            members[set_name][service] = glance
    at = int(now.timestamp())
    views = []
    for name, allowed in zip(names, settings.max_ages(names), strict=True):
        lowered = name.lower()
        glance, success_of, trouble_of = glances.get(lowered, NOT_SEEN), name, name
        if lowered in sets and glance.success is not None and members[lowered]:
            glance, success_of, trouble_of = _as_one(name, glance, glance.success, members[lowered])
        success, failed, differs, _, _ = glance
        if success is None or at - success > allowed:
            rank = _OVERDUE
        else:
            rank = _FAILED if failed else _DIFFERS if differs else _SAFE
        views.append(ServiceView(name, rank, success_of, trouble_of))
    return views


def _as_one(name: str, own: Glance, success: int, members: Mapping[str, Glance]) -> tuple[Glance, str, str]:
    """The glance at a set with its services, and whose last success and whose trouble these are."""
    present = {
        service: glance
        for service, glance in members.items()
        if glance.newest is not None and glance.newest > success - _LEFT_AFTER_SECONDS
    }
    success_of, trouble_of = name, name
    if present and all(glance.success is not None for glance in present.values()):
        oldest = min(present, key=lambda service: present[service].success or 0)
        if (at := present[oldest].success) is not None and at > success:
            success, success_of = at, oldest
    failed = next((service for service in sorted(present) if present[service].failed), None)
    differs = next((service for service in sorted(present) if present[service].differs), None)
    if not own.failed:
        trouble_of = failed or (name if own.differs else differs) or name
    glance = own._replace(success=success, failed=own.failed or failed is not None)
    return glance._replace(differs=own.differs or differs is not None), success_of, trouble_of
