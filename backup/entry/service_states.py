"""Tells how safe each service and each set is, by glances at their last runs. Reads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from backup.config.settings import Settings
from backup.jobs.glances import NOT_SEEN, Glance
from backup.jobs.job import CLOCKS_DIFFER

_LEFT_AFTER_SECONDS = 30 * 86_400
"""A service of a set that has had no run for so long, while the set had successes, has left it."""


_CLOCKS_DIFFER_SECONDS = CLOCKS_DIFFER.total_seconds()


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


class ServiceStates:
    """How safe services and sets are, by these glances at `now`.

    A success that is still to come was written by a wrong clock: it counts for nothing. The last success of a set is
    its own, or the oldest of its services' where that is later: they were synced one by one meanwhile. Before a sync
    of the whole set has ended it has none: nobody knows yet which services it has.

    It is as good as the newest run of each of its services. So a failure of a sync of the whole set counts no more once
    the services that failed in it have succeeded by themselves; unless the set itself failed, such as by a pattern that
    stands for nothing. A service without a run since the last success of the whole set began has left it.
    """

    def __init__(self, settings: Settings, glances: Mapping[str, Glance], now: datetime) -> None:
        self._settings, self._glances, self._at = settings, glances, int(now.timestamp())
        self._members: dict[str, dict[str, Glance]] = {name.lower(): {} for name in settings.sets}
        for service, glance in glances.items() if self._members else ():
            set_name, slash, _ = service.partition("/")
            if slash and set_name in self._members:
                self._members[set_name][service] = glance

    def ranks(self, names: Sequence[str]) -> list[int]:
        """Returns the place of each one's state in WORST_FIRST, in the same order. Cheap, for many services."""
        at, members, glances = self._at, self._members, self._glances
        ranks = []
        for name, allowed in zip(names, self._settings.max_ages(names), strict=True):
            lowered = name.lower()
            success, failed, differs = glances.get(lowered, NOT_SEEN)[:3]
            if lowered in members:
                success, failed, differs = self._whole(name)[0][:3]
            if success is None or not -_CLOCKS_DIFFER_SECONDS <= at - success <= allowed:
                ranks.append(_OVERDUE)
            else:
                ranks.append(_FAILED if failed else _DIFFERS if differs else _SAFE)
        return ranks

    def services_of(self, set_name: str) -> list[str] | None:
        """Returns the services of the set that have had a run and have not left it, in small letters; None for what is
        no set."""
        members = self._members.get(set_name.lower())
        if members is None:
            return None
        own = self._glances.get(set_name.lower(), NOT_SEEN)
        return sorted(members if own.success is None else _present(members, own.success))

    def view(self, name: str, rank: int) -> ServiceView:
        """Returns the service or the set of this rank, and whose last runs tell of it."""
        _, success_of, trouble_of = self._whole(name)
        return ServiceView(name, rank, success_of, trouble_of)

    def _whole(self, name: str) -> tuple[Glance, str, str]:
        """The glance at the service, or at the set with its services; whose last success and trouble these are."""
        own, members = self._glances.get(name.lower(), NOT_SEEN), self._members.get(name.lower())
        whole_at = own.newest if own.success is None and own.in_parts else own.success
        if not members or whole_at is None:
            return own, name, name
        return _as_one(name, own, whole_at, members)


def _as_one(name: str, own: Glance, whole_at: int, members: Mapping[str, Glance]) -> tuple[Glance, str, str]:
    """The glance at a set with its services, and whose last success and whose trouble these are. `whole_at`: when the
    last sync of the whole set ended that tells which services it has."""
    present = _present(members, whole_at)
    success, success_of = own.success, name
    if present and all(glance.success is not None for glance in present.values()):
        oldest = min(present, key=lambda service: present[service].success or 0)
        if (at := present[oldest].success) is not None and (success is None or at > success):
            success, success_of = at, oldest
    began = None if own.began is None else own.began - _CLOCKS_DIFFER_SECONDS
    in_set = [service for service in sorted(present) if began is None or (present[service].newest or 0) >= began]
    failed = next((service for service in in_set if present[service].failed), None)
    differs = next((service for service in in_set if present[service].differs), None)
    own_failed = own.failed and not (own.in_parts and present and failed is None)
    trouble_of = name
    if not own_failed:
        trouble_of = failed or (name if own.differs else differs) or name
    glance = own._replace(success=success, failed=own_failed or failed is not None)
    return glance._replace(differs=own.differs or differs is not None), success_of, trouble_of


def _present(members: Mapping[str, Glance], success: int) -> dict[str, Glance]:
    """The services of a set that have not left it before its last success."""
    return {
        service: glance
        for service, glance in members.items()
        if glance.newest is not None and glance.newest > success - _LEFT_AFTER_SECONDS
    }
